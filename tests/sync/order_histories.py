"""Random histories of orders, what is delivered of them and when, and how to make a failing one small.

A history is a list of plain steps. Whatever step is impossible where it stands does nothing, so any step can be left
out, and the rest is still a history: that is what makes them shrink.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal

from order_world import Json, Line, Refund, World

STEPS_MAX = 6
ORDERS_MAX = 2
LINES_MAX = 4

Kind = Literal[
    "sell",
    "take_off",
    "refund",
    "fee",
    "return_first",
    "goodwill",
    "pay",
    "pay_part",
    "unpay",
    "void",
    "refund_all",
    "cancel",
    "customer",
    "merge",
    "read",
]
KINDS: tuple[tuple[Kind, int], ...] = (
    ("sell", 4),
    ("take_off", 3),
    ("refund", 5),
    ("fee", 1),
    ("return_first", 1),
    ("goodwill", 4),
    ("pay", 6),
    ("pay_part", 2),
    ("unpay", 2),
    ("void", 1),
    ("refund_all", 1),
    ("cancel", 2),
    ("customer", 3),
    ("merge", 2),
    ("read", 2),
)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens to order number `order` of the history.

    `waits`: seconds since the step before. `a`, `b`: what it is about, in its own way. `late`: for each of its
    webhooks, after how many more steps it is delivered, once for every number; no number: lost.
    """

    kind: Kind
    order: int
    waits: int
    a: int
    b: int
    late: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        about = f"{self.kind}({self.a}, {self.b}) of order {self.order}"
        return f"+{self.waits} s {about}; delivered {self.late}"


@dataclass(frozen=True, slots=True)
class History:
    """How the orders begin, and what happens to them. `lines` of each order: (price, quantity, what it is)."""

    taxes_included: bool
    test: bool
    customers: tuple[int | None, ...]
    steps: tuple[Step, ...]
    shuffle: int = 0

    def __str__(self) -> str:
        head = f"taxes included: {self.taxes_included}; test: {self.test}; customers: {self.customers}"
        return "\n  ".join([head, *map(str, self.steps)])

    @property
    def is_lossless(self) -> bool:
        return all(numbers for step in self.steps for numbers in step.late)


def random_history(random: Random, *, merges: bool) -> History:
    """A history that begins with a sale and a payment of each order, more often than not."""
    orders = 1 if random.random() < 0.8 else ORDERS_MAX
    kinds = [(kind, weight) for kind, weight in KINDS if merges or kind != "merge"]
    steps: list[Step] = []
    for order in range(orders):
        steps.append(_step(random, "sell", order))
        if random.random() < 0.8:
            steps.append(_step(random, "pay", order))
    names, weights = zip(*kinds, strict=True)
    chosen = random.choices(names, weights, k=random.randint(0, STEPS_MAX))
    steps += [_step(random, kind, random.randrange(orders)) for kind in chosen]
    return History(
        taxes_included=random.random() < 0.5,
        test=random.random() < 0.03,
        customers=tuple(random.choice((0, 0, 0, 1, 2, None)) for _ in range(orders)),
        steps=tuple(steps),
        shuffle=random.randrange(1_000),
    )


def _step(random: Random, kind: Kind, order: int) -> Step:
    careful = random.random() < 0.5

    def late() -> tuple[int, ...]:
        if not careful and random.random() < 0.3:
            return ()
        times = 2 if random.random() < 0.25 else 1
        return tuple(random.choice((0, 0, 1, 2, 5)) for _ in range(times))

    return Step(
        kind=kind,
        order=order,
        waits=random.choice((0, 1, 1, 3)),
        a=random.randint(1, 9_999),
        b=random.randint(0, 7),
        late=(late(), late()),
    )


Topic = Literal["orders/paid", "orders/updated", "orders/cancelled", "refunds/create"]


@dataclass
class Play:
    """A history as it is played: the orders' present states, and what of them is under way to us."""

    history: History
    first_order: int
    customers: tuple[int, ...]
    tags: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    worlds: list[World] = field(default_factory=list[World])
    second: int = 0
    refunds: int = 0
    kept: dict[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        for number, index in enumerate(self.history.customers):
            world = World(self.first_order + number, self.history.taxes_included, self.history.test, tags=self.tags)
            world.customer = None if index is None else self.customers[index]
            self.worlds.append(world)

    def act(self, step: Step) -> list[tuple[Topic, Json]]:
        """Let the step happen; the webhooks that it makes, the first of them about the order as a whole."""
        self.second += step.waits
        world = self.worlds[step.order % len(self.worlds)]
        if not world.lines and step.kind not in {"sell", "customer"}:
            return []
        world.second = self.second
        if not world.lines:
            world.created = self.second
        topic, refund = self._change(world, step)
        if topic is None:
            return []
        world.updated = self.second
        said: list[tuple[Topic, Json]] = [(topic, world.order_payload())]
        if refund is not None:
            said.append(("refunds/create", world.refund_payload(refund)))
        return said

    def _change(self, world: World, step: Step) -> tuple[Topic | None, Refund | None]:
        """What the step does to the order; no topic: nothing."""
        topic: Topic | None = "orders/updated"
        refund: Refund | None = None
        match step.kind:
            case "sell":
                topic = topic if _sell(world, step) else None
            case "take_off":
                line = world.lines[step.a % len(world.lines)]
                line.left = max(line.left - 1, 0)
            case "refund" | "fee" | "return_first":
                refund = self._refund(world, step)
            case "goodwill":
                refund = self._add_refund(world, {}, -(step.a % 2_000))
            case "cancel":
                world.cancelled, topic = True, "orders/cancelled"
                refund = self._refund(world, step) if step.b % 2 else None
            case "customer":
                chosen = (*self.customers, None)[step.b % 4]
                world.customer = None if chosen is None else self.survivor(chosen)
            case "merge" | "read":
                topic = None
            case "pay":
                _pay(world, step)
                topic = "orders/paid"
            case _:
                _pay(world, step)
        return topic, refund

    def survivor(self, customer: int) -> int:
        while customer in self.kept:
            customer = self.kept[customer]
        return customer

    def merge(self, step: Step) -> tuple[int, int] | None:
        """Merge two customers in Shopify: (kept, deleted). Orders of the deleted one move; no webhook tells of that."""
        kept, deleted = self.customers[step.a % 3], self.customers[step.b % 3]
        if kept in self.kept or deleted in self.kept or kept == deleted:
            return None
        self.kept[deleted] = kept
        for world in self.worlds:
            if world.customer == deleted:
                world.customer = kept
        return kept, deleted

    def _refund(self, world: World, step: Step) -> Refund | None:
        index = step.a % len(world.lines)
        line = world.lines[index]
        pieces = {index: min(line.left, 1 + step.b % 2)} if line.left else {}
        for one, count in pieces.items():
            world.lines[one].left -= count
        worth = sum(world.lines[one].worth * count for one, count in pieces.items())
        kept_back = {"fee": min(worth, 250), "return_first": worth}.get(step.kind, 0)
        if world.status == "paid":
            world.status = "partially_refunded"
        return self._add_refund(world, pieces, kept_back) if pieces else None

    def _add_refund(self, world: World, pieces: dict[int, int], adjustment: int) -> Refund:
        self.refunds += 1
        refund = Refund(self.first_order * 100 + self.refunds, self.second, pieces, adjustment)
        world.refunds.append(refund)
        return refund


def _sell(world: World, step: Step) -> bool:
    if world.cancelled or len(world.lines) >= LINES_MAX:
        return False
    line = _line(step)
    world.lines.append(line)
    if world.status in {"paid", "partially_refunded", "partially_paid"} and not line.gift_card:
        world.status = "partially_paid"
        world.outstanding += line.worth * line.quantity
    return True


def _pay(world: World, step: Step) -> None:
    world.outstanding = step.a % 3_000 if step.kind == "pay_part" else 0
    world.status = {
        "pay": "partially_refunded" if world.refunds else "paid",
        "pay_part": "partially_paid",
        "unpay": "pending",
        "void": "voided",
        "refund_all": "refunded",
    }[step.kind]


def _line(step: Step) -> Line:
    price = step.a
    return Line(
        price=price,
        quantity=1 + step.b % 3,
        gift_card=step.b == 7,
        discount=price // 5 if step.b % 2 else 0,
        tax=0 if step.b == 7 else price // 10,
        left=1 + step.b % 3,
    )


async def shrunk(history: History, fails: Callable[[History], Awaitable[bool]]) -> History:
    """The smallest history that still fails, as far as leaving out and making plain get it."""
    goes_on = True
    while goes_on:
        goes_on = False
        for smaller in _smaller(history):
            if await fails(smaller):
                history, goes_on = smaller, True
                break
    return history


def _smaller(history: History) -> Iterator[History]:
    for index in range(len(history.steps)):
        yield replace(history, steps=history.steps[:index] + history.steps[index + 1 :])
    if len(history.customers) > 1:
        kept = tuple(step for step in history.steps if step.order == 0)
        yield replace(history, steps=kept, customers=history.customers[:1])
    plain: dict[str, Any] = {"taxes_included": False, "test": False, "shuffle": 0}
    for name, value in plain.items():
        if getattr(history, name) != value:
            yield replace(history, **{name: value})
    for index, step in enumerate(history.steps):
        for simpler in _simpler(step):
            yield replace(history, steps=(*history.steps[:index], simpler, *history.steps[index + 1 :]))


def _simpler(step: Step) -> Iterator[Step]:
    if step.late != ((0,), (0,)):
        yield replace(step, late=((0,), (0,)))
        for index, times in enumerate(step.late):
            for plainer in ((0,), times[:1]):
                late = tuple(plainer if one == index else other for one, other in enumerate(step.late))
                if late != step.late:
                    yield replace(step, late=late)
    if step.waits != 1:
        yield replace(step, waits=1)
    if step.b > 0:
        yield replace(step, b=0)
    for a in (100, 1_000):
        if step.a > a:
            yield replace(step, a=a)
