"""One customer, now: pushed whatever is believed, and the outcome told."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metafield_sync.customers.identity import CustomerId, CustomerNotFound, find_survivor

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from metafield_sync.db.database import ShopId
    from metafield_sync.sync.drain import Mirror

WAIT_POLL_S = 0.05
"""How often it is looked whether the drain that holds the lease has come to this customer."""
WAIT_AGAIN_S = 0.25
"""The same while nobody drains: the customer met with trouble and is read back, or written again, in a moment."""

NOT_IN_TIME = "Shopify has not answered in time. The push goes on; ask again in a moment."


@dataclass(frozen=True, slots=True)
class CustomerSync:
    """What came of it. `balance` is the ledger's, in points; `error` says why it is not `synced`."""

    customer_id: UUID
    balance: int
    synced: bool
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Wish:
    """A push asked for: which version fulfils it, and since when (the database's clock)."""

    version: int
    asked_at: datetime


async def sync_customer(mirror: Mirror, shop_id: ShopId, customer_id: UUID, *, wait_s: float) -> CustomerSync:
    """Push one customer to Shopify, in step or not, ahead of all others, and wait for what Shopify says.

    Joins the drain at work if there is one, so many at once share calls. A customer known to be gone is tried again. Of
    a merged one, it is the survivor who is pushed.

    Args:
        mirror: what pushes.
        shop_id: whose customer.
        customer_id: which.
        wait_s: after so many seconds it is not `synced` yet; the push goes on.

    Raises:
        CustomerNotFound: the shop has no such customer.
        CustomerRedacted: they were redacted.
    """
    async with mirror.db.shop(shop_id) as conn:
        customer_id = (await find_survivor(conn, shop_id, CustomerId(customer_id))).id
    wish = await _ask(mirror, shop_id, customer_id)
    deadline = time.monotonic() + wait_s
    while True:
        # In a task of its own: a call that has left is waited for by the drain, not by whoever asked.
        drain = mirror.begin_drain(shop_id, serve=customer_id)
        await asyncio.wait({drain}, timeout=max(0.0, deadline - time.monotonic()))
        if not drain.done():
            return await _outcome(mirror, shop_id, customer_id, wish, NOT_IN_TIME)
        report = drain.result()
        if report.end == "paused":
            return await _outcome(mirror, shop_id, customer_id, wish, report.detail)
        outcome = await _outcome(mirror, shop_id, customer_id, wish, None)
        if outcome.synced or outcome.error is not None:
            return outcome
        if report.end == "trouble":
            return await _outcome(mirror, shop_id, customer_id, wish, report.detail)
        if time.monotonic() >= deadline:
            return await _outcome(mirror, shop_id, customer_id, wish, NOT_IN_TIME)
        await asyncio.sleep(WAIT_POLL_S if report.end == "busy" else WAIT_AGAIN_S)


async def _ask(mirror: Mirror, shop_id: ShopId, customer_id: UUID) -> _Wish:
    async with mirror.db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(ASK_FOR_PUSH, {"shop": shop_id, "customer": customer_id})
        row = await cur.fetchone()
    if row is None:
        raise CustomerNotFound(f"This shop has no customer {customer_id}.")
    return _Wish(row[0], row[1])


# A higher version makes it stale however much in step it is; the due date puts it first in the drains' index.
ASK_FOR_PUSH = """
update mirror_states
set
  wanted_version = wanted_version + 1,
  stale_since = coalesce(stale_since, clock_timestamp()),
  due_at = '-infinity',
  check_at = case when in_doubt then clock_timestamp() else check_at end,
  status = 'live',
  dismissed_at = null
where shop_id = %(shop)s and customer_id = %(customer)s and status in ('live', 'missing')
returning wanted_version, clock_timestamp()
"""


async def _outcome(
    mirror: Mirror, shop_id: ShopId, customer_id: UUID, wish: _Wish, otherwise: str | None
) -> CustomerSync:
    async with mirror.db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(
            PUSH_OUTCOME,
            {"shop": shop_id, "customer": customer_id, "version": wish.version, "asked": wish.asked_at},
        )
        row = await cur.fetchone()
    assert row is not None, "customers are never removed"  # noqa: S101 - the schema's promise, not input
    balance, synced, error = row
    return CustomerSync(customer_id, balance, synced, None if synced else error or otherwise)


PUSH_OUTCOME = """
select
  c.current_balance,
  m.pushed_version >= %(version)s and not m.in_doubt and m.status = 'live',
  case when m.attempted_at >= %(asked)s then m.error end
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where m.shop_id = %(shop)s and m.customer_id = %(customer)s
"""
