"""Errands: asked of Shopify once however often wished for, by one worker at a time, until they are done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from psycopg import sql
from structlog.testing import capture_logs
from sync_support import DOMAIN, Stage, end_lease, eventually, open_mirror

from devstore import Fault, ShopState
from metafield_sync.db.database import Database
from metafield_sync.shopify import read_metafields, read_metafields_cost
from metafield_sync.shops.registry import PAUSED_BY_STAFF, add_shop, pause_shop, remove_shop
from metafield_sync.sync import errand_rounds
from metafield_sync.sync.errand_rounds import RETRY_FIRST_S, RETRY_LAST_S, TOGETHER_FAILURES_MAX, go_on_errands
from metafield_sync.sync.errands import ErrandKind, hasten_errands, note_errand
from metafield_sync.sync.incoming import errand_standings
from metafield_sync.sync.lease import shop_lease
from metafield_sync.sync.turn import paid_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from metafield_sync.db.database import ShopId
    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.errand_rounds import ErrandReport
    from metafield_sync.sync.turn import Turn

ASK = "ask"
FETCH = "fetch"
"""The two kinds: `ask` in the shop's turn, `fetch` without."""


@dataclass
class Errands:
    """A shop's errands, and what was done about them."""

    stage: Stage
    batches: list[list[str]] = field(default_factory=list[list[str]])
    again: dict[str, float] = field(default_factory=dict[str, float])
    poison: set[str] = field(default_factory=set[str])
    meanwhile: Callable[[], Awaitable[None]] | None = None
    at_work: int = 0
    at_work_most: int = 0
    kinds: dict[str, ErrandKind] = field(init=False)

    def __post_init__(self) -> None:
        self.kinds = {
            ASK: ErrandKind(ASK, 3, self._in_turn),
            FETCH: ErrandKind(FETCH, 3, run_without_turn=self._without_turn),
        }

    async def _in_turn(self, turn: Turn, subjects: Sequence[str]) -> Mapping[str, float]:
        async with paid_call(turn, read_metafields_cost(1)) as call:
            _, call.cost = await read_metafields(turn.client, turn.access, turn.metafield, [1])
        return await self._do(subjects)

    async def _without_turn(self, mirror: Mirror, shop_id: ShopId, subjects: Sequence[str]) -> Mapping[str, float]:
        del mirror, shop_id
        return await self._do(subjects)

    async def _do(self, subjects: Sequence[str]) -> Mapping[str, float]:
        self.batches.append(list(subjects))
        self.at_work += 1
        self.at_work_most = max(self.at_work, self.at_work_most)
        try:
            if self.meanwhile is not None:
                await self.meanwhile()
            if self.poison.intersection(subjects):
                raise KeyError("jane@example.com")
        finally:
            self.at_work -= 1
        return {subject: self.again[subject] for subject in subjects if subject in self.again}

    async def note(self, kind: str, *subjects: str, after_s: float = 0) -> None:
        async with self.stage.db.shop(self.stage.shop_id) as conn:
            for subject in subjects:
                await note_errand(conn, self.stage.shop_id, kind, subject, after_s=after_s)

    async def go(self, mirror: Mirror | None = None) -> ErrandReport:
        return await go_on_errands(mirror or self.stage.mirror, self.stage.shop_id, self.kinds)

    def left(self) -> list[tuple[str, str]]:
        """Kind and subject of every errand there is."""
        return self.stage.owner.execute("select kind, subject from errands order by kind, subject").fetchall()

    def ask(self, expression: LiteralString, subject: str) -> Any:
        """What an errand has in a column, or in an expression."""
        query = sql.SQL("select {} from errands where subject = %s").format(sql.SQL(expression))
        found = self.stage.owner.execute(query, (subject,)).fetchone()
        return None if found is None else found[0]

    def due_in_s(self, subject: str) -> float:
        return self.ask("extract(epoch from due_at - clock_timestamp())::double precision", subject)

    def let_waiting_pass(self) -> None:
        """As if so much time had gone by that everything is due, and every claim over."""
        self.stage.owner.execute("update errands set due_at = least(due_at, clock_timestamp()), claimed_until = null")

    async def shops(self) -> list[int]:
        """The shops that a worker would go on errands for."""
        names = (list(self.kinds), [kind.name for kind in self.kinds.values() if kind.even_if_held])
        async with self.stage.db.unscoped() as conn:
            found = await conn.execute("select shops_with_errands(%s, %s)", names)
            return [row[0] for row in await found.fetchall()]


@pytest.fixture
def errands(stage: Stage) -> Errands:
    return Errands(stage)


@pytest.fixture
async def other_mirror(stage: Stage, database_url: str) -> AsyncIterator[Mirror]:
    """The mirror of another process."""
    async with Database(database_url) as db, open_mirror(db, stage.store) as mirror:
        yield mirror


@pytest.mark.parametrize("kind", [ASK, FETCH])
async def test_what_is_wished_for_often_is_asked_once(errands: Errands, kind: str) -> None:
    for _ in range(3):
        await errands.note(kind, "1001")
    assert await errands.shops() == [errands.stage.shop_id]
    report = await errands.go()
    assert (report.end, report.done, report.again, report.failed) == ("idle", 1, 0, 0)
    assert errands.batches == [["1001"]]
    assert errands.left() == []
    assert await errands.shops() == []


@pytest.mark.parametrize("kind", [ASK, FETCH])
async def test_a_wish_made_while_somebody_is_on_it_is_not_lost(errands: Errands, kind: str) -> None:
    await errands.note(kind, "1001", "1002")

    async def wish_again() -> None:
        await errands.note(kind, "1001")

    errands.meanwhile = wish_again
    errands.again = {"1002": 60}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(errand_rounds, "ERRANDS_TURN_S", 0)
        await errands.go()
        assert errands.left() == [(kind, "1001"), (kind, "1002")]
        errands.meanwhile = None
        await errands.go()
    assert errands.batches == [["1001", "1002"], ["1001"]]
    assert errands.left() == [(kind, "1002")]


async def test_a_wish_that_is_not_committed_yet_when_the_errand_is_done_is_not_lost(errands: Errands) -> None:
    await errands.note(FETCH, "1001")
    wished, done = asyncio.Event(), asyncio.Event()

    async def wish_slowly() -> None:
        async with errands.stage.db.shop(errands.stage.shop_id) as conn:
            await note_errand(conn, errands.stage.shop_id, FETCH, "1001")
            await (await conn.execute("select 1")).fetchone()
            wished.set()
            await done.wait()

    wishing: list[asyncio.Task[None]] = []

    async def begin_wish() -> None:
        wishing.append(asyncio.create_task(wish_slowly()))
        await wished.wait()

    errands.meanwhile = begin_wish
    going = asyncio.create_task(errands.go())
    waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    await eventually(lambda: errands.stage.owner.execute(waits).fetchone() == (1,))
    done.set()
    await asyncio.gather(going, *wishing)
    assert errands.left() == [(FETCH, "1001")]
    assert errands.ask("due_at <= clock_timestamp() and claimed_until is null", "1001")


async def test_one_that_goes_on_is_due_again_when_it_says(errands: Errands) -> None:
    errands.again = {"": 30}
    await errands.note(ASK, "")
    report = await errands.go()
    assert (report.done, report.again) == (0, 1)
    assert 29 < errands.due_in_s("") <= 30
    assert await errands.shops() == []
    await errands.go()
    assert len(errands.batches) == 1, "not before its time"


async def test_the_earlier_time_wins(errands: Errands) -> None:
    await errands.note(ASK, "1001", after_s=600)
    await errands.note(ASK, "1001", after_s=60)
    await errands.note(ASK, "1001", after_s=3_600)
    assert 59 < errands.due_in_s("1001") <= 60
    async with errands.stage.db.shop(errands.stage.shop_id) as conn:
        assert await hasten_errands(conn, errands.stage.shop_id, ASK)
        assert not await hasten_errands(conn, errands.stage.shop_id, FETCH)
    assert errands.due_in_s("1001") <= 0
    assert await errands.shops() == [errands.stage.shop_id]


async def test_a_wish_whose_transaction_is_rolled_back_was_never_made(errands: Errands) -> None:
    async def wish_and_fail() -> None:
        async with errands.stage.db.shop(errands.stage.shop_id) as conn:
            await note_errand(conn, errands.stage.shop_id, ASK, "1001")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await wish_and_fail()
    assert errands.left() == []


@pytest.mark.parametrize("kind", [ASK, FETCH])
async def test_what_fails_is_tried_again_ever_later_and_never_lost(errands: Errands, kind: str) -> None:
    errands.poison = {"1001"}
    await errands.note(kind, "1001")
    for attempt in range(14):
        with capture_logs() as logs:
            assert (await errands.go()).failed == 1
        shortest = min(RETRY_FIRST_S * 2**attempt, RETRY_LAST_S)
        assert shortest - 5 < errands.due_in_s("1001") <= shortest * 1.25
        assert errands.ask("attempts", "1001") == attempt + 1
        assert "jane" not in str(logs)
        errands.let_waiting_pass()
    assert "jane" not in errands.ask("error", "1001")
    assert errands.ask("error", "1001").startswith("KeyError")
    async with errands.stage.db.shop(errands.stage.shop_id) as conn:
        (standing,) = await errand_standings(conn, errands.stage.shop_id)
    assert (standing.kind, standing.waiting, standing.failing) == (kind, 1, 1)
    assert standing.error == errands.ask("error", "1001")
    errands.poison.clear()
    assert (await errands.go()).done == 1
    assert errands.left() == []


async def test_success_forgets_the_failures_of_what_goes_on(errands: Errands) -> None:
    errands.poison, errands.again = {""}, {"": 30}
    await errands.note(ASK, "")
    await errands.go()
    errands.let_waiting_pass()
    errands.poison.clear()
    await errands.go()
    assert errands.ask("attempts = 0 and error is null and failing_since is null", "")


async def test_many_go_together_and_one_that_always_fails_by_itself(errands: Errands) -> None:
    subjects = [str(number) for number in range(1, 8)]
    errands.poison = {"4"}
    await errands.note(ASK, *subjects)
    with capture_logs():
        for _ in range(TOGETHER_FAILURES_MAX):
            await errands.go()
            errands.let_waiting_pass()
        assert max(len(batch) for batch in errands.batches) == 3
        errands.batches.clear()
        await errands.go()
    assert errands.left() == [(ASK, "4")]
    assert all(len(batch) == 1 for batch in errands.batches)


async def test_one_worker_at_a_time_is_on_a_shops_errands(errands: Errands, other_mirror: Mirror) -> None:
    async def take_a_while() -> None:
        await asyncio.sleep(0.01)

    errands.meanwhile = take_a_while
    subjects = [str(number) for number in range(20)]
    await errands.note(ASK, *subjects)
    mirrors = [errands.stage.mirror, other_mirror]
    while errands.left():
        await asyncio.gather(*(errands.go(mirror) for mirror in mirrors))
    assert errands.at_work_most == 1
    assert sorted(subject for batch in errands.batches for subject in batch) == sorted(subjects)


async def test_without_a_turn_too_nobody_is_on_what_somebody_is_on(errands: Errands, other_mirror: Mirror) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await end.wait()

    errands.meanwhile = wait
    await errands.note(FETCH, "1001")
    going = asyncio.create_task(errands.go())
    await begun.wait()
    await errands.note(FETCH, "1001")
    assert await errands.shops() == [], "it is in hand, wished for again or not"
    assert (await errands.go(other_mirror)).done == 0
    end.set()
    await going
    assert len(errands.batches) == 1


async def test_a_claim_ends_by_itself_and_whoever_overslept_it_ends_nothing(
    errands: Errands, other_mirror: Mirror
) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def sleep() -> None:
        begun.set()
        await end.wait()

    errands.meanwhile = sleep
    await errands.note(FETCH, "1001")
    asleep = asyncio.create_task(errands.go())
    await begun.wait()
    errands.stage.owner.execute("update errands set claimed_until = clock_timestamp()")
    errands.meanwhile, errands.again = None, {"1001": 60}
    assert (await errands.go(other_mirror)).again == 1
    errands.again = {}
    end.set()
    await asleep
    assert errands.left() == [(FETCH, "1001")], "the one that counts says that it goes on"


@pytest.mark.parametrize("kind", [ASK, FETCH])
async def test_a_worker_that_stops_gives_back_what_it_is_on(errands: Errands, kind: str) -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    errands.meanwhile = wait
    await errands.note(kind, "1001")
    going = asyncio.create_task(errands.go())
    await begun.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert await errands.shops() == [errands.stage.shop_id]
    assert errands.ask("attempts", "1001") == 0


async def test_a_worker_that_lost_the_lease_ends_nothing_it_is_on(errands: Errands) -> None:
    async def oversleep() -> None:
        await end_lease(errands.stage)
        async with shop_lease(errands.stage.db, errands.stage.shop_id, "other") as other:
            assert other is not None
        raise errand_rounds.LeaseLost("as who records under a lease is told")

    errands.meanwhile = oversleep
    await errands.note(ASK, "1001")
    assert (await errands.go()).end == "busy"
    assert errands.ask("attempts = 0 and claimed_until is null", "1001")


async def test_a_shop_that_others_hold_is_left_for_later(errands: Errands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand_rounds, "LEASE_WAIT_S", 0.15)
    await errands.note(ASK, "1001")
    async with shop_lease(errands.stage.db, errands.stage.shop_id, "other") as other:
        assert other is not None
        assert (await errands.go()).end == "busy"
    assert errands.batches == []
    assert (await errands.go()).done == 1


async def test_a_turn_is_short_whatever_there_is_to_do(errands: Errands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand_rounds, "ERRANDS_TURN_S", 0)
    await errands.note(ASK, *(str(number) for number in range(9)))
    report = await errands.go()
    assert (report.end, report.done) == ("turn_over", 3)


async def hold(stage: Stage, how: str) -> None:
    if how == "paused":
        async with stage.db.unscoped() as conn:
            await pause_shop(
                conn, stage.shop_id, code=PAUSED_BY_STAFF, detail="Paused by staff.", resumes_by_itself=False
            )
    else:
        stage.owner.execute("update shops set hold = 'installing'")


@pytest.mark.parametrize("how", ["paused", "installing"])
async def test_a_held_shop_is_left_alone_but_for_the_kinds_that_are_done_even_then(errands: Errands, how: str) -> None:
    errands.kinds["install"] = ErrandKind("install", 1, errands.kinds[ASK].run, even_if_held=True)
    await hold(errands.stage, how)
    await errands.note(ASK, "1001")
    await errands.note(FETCH, "1001")
    assert await errands.shops() == []
    await errands.note("install", "")
    assert await errands.shops() == [errands.stage.shop_id]
    report = await errands.go()
    assert (report.end, report.done) == ("idle", 1)
    assert errands.left() == [(ASK, "1001"), (FETCH, "1001")]


async def test_nothing_is_asked_for_a_removed_shop(errands: Errands) -> None:
    errands.kinds["install"] = ErrandKind("install", 1, errands.kinds[ASK].run, even_if_held=True)
    for kind in errands.kinds:
        await errands.note(kind, "1001")
    async with errands.stage.db.shop(errands.stage.shop_id) as conn:
        await remove_shop(conn, errands.stage.shop_id)
    assert await errands.shops() == []
    await errands.go()
    assert errands.batches == []


async def test_a_kind_that_is_not_known_here_waits_for_who_knows_it(errands: Errands) -> None:
    await errands.note("of_a_later_version", "1001")
    await errands.note(ASK, "1001")
    assert (await errands.go()).done == 1
    assert errands.left() == [("of_a_later_version", "1001")]
    assert await errands.shops() == []


async def test_a_shop_that_shopify_refuses_is_paused_and_the_errand_has_not_failed(errands: Errands) -> None:
    shop = errands.stage.shopify
    shop.change(state=ShopState.FROZEN, token=shop.token, plan=shop.budget.plan)
    await errands.note(ASK, "1001")
    assert (await errands.go()).end == "paused"
    assert (await errands.stage.shop()).paused_code == "shop_frozen"
    assert errands.ask("attempts = 0 and claimed_until is null", "1001")


async def test_a_shopify_that_does_not_answer_is_not_asked_for_the_next_one(errands: Errands) -> None:
    errands.stage.store.world.faults.add(Fault(status=503, times=None, shop=DOMAIN))
    await errands.note(ASK, *(str(number) for number in range(9)))
    with capture_logs():
        report = await errands.go()
    assert (report.end, report.failed) == ("trouble", 3)
    assert errands.stage.owner.execute("select sum(attempts) from errands").fetchone() == (3,)
    errands.stage.store.world.faults.clear()
    errands.let_waiting_pass()
    assert (await errands.go()).done == 9


async def test_errands_of_one_shop_are_no_business_of_another(errands: Errands) -> None:
    async with errands.stage.db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
    async with errands.stage.db.shop(other.id) as conn:
        await note_errand(conn, other.id, ASK, "1001")
    await errands.note(ASK, "1001")
    await errands.go()
    assert errands.batches == [["1001"]]
    assert errands.stage.owner.execute("select shop_id from errands").fetchall() == [(other.id,)]


def test_a_kind_is_done_in_one_way() -> None:
    with pytest.raises(ValueError, match="needs one of"):
        ErrandKind("neither", 1)
