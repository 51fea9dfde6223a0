"""Random histories against an independent model: whatever is posted, reversed, damaged and repaired, it adds up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from metafield_sync.db.database import Database
from metafield_sync.ledger.posting import Posted, Posting, PostingRefused, post, post_batch, reverse
from metafield_sync.ledger.verification import verify
from metafield_sync.shops.registry import add_shop

if TYPE_CHECKING:
    from collections.abc import Coroutine

LIMIT = 2**53 - 1
# Few of each, so that they collide.
PEOPLE = st.integers(1, 3)
AMOUNTS = st.one_of(st.integers(1, 20), st.integers(-20, -1), st.sampled_from([LIMIT, -LIMIT, LIMIT - 5, 5 - LIMIT]))
REASONS = st.sampled_from(["order", "refund"])
KEYS = st.sampled_from([None, None, "k1", "k2", "k3"])


@dataclass
class Line:
    """One line of a person's account, as the model keeps it."""

    number: int
    amount: int
    after: int
    reason: str
    key: str | None
    undoes: int | None


@dataclass
class Account:
    """A person's account: its lines, and the balance written on its cover, which somebody may have tampered with."""

    lines: list[Line] = field(default_factory=list[Line])
    cover: int = 0

    @property
    def total(self) -> int:
        return sum(line.amount for line in self.lines)


@dataclass(frozen=True)
class Wish:
    person: int
    amount: int
    reason: str
    key: str | None
    may_go_below: bool
    by_our_id: bool


WISHES = st.builds(Wish, PEOPLE, AMOUNTS, REASONS, KEYS, st.booleans(), st.booleans())

ENTRIES = """
select c.shopify_customer_id, l.sequence, l.amount, l.balance_after, l.reason, l.external_id, l.reverses
from ledger_entries l
join customers c on c.shop_id = l.shop_id and c.id = l.customer_id
where l.shop_id = %s
order by 1, 2
"""
CUSTOMERS = "select shopify_customer_id, current_balance from customers where shop_id = %s order by 1"
CORRECTIONS = "select stored, calculated, found_by from balance_corrections where shop_id = %s order by id"
UNMIRRORED = """
select c.id
from customers c
left join mirror_states m on m.shop_id = c.shop_id and m.customer_id = c.id
where c.shop_id = %s and m.customer_id is null
"""
# The invariants again, in the words of SQL and without the model.
NOT_ADDING_UP = """
select l.customer_id, l.sequence
from (
  select
    customer_id, sequence, balance_after,
    sum(amount) over (partition by customer_id order by sequence) as running,
    row_number() over (partition by customer_id order by sequence) as place
  from ledger_entries
  where shop_id = %s
) l
where l.balance_after <> l.running or l.sequence <> l.place
union all
select customer_id, count(*)
from ledger_entries
where shop_id = %s and external_id is not null
group by customer_id, external_id
having count(*) > 1
"""


class LedgerMachine(RuleBasedStateMachine):
    """Drives the ledger of a shop of its own, and the model beside it."""

    def __init__(self, runner: asyncio.Runner, db: Database, owner: psycopg.Connection) -> None:
        super().__init__()
        self.runner = runner
        self.db = db
        self.owner = owner
        self.accounts: dict[int, Account] = {}
        self.our_ids: dict[int, UUID] = {}
        self.corrections: list[tuple[int, int, str]] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def open_a_shop(self) -> None:
        async def add() -> Any:
            async with self.db.unscoped() as conn:
                return (await add_shop(conn, f"shop-{uuid4().hex}.myshopify.com", None))[0].id

        self.shop_id = self.run(add())

    # What the product is asked.

    def posting(self, wish: Wish) -> Posting:
        known = self.our_ids.get(wish.person) if wish.by_our_id else None
        return Posting(
            amount=wish.amount,
            reason=wish.reason,
            customer_id=known,
            shopify_customer_id=None if known else wish.person,
            external_id=wish.key,
            allow_negative=wish.may_go_below,
        )

    def check(self, outcome: Posted | PostingRefused, person: int, expected: tuple[str, Line | None, int]) -> None:
        what, line, balance = expected
        if isinstance(outcome, PostingRefused):
            assert outcome.code == what
            return
        entry = outcome.entry
        assert what == ("recorded" if outcome.is_new else "replayed")
        assert outcome.balance == balance
        seen = (entry.sequence, entry.amount, entry.balance_after, entry.reason, entry.external_id, entry.reverses)
        assert line is not None
        assert seen == (line.number, line.amount, line.after, line.reason, line.key, line.undoes)
        assert self.our_ids.setdefault(person, entry.customer_id) == entry.customer_id

    # What the model says to it.

    def book(
        self, person: int, amount: int, reason: str, *, key: str | None, below: bool, undoes: int | None = None
    ) -> tuple[str, Line | None, int]:
        account = self.accounts.get(person, Account())
        for line in account.lines:
            if undoes is not None and line.undoes == undoes:
                return "replayed", line, account.total
            if key is not None and line.key == key:
                same = (line.amount, line.reason) == (amount, reason)
                return ("replayed" if same else "idempotency_conflict"), line, account.total
        after = account.total + amount
        if amount < 0 and after < 0 and not below:
            return "insufficient_balance", None, account.total
        if not -LIMIT <= after <= LIMIT:
            return "balance_out_of_range", None, account.total
        if account.cover != account.total:
            self.corrections.append((account.cover, account.total, "posting"))
        line = Line(len(account.lines) + 1, amount, after, reason, key, undoes)
        account.lines.append(line)
        account.cover = after
        self.accounts[person] = account
        return "recorded", line, after

    def book_wish(self, wish: Wish) -> tuple[str, Line | None, int]:
        return self.book(wish.person, wish.amount, wish.reason, key=wish.key, below=wish.may_go_below)

    # What happens.

    async def post_alone(self, posting: Posting) -> Posted | PostingRefused:
        try:
            return await post(self.db, self.shop_id, "machine", posting)
        except PostingRefused as refused:
            return refused

    async def post_in_batch(self, posting: Posting) -> Posted | PostingRefused:
        return (await post_batch(self.db, self.shop_id, "machine", [posting]))[0]

    @rule(wish=WISHES, alone=st.booleans())
    def post_one(self, wish: Wish, *, alone: bool) -> None:
        posting = self.posting(wish)
        expected = self.book_wish(wish)
        self.check(self.run((self.post_alone if alone else self.post_in_batch)(posting)), wish.person, expected)

    @rule(wishes=st.lists(WISHES, min_size=2, max_size=8))
    def post_many(self, wishes: list[Wish]) -> None:
        postings = [self.posting(wish) for wish in wishes]
        expected = [self.book_wish(wish) for wish in wishes]
        outcomes = self.run(post_batch(self.db, self.shop_id, "machine", postings))
        for wish, outcome, wanted in zip(wishes, outcomes, expected, strict=True):
            self.check(outcome, wish.person, wanted)

    @rule(wish=WISHES.filter(lambda wish: wish.key is not None))
    def post_the_same_at_once(self, wish: Wish) -> None:
        posting = self.posting(wish)
        what, line, balance = self.book_wish(wish)

        async def race() -> list[Posted | PostingRefused]:
            ways = (self.post_alone, self.post_in_batch, self.post_alone)
            return await asyncio.gather(*(way(posting) for way in ways))

        outcomes = self.run(race())
        news = sum(isinstance(outcome, Posted) and outcome.is_new for outcome in outcomes)
        assert news == (1 if what == "recorded" else 0)
        for outcome in outcomes:
            is_replay = isinstance(outcome, Posted) and not outcome.is_new
            self.check(outcome, wish.person, ("replayed" if is_replay else what, line, balance))

    @rule(amount=AMOUNTS, below=st.booleans())
    def post_to_a_stranger(self, amount: int, *, below: bool) -> None:
        posting = Posting(customer_id=uuid4(), amount=amount, reason="order", allow_negative=below)
        for way in (self.post_alone, self.post_in_batch):
            outcome = self.run(way(posting))
            assert isinstance(outcome, PostingRefused)
            assert outcome.code == "customer_not_found"

    @precondition(lambda self: self.our_ids)
    @rule(data=st.data(), number=st.integers(1, 6), below=st.booleans())
    def reverse_one(self, data: st.DataObject, number: int, *, below: bool) -> None:
        person = data.draw(st.sampled_from(sorted(self.our_ids)))
        lines = self.accounts[person].lines
        work = reverse(
            self.db, self.shop_id, "machine", f"{self.our_ids[person]}-{number}", reason="undo", allow_negative=below
        )
        expected: tuple[str, Line | None, int] = ("entry_not_found", None, 0)
        if number <= len(lines):
            amount = -lines[number - 1].amount
            expected = self.book(person, amount, "undo", key=None, below=below, undoes=number)
        try:
            outcome: Posted | PostingRefused = self.run(work)
        except PostingRefused as refused:
            outcome = refused
        self.check(outcome, person, expected)

    @precondition(lambda self: self.our_ids)
    @rule(data=st.data(), value=AMOUNTS)
    def damage(self, data: st.DataObject, value: int) -> None:
        self.tamper(data.draw(st.sampled_from(sorted(self.our_ids))), value)

    @precondition(lambda self: self.our_ids)
    @rule(data=st.data(), amount=st.integers(1, 9))
    def damage_to_what_the_next_posting_gives(self, data: st.DataObject, amount: int) -> None:
        person = data.draw(st.sampled_from(sorted(self.our_ids)))
        if self.accounts[person].total + amount > LIMIT:
            return
        self.tamper(person, self.accounts[person].total + amount)
        expected = self.book(person, amount, "order", key=None, below=False)
        posting = Posting(shopify_customer_id=person, amount=amount, reason="order")
        self.check(self.run(post(self.db, self.shop_id, "machine", posting)), person, expected)

    def tamper(self, person: int, value: int) -> None:
        self.owner.execute(
            "update customers set current_balance = %s where shop_id = %s and id = %s",
            (value, self.shop_id, self.our_ids[person]),
        )
        self.accounts[person].cover = value

    @rule(person=st.one_of(st.none(), PEOPLE), repair=st.booleans())
    def verify_all_or_one(self, person: int | None, *, repair: bool) -> None:
        if person is not None and person not in self.our_ids:
            return
        looked_at = [person] if person else sorted(self.our_ids, key=lambda one: self.our_ids[one])
        wrong = [one for one in looked_at if self.accounts[one].cover != self.accounts[one].total]
        expected = [(one, self.accounts[one].cover, self.accounts[one].total) for one in wrong]
        only = self.our_ids[person] if person else None
        found = self.run(verify(self.db, self.shop_id, customer_id=only, repair=repair))
        assert [(it.shopify_customer_id, it.stored, it.calculated) for it in found] == expected
        if repair:
            # In the order of their ids, but within one statement the numbers of the records are the server's choice.
            self.corrections += [(stored, total, "verification") for _, stored, total in expected]
            for one in wrong:
                self.accounts[one].cover = self.accounts[one].total

    # What must hold after each.

    @invariant()
    def the_database_agrees_with_the_model(self) -> None:
        people = sorted(self.accounts.items())
        assert self.owner.execute(CUSTOMERS, (self.shop_id,)).fetchall() == [
            (person, account.cover) for person, account in people
        ]
        assert self.owner.execute(ENTRIES, (self.shop_id,)).fetchall() == [
            (person, line.number, line.amount, line.after, line.reason, line.key, line.undoes)
            for person, account in people
            for line in account.lines
        ]
        assert sorted(self.owner.execute(CORRECTIONS, (self.shop_id,)).fetchall()) == sorted(self.corrections)

    @invariant()
    def every_account_adds_up_by_itself(self) -> None:
        assert self.owner.execute(NOT_ADDING_UP, (self.shop_id, self.shop_id)).fetchall() == []
        assert self.owner.execute(UNMIRRORED, (self.shop_id,)).fetchall() == []


def test_every_history_adds_up(database_url: str, owner: psycopg.Connection) -> None:
    with asyncio.Runner() as runner:
        db = Database(database_url)
        runner.run(db.__aenter__())

        class Machine(LedgerMachine):
            def __init__(self) -> None:
                super().__init__(runner, db, owner)

        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=80,
                    stateful_step_count=25,
                    deadline=None,
                    # A history is a hundred round trips to a real server; that is what it is for.
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
        finally:
            runner.run(db.__aexit__())
