"""The processes of a run: started, killed, frozen, replaced; and none of them outlives the harness."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
POLL_S = 0.05

# Its standard input ends with the harness, however that ends; then it stops the PostgreSQL that still runs in the
# folder, and kills the process group that all others are in, itself included. (The kernel hangs up on a group that is
# orphaned while one of its processes is frozen.)
LEASH = """
trap '' HUP
read -r _
for file in "$0"/*/data/postmaster.pid; do
  read -r pid < "$file" && kill -s INT "$pid"
done 2> /dev/null
kill -s KILL 0
"""


class ChaosFailed(Exception):
    """The experiment itself did not come about; nothing was proved either way."""


class Leash:
    """The process group that everything started belongs to. `data_dir` is where the embedded PostgreSQL is."""

    def __init__(self, data_dir: Path) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", LEASH, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
        )

    @property
    def group(self) -> int:
        """Its number."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go. What is still there is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


class Program:
    """One Python program with its log, started anew as often as it is killed.

    `module` and `arguments` as in `python -m module arguments`; each life appends to the same log.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        leash: Leash,
        reads_output: bool = False,
    ) -> None:
        self.log = log
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = dict(environment)
        self._group = leash.group
        self._reads_output = reads_output
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        self.is_frozen = False

    def start(self) -> None:
        """Begin a life."""
        with self.log.open("ab") as errors:
            self._log_from = errors.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._reads_output else errors,
                stderr=errors,
                env=self._environment,
                process_group=self._group,
            )
        self.is_frozen = False

    @property
    def pid(self) -> int:
        """Of the life at hand; 0 if there is none."""
        return 0 if self._process is None else self._process.pid

    @property
    def status(self) -> int | None:
        """With what it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def output(self) -> IO[bytes]:
        """What it says on standard output."""
        if self._process is None or self._process.stdout is None:
            raise ChaosFailed(f"{self._command[2]} was not started so that its output can be read")
        return self._process.stdout

    def kill(self) -> None:
        """SIGKILL, and nothing of it is left. A frozen process dies of it too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.is_frozen = False

    def freeze(self) -> None:
        """SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            self.is_frozen = True

    def thaw(self) -> None:
        """SIGCONT, unless it was killed meanwhile."""
        if self._process is not None and self.is_frozen:
            self._process.send_signal(signal.SIGCONT)
            self.is_frozen = False

    async def stop(self) -> int | None:
        """SIGTERM, then SIGKILL; the status it ended with."""
        if self._process is None:
            return None
        self.thaw()
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_S)
        self.kill()
        return self.status

    async def said(self, message: str) -> dict[str, Any]:
        """Wait for a message in the log of this life, and return its whole line.

        Raises:
            ChaosFailed: it ended instead, or said nothing in time.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            for line in self._lines():
                if line.get("message") == message:
                    return line
            if self.status is not None:
                raise ChaosFailed(f"{self.name} ended with status {self.status}: {self.tail()}")
            if time.monotonic() > deadline:
                raise ChaosFailed(f"{self.name} has not said {message!r} in {START_TIMEOUT_S} s: {self.tail()}")
            await asyncio.sleep(POLL_S)

    @property
    def name(self) -> str:
        """For people."""
        return self.log.stem

    def tail(self, lines: int = 5) -> str:
        """The end of the log."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])

    def _lines(self) -> list[dict[str, Any]]:
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            whole = log.read().decode(errors="replace").splitlines()
        return [line for text in whole if (line := as_log_line(text)) is not None]


def as_log_line(text: str) -> dict[str, Any] | None:
    """A line of a JSON log; None if it is none, or half of one."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None  # pyright: ignore[reportUnknownVariableType] - JSON


class Fleet:
    """The workers, by slot: killed ones are replaced."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.workers = list(programs)

    async def start(self) -> None:
        """Start all, and wait until all are at work."""
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            await worker.said("working")

    def with_pid(self, pid: int | None) -> Program | None:
        """The worker with this process id, if it is one of them."""
        return next((one for one in self.workers if one.pid == pid), None)

    def kill(self, slot: int) -> Program:
        """Kill the worker in a slot, or the next that is not frozen, and put another in its place."""
        order = self.workers[slot:] + self.workers[:slot]
        worker = next((one for one in order if not one.is_frozen), order[0])
        worker.kill()
        worker.start()
        return worker

    def choose_to_freeze(self, slot: int, holder_pid: int | None) -> Program:
        """Freeze the worker with this process id, else the one in the slot."""
        worker = self.with_pid(holder_pid) or self.workers[slot]
        worker.freeze()
        return worker

    def thaw(self) -> None:
        """Let everybody go on."""
        for worker in self.workers:
            worker.thaw()

    async def stop(self) -> None:
        """Stop all in order."""
        await asyncio.gather(*(worker.stop() for worker in self.workers))
