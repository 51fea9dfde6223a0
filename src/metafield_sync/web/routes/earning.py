"""Earning: the rule by which orders earn, and why an order has the points it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import Response

from metafield_sync.sync.orders.catch_up_state import get_reading
from metafield_sync.sync.orders.rules import list_rules, rule_in_force, save_rule
from metafield_sync.sync.orders.standing import order_standing
from metafield_sync.web.earning_documents import EarningOut, EarningRuleIn, OrderOut, utc_now
from metafield_sync.web.edge import API, CallerIs, Parts, answer
from metafield_sync.web.fields import ShopifyId
from metafield_sync.web.problems import error_responses

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

router = APIRouter(tags=["earning"], dependencies=API)


@router.get(
    "/api/earning-rule",
    operation_id="getEarningRule",
    responses={200: {"model": EarningOut}, **error_responses()},
)
async def get_earning_rule(caller: CallerIs, parts: Parts) -> Response:
    """The rule in force with an example of it, every version there was, and how far the shop's orders are known."""
    async with parts.db.shop(caller.shop_id) as conn:
        return answer(await _earning(conn, caller.shop_id))


@router.put(
    "/api/earning-rule",
    operation_id="putEarningRule",
    responses={200: {"model": EarningOut}, **error_responses(413, 415)},
)
async def put_earning_rule(caller: CallerIs, parts: Parts, body: EarningRuleIn) -> Response:
    """Save a new version of the rule. Versions are never edited; orders placed before it starts keep theirs.

    An order earns `pointsPerUnit` for each unit of the shop's currency of its goods, after discounts, without gift
    cards, and without tax unless `takesTaxOff` is false; shipping, tips and duties never count. So at "1" and rounded
    down, goods of 49.90 with a discount of 8.00 earn 41 points, and 30 once goods of 11.50 are refunded.

    With `startsAt` in the past, orders placed since then are read again and come to what they are worth by it.
    """
    async with parts.db.shop(caller.shop_id) as conn:
        await save_rule(conn, caller.shop_id, body.rule(utc_now()), caller.actor)
        return answer(await _earning(conn, caller.shop_id))


async def _earning(conn: AsyncConnection, shop_id: ShopId) -> EarningOut:
    versions = await list_rules(conn, shop_id)
    return EarningOut.of(versions, rule_in_force(versions, utc_now()), await get_reading(conn, shop_id))


@router.get(
    "/api/orders/{shopifyOrderId}",
    operation_id="getOrder",
    responses={200: {"model": OrderOut}, **error_responses(404)},
)
async def get_order(
    caller: CallerIs,
    parts: Parts,
    shopifyOrderId: ShopifyId,  # noqa: N803 - the name in the path, which OpenAPI shows
) -> Response:
    """Why an order has the points it has: its state, what it is worth, and the entries it made."""
    async with parts.db.shop(caller.shop_id) as conn:
        return answer(OrderOut.of(await order_standing(conn, caller.shop_id, int(shopifyOrderId))))
