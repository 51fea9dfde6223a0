"""Puts the commands together, runs one, and turns whatever happens into an exit status."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvloop
from cyclopts import App, CycloptsError, Parameter

from metafield_sync import __version__
from metafield_sync.cli import (
    balances,
    data_requests,
    database,
    earning,
    inbox,
    keys,
    posting,
    reconcile,
    serving,
    shops,
)
from metafield_sync.cli.demo import command as demo
from metafield_sync.cli.doctor import command as doctor
from metafield_sync.cli.output import PROGRAM, warn
from metafield_sync.cli.parts import DONE, FAILURES, POINTS_GROUP, RUN_GROUP, TRY_GROUP, WRONG
from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Sequence

INTERRUPTED = 130
TERMINATED = 143
"""128 and the signal's number, as shells have it."""

HELP = (
    "Keeps one Shopify customer metafield equal to a points ledger in PostgreSQL: exactly, within seconds. Without "
    "DATABASE_URL it brings a PostgreSQL of its own."
)
EPILOGUE = (
    "Settings come from the environment (DATABASE_URL, ENCRYPTION_KEYS, PORT …; see the README). "
    "Exit status: 0 done, 1 finished with failures, 2 wrong usage or settings."
)


def _is_worth_showing(default: object) -> str | None:
    """A switch is off unless it is given: no need to say so."""
    return None if default is False or default is None else str(default)


app = App(
    name=PROGRAM,
    help=HELP,
    help_epilogue=EPILOGUE,
    help_format="plaintext",
    version=__version__,
    default_parameter=Parameter(show_default=_is_worth_showing),
    suppress_keyboard_interrupt=False,
)
app.command(demo.demo, group=TRY_GROUP)
app.command(serving.serve, group=RUN_GROUP)
app.command(serving.worker, group=RUN_GROUP)
app.command(database.migrate, group=RUN_GROUP)
app.command(doctor.doctor, group=RUN_GROUP)
app.command(shops.app)
app.command(keys.app)
app.command(inbox.app)
app.command(data_requests.app)
app.command(balances.sync, group=POINTS_GROUP)
app.command(balances.verify, group=POINTS_GROUP)
app.command(reconcile.reconcile, group=POINTS_GROUP)
app.command(posting.post, group=POINTS_GROUP)
app.command(earning.app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. What a person can act on becomes one line on standard error.

    Args:
        arguments: what follows the program's name; None: what the process was started with.

    Returns:
        The exit status: 0 done, 1 finished with failures, 2 wrong usage or settings, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A shop's or Shopify's words may hold what a terminal's encoding has no letter for.
            stream.reconfigure(errors="replace")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _terminated_like_interrupted() as terminated:
            try:
                status = _run(given)
                sys.stdout.flush()
            except KeyboardInterrupt:
                return TERMINATED if terminated else INTERRUPTED
            else:
                return status
    except CycloptsError as error:
        warn(f"{error} See: {PROGRAM} {_help_for(given)}")
        return WRONG
    except AppError as error:
        warn(error.detail)
        return error.exit_status
    except BaseExceptionGroup as group:
        found = _the_one_in(group)
        if found is None:
            raise
        warn(found.detail)
        return found.exit_status
    except BrokenPipeError:
        # Whoever read our output has had enough, as `head` does. What is left in the buffer must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURES


def _run(given: Sequence[str]) -> int:
    command, bound, _ = app.parse_args(list(given), exit_on_error=False, print_error=False)
    result: Any = command(*bound.args, **bound.kwargs)
    if inspect.iscoroutine(result):
        result = _run_async(result)
    return result if isinstance(result, int) else DONE


def _run_async(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@contextmanager
def _terminated_like_interrupted() -> Generator[list[int]]:
    """Let SIGTERM end a command as Ctrl-C does: in order, the embedded PostgreSQL included. Yields the signals seen.

    A script's background job is started with SIGINT ignored; it, too, has to end when it is told to.
    """
    seen: list[int] = []

    def end(number: int, _: object) -> None:
        seen.append(number)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, end), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def _the_one_in(group: BaseExceptionGroup) -> AppError | None:
    """The error to tell of, when everything in the group is one that a person can act on."""
    known, others = group.split(AppError)
    while others is None and known is not None:
        first = known.exceptions[0]
        if isinstance(first, AppError):
            return first
        known = first
    return None


def _help_for(given: Sequence[str]) -> str:
    """The command whose help to look at: the words before the first option, as far as they are commands."""
    words: list[str] = []
    here = app
    for word in given:
        if word.startswith("-") or word not in here:
            break
        words.append(word)
        here = here[word]
    return " ".join([*words, "--help"])
