"""Every way in which the devstore fails, each at a rate of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

WRITE = "metafieldsSet"
READ = "nodes"

SURE_STRIKES = 2
SURE_WITHIN_CALLS = 300
"""Besides its rate, so often each kind strikes for sure, at calls chosen among the first so many of its operation."""
SHORT_S = 30
SURE_WITHIN_CALLS_SHORT = 20
LATEST_S = 70
HELD_S_MIN = 30
"""Runs shorter than this have no calls that are held beyond the client's patience of 12 s."""


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One rule for the devstore, its `body` as its control API takes it.

    `is_silent`: after it the client cannot know whether its call was executed.
    """

    kind: str
    body: dict[str, Any]
    is_silent: bool


@dataclass(frozen=True, slots=True)
class _Kind:
    kind: str
    rate: float
    body: dict[str, Any]
    is_silent: bool = True
    seconds_min: int = 0


def _status(status: int, **more: Any) -> dict[str, Any]:
    return {"answer": "status", "status": status, **more}


def _later(later_ms: int) -> dict[str, Any]:
    return {"apply": "later", "laterMs": later_ms}


# By chance alone one call in four goes wrong. A call executed late is answered at once; what is executed 0.3 to 70 s
# later overtakes and is overtaken by others, and the last is later than every reading back but the one after five
# minutes.
WRITE_KINDS = (
    _Kind("5xx, not executed", 0.018, _status(503)),
    _Kind("5xx, executed", 0.018, _status(502, apply="first")),
    _Kind("dropped, not executed", 0.018, {"answer": "drop"}),
    _Kind("dropped, executed", 0.018, {"answer": "drop", "apply": "first"}),
    _Kind("garbage, not executed", 0.012, {"answer": "garbage"}),
    _Kind("garbage, executed", 0.012, {"answer": "garbage", "apply": "first"}),
    _Kind("empty answer, executed 2 s late", 0.012, {"answer": "normal", **_later(2_000)}),
    _Kind("504, executed 0.3 s late", 0.018, {**_status(504), **_later(300)}),
    _Kind("dropped, executed 1.2 s late", 0.018, {"answer": "drop", **_later(1_200)}),
    _Kind("502, executed 5 s late", 0.024, {**_status(502), **_later(5_000)}),
    _Kind("dropped, executed 5 s late", 0.024, {"answer": "drop", **_later(5_000)}),
    _Kind("500, executed 12 s late", 0.012, {**_status(500), **_later(12_000)}),
    _Kind(
        f"dropped, executed {LATEST_S} s late", 0.012, {"answer": "drop", **_later(LATEST_S * 1_000)}, seconds_min=60
    ),
    _Kind("no answer for 13 s, executed", 0.004, {"apply": "first", "holdMs": 13_000}, seconds_min=HELD_S_MIN),
    _Kind("no answer for 13 s, executed 4 s in", 0.004, {**_later(4_000), "holdMs": 13_000}, seconds_min=HELD_S_MIN),
    # Whoever waits for this one is killed as often as not: somebody else has to know of it.
    _Kind(
        "no answer for 13 s, executed 25 s late", 0.008, {**_later(25_000), "holdMs": 13_000}, seconds_min=HELD_S_MIN
    ),
    _Kind("throttled, cost not told", 0.012, {"answer": "throttled"}, is_silent=False),
    _Kind("429, Retry-After 2", 0.006, _status(429, retryAfter="2"), is_silent=False),
    _Kind("429, Retry-After 0.5", 0.006, _status(429, retryAfter="0.5"), is_silent=False),
)
READ_KINDS = (
    _Kind("5xx", 0.036, _status(503)),
    _Kind("dropped", 0.036, {"answer": "drop"}),
    _Kind("garbage", 0.024, {"answer": "garbage"}),
    _Kind("throttled, cost not told", 0.018, {"answer": "throttled"}, is_silent=False),
    _Kind("429, Retry-After 1", 0.012, _status(429, retryAfter="1.0"), is_silent=False),
)


def ambush_rule(domain: str) -> FaultRule:
    """Swallows the next write in a shop: it is executed long after its client was killed."""
    body = {**_later(25_000), "holdMs": 13_000, "operation": WRITE, "shop": domain, "times": 1}
    return FaultRule("write: ambushed, executed 25 s late", body, is_silent=True)


def fault_rules(seed: int, seconds: int) -> tuple[FaultRule, ...]:
    """The rules of a seed: all kinds there are, but those for which so short a run has no time.

    Those that strike for sure come first: of several rules that would strike a call, the first does.
    """
    rng = random.Random(f"{seed}/faults")
    sure: list[FaultRule] = []
    by_chance: list[FaultRule] = []
    is_short = seconds < SHORT_S
    within = SURE_WITHIN_CALLS_SHORT if is_short else SURE_WITHIN_CALLS
    for operation, name, kinds in ((WRITE, "write", WRITE_KINDS), (READ, "read", READ_KINDS)):
        for kind in kinds:
            own_seed = rng.randrange(2**31)
            skips = [rng.randrange(within) for _ in range(1 if is_short else SURE_STRIKES)]
            if seconds < kind.seconds_min:
                continue
            told, body = f"{name}: {kind.kind}", {**kind.body, "operation": operation}
            sure += [FaultRule(told, {**body, "skip": skip, "times": 1}, kind.is_silent) for skip in skips]
            by_chance.append(FaultRule(told, {**body, "rate": kind.rate, "seed": own_seed}, kind.is_silent))
    rng.shuffle(sure)
    return (*sure, *by_chance)
