"""Telling Shopify Flow of changed balances: where a workflow listens, after the push, a burst of changes as one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from psycopg.rows import class_row

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.shopify.flow import CHANGE_COST, CHANGES_A_CALL_MAX, BalanceChange, tell_flow
from metafield_sync.sync.errands import ErrandKind, note_errand
from metafield_sync.sync.turn import paid_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.turn import Turn

FLOW_POLL_S = 2.0
"""How often a shop with a workflow is looked at: one indexed question to the database."""
CALLS_A_TURN_MAX = 3
"""Then the lease is given back: balances go first."""
BUDGET_SHARE_MIN = 0.5
"""Flow is told only while so much of the shop's bucket is full. The rest is for balances."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FlowWord:
    """What Shopify Flow says of a shop: whether an enabled workflow uses the trigger, and of when that is."""

    has_enabled_flow: bool
    as_of: datetime


async def hear_flow(conn: AsyncConnection, shop_id: ShopId, word: FlowWord) -> bool:
    """Note whether a workflow listens. False, and nothing changes, if something newer was heard before."""
    async with conn.cursor() as cur:
        await cur.execute(HEAR_FLOW, {"shop": shop_id, "enabled": word.has_enabled_flow, "as_of": word.as_of})
        if await cur.fetchone() is None:
            return False
    if word.has_enabled_flow:
        await note_errand(conn, shop_id, FLOW_ERRAND.name)
    else:
        await conn.execute(FORGET_CHANGES, {"shop": shop_id})
    return True


HEAR_FLOW = """
insert into flow_triggers as t (shop_id, has_enabled_flow, as_of)
values (%(shop)s, %(enabled)s, %(as_of)s)
on conflict (shop_id) do update
set has_enabled_flow = excluded.has_enabled_flow, as_of = excluded.as_of, error = null
where t.as_of <= excluded.as_of
returning shop_id
"""

FORGET_CHANGES = "delete from flow_changes where shop_id = %(shop)s"


@dataclass(frozen=True, slots=True)
class _Change:
    customer_id: UUID
    shopify_customer_id: int
    balance_before: int
    balance: int

    def told(self) -> BalanceChange:
        return BalanceChange(self.shopify_customer_id, self.balance, self.balance - self.balance_before)


async def tell_changes(mirror: Mirror, shop_id: ShopId, subjects: Sequence[str]) -> Mapping[str, float]:
    """Tell Flow what is due, if a workflow listens, and say when to look again. The errand `flow`.

    A request without an answer is sent again: a workflow may then run twice for one change, but none is lost.
    """
    listens, waiting = await _look(mirror.db, shop_id)
    if not listens:
        return {}
    if waiting:
        async with mirror.short_turn(shop_id) as turn:
            for _ in range(CALLS_A_TURN_MAX):
                if not _has_budget(turn) or not await _tell_some(turn):
                    break
    return dict.fromkeys(subjects, FLOW_POLL_S)


FLOW_ERRAND = ErrandKind("flow", batch_max=1, run_without_turn=tell_changes)


async def _look(db: Database, shop_id: ShopId) -> tuple[bool, bool]:
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(LOOK, {"shop": shop_id})
        row = await cur.fetchone()
    return (False, False) if row is None else (row[0], row[1])


LOOK = """
select
  t.has_enabled_flow,
  exists (
    select
    from flow_changes f
    join customers c on c.shop_id = f.shop_id and c.id = f.customer_id and c.shopify_customer_id is not null
    where f.shop_id = t.shop_id and f.due_at <= clock_timestamp()
  )
from flow_triggers t
where t.shop_id = %(shop)s
"""


def _has_budget(turn: Turn) -> bool:
    budget = turn.budget.snapshot()
    return budget.available >= BUDGET_SHARE_MIN * budget.maximum


async def _tell_some(turn: Turn) -> bool:
    """Tell of the oldest changes; False if there are none."""
    changes = await _due_changes(turn)
    if not changes:
        return False
    # Up and down again within the pause: nothing has changed as far as a workflow can tell.
    real = [change for change in changes if change.balance != change.balance_before]
    errors: tuple[str, ...] = ()
    if real:
        async with paid_call(turn, CHANGE_COST * len(real)) as call:
            errors, call.cost = await tell_flow(turn.client, turn.access, [change.told() for change in real])
    await _record_told(turn, changes, errors[0] if errors else None)
    if errors:
        log.warning("Flow refused to be told", shop=turn.shop.domain, detail=errors[0], changes=len(real))
    return True


async def _due_changes(turn: Turn) -> list[_Change]:
    async with turn.db.shop(turn.shop.id) as conn, conn.cursor(row_factory=class_row(_Change)) as cur:
        await cur.execute(DUE_CHANGES, {"shop": turn.shop.id, "limit": CHANGES_A_CALL_MAX})
        return await cur.fetchall()


DUE_CHANGES = """
select f.customer_id, c.shopify_customer_id, f.balance_before, m.pushed_balance as balance
from flow_changes f
join mirror_states m on m.shop_id = f.shop_id and m.customer_id = f.customer_id
join customers c on c.shop_id = f.shop_id and c.id = f.customer_id
where
  f.shop_id = %(shop)s
  and f.due_at <= clock_timestamp()
  and m.pushed_balance is not null
  and c.shopify_customer_id is not null
order by f.due_at
limit %(limit)s
"""


async def _record_told(turn: Turn, changes: Sequence[_Change], error: str | None) -> None:
    parameters = {
        "shop": turn.shop.id,
        "customers": [change.customer_id for change in changes],
        "balances": [change.balance for change in changes],
        "error": error,
    }

    async def record() -> None:
        async with turn.db.shop(turn.shop.id) as conn:
            # A push that comes between would find its customer still noted, and note nothing.
            await conn.execute(LOCK_PUSHES, parameters)
            await conn.execute(RECORD_TOLD, parameters)
            await conn.execute(NOTHING_MORE_TO_TELL, parameters)
            await conn.execute(RECORD_ERROR, parameters)

    await again_after_deadlock(record)


LOCK_PUSHES = """
select
from mirror_states m
where m.shop_id = %(shop)s and m.customer_id = any (%(customers)s)
order by m.customer_id
for no key update
"""

RECORD_TOLD = """
update flow_changes f
set balance_before = t.balance, due_at = clock_timestamp()
from unnest(%(customers)s::uuid[], %(balances)s::bigint[]) as t (customer_id, balance)
where f.shop_id = %(shop)s and f.customer_id = t.customer_id
"""

NOTHING_MORE_TO_TELL = """
delete from flow_changes f
using mirror_states m
where
  f.shop_id = %(shop)s
  and f.customer_id = any (%(customers)s)
  and m.shop_id = f.shop_id
  and m.customer_id = f.customer_id
  and m.pushed_balance = f.balance_before
"""

RECORD_ERROR = """
update flow_triggers
set error = %(error)s
where shop_id = %(shop)s and error is distinct from %(error)s
"""
