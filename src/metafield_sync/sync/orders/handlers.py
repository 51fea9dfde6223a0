"""The webhooks about orders, as the inbox hands them over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.sync.orders.applying import apply_order, apply_refund
from metafield_sync.sync.orders.reading import read_order, read_refund

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.sync.inbox.handling import Webhook


async def handle_order(conn: AsyncConnection, webhook: Webhook) -> str:
    """`orders/paid`, `orders/updated`, `orders/cancelled`: each carries the whole order, whose state says it all."""
    return await apply_order(conn, webhook.shop_id, read_order(webhook.payload))


async def handle_refund(conn: AsyncConnection, webhook: Webhook) -> str:
    """`refunds/create`: the refund alone; neither its order nor its customer comes with it."""
    order_id, refund = read_refund(webhook.payload)
    return await apply_refund(conn, webhook.shop_id, order_id, refund)
