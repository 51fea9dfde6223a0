"""The rows of orders: taken and locked, and written back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from metafield_sync.rewards.order import RefundFacts
from metafield_sync.sync.orders.reading import digest, facts_from_json, facts_to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId
    from metafield_sync.rewards.order import OrderFacts
    from metafield_sync.sync.orders.reading import Snapshot


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """An order's row, locked. Of one that is only known by a refund, `facts` and `updated_at` are None."""

    order_id: int
    shopify_customer_id: int | None
    updated_at: datetime | None
    stored_facts: dict[str, Any] | None
    facts_digest: bytes | None
    known_since: datetime | None
    rule_version: int | None
    is_left_out: bool | None
    is_forgotten: bool
    postings: int

    @property
    def facts(self) -> OrderFacts | None:
        """What decides about its points."""
        return None if self.stored_facts is None else facts_from_json(self.stored_facts)


async def lock_order(conn: AsyncConnection, shop_id: ShopId, order_id: int) -> KnownOrder:
    """The order's row, made if it is new, and locked until the transaction ends.

    It is the first lock of whoever works out an order's points; customers and their mirrors come after it.
    """
    parameters = {"shop": shop_id, "order": order_id}
    await conn.execute(MAKE_ORDER, parameters)
    return await _known(conn, LOCK_ORDER, parameters)


async def _known(conn: AsyncConnection, statement: LiteralString, parameters: Mapping[str, Any]) -> KnownOrder:
    async with conn.cursor(row_factory=class_row(KnownOrder)) as cur:
        await cur.execute(statement, parameters)
        known = await cur.fetchone()
    assert known is not None, "it is locked or was just made, and orders are never deleted"  # noqa: S101
    return known


MAKE_ORDER = """
insert into orders (shop_id, order_id)
values (%(shop)s, %(order)s)
on conflict (shop_id, order_id) do nothing
"""

LOCK_ORDER = """
select
  order_id, shopify_customer_id, updated_at, facts as stored_facts, facts_digest, known_since, rule_version,
  is_left_out, is_forgotten, postings
from orders
where shop_id = %(shop)s and order_id = %(order)s
for no key update
"""


async def take_state(
    conn: AsyncConnection, shop_id: ShopId, snapshot: Snapshot, read_at: datetime | None
) -> KnownOrder:
    """Let a snapshot be what is known of its order, which is locked, and return the order as it is then.

    Refunds that the snapshot contains need not be remembered by themselves any more.

    Args:
        conn: in a transaction of the shop.
        shop_id: whose.
        snapshot: the state.
        read_at: when Shopify was asked for it; None: it was delivered.
    """
    contained = [refund.refund_id for refund in snapshot.facts.refunds]
    if contained:
        await conn.execute(DROP_CONTAINED, {"shop": shop_id, "order": snapshot.order_id, "contained": contained})
    parameters = {
        "shop": shop_id,
        "order": snapshot.order_id,
        "customer": snapshot.customer_id,
        "updated_at": snapshot.updated_at,
        "facts": Jsonb(facts_to_json(snapshot.facts)),
        "digest": digest(snapshot),
        "currency": snapshot.currency,
        "read_at": read_at,
    }
    return await _known(conn, TAKE_STATE, parameters)


TAKE_STATE = """
update orders
set
  is_left_out = case when shopify_customer_id is not distinct from %(customer)s::bigint then is_left_out end,
  shopify_customer_id = %(customer)s,
  updated_at = %(updated_at)s,
  facts = %(facts)s,
  facts_digest = %(digest)s,
  currency = coalesce(%(currency)s, currency),
  known_since = clock_timestamp(),
  -- A later second settles whatever was open about an earlier one.
  read_wanted_at = case
    when
      updated_at = %(updated_at)s
      and (%(read_at)s::timestamptz is null or read_wanted_at > %(read_at)s::timestamptz)
      then read_wanted_at
  end
where shop_id = %(shop)s and order_id = %(order)s
returning
  order_id, shopify_customer_id, updated_at, facts as stored_facts, facts_digest, known_since, rule_version,
  is_left_out, is_forgotten, postings
"""

DROP_CONTAINED = """
delete from order_refunds
where shop_id = %(shop)s and order_id = %(order)s and refund_id = any (%(contained)s)
"""


async def want_reading(conn: AsyncConnection, shop_id: ShopId, order_id: int) -> None:
    """Note on the order that Shopify has to be asked for it."""
    await conn.execute(WANT_READING, {"shop": shop_id, "order": order_id})


WANT_READING = """
update orders
set read_wanted_at = clock_timestamp()
where shop_id = %(shop)s and order_id = %(order)s
"""


async def note_read(conn: AsyncConnection, shop_id: ShopId, order_id: int, read_at: datetime) -> None:
    """Note that Shopify was asked for the order at `read_at`: what was wanted later stays wanted."""
    await conn.execute(NOTE_READ, {"shop": shop_id, "order": order_id, "read_at": read_at})


NOTE_READ = """
update orders
set read_wanted_at = null
where shop_id = %(shop)s and order_id = %(order)s and read_wanted_at <= %(read_at)s
"""


async def add_refund(conn: AsyncConnection, shop_id: ShopId, order_id: int, refund: RefundFacts) -> bool:
    """Remember a refund that came by itself; False: it was remembered before."""
    parameters = {
        "shop": shop_id,
        "order": order_id,
        "refund": refund.refund_id,
        "created_at": refund.created_at,
        "goods": refund.goods,
        "goods_tax": refund.goods_tax,
        "adjustment": refund.adjustment,
    }
    async with conn.cursor() as cur:
        await cur.execute(ADD_REFUND, parameters)
        return await cur.fetchone() is not None


ADD_REFUND = """
insert into order_refunds (shop_id, order_id, refund_id, created_at, goods, goods_tax, adjustment)
values (%(shop)s, %(order)s, %(refund)s, %(created_at)s, %(goods)s, %(goods_tax)s, %(adjustment)s)
on conflict (shop_id, order_id, refund_id) do nothing
returning 1
"""


async def lone_refunds(conn: AsyncConnection, shop_id: ShopId, order_id: int) -> list[RefundFacts]:
    """The refunds that came by themselves and that the order's known state does not contain."""
    async with conn.cursor(row_factory=class_row(RefundFacts)) as cur:
        await cur.execute(LONE_REFUNDS, {"shop": shop_id, "order": order_id})
        return await cur.fetchall()


LONE_REFUNDS = """
select refund_id, created_at, goods, goods_tax, adjustment
from order_refunds
where shop_id = %(shop)s and order_id = %(order)s
order by refund_id
"""


@dataclass(frozen=True, slots=True)
class Earned:
    """What an order gave a customer so far."""

    customer_id: UUID
    points: int


async def earned_so_far(conn: AsyncConnection, shop_id: ShopId, order_id: int) -> list[Earned]:
    """Whom the order gave points, and how many are still theirs."""
    async with conn.cursor(row_factory=class_row(Earned)) as cur:
        await cur.execute(EARNED_SO_FAR, {"shop": shop_id, "order": order_id})
        return await cur.fetchall()


EARNED_SO_FAR = """
select customer_id, points
from order_earnings
where shop_id = %(shop)s and order_id = %(order)s
order by customer_id
"""


async def add_earnings(
    conn: AsyncConnection, shop_id: ShopId, order_id: int, posted: Sequence[tuple[UUID, int]]
) -> None:
    """Add to what the order gave, by customer. An addition, so that it stays right when a merge comes in between."""
    async with conn.cursor() as cur:
        for customer_id, points in posted:
            await cur.execute(
                ADD_EARNINGS, {"shop": shop_id, "order": order_id, "customer": customer_id, "points": points}
            )


ADD_EARNINGS = """
insert into order_earnings as e (shop_id, order_id, customer_id, points)
values (%(shop)s, %(order)s, %(customer)s, %(points)s)
on conflict (shop_id, order_id, customer_id) do update
set points = e.points + excluded.points
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What working out an order came to, to be kept on its row."""

    rule_version: int
    is_left_out: bool | None
    money: Decimal
    target: int
    waits_for: str | None
    postings: int
    refusal: str | None


async def note_settled(conn: AsyncConnection, shop_id: ShopId, order_id: int, settled: Settled) -> None:
    """Keep it, for staff and for the next time."""
    await conn.execute(
        NOTE_SETTLED,
        {
            "shop": shop_id,
            "order": order_id,
            "rule": settled.rule_version,
            "left_out": settled.is_left_out,
            "money": settled.money,
            "target": settled.target,
            "waits_for": settled.waits_for,
            "postings": settled.postings,
            "refusal": settled.refusal,
        },
    )


NOTE_SETTLED = """
update orders
set
  rule_version = %(rule)s,
  is_left_out = %(left_out)s,
  money = %(money)s,
  target = %(target)s,
  waits_for = %(waits_for)s,
  postings = %(postings)s,
  refusal = %(refusal)s
where shop_id = %(shop)s and order_id = %(order)s
"""
