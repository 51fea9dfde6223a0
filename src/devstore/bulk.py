"""Bulk operations of one shop: their state, and how they are brought from CREATED to their end.

They run in the background on the server's loop, a few milliseconds at a time, so that calls are answered meanwhile.
They are kept in memory: a server that starts anew knows none, even with a state file, and gives none of their
numbers again.
"""

import asyncio
import contextlib
import json
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, cast

from devstore.clock import Clock
from devstore.depot import Depot, Result, Upload
from devstore.gids import Gid
from devstore.staging import UPLOAD_BYTES_MAX

OPERATIONS_AT_ONCE_MAX = 5

# Short enough for a call that arrives between two slices to be answered at once: it takes several turns of the loop.
_SLICE_S = 0.003
_TURNS_BETWEEN_SLICES = 3
# How soon a change of the settings is noticed by an operation that waits.
_TICK_S = 0.005
_CREDIT_S = 0.1

Json = dict[str, object]
# Runs an operation bit by bit; each time says how many lines it went through, which may be none.
Steps = Generator[int]


class BulkType(StrEnum):
    """What an operation executes."""

    QUERY = "QUERY"
    MUTATION = "MUTATION"


class BulkStatus(StrEnum):
    """Where an operation is."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELING = "CANCELING"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


UNFINISHED = frozenset({BulkStatus.CREATED, BulkStatus.RUNNING, BulkStatus.CANCELING})


class CanceledResult(StrEnum):
    """Where a canceled operation shows what it came to.

    Shopify's schema gives `partialDataUrl` to operations that failed. No recorded CANCELED one had it: in May 2026
    they showed `url`, in July 2026 neither, though lines had been executed.
    """

    PARTIAL = "partialDataUrl"
    URL = "url"
    NONE = "none"


class AlreadyEndedError(Exception):
    """An operation that has ended cannot end again."""


@dataclass(slots=True)
class BulkSettings:
    """How a shop's bulk operations behave. Change it at any time; running operations follow.

    Attributes:
        start_delay_ms: how long an operation stays CREATED (in reality about a second).
        lines_per_s: how many lines, or objects of a query, an operation goes through each second; None is as
            many as it can.
        seed: what the order of the lines is drawn from, and which of them are lost; of operations created later.
        paused: while it is true no operation moves, not even from CANCELING to CANCELED.
        drop_line_rate: the share of a mutation's lines, 0 to 1, that are executed and missing in its result.
        canceled_result: where a canceled operation shows what it came to.
        upload_bytes_max: the largest file, of targets staged later and of operations.
    """

    start_delay_ms: float = 0
    lines_per_s: float | None = None
    seed: int = 0
    paused: bool = False
    drop_line_rate: float = 0.0
    canceled_result: CanceledResult = CanceledResult.PARTIAL
    upload_bytes_max: int = UPLOAD_BYTES_MAX

    def change(self, changes: Mapping[str, object]) -> None:
        """Set some of them by name."""
        for name, value in changes.items():
            setattr(self, name, value)


@dataclass(slots=True)
class BulkOperation:
    """One operation.

    Attributes:
        number: of its global id.
        ordinal: 1 for the first of the shop.
        type: what it executes.
        query: its document, to the letter; a mutation's too.
        created_s: when it was created, seconds since 1970.
        status: where it is.
        error_code: why it failed.
        completed_s: when it was completed; None if it never is, as recorded of canceled ones.
        objects: objects it went through; for a mutation lines.
        roots: those of them that have no parent.
        result: what it offers for download, if anything; `is_partial` tells at which address.
        is_partial: the result is at `partialDataUrl`.
        staged_upload_path: where a mutation's file is.
        client_identifier: what its client called it; Shopify shows it nowhere.
        upload: a mutation's file.
        lines: lines of that file, once they are counted.
        executed: how many of them were executed.
        dropped: how many of these are missing in the result on purpose.
        started_s: when it was created, on the monotonic clock, as `CallEntry.started_s`.
        ended_s: when it ended, on the same clock; two operations overlapped if their spans do.
        trouble: the traceback of an error that must not be, if one ended it.
    """

    number: int
    ordinal: int
    type: BulkType
    query: str
    created_s: int
    started_s: float
    status: BulkStatus = BulkStatus.CREATED
    error_code: str | None = None
    completed_s: int | None = None
    objects: int = 0
    roots: int = 0
    result: Result | None = None
    is_partial: bool = False
    staged_upload_path: str | None = None
    client_identifier: str | None = None
    upload: Upload | None = None
    lines: int = 0
    executed: int = 0
    dropped: int = 0
    ended_s: float | None = None
    trouble: str | None = None

    @property
    def gid(self) -> Gid:
        """Its global id."""
        return Gid("BulkOperation", self.number)

    @property
    def is_unfinished(self) -> bool:
        """Whether it counts as one that is in progress."""
        return self.status in UNFINISHED

    @property
    def url(self) -> str | None:
        """Where the result of one that was completed is."""
        return self.result.url if self.result and not self.is_partial else None

    @property
    def partial_data_url(self) -> str | None:
        """Where what one that failed came to is."""
        return self.result.url if self.result and self.is_partial else None

    @property
    def file_size(self) -> int | None:
        """Bytes of the file at `url`; none were recorded for canceled ones that had a `url`."""
        is_whole = self.result is not None and self.status is BulkStatus.COMPLETED
        return self.result.path.stat().st_size if self.result and is_whole else None

    def owners(self) -> frozenset[str]:
        """Every `ownerId` in a mutation's file, read from it anew."""
        if self.upload is None:
            return frozenset()
        found: set[str] = set()
        with self.upload.path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):
                    found.update(_owner_ids(json.loads(line)))
        return frozenset(found)


class ResultFile:
    """The JSONL file an operation writes: a document each line, slashes escaped, a newline at the end (recorded)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")

    def write(self, document: Json) -> None:
        """Append a line."""
        # Whether letters beyond ASCII are escaped too is not known.
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        self._file.write((text.replace("/", "\\/") + "\n").encode())

    def close(self) -> int:
        """Close it; how many bytes it has."""
        self._file.close()
        return self.path.stat().st_size


class Work(Protocol):
    """What an operation does."""

    def steps(self, operation: BulkOperation, out: ResultFile) -> Steps:
        """Do it in small steps, writing to `out` and counting in `operation`. Raises WorkFailedError."""
        ...


class WorkFailedError(Exception):
    """An operation cannot go on; what it wrote so far is its partial result."""

    def __init__(self, error_code: str) -> None:
        super().__init__(error_code)
        self.error_code = error_code


@dataclass(slots=True)
class _Run:
    operation: BulkOperation
    out: ResultFile
    steps: Steps
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Pace:
    """Lets through so many lines a second, a tenth of a second's worth at once at the most."""

    last_s: float
    credit: float = 0

    def allowed(self, rate: float | None, now_s: float) -> float:
        passed_s, self.last_s = now_s - self.last_s, now_s
        if rate is None:
            self.credit = 0
            return float("inf")
        self.credit = min(self.credit + passed_s * rate, max(1.0, rate * _CREDIT_S))
        return self.credit


class Bulk:
    """The bulk operations of one shop.

    Attributes:
        settings: how they behave.
        operations: all of them, oldest first.
        on_end: is told of each that ends.
    """

    def __init__(self, domain: str, clock: Clock, depot: Depot) -> None:
        self.settings = BulkSettings()
        self.operations: list[BulkOperation] = []
        self.on_end: Callable[[BulkOperation], object] = _ignore
        self.depot = depot
        self._domain = domain
        self._clock = clock
        # Of the size of real ones, and past those of an earlier run: a client may ask for what it remembers.
        self._last = int(clock.wall() * 1_000)
        self._runs: dict[int, _Run] = {}

    def find(self, number: int) -> BulkOperation | None:
        """The operation of this number."""
        return next((one for one in self.operations if one.number == number), None)

    def unfinished(self, kind: BulkType) -> list[BulkOperation]:
        """Operations of one type that are in progress, oldest first."""
        return [one for one in self.operations if one.type is kind and one.is_unfinished]

    def start(self, kind: BulkType, query: str, work: Work) -> BulkOperation:
        """Create an operation, and run it in the background of the running loop."""
        self._last += 1
        ordinal = len(self.operations) + 1
        created_s, started_s = int(self._clock.wall()), self._clock.monotonic()
        operation = BulkOperation(self._last, ordinal, kind, query, created_s, started_s)
        out = ResultFile(self.depot.new_path())
        run = _Run(operation, out, work.steps(operation, out))
        self.operations.append(operation)
        self._runs[operation.number] = run
        run.task = asyncio.get_running_loop().create_task(self._run(run))
        return operation

    def cancel(self, operation: BulkOperation) -> None:
        """Have an operation end before its next line. Raises AlreadyEndedError."""
        if not operation.is_unfinished:
            raise AlreadyEndedError(operation.status)
        operation.status = BulkStatus.CANCELING

    def fail(self, operation: BulkOperation, status: BulkStatus, error_code: str | None = None) -> None:
        """End an operation here and now, paused or not, with what it came to. EXPIRED also ends what has ended.

        The result of one that expires after its end is gone.

        Raises:
            AlreadyEndedError: it has ended.
        """
        if operation.is_unfinished:
            self._end(operation, status, error_code)
        elif status is BulkStatus.EXPIRED:
            operation.status = status
            if operation.result is not None:
                operation.result.expires_s = 0
                operation.result = None
        else:
            raise AlreadyEndedError(operation.status)

    async def settle(self) -> None:
        """Wait until every operation has ended; for ever if they are paused."""
        await asyncio.gather(*(run.task for run in self._runs.values() if run.task is not None))

    async def close(self) -> None:
        """Stop everything where it stands."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run in self._runs.values():
            run.steps.close()
            run.out.close()
        self._runs.clear()

    async def _run(self, run: _Run) -> None:
        operation = run.operation
        try:
            await self._drive(run)
        except WorkFailedError as failed:
            self._end(operation, BulkStatus.FAILED, failed.error_code)
        except Exception:  # noqa: BLE001  # whatever it is, the operation must end and the tests must see why
            operation.trouble = traceback.format_exc()
            self._end(operation, BulkStatus.FAILED, "INTERNAL_SERVER_ERROR")

    async def _drive(self, run: _Run) -> None:
        loop, operation, settings = asyncio.get_running_loop(), run.operation, self.settings
        begun_s, pace, finished = loop.time(), _Pace(loop.time()), False
        while operation.is_unfinished:
            is_early = loop.time() < begun_s + settings.start_delay_ms / 1_000
            allowed = pace.allowed(settings.lines_per_s, loop.time())
            if settings.paused:
                await asyncio.sleep(_TICK_S)
            elif operation.status is BulkStatus.CANCELING:
                self._end(operation, BulkStatus.CANCELED)
            elif finished:
                self._end(operation, BulkStatus.COMPLETED)
            elif allowed < 1 or (operation.status is BulkStatus.CREATED and is_early):
                await asyncio.sleep(_TICK_S)
            else:
                operation.status = BulkStatus.RUNNING
                # Operations take turns: the loop is kept busy by one slice at a time, however many there are.
                async with self.depot.turn:
                    if operation.status is BulkStatus.RUNNING and not settings.paused:
                        done, finished = _slice(run.steps, allowed)
                        pace.credit -= done
                    for _ in range(_TURNS_BETWEEN_SLICES):
                        await asyncio.sleep(0)

    def _end(self, operation: BulkOperation, status: BulkStatus, error_code: str | None = None) -> None:
        run = self._runs.pop(operation.number)
        run.steps.close()
        size, now_s = run.out.close(), int(self._clock.wall())
        operation.status, operation.error_code = status, error_code
        operation.ended_s = self._clock.monotonic()
        shown = CanceledResult.URL if status is BulkStatus.COMPLETED else CanceledResult.PARTIAL
        if status is BulkStatus.COMPLETED:
            operation.completed_s = now_s
        if status is BulkStatus.CANCELED:
            shown = self.settings.canceled_result
        if not size:
            run.out.path.unlink()
        elif shown is not CanceledResult.NONE:
            filename = f"bulk-{operation.number}.jsonl"
            operation.result = self.depot.add_result(self._domain, run.out.path, filename, now_s)
            operation.is_partial = shown is CanceledResult.PARTIAL
        self.on_end(operation)


def _ignore(_operation: BulkOperation) -> None:
    pass


def _slice(steps: Steps, allowed: float) -> tuple[int, bool]:
    """Go on for a few milliseconds and about as many lines as allowed; how many it was, and if it was the end."""
    # This is about the loop's time, not the shop's: it is the machine's clock that counts.
    deadline_s, done = time.perf_counter() + _SLICE_S, 0
    for lines in steps:
        done += lines
        if done >= allowed or time.perf_counter() >= deadline_s:
            return done, False
    return done, True


def _owner_ids(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        for name, inner in cast("Json", value).items():
            if name == "ownerId" and isinstance(inner, str):
                yield inner
            else:
                yield from _owner_ids(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _owner_ids(inner)
