"""Random histories against an independent model: posted, reversed, merged, damaged and repaired, it adds up."""

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
from metafield_sync.ledger.posting import (
    BalanceOutOfRange,
    Posted,
    Posting,
    PostingRefused,
    post,
    post_batch,
    reverse,
)
from metafield_sync.ledger.verification import verify
from metafield_sync.shops.registry import add_shop
from metafield_sync.sync.people.merges import merge_customers

if TYPE_CHECKING:
    from collections.abc import Coroutine

LIMIT = 2**53 - 1
# Few of each, so that they collide.
PEOPLE = st.integers(1, 4)
AMOUNTS = st.one_of(st.integers(1, 20), st.integers(-20, -1), st.sampled_from([LIMIT, -LIMIT, LIMIT - 5, 5 - LIMIT]))
REASONS = st.sampled_from(["order", "refund"])
KEYS = st.sampled_from([None, None, "k1", "k2", "k3"])


@dataclass
class Line:
    """One line of a person's account, as the model keeps it.

    `undoes`: whose line, and its number. `call`: which call wrote it, counted up.
    """

    owner: int
    number: int
    amount: int
    after: int
    reason: str
    key: str | None
    undoes: tuple[int, int] | None
    call: int


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
select
  c.shopify_customer_id, l.sequence, l.amount, l.balance_after, l.reason, l.external_id, l.reverses,
  case when l.reverses is not null then coalesce(o.shopify_customer_id, c.shopify_customer_id) end
from ledger_entries l
join customers c on c.shop_id = l.shop_id and c.id = l.customer_id
left join customers o on o.shop_id = l.shop_id and o.id = l.reverses_customer_id
where l.shop_id = %s
order by 1, 2
"""
CUSTOMERS = "select shopify_customer_id, current_balance from customers where shop_id = %s order by 1"
OUR_IDS = "select shopify_customer_id, id from customers where shop_id = %s"
CORRECTIONS = "select stored, calculated, found_by from balance_corrections where shop_id = %s order by id"
UNMIRRORED = """
select c.id
from customers c
left join mirror_states m on m.shop_id = c.shop_id and m.customer_id = c.id
where c.shop_id = %s and m.customer_id is null
"""
MERGED = """
select c.shopify_customer_id, s.shopify_customer_id
from customers c
join customers s on s.shop_id = c.shop_id and s.id = c.merged_into
where c.shop_id = %s
order by 1
"""
# Of the merged nothing is pushed, read back or told; of the others everything is.
WRONGLY_MIRRORED = """
select c.id
from customers c
join mirror_states m on m.shop_id = c.shop_id and m.customer_id = c.id
where
  c.shop_id = %s
  and (
    (c.merged_into is null) <> (m.status = 'live')
    or (c.merged_into is not null and (m.stale_since is not null or m.check_at is not null))
    or (c.merged_into is not null and m.failing_since is not null)
  )
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
        self.into: dict[int, int] = {}
        self.calls = 0

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

    def check(self, outcome: Posted | PostingRefused, expected: tuple[str, Line | None, int]) -> None:
        what, line, balance = expected
        if isinstance(outcome, PostingRefused):
            assert outcome.code == what
            return
        entry = outcome.entry
        assert what == ("recorded" if outcome.is_new else "replayed")
        assert outcome.balance == balance
        seen = (entry.sequence, entry.amount, entry.balance_after, entry.reason, entry.external_id)
        assert line is not None
        assert seen == (line.number, line.amount, line.after, line.reason, line.key)
        assert self.our_ids.setdefault(line.owner, entry.customer_id) == entry.customer_id
        undone = None if line.undoes is None else f"{self.our_ids[line.undoes[0]]}-{line.undoes[1]}"
        assert entry.reverses_key == undone

    # What the model says to it.

    def book(
        self,
        person: int,
        amount: int,
        reason: str,
        *,
        key: str | None,
        below: bool,
        undoes: tuple[int, int] | None = None,
    ) -> tuple[str, Line | None, int]:
        person = self.who_is(person)
        account = self.accounts.get(person, Account())
        theirs = [line for one in self.accounts if self.who_is(one) == person for line in self.accounts[one].lines]
        for line in theirs:
            if undoes is not None and line.undoes == undoes:
                return "replayed", line, account.total
        keyed = [line for line in theirs if key is not None and line.key == key]
        if keyed:
            # Two who were merged may both have used it: the same request is meant, and of such the first.
            line = min(
                keyed,
                key=lambda one: (
                    (one.amount, one.reason) != (amount, reason),
                    one.call,
                    self.our_ids.get(one.owner, uuid4()),  # not known yet: merged with nobody, and so the only one
                ),
            )
            same = (line.amount, line.reason) == (amount, reason)
            return ("replayed" if same else "idempotency_conflict"), line, account.total
        after = account.total + amount
        if amount < 0 and after < 0 and not below:
            return "insufficient_balance", None, account.total
        if not -LIMIT <= after <= LIMIT:
            return "balance_out_of_range", None, account.total
        if account.cover != account.total:
            self.corrections.append((account.cover, account.total, "posting"))
        line = Line(person, len(account.lines) + 1, amount, after, reason, key, undoes, self.calls)
        account.lines.append(line)
        account.cover = after
        self.accounts[person] = account
        return "recorded", line, after

    def who_is(self, person: int) -> int:
        while person in self.into:
            person = self.into[person]
        return person

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
        self.calls += 1
        posting = self.posting(wish)
        expected = self.book_wish(wish)
        self.check(self.run((self.post_alone if alone else self.post_in_batch)(posting)), expected)

    @rule(wishes=st.lists(WISHES, min_size=2, max_size=8))
    def post_many(self, wishes: list[Wish]) -> None:
        self.calls += 1
        postings = [self.posting(wish) for wish in wishes]
        expected = [self.book_wish(wish) for wish in wishes]
        outcomes = self.run(post_batch(self.db, self.shop_id, "machine", postings))
        for outcome, wanted in zip(outcomes, expected, strict=True):
            self.check(outcome, wanted)

    @rule(wish=WISHES.filter(lambda wish: wish.key is not None))
    def post_the_same_at_once(self, wish: Wish) -> None:
        self.calls += 1
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
            self.check(outcome, ("replayed" if is_replay else what, line, balance))

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
            self.calls += 1
            amount = -lines[number - 1].amount
            expected = ("not_reversible", None, 0)
            if lines[number - 1].reason != "merge":
                expected = self.book(person, amount, "undo", key=None, below=below, undoes=(person, number))
        try:
            outcome: Posted | PostingRefused = self.run(work)
        except PostingRefused as refused:
            outcome = refused
        self.check(outcome, expected)

    @rule(kept=PEOPLE, deleted=PEOPLE)
    def merge(self, kept: int, deleted: int) -> None:
        if kept == deleted:
            return

        async def merge() -> None:
            async with self.db.shop(self.shop_id) as conn:
                await merge_customers(conn, self.shop_id, kept_shopify_id=kept, deleted_shopify_id=deleted)

        before = (self.accounts.get(deleted, Account()).total, self.accounts.get(self.who_is(kept), Account()).total)
        is_possible = -LIMIT <= sum(before) <= LIMIT
        try:
            self.run(merge())
        except BalanceOutOfRange:
            assert not is_possible
            return
        for person in (kept, deleted):
            self.accounts.setdefault(person, Account())
        self.our_ids.update(self.owner.execute(OUR_IDS, (self.shop_id,)).fetchall())
        survivor = self.who_is(kept)
        if deleted in self.into or survivor == deleted:
            return
        assert is_possible
        self.calls += 1
        points = self.accounts[deleted].total
        if points:
            into, origin = f"merge/into/{self.our_ids[survivor]}", f"merge/from/{self.our_ids[deleted]}"
            assert self.book(deleted, -points, "merge", key=into, below=True)[0] == "recorded"
            assert self.book(survivor, points, "merge", key=origin, below=True)[0] == "recorded"
        self.into[deleted] = survivor

    @precondition(lambda self: self.our_ids)
    @rule(data=st.data(), value=AMOUNTS)
    def damage(self, data: st.DataObject, value: int) -> None:
        self.tamper(data.draw(st.sampled_from(sorted(self.our_ids))), value)

    @precondition(lambda self: self.our_ids)
    @rule(data=st.data(), amount=st.integers(1, 9))
    def damage_to_what_the_next_posting_gives(self, data: st.DataObject, amount: int) -> None:
        person = self.who_is(data.draw(st.sampled_from(sorted(self.our_ids))))
        if self.accounts[person].total + amount > LIMIT:
            return
        self.tamper(person, self.accounts[person].total + amount)
        self.calls += 1
        expected = self.book(person, amount, "order", key=None, below=False)
        posting = Posting(shopify_customer_id=person, amount=amount, reason="order")
        self.check(self.run(post(self.db, self.shop_id, "machine", posting)), expected)

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
            (
                *(person, line.number, line.amount, line.after, line.reason, line.key),
                *((line.undoes[1], line.undoes[0]) if line.undoes else (None, None)),
            )
            for person, account in people
            for line in account.lines
        ]
        assert sorted(self.owner.execute(CORRECTIONS, (self.shop_id,)).fetchall()) == sorted(self.corrections)

    @invariant()
    def every_account_adds_up_by_itself(self) -> None:
        assert self.owner.execute(NOT_ADDING_UP, (self.shop_id, self.shop_id)).fetchall() == []
        assert self.owner.execute(UNMIRRORED, (self.shop_id,)).fetchall() == []
        assert self.owner.execute(WRONGLY_MIRRORED, (self.shop_id,)).fetchall() == []
        assert self.owner.execute(MERGED, (self.shop_id,)).fetchall() == [
            (person, self.who_is(person)) for person in sorted(self.into)
        ]


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
