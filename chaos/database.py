"""What the database says, read beside the product by a login that sees everything."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row, dict_row

from chaos.model import LedgerRow

if TYPE_CHECKING:
    from psycopg import AsyncConnection

ACTIVITY_LEFT_OUT = frozenset(
    {"shop_id", "budget_maximum", "budget_available", "budget_restore_rate", "budget_seen_at"}
)


async def _rows(conn: AsyncConnection, statement: Any) -> list[dict[str, Any]]:
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(statement)
        return await cur.fetchall()


async def ledger(conn: AsyncConnection) -> list[LedgerRow]:
    """Every entry."""
    async with conn.cursor(row_factory=class_row(LedgerRow)) as cur:
        await cur.execute(LEDGER)
        return await cur.fetchall()


LEDGER = """
select c.shopify_customer_id as customer, l.sequence, l.amount, l.balance_after, l.external_id
from ledger_entries l
join customers c on c.shop_id = l.shop_id and c.id = l.customer_id
order by c.shopify_customer_id, l.sequence
"""


async def balances(conn: AsyncConnection) -> dict[int, int]:
    """Every stored balance, by Shopify's id."""
    rows = await _rows(conn, "select shopify_customer_id, current_balance from customers")
    return {row["shopify_customer_id"]: row["current_balance"] for row in rows}


async def mirror(conn: AsyncConnection) -> dict[int, dict[str, Any]]:
    """Every customer's mirror row, by Shopify's id."""
    return {row["shopify_customer_id"]: row["mirror"] for row in await _rows(conn, MIRROR)}


# As JSON, because infinite times are none outside PostgreSQL.
MIRROR = """
select c.shopify_customer_id, jsonb_build_object('current_balance', c.current_balance) || to_jsonb(m) as mirror
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
order by c.shopify_customer_id
"""


async def restlessness(conn: AsyncConnection) -> dict[str, int]:
    """What the mirror has still to do, by name; all 0 when it is at rest."""
    return (await _rows(conn, RESTLESSNESS))[0]


RESTLESSNESS = """
select
  count(*) filter (where stale_since is not null and status = 'live') as stale,
  count(*) filter (where in_doubt) as in_doubt,
  count(*) filter (where check_at is not null) as to_be_read_back,
  (select count(*) from push_calls) as calls_under_way,
  (select count(*) from shops where status <> 'active') as shops_paused
from mirror_states
"""


async def lease_holders(conn: AsyncConnection) -> dict[str, int]:
    """The process ids of those who hold a lease now, by the shop's domain."""
    rows = await _rows(conn, LEASE_HOLDERS)
    numbers = {row["domain"]: row["holder"].rpartition(":")[2] for row in rows}
    return {domain: int(number) for domain, number in numbers.items() if number.isdigit()}


LEASE_HOLDERS = """
select s.domain, l.holder
from shop_leases l
join shops s on s.id = l.shop_id
where l.expires_at > clock_timestamp()
"""


async def activity(conn: AsyncConnection) -> dict[str, int]:
    """What mirroring has come to so far in all shops, by name."""
    sums: Counter[str] = Counter()
    for row in await _rows(conn, "select * from shop_activity"):
        sums.update({name: value for name, value in row.items() if name not in ACTIVITY_LEFT_OUT})
    return dict(sums)


async def drifts(conn: AsyncConnection) -> dict[int, tuple[str, str | None]]:
    """What reconciliations have found, by Shopify's id: the kind, and what Shopify showed."""
    rows = await _rows(conn, DRIFTS)
    return {row["shopify_customer_id"]: (row["reason"], row["before"]) for row in rows}


DRIFTS = """
select c.shopify_customer_id, d.reason, d.before
from sync_run_changes d
join customers c on c.shop_id = d.shop_id and c.id = d.customer_id
where d.change = 'drift'
"""


async def age_doubts(conn: AsyncConnection) -> None:
    """As if five minutes had passed since the last doubt, and every back-off: for runs in a hurry only."""
    await conn.execute(AGE_DOUBTS)


AGE_DOUBTS = """
update mirror_states
set
  doubt_since = doubt_since - interval '5 minutes',
  check_at = case when check_at is not null then clock_timestamp() end,
  due_at = least(due_at, clock_timestamp())
where check_at is not null or due_at > clock_timestamp()
"""
