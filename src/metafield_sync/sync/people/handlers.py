"""The webhooks about customers, as the inbox hands them over: in any order, and perhaps again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import structlog

from metafield_sync.customers.identity import (
    SHOPIFY_ID_MAX,
    CustomerRedacted,
    ShopifyCustomerId,
    ensure_customer,
    is_redacted,
)
from metafield_sync.errors import AppError
from metafield_sync.shopify.ids import read_customer_id
from metafield_sync.shopify.shapes import mapping, whole
from metafield_sync.sync.people.data_requests import note_data_request
from metafield_sync.sync.people.merges import note_merge
from metafield_sync.sync.people.mirrors import bring_back, note_deleted
from metafield_sync.sync.people.redaction import redact_customer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import AsyncConnection

    from metafield_sync.sync.inbox.handling import Webhook

UNFINISHED = frozenset({"failed", "in_progress", "requested", "pending", "queued", "running"})
"""Words for a merge that has not happened. That for one that has is not documented; Shopify is asked in any case."""
ORDERS_NAMED_MAX = 100_000

log = structlog.get_logger()


class PayloadUnreadable(AppError):
    """A webhook about a customer is not as Shopify documents it."""

    code = "payload_unreadable"
    status = 422


async def handle_customer_created(conn: AsyncConnection, webhook: Webhook) -> str:
    """`customers/create`: known at 0, and so mirrored. One believed gone is looked for again."""
    number = _id(webhook.payload, "id")
    try:
        customer_id, is_new = await ensure_customer(conn, webhook.shop_id, ShopifyCustomerId(number))
    except CustomerRedacted:
        return "a redacted customer is not brought back"
    if is_new:
        return f"customer {number}: known from now on"
    if await bring_back(conn, webhook.shop_id, customer_id):
        return f"customer {number}: believed gone, pushed again"
    return f"customer {number}: known before"


async def handle_customer_deleted(conn: AsyncConnection, webhook: Webhook) -> str:
    """`customers/delete`: no longer pushed. The ledger stays, and so do they if Shopify has them after all."""
    number = _id(webhook.payload, "id")
    if await note_deleted(conn, webhook.shop_id, number):
        return f"customer {number}: deleted in Shopify, no longer pushed"
    return f"customer {number}: nothing was pushed to them"


async def handle_customers_merged(conn: AsyncConnection, webhook: Webhook) -> str:
    """`customers/merge`: only a hint, and sent for merges that failed too. Shopify is asked before anything moves."""
    payload = webhook.payload
    kept = read_customer_id(payload.get("admin_graphql_api_customer_kept_id"))
    deleted = read_customer_id(payload.get("admin_graphql_api_customer_deleted_id"))
    status = str(payload.get("status") or "").lower().replace(" ", "_").replace("-", "_")
    if payload.get("errors") or status in UNFINISHED:
        return f"a merge that is {status or 'not finished'}: nothing to do"
    if kept is None or deleted is None or kept == deleted:
        raise PayloadUnreadable("The merge does not name two customers, the kept and the deleted one.")
    if await is_redacted(conn, webhook.shop_id, ShopifyCustomerId(deleted)):
        return "a merge of a redacted customer: they have no points to move"
    await note_merge(conn, webhook.shop_id, kept=kept, deleted=deleted)
    return f"customer {deleted} said to be merged into {kept}: Shopify is asked"


async def handle_customer_redacted(conn: AsyncConnection, webhook: Webhook) -> str:
    """`customers/redact`: who they were is forgotten, at once and for good."""
    number = _id(_object(webhook.payload, "customer"), "id")
    customers = await redact_customer(
        conn, webhook.shop_id, number, orders=_ids(webhook.payload.get("orders_to_redact"))
    )
    log.info("customer redacted", shop_id=webhook.shop_id, customers=customers)
    return f"redacted: {customers} customers of ours" if customers else "redacted: nobody we knew"


async def handle_data_request(conn: AsyncConnection, webhook: Webhook) -> str:
    """`customers/data_request`: noted, and the document is there for the merchant to hand over within 30 days."""
    payload = webhook.payload
    request_id = _id(_object(payload, "data_request"), "id")
    number = _id(_object(payload, "customer"), "id")
    await note_data_request(conn, webhook.shop_id, request_id, number, _ids(payload.get("orders_requested")))
    log.warning("a customer asks for their data", shop_id=webhook.shop_id, data_request=request_id)
    return f"data request {request_id}: see metafield-sync data-requests show {request_id}"


def _object(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = mapping(payload.get(name))
    if value is None:
        raise PayloadUnreadable(f"The webhook has no {name}.")
    return value


def _id(payload: Mapping[str, Any], name: str) -> int:
    """An id, which JSON may have as a number or as digits."""
    number = _number(payload.get(name))
    if number is None:
        raise PayloadUnreadable(f"The webhook's {name} is no id of Shopify's.")
    return number


def _ids(value: object) -> list[int]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise PayloadUnreadable("The webhook's orders are no list.")
    numbers = [_number(one) for one in cast("list[Any]", value)]
    if len(numbers) > ORDERS_NAMED_MAX or any(number is None for number in numbers):
        raise PayloadUnreadable("The webhook's orders are not ids of Shopify's.")
    return [number for number in numbers if number is not None]


def _number(value: object) -> int | None:
    number = whole(value)
    return number if number is not None and 0 < number <= SHOPIFY_ID_MAX else None
