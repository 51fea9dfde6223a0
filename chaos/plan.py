"""What is going to happen, and when: all of it from the seed, before anything is started."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from chaos.faults import HELD_S_MIN, FaultRule, fault_rules
from chaos.shops import SHOPS, customers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CALM_POSTED_EVERY_S = 16.0
BUSY_POSTED_EVERY_S = 8.0
POSTINGS_PER_S_MIN, CALM_POSTINGS_PER_S_MIN = 5.0, 0.75
BATCH_EVERY_S = (0.8, 2.0)
BATCH_ENTRIES = (2, 25)
OPENING_S = 2.0
"""Within so long everybody has been posted to once."""
SWING_S = (0.2, 4.0)
"""A swinging balance is back where it was after so long."""
HALF = 0.5
HANG_UP_MS = (0, 40)
FOREIGN_EVERY_S = (0.5, 1.5)
SPEND_EVERY_S = (3.0, 6.0)
SPENT_POINTS = (500, 4_000)
KILL_EVERY_S = (2.5, 6.0)
FREEZE_S = (10.5, 13.5)
"""Longer than a lease, which is 10 s."""
FIRST_FREEZE_S = 1.0
FREEZE_EVERY_S = (14.0, 20.0)
AMBUSHED_AT = (0.4, 0.8)
"""When, as a share of the time."""
AMBUSH_DELAY_S = (0.5, 3.0)
WEB_KILLS_AT = (0.35, 0.7)
SHORT_S = 30
"""Below so many seconds the web process is killed once."""
CUSTOMERS_A_DELETION = 20
FOREIGN_VALUE_FIRST = 7_000_000_001
"""No balance comes near it, so what somebody else wrote is told from what we did by looking at it."""


class Manner(StrEnum):
    """How a posting is sent."""

    PLAIN = "plain"
    HANG_UP = "hang_up"
    """The client hangs up before the answer, and sends it again."""
    AGAIN = "again"
    """Sent again although it was acknowledged."""
    TWICE_AT_ONCE = "twice_at_once"
    CONFLICT = "conflict"
    """After the acknowledgement the same key comes with another amount."""
    SYNC = "sync"
    """`syncToShopify`: the web process pushes too."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One posting."""

    external_id: str
    customer: int
    amount: int
    allow_negative: bool


@dataclass(frozen=True, slots=True)
class Post:
    """Post one entry."""

    at_s: float
    entry: Entry
    manner: Manner
    patience_ms: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Post many at once, in one shop."""

    at_s: float
    shop: int
    entries: tuple[Entry, ...]
    manner: Manner
    patience_ms: int = 0


@dataclass(frozen=True, slots=True)
class Overwrite:
    """Somebody else writes a customer's metafield."""

    at_s: float
    customer: int
    value: str
    type: str = "number_integer"


@dataclass(frozen=True, slots=True)
class Erase:
    """Somebody else removes a customer's metafield."""

    at_s: float
    customer: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Staff delete a customer in Shopify."""

    at_s: float
    customer: int


@dataclass(frozen=True, slots=True)
class Spend:
    """Another program of the same app spends most of the bucket, so that our own count of it is wrong."""

    at_s: float
    shop: int
    points: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL for a worker, and another in its place."""

    at_s: float
    slot: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """SIGSTOP for the worker that holds most leases (the one in `slot` if none does), SIGCONT after a while."""

    at_s: float
    slot: int
    for_s: float


@dataclass(frozen=True, slots=True)
class KillWeb:
    """SIGKILL for the web process, and another in its place."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Ambush:
    """SIGKILL for whoever waits for an answer that does not come, to a write that will come late.

    `there` is posted, and its push is swallowed: executed after 25 s, answered after 13 s. `back` brings the balance
    back to what it was; `delay_s` later whoever holds the shop's lease is killed. Only the record it has made of its
    call can tell the next one that what is right now will be wrong.
    """

    at_s: float
    shop: int
    there: Entry
    back: Entry
    delay_s: float


Foreign = Overwrite | Erase | Delete
Action = Post | Batch | Foreign | Spend | Kill | Freeze | Ambush | KillWeb


@dataclass(frozen=True, slots=True)
class Scope:
    """How much of it there is to be."""

    seed: int
    seconds: int
    customers: int
    workers: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is going to happen. `parting`: what somebody else does when all is at rest again."""

    scope: Scope
    faults: tuple[FaultRule, ...]
    actions: tuple[Action, ...]
    parting: tuple[Foreign, ...]

    @property
    def digest(self) -> str:
        """The same for the same plan, and for no other."""
        document = [
            asdict(self.scope),
            [asdict(rule) for rule in self.faults],
            [[type(action).__name__, asdict(action)] for action in (*self.actions, *self.parting)],
        ]
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def make_plan(scope: Scope) -> Plan:
    """The plan of a seed. Each part draws from numbers of its own, so that one can change without the others."""
    deletions = list(_deletions(scope))
    foreign = list(_foreign(scope, {one.customer: one.at_s for one in deletions}))
    actions: list[Action] = [
        *_postings(scope),
        *_batches(scope),
        *deletions,
        *foreign,
        *_spending(scope),
        *_kills(scope),
        *_freezes(scope),
        *_ambushes(scope),
        *_web_kills(scope),
    ]
    actions.sort(key=lambda action: action.at_s)
    parting = tuple(_parting(scope, {one.customer for one in deletions}))
    return Plan(scope, fault_rules(scope.seed, scope.seconds), tuple(actions), parting)


def _draws(scope: Scope, part: str) -> random.Random:
    return random.Random(f"{scope.seed}/{part}")


def _moments(rng: random.Random, first_s: float, every_s: tuple[float, float], until_s: float) -> Iterator[float]:
    at_s = first_s
    while at_s < until_s:
        yield round(at_s, 3)
        at_s += rng.uniform(*every_s)


def _postings(scope: Scope) -> Iterator[Post]:
    """A stream of single postings in each shop. In the calm ones balances swing: they keep returning to what they were.

    That is where a late write does harm: it finds the digest it expects. In the busy shop every second one does, but
    there the next posting puts most of it right; in a calm shop it is up to the reading back.
    """
    for shop in range(SHOPS):
        rng = _draws(scope, f"postings/{shop}")
        customers = customers_of(shop, scope.customers)
        if shop and len(customers) > 1:
            customers.remove(_prey(shop, scope.customers))
        a_second = max(CALM_POSTINGS_PER_S_MIN, len(customers) / CALM_POSTED_EVERY_S)
        if shop == 0:
            a_second = max(POSTINGS_PER_S_MIN, len(customers) / BUSY_POSTED_EVERY_S)
        at_s, number = OPENING_S / 2, 0
        while (at_s := at_s + rng.expovariate(a_second)) < scope.seconds:
            number += 1
            customer = rng.choice(customers)
            if shop or customer % 2 == 0:
                yield from _swing(rng, scope, at_s, f"swing/{number}", customer)
            else:
                yield _post(rng, at_s, Entry(f"order/{number}", customer, _amount(rng), rng.random() < HALF))


def _swing(rng: random.Random, scope: Scope, at_s: float, name: str, customer: int) -> Iterator[Post]:
    amount = rng.choice((-1, 1)) * rng.randint(1, 50)
    back_s = min(at_s + rng.uniform(*SWING_S), scope.seconds)
    yield _post(rng, at_s, Entry(name, customer, amount, allow_negative=True))
    yield _post(rng, back_s, Entry(f"{name}/back", customer, -amount, allow_negative=True))


def _post(rng: random.Random, at_s: float, entry: Entry) -> Post:
    weights = {
        Manner.PLAIN: 60,
        Manner.HANG_UP: 15,
        Manner.AGAIN: 8,
        Manner.TWICE_AT_ONCE: 7,
        Manner.CONFLICT: 5,
        Manner.SYNC: 5,
    }
    manner = rng.choices(list(weights), list(weights.values()))[0]
    return Post(round(at_s, 3), entry, manner, rng.randint(*HANG_UP_MS))


def _batches(scope: Scope) -> Iterator[Batch]:
    """First everybody once, then some of the busy shop now and then."""
    rng = _draws(scope, "batches")
    most = BATCH_ENTRIES[1]
    for shop in range(SHOPS):
        customers = customers_of(shop, scope.customers)
        for first in range(0, len(customers), most):
            entries = tuple(
                Entry("opening", customer, rng.randint(50, 1_000), allow_negative=False)
                for customer in customers[first : first + most]
            )
            yield Batch(round(rng.uniform(0, OPENING_S), 3), shop, entries, Manner.PLAIN)
    busy = customers_of(0, scope.customers)
    for number, at_s in enumerate(_moments(rng, OPENING_S, BATCH_EVERY_S, scope.seconds)):
        size = rng.randint(*BATCH_ENTRIES)
        entries = tuple(
            Entry(f"batch/{number}/{place}", rng.choice(busy), _amount(rng), rng.random() < HALF)
            for place in range(size)
        )
        manner = rng.choices((Manner.PLAIN, Manner.HANG_UP, Manner.AGAIN, Manner.TWICE_AT_ONCE), (5, 3, 1, 1))[0]
        yield Batch(at_s, 0, entries, manner, rng.randint(*HANG_UP_MS))


def _amount(rng: random.Random) -> int:
    return rng.choice((-1, 1, 1)) * rng.randint(1, 400)


def _deletions(scope: Scope) -> Iterator[Delete]:
    rng = _draws(scope, "deletions")
    for customer in rng.sample(range(1, scope.customers + 1), max(1, scope.customers // CUSTOMERS_A_DELETION)):
        yield Delete(round(rng.uniform(0.2, 0.95) * scope.seconds, 3), customer)


def _foreign(scope: Scope, deleted_at_s: dict[int, float]) -> Iterator[Foreign]:
    rng = _draws(scope, "foreign")
    for number, at_s in enumerate(_moments(rng, OPENING_S, FOREIGN_EVERY_S, scope.seconds)):
        customer = rng.randint(1, scope.customers)
        act = _foreign_act(rng, at_s, customer, number)
        if at_s < deleted_at_s.get(customer, scope.seconds + 1.0):
            yield act


def _foreign_act(rng: random.Random, at_s: float, customer: int, number: int) -> Foreign:
    kind = rng.choices(("number", "text", "erased"), (7, 1, 3))[0]
    if kind == "erased":
        return Erase(at_s, customer)
    if kind == "text":
        return Overwrite(at_s, customer, f"somebody's note {number}", "single_line_text_field")
    return Overwrite(at_s, customer, str(FOREIGN_VALUE_FIRST + number))


def _parting(scope: Scope, deleted: set[int]) -> Iterator[Foreign]:
    """One of each kind at least, on customers who are still there; no write of ours can come upon these."""
    rng = _draws(scope, "parting")
    live = [customer for customer in range(1, scope.customers + 1) if customer not in deleted]
    chosen = rng.sample(live, min(len(live), 8))
    for number, customer in enumerate(chosen):
        match number:
            case 0:
                yield Delete(0.0, customer)
            case 1:
                yield Overwrite(0.0, customer, "a parting note", "single_line_text_field")
            case 2 | 3:
                yield Erase(0.0, customer)
            case _:
                yield Overwrite(0.0, customer, str(FOREIGN_VALUE_FIRST + 1_000_000 + number))


def _spending(scope: Scope) -> Iterator[Spend]:
    rng = _draws(scope, "spending")
    for at_s in _moments(rng, 5.0, SPEND_EVERY_S, scope.seconds):
        yield Spend(at_s, rng.randrange(SHOPS), rng.randint(*SPENT_POINTS))


def _kills(scope: Scope) -> Iterator[Kill]:
    rng = _draws(scope, "kills")
    for at_s in _moments(rng, KILL_EVERY_S[0], KILL_EVERY_S, scope.seconds):
        yield Kill(at_s, rng.randrange(scope.workers))


def _freezes(scope: Scope) -> Iterator[Freeze]:
    rng = _draws(scope, "freezes")
    if scope.seconds < FREEZE_S[0] + FIRST_FREEZE_S:
        return
    # In a short run there is room for one, at its end: whoever is frozen holds up what he holds the lease of.
    first_s = scope.seconds - FREEZE_S[0] - 0.1 if scope.seconds < SHORT_S else FIRST_FREEZE_S
    for at_s in _moments(rng, first_s, FREEZE_EVERY_S, scope.seconds - FREEZE_S[0]):
        for_s = min(rng.uniform(*FREEZE_S), scope.seconds - at_s)
        yield Freeze(at_s, rng.randrange(scope.workers), round(for_s, 3))


def _ambushes(scope: Scope) -> Iterator[Ambush]:
    """One in each calm shop, upon a customer to whom nothing else is posted after the opening."""
    rng = _draws(scope, "ambushes")
    if scope.seconds < HELD_S_MIN:
        return
    for shop in range(1, SHOPS):
        customer, amount = _prey(shop, scope.customers), rng.randint(1, 50)
        there, back = (
            Entry(f"ambush/{way}", customer, sign * amount, allow_negative=True)
            for way, sign in (("there", 1), ("back", -1))
        )
        at_s = round(rng.uniform(*AMBUSHED_AT) * scope.seconds, 3)
        yield Ambush(at_s, shop, there, back, round(rng.uniform(*AMBUSH_DELAY_S), 3))


def _prey(shop: int, customers: int) -> int:
    return customers_of(shop, customers)[0]


def _web_kills(scope: Scope) -> Iterator[KillWeb]:
    shares = WEB_KILLS_AT if scope.seconds >= SHORT_S else WEB_KILLS_AT[:1]
    for share in shares:
        yield KillWeb(round(share * scope.seconds, 3))
