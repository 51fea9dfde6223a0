"""What the command line shows: documents and tables on standard output, progress and warnings on standard error."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from metafield_sync.sync.run_result import RESULT_ROWS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

PLAIN_WIDTH_CHARS = 120
"""How wide a table is where no terminal says: wide enough not to break a UUID or an error."""
PLAIN_NEWS_S = 10.0
"""How often a plain line tells how far long work is."""

TEXT_COLUMNS = frozenset({"Error", "Kind"})
ROWS_SHOWN_MAX = 20
"""Rows of a table of customers; --json has more."""

PROGRAM = "metafield-sync"


def stdout() -> Console:
    """Standard output, as it is now."""
    return _console(stderr=False)


def stderr() -> Console:
    """Standard error, as it is now."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH_CHARS
    # Domains, reasons and errors are other people's words: never markup, never coloured by guesswork.
    return Console(file=stream, width=width, markup=False, highlight=False, soft_wrap=False)


def say(text: str) -> None:
    """One line of result."""
    stdout().print(text, soft_wrap=True)


def hint(text: str) -> None:
    """One line beside the result, for people."""
    stderr().print(text, style="dim", soft_wrap=True)


def warn(text: str) -> None:
    """One line that somebody should read."""
    stderr().print(f"{PROGRAM}: {' '.join(text.split())}", soft_wrap=True)


def show_json(document: Any) -> None:
    """The one JSON document of `--json`: indented for a person at a terminal, else on one line."""
    json.dump(document, sys.stdout, indent=2 if sys.stdout.isatty() else None)
    sys.stdout.write("\n")


def rows_table(
    columns: Sequence[str], names: Sequence[str], rows: Sequence[dict[str, Any]], count: int
) -> list[RenderableType]:
    """The first of `count` customers as a table, and how many more there are.

    Args:
        columns: headings: a customer's two ids, then numbers; "Error" and "Kind" are text.
        names: what each column shows of a row.
        rows: as many as there are at hand.
        count: how many there are in all.
    """
    table = Table(*columns, box=None, padding=(0, 2))
    for column in table.columns[2:]:
        column.justify = "left" if column.header in TEXT_COLUMNS else "right"
        column.overflow = "fold"
    for row in rows[:ROWS_SHOWN_MAX]:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in names))
    left = max(count, len(rows)) - ROWS_SHOWN_MAX
    return [table, f"  … and {left:,} more (--json shows up to {RESULT_ROWS_MAX:,})"] if left > 0 else [table]


@contextmanager
def progress(label: str, *, plain_lines: bool = False) -> Generator[Callable[[int, int], None]]:
    """Long work on standard error: a bar on a terminal; elsewhere nothing, or with `plain_lines` a line now and then.

    Yields a function to tell it (done, total).
    """
    console = stderr()
    if not console.is_terminal:
        yield from _plain(label, console) if plain_lines else _silent()
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        redirect_stdout=False,
    )
    with bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _silent() -> Generator[Callable[[int, int], None]]:
    yield lambda _done, _total: None


def _plain(label: str, console: Console) -> Generator[Callable[[int, int], None]]:
    began = told = time.monotonic()
    now = [0, 0]

    def tell(done: int, total: int) -> None:
        nonlocal told
        now[:] = done, total
        if time.monotonic() - told >= PLAIN_NEWS_S:
            told = time.monotonic()
            console.print(f"{label}: {done:,} of {total:,}", soft_wrap=True)

    yield tell
    console.print(f"{label}: {now[0]:,} of {now[1]:,} ({time.monotonic() - began:.1f} s)", soft_wrap=True)
