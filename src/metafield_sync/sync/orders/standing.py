"""Why has this order these points? What is known of it, what it is worth, and what was posted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from psycopg.rows import class_row, dict_row

from metafield_sync.errors import AppError
from metafield_sync.ledger.posting import Entry
from metafield_sync.sync.orders.reading import facts_from_json
from metafield_sync.sync.orders.rules import list_rules
from metafield_sync.sync.orders.settling import external_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId
    from metafield_sync.rewards.order import OrderFacts
    from metafield_sync.sync.orders.rules import SavedRule

OrderState = Literal[
    "settled", "awaited", "without_customer", "customer_tags_unknown", "left_out", "refused", "redacted"
]

ENTRIES_SHOWN_MAX = 200
"""An order with more postings than that shows its latest."""


class OrderUnknown(AppError):
    """Nothing is known of such an order in this shop."""

    code = "order_not_found"
    status = 404


@dataclass(frozen=True, slots=True)
class OrderStanding:
    """How an order stands.

    `points` is what it is worth as it is, `posted` what it gave, over all customers it ever gave to; they differ while
    the order waits for something, and `explanation` says for what. `money` is what of its price earns, in `currency`.
    """

    order_id: int
    state: OrderState
    explanation: str
    shopify_customer_id: int | None
    financial_status: str | None
    updated_at: datetime | None
    money: Decimal | None
    currency: str | None
    rule_version: int | None
    points: int | None
    posted: int
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class _Row:
    shopify_customer_id: int | None
    updated_at: datetime | None
    stored_facts: dict[str, Any] | None
    rule_version: int | None
    is_left_out: bool | None
    is_forgotten: bool
    money: Decimal | None
    currency: str | None
    target: int | None
    waits_for: str | None
    postings: int
    refusal: str | None
    posted: int

    @property
    def facts(self) -> OrderFacts | None:
        return None if self.stored_facts is None else facts_from_json(self.stored_facts)


async def order_standing(conn: AsyncConnection, shop_id: ShopId, order_id: int) -> OrderStanding:
    """How an order stands, and which entries it made.

    Raises:
        OrderUnknown: nothing is known of it.
    """
    async with conn.cursor(row_factory=class_row(_Row)) as cur:
        await cur.execute(ORDER_STANDING, {"shop": shop_id, "order": order_id})
        row = await cur.fetchone()
    if row is None:
        raise OrderUnknown(
            f"Nothing is known of order {order_id}. Orders come by webhook, and every ten minutes those that changed "
            "are read; GET /api/earning-rule says whether that works."
        )
    numbers = range(max(1, row.postings - ENTRIES_SHOWN_MAX + 1), row.postings + 1)
    keys = [external_id(order_id, number) for number in numbers]
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(ENTRIES_OF_ORDER, {"shop": shop_id, "keys": keys})
        entries = [Entry(**entry) for entry in await cur.fetchall()]
    state, explanation = _explained(row, await list_rules(conn, shop_id))
    facts = row.facts
    return OrderStanding(
        order_id=order_id,
        state=state,
        explanation=explanation,
        shopify_customer_id=row.shopify_customer_id,
        financial_status=None if facts is None else facts.status,
        updated_at=row.updated_at,
        money=row.money,
        currency=row.currency,
        rule_version=row.rule_version,
        points=row.target,
        posted=row.posted,
        entries=entries,
    )


ORDER_STANDING = """
select
  o.shopify_customer_id, o.updated_at, o.facts as stored_facts, o.rule_version, o.is_left_out, o.is_forgotten, o.money,
  o.currency, o.target, o.waits_for, o.postings, o.refusal,
  (
    select coalesce(sum(e.points), 0)::bigint
    from order_earnings e
    where e.shop_id = o.shop_id and e.order_id = o.order_id
  ) as posted
from orders o
where o.shop_id = %(shop)s and o.order_id = %(order)s
"""

# By key, because who the customer was may have changed; the index on keys finds them without.
ENTRIES_OF_ORDER = """
select
  l.customer_id, l.sequence, l.amount, l.balance_after, l.reason, l.external_id, m.metadata, l.actor,
  l.reverses_customer_id, l.reverses, l.occurred_at, l.created_at
from ledger_entries l
left join ledger_metadata m
  on m.shop_id = l.shop_id and m.customer_id = l.customer_id and m.sequence = l.sequence
where l.shop_id = %(shop)s and l.external_id = any (%(keys)s)
order by l.created_at desc, l.customer_id, l.sequence desc
"""


def _explained(row: _Row, rules: Sequence[SavedRule]) -> tuple[OrderState, str]:
    facts = row.facts
    state: OrderState = "settled"
    if row.is_forgotten:
        state, why = "redacted", "Its customer was redacted: whatever comes of it changes no points any more."
    elif facts is None:
        state, why = "awaited", "Only a refund of it has come. If it does not come within ten minutes, it is fetched."
    elif row.refusal is not None:
        state, why = "refused", f"The ledger refused a posting: {row.refusal} It is tried again when the order changes."
    elif row.waits_for == "customer":
        state, why = "without_customer", f"Worth {_points(row)}, and earned as soon as the order has a customer."
    elif row.waits_for == "customer_tags":
        state, why = (
            "customer_tags_unknown",
            f"Worth {_points(row)}, once Shopify has said which tags the customer has.",
        )
    elif row.is_left_out:
        state, why = "left_out", "Its customer has a tag that the rule leaves out."
    else:
        why = _why(row, facts, next(saved for saved in rules if saved.version == row.rule_version))
    return state, why


def _why(row: _Row, facts: OrderFacts, rule: SavedRule) -> str:
    if facts.created_at is not None and facts.created_at < rule.starts_at:
        return f"It was placed before earning began, on {rule.starts_at:%Y-%m-%d at %H:%M} UTC."
    if not rule.is_enabled:
        return f"When it was placed, earning was switched off (rule {rule.version})."
    if facts.is_test:
        return "A test order earns nothing."
    if facts.is_cancelled:
        return "It is cancelled, so it earns nothing."
    if not row.money:
        status = facts.status.replace("_", " ")
        return f"Nothing of it earns: it is {status}, or all of it was given back, or it is gift cards."
    money = f"{money_text(row.money)} {row.currency or ''}".strip()
    return f"{money} of its price earns, by rule {rule.version}: {_points(row)}."


def money_text(money: Decimal) -> str:
    """An amount with two decimals, or with as many as it takes."""
    return f"{money:.2f}" if money == round(money, 2) else f"{money.normalize():f}"


def _points(row: _Row) -> str:
    return "1 point" if row.target == 1 else f"{row.target or 0:,} points"
