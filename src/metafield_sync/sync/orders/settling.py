"""Settling an order: working out what it is worth, and posting the difference to what it gave so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from metafield_sync.ledger.posting import POINTS_MAX, Posted, Posting, post_within
from metafield_sync.rewards.order import PAID_STATUSES, PARTLY_PAID_STATUS, earning_money, target
from metafield_sync.sync.errands import note_errand
from metafield_sync.sync.orders import store
from metafield_sync.sync.orders.rules import list_rules, rule_of_order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId
    from metafield_sync.rewards.order import OrderFacts, RefundFacts
    from metafield_sync.sync.orders.rules import SavedRule
    from metafield_sync.sync.orders.store import KnownOrder

ACTOR = "orders"
"""How the ledger names who posts what orders earn."""
ORDER_ERRAND = "order"
"""The errand's kind: read this order from the Admin API."""

PAID, INCREASED, REDUCED = "order_paid", "order_increased", "order_reduced"
REFUNDED, CANCELLED, UNPAID, REASSIGNED = "order_refunded", "order_cancelled", "order_unpaid", "order_reassigned"
"""The reasons that staff read in a customer's history."""


@dataclass(frozen=True, slots=True)
class _Worth:
    """What a known order is worth, and to whom."""

    order_id: int
    facts: OrderFacts
    refunds: Sequence[RefundFacts]
    rule: SavedRule
    money: Decimal
    target: int
    shopify_customer_id: int | None
    owner: UUID | None
    occurred_at: datetime


async def settle(
    conn: AsyncConnection, shop_id: ShopId, known: KnownOrder, *, tags: Sequence[str] | None = None
) -> str:
    """Post what is missing between what the order is worth and what it gave, and say in words what that was.

    Doing it again posts nothing more: the points of an order are a target, not a sum of events.

    Args:
        conn: in a transaction of the shop that holds the order's lock.
        shop_id: whose.
        known: the order, as `lock_order` gave it after its state was last taken.
        tags: its customer's tags, where Shopify was asked.
    """
    facts = known.facts
    if facts is None or known.updated_at is None:
        return f"order {known.order_id} has not come yet"
    rule = rule_of_order(await list_rules(conn, shop_id), facts.created_at)
    # A state that is later than a refund is what is left after it, whether it lists it or not.
    alone = await store.lone_refunds(conn, shop_id, known.order_id)
    refunds = [one for one in alone if one.created_at is None or one.created_at >= known.updated_at]
    worth = _Worth(
        order_id=known.order_id,
        facts=facts,
        refunds=refunds,
        rule=rule,
        money=earning_money(facts, refunds, takes_tax_off=rule.takes_tax_off),
        target=target(rule.rule, facts, refunds),
        shopify_customer_id=known.shopify_customer_id,
        owner=await _owner(conn, shop_id, known.shopify_customer_id),
        occurred_at=max([known.updated_at, *(one.created_at for one in refunds if one.created_at is not None)]),
    )
    is_left_out = _is_left_out(known, worth, tags)
    waits_for = None
    if worth.target > 0 and worth.shopify_customer_id is None:
        waits_for = "customer"
    elif worth.target > 0 and is_left_out is None:
        waits_for = "customer_tags"
        await store.want_reading(conn, shop_id, known.order_id)
        await note_errand(conn, shop_id, ORDER_ERRAND, str(known.order_id))
    earned = await store.earned_so_far(conn, shop_id, known.order_id)
    changes = _changes(worth, earned, is_left_out=is_left_out)
    postings = [_posting(worth, change, known.postings + number) for number, change in enumerate(changes, start=1)]
    posted, refusal = await _post(conn, shop_id, postings)
    await store.add_earnings(conn, shop_id, known.order_id, posted)
    settled = store.Settled(
        rule_version=rule.version,
        is_left_out=is_left_out,
        money=worth.money,
        target=worth.target,
        waits_for=waits_for,
        # A number is used up even if the posting was refused: whatever holds it up, the next one is another posting.
        postings=known.postings + len(postings),
        refusal=refusal,
    )
    await store.note_settled(conn, shop_id, known.order_id, settled)
    return _in_words(known.order_id, [points for _, points in posted], waits_for, refusal)


@dataclass(frozen=True, slots=True)
class _Change:
    """Points that one customer is to get, or to give back. `customer_id` None: they are new to us."""

    customer_id: UUID | None
    points: int
    had: int
    is_theirs: bool


def _changes(worth: _Worth, earned: Sequence[store.Earned], *, is_left_out: bool | None) -> list[_Change]:
    """What has to be posted. While it is not known whether the customer counts, what they have stays."""
    changes: list[_Change] = []
    has_row = False
    for one in earned:
        is_theirs = worth.owner is not None and one.customer_id == worth.owner
        has_row = has_row or is_theirs
        wanted = _wanted(worth, one.points, is_left_out=is_left_out) if is_theirs else 0
        changes.append(_Change(one.customer_id, wanted - one.points, one.points, is_theirs))
    if not has_row and worth.shopify_customer_id is not None:
        wanted = _wanted(worth, 0, is_left_out=is_left_out)
        changes.append(_Change(worth.owner, wanted, 0, is_theirs=True))
    return [change for change in changes if change.points != 0]


def _wanted(worth: _Worth, had: int, *, is_left_out: bool | None) -> int:
    if is_left_out is None and worth.target > 0:
        return had
    return 0 if is_left_out else worth.target


def _is_left_out(known: KnownOrder, worth: _Worth, tags: Sequence[str] | None) -> bool | None:
    """Whether the customer has a tag that the rule leaves out; None: Shopify has to be asked.

    The answer is kept: tags that change later count for later orders.
    """
    if not worth.rule.excluded_tags:
        return False
    if known.is_left_out is not None and known.rule_version == worth.rule.version:
        return known.is_left_out
    return None if tags is None else worth.rule.rule.leaves_out(tags)


async def _owner(conn: AsyncConnection, shop_id: ShopId, shopify_customer_id: int | None) -> UUID | None:
    """Whose points they are: our id of the customer, or of the survivor of their merge; None: nobody we know yet."""
    if shopify_customer_id is None:
        return None
    async with conn.cursor() as cur:
        await cur.execute(FIND_OWNER, {"shop": shop_id, "shopify": shopify_customer_id})
        row = await cur.fetchone()
    return None if row is None else row[0]


FIND_OWNER = """
select coalesce(merged_into, id)
from customers
where shop_id = %(shop)s and shopify_customer_id = %(shopify)s
"""


def _posting(worth: _Worth, change: _Change, number: int) -> Posting:
    by_id = change.customer_id is not None
    metadata: dict[str, Any] = {
        "orderId": str(worth.order_id),
        "earningMoney": f"{worth.money.normalize() + 0:f}",
        "rule": worth.rule.version,
        "orderPoints": worth.target if change.is_theirs else 0,
        "before": change.had,
    }
    return Posting(
        amount=change.points,
        reason=_reason(worth, change),
        customer_id=change.customer_id,
        shopify_customer_id=None if by_id else worth.shopify_customer_id,
        external_id=external_id(worth.order_id, number),
        metadata=metadata,
        occurred_at=worth.occurred_at,
        allow_negative=True,
    )


def external_id(order_id: int, number: int) -> str:
    """The key of an order's posting number `number`, from 1."""
    return f"order/{order_id}/{number}"


def _reason(worth: _Worth, change: _Change) -> str:
    """Why the points change, as far as the present state tells."""
    facts = worth.facts
    if change.points > 0:
        return PAID if change.had == 0 else INCREASED
    if not change.is_theirs:
        return REASSIGNED
    if facts.is_cancelled:
        return CANCELLED
    if facts.status == "refunded":
        return REFUNDED
    if facts.status not in PAID_STATUSES and facts.status != PARTLY_PAID_STATUS:
        return UNPAID
    return REFUNDED if facts.refunds or worth.refunds else REDUCED


async def _post(
    conn: AsyncConnection, shop_id: ShopId, postings: Sequence[Posting]
) -> tuple[list[tuple[UUID, int]], str | None]:
    """Post, and return who got how many points, and why the ledger would not take the rest.

    A refusal is kept for staff and not retried by itself: the same posting would be refused again. The order's next
    change tries anew.
    """
    sound = [posting for posting in postings if abs(posting.amount) <= POINTS_MAX]
    refusal = "" if len(sound) == len(postings) else f"More than {POINTS_MAX} points at once. "
    posted: list[tuple[UUID, int]] = []
    for outcome in await post_within(conn, shop_id, ACTOR, sound):
        if isinstance(outcome, Posted):
            # Whoever it landed on: a merge may have come between looking the customer up and posting.
            posted.append((outcome.entry.customer_id, outcome.entry.amount))
        else:
            refusal += f"{outcome.detail} "
    return posted, refusal.strip() or None


def _in_words(order_id: int, posted: Sequence[int], waits_for: str | None, refusal: str | None) -> str:
    said = [f"{points:+} points" for points in posted]
    if waits_for is not None:
        said.append(f"waits for its {waits_for.replace('_', ' ')}")
    if refusal is not None:
        said.append(f"refused: {refusal}")
    return f"order {order_id}: {', '.join(said) or 'no change'}"
