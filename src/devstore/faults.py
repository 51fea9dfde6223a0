"""Misbehaviour on request: which call goes wrong, how, and how long answers take."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class FaultAnswer(StrEnum):
    """What the client gets instead of the answer."""

    NORMAL = "normal"
    STATUS = "status"
    DROP = "drop"
    THROTTLED = "throttled"
    GARBAGE = "garbage"


class FaultApply(StrEnum):
    """Whether the call is executed: before the answer goes out, not at all, or some time after."""

    FIRST = "first"
    NEVER = "never"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule for calls that go wrong.

    Uploads and downloads may go wrong too. For them `throttled` is status 429 and `later` is never; an upload that
    is not executed is not kept, whatever its answer says; a download that is dropped breaks off halfway.

    Attributes:
        answer: what the client gets.
        apply: whether and when the call is executed; a throttled one never is.
        status: HTTP status of answer `status`: 500, 502, 503, 504, 429, 430 …
        retry_after: value of a Retry-After header, sent as it is.
        later_ms: how long after the answer the call is executed, for apply `later`.
        hold_ms: how long the answer is held back, beyond the latency.
        operation: only calls with this top-level field (`metafieldsSet`), or `upload` or `download`; None is any.
        shop: only calls to this domain; None is any.
        skip: so many matching calls pass unharmed first.
        times: so many matching calls go wrong, then the rule is spent; None is without end.
        rate: which share of matching calls goes wrong, drawn from `seed`; 1 is every one.
    """

    answer: FaultAnswer = FaultAnswer.STATUS
    apply: FaultApply = FaultApply.NEVER
    status: int = 503
    retry_after: str | None = None
    later_ms: int = 0
    hold_ms: int = 0
    operation: str | None = None
    shop: str | None = None
    skip: int = 0
    times: int | None = 1
    rate: float = 1.0
    seed: int = 0


@dataclass(slots=True)
class _Armed:
    fault: Fault
    random: random.Random
    matched: int = 0
    fired: int = 0

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.fired >= self.fault.times

    def fires(self, shop: str, fields: frozenset[str]) -> bool:
        fault = self.fault
        if self.spent or fault.shop not in {None, shop}:
            return False
        if fault.operation is not None and fault.operation not in fields:
            return False
        self.matched += 1
        if self.matched <= fault.skip:
            return False
        # A draw for every matching call, so that the same calls meet the same fate in every run.
        fires = fault.rate >= 1 or self.random.random() < fault.rate
        self.fired += fires
        return fires


class FaultBook:
    """The rules in force, oldest first; the first that fires decides a call."""

    def __init__(self) -> None:
        self._armed: dict[int, _Armed] = {}
        self._next = 1

    def add(self, fault: Fault) -> int:
        """Put a rule in force and return its number."""
        number = self._next
        self._next += 1
        self._armed[number] = _Armed(fault, random.Random(fault.seed))  # noqa: S311  # repeatable on purpose
        return number

    def remove(self, number: int) -> bool:
        """Take a rule out; False if there is none of that number."""
        return self._armed.pop(number, None) is not None

    def clear(self) -> None:
        """Take every rule out."""
        self._armed.clear()

    def __iter__(self) -> Iterator[tuple[int, Fault, int]]:
        """Number, rule and how often it fired, for each in force."""
        for number, armed in self._armed.items():
            yield number, armed.fault, armed.fired

    def pick(self, shop: str, fields: frozenset[str]) -> tuple[int, Fault] | None:
        """The rule that decides this call, if any."""
        for number, armed in self._armed.items():
            if armed.fires(shop, fields):
                return number, armed.fault
        return None


@dataclass(slots=True)
class Latency:
    """How long an answer takes, drawn evenly between two bounds in milliseconds."""

    min_ms: float = 0
    max_ms: float = 0
    seed: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Start the sequence of draws."""
        self._random = random.Random(self.seed)  # noqa: S311  # repeatable on purpose

    def draw_s(self) -> float:
        """Seconds the next call takes."""
        return self._random.uniform(self.min_ms, self.max_ms) / 1_000 if self.max_ms > 0 else 0.0
