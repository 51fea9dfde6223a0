"""What was called: a log tests can read, and counters that outlive it."""

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from http import HTTPStatus

CALLS_KEPT_MAX = 200_000


@dataclass(frozen=True, slots=True)
class CallEntry:
    """One call to the Admin API, or to the storage beside it, written when it ended.

    Attributes:
        number: 1 for the first, in the order calls arrived.
        shop: its domain, None if no shop could be told.
        operation: its top-level fields, comma-separated; empty if nothing could be read. `upload` and `download`
            are files on their way to and from the storage.
        operation_name: the name its document gives it.
        version: the API version that was asked for.
        wall_s: when it arrived, seconds since 1970.
        started_s: when it arrived, on the monotonic clock; two calls overlapped if their spans do.
        ended_s: when its answer was ready, on the same clock.
        status: HTTP status; 0 for a dropped connection.
        requested: points it asked for.
        actual: points it cost; None if it was not executed before it was answered.
        throttled: refused for an empty bucket, or told so by a fault.
        errors: codes of its top-level errors; of the storage's refusal, `TokenLeaked` if it was sent an access token.
        owners: owner ids its metafieldsSet named.
        fault: number of the fault that decided it.
        late_of: number of the call whose late execution this is.
    """

    number: int
    shop: str | None
    operation: str
    operation_name: str | None
    version: str
    wall_s: float
    started_s: float
    ended_s: float
    status: int
    requested: int | None = None
    actual: int | None = None
    throttled: bool = False
    errors: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    fault: int | None = None
    late_of: int | None = None

    def as_json(self) -> dict[str, object]:
        """The entry for the control API, camelCase."""
        return {camel(name): value for name, value in asdict(self).items()}


@dataclass(slots=True)
class OperationStats:
    """Counts for one kind of operation since the start or the last clearing."""

    calls: int = 0
    throttled: int = 0
    failed: int = 0
    requested_points: int = 0
    actual_points: int = 0
    owners: int = 0

    def as_json(self) -> dict[str, object]:
        """The counters for the control API, camelCase."""
        return {camel(name): value for name, value in asdict(self).items()}


@dataclass(slots=True)
class CallLog:
    """The last `CALLS_KEPT_MAX` calls, and counters over all of them."""

    entries: deque[CallEntry] = field(default_factory=lambda: deque[CallEntry](maxlen=CALLS_KEPT_MAX))
    stats: dict[str, OperationStats] = field(default_factory=dict[str, OperationStats])
    in_flight: int = 0
    in_flight_max: int = 0
    _last: int = 0

    def next_number(self) -> int:
        """The number for the entry that is about to be written."""
        self._last += 1
        return self._last

    def began(self) -> None:
        """Count a call that arrived."""
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def ended(self, entry: CallEntry) -> None:
        """Write down a call; a late execution is none that was in flight."""
        if entry.late_of is None:
            self.in_flight -= 1
        self.entries.append(entry)
        stats = self.stats.setdefault(entry.operation, OperationStats())
        stats.calls += 1
        stats.throttled += entry.throttled
        stats.failed += not HTTPStatus.OK <= entry.status < HTTPStatus.MULTIPLE_CHOICES or bool(entry.errors)
        stats.requested_points += entry.requested or 0
        stats.actual_points += entry.actual or 0
        stats.owners += len(entry.owners)

    def select(self, *, shop: str | None = None, operation: str | None = None, after: int = 0) -> Iterable[CallEntry]:
        """Entries of a shop, with a top-level field, later than a number; each filter optional."""
        return (
            entry
            for entry in self.entries
            if entry.number > after
            and (shop is None or entry.shop == shop)
            and (operation is None or operation in entry.operation.split(","))
        )

    def clear(self) -> None:
        """Forget entries and counters. Numbers go on counting."""
        self.entries.clear()
        self.stats.clear()
        self.in_flight_max = self.in_flight


def camel(name: str) -> str:
    """A name as JSON spells it: `late_of` is `lateOf`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
