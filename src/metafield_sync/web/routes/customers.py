"""Customers: created, found, looked at as of a time, synced now."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from metafield_sync.customers.identity import (
    CustomerId,
    CustomerNotFound,
    CustomerRedacted,
    ShopifyCustomerId,
    ensure_customer,
)
from metafield_sync.customers.identity import require_customer as require
from metafield_sync.ledger.statements import balance_as_of, statement_page
from metafield_sync.sync.standing import customer_page, one_standing
from metafield_sync.web.documents import (
    CustomerAsOfOut,
    CustomerIn,
    CustomerOut,
    CustomersOut,
    EntriesOut,
    EntryOut,
)
from metafield_sync.web.edge import API, CallerIs, Parts, answer
from metafield_sync.web.fields import CustomerUuid, Moment, ShopifyId
from metafield_sync.web.paging import PAGE_ROWS_DEFAULT, Cursor, Limit, number, one_page, read_cursor
from metafield_sync.web.problems import error_responses
from metafield_sync.web.routes.sync_balances import sync_one
from metafield_sync.web.run_documents import CustomerSyncOut

router = APIRouter(tags=["customers"], dependencies=API)


@router.post(
    "/api/customers",
    operation_id="createCustomer",
    responses={
        200: {"model": CustomerOut, "description": "It was there already"},
        201: {"model": CustomerOut, "description": "Created"},
        **error_responses(410, 413, 415),
    },
)
async def create_customer(caller: CallerIs, parts: Parts, body: CustomerIn) -> Response:
    """Begin to mirror a customer, at a balance of 0."""
    async with parts.db.shop(caller.shop_id) as conn:
        customer_id, is_new = await ensure_customer(
            conn, caller.shop_id, ShopifyCustomerId(int(body.shopify_customer_id))
        )
        standing = await one_standing(conn, caller.shop_id, customer_id=customer_id)
    return answer(CustomerOut.of(standing), 201 if is_new else 200)


@router.get(
    "/api/customers",
    operation_id="listCustomers",
    responses={200: {"model": CustomersOut}, **error_responses()},
)
async def list_customers(
    caller: CallerIs,
    parts: Parts,
    shopify_customer_id: Annotated[ShopifyId | None, Query(alias="shopifyCustomerId")] = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_ROWS_DEFAULT,
) -> Response:
    """A page of customers, merged ones left out; or the one with a Shopify id, of a merged one the survivor."""
    async with parts.db.shop(caller.shop_id) as conn:
        if shopify_customer_id is not None:
            try:
                found = [await one_standing(conn, caller.shop_id, shopify_customer_id=int(shopify_customer_id))]
            except (CustomerNotFound, CustomerRedacted):
                found = []
            return answer(CustomersOut(customers=[CustomerOut.of(one) for one in found], next_cursor=None))
        (after,) = read_cursor(cursor, UUID) or (None,)
        found = await customer_page(conn, caller.shop_id, after=after, limit=limit + 1)
    page, next_cursor = one_page(found, limit, lambda one: (one.id,))
    return answer(CustomersOut(customers=[CustomerOut.of(one) for one in page], next_cursor=next_cursor))


@router.get(
    "/api/customers/{customerId}",
    operation_id="getCustomer",
    responses={200: {"model": CustomerAsOfOut}, **error_responses(404, 410)},
)
async def get_customer(
    caller: CallerIs,
    parts: Parts,
    customerId: CustomerUuid,  # noqa: N803 - the name in the path, which OpenAPI shows
    as_of: Annotated[
        Moment | None,
        Query(alias="asOf", description="The balance and sequence of this time, by `createdAt`."),
    ] = None,
) -> Response:
    """One customer. A merged one has the status `merged`, and `mergedInto` names who has the points."""
    async with parts.db.shop(caller.shop_id) as conn:
        standing = await one_standing(conn, caller.shop_id, customer_id=customerId)
        if as_of is None:
            return answer(CustomerOut.of(standing))
        balance, sequence = await balance_as_of(conn, caller.shop_id, customerId, as_of)
    then = CustomerOut.of(replace(standing, balance=balance, sequence=sequence)).model_dump()
    return answer(CustomerAsOfOut(**then, as_of=as_of))


@router.get(
    "/api/customers/{customerId}/ledger",
    operation_id="listEntries",
    responses={200: {"model": EntriesOut}, **error_responses(404, 410)},
)
async def list_entries(
    caller: CallerIs,
    parts: Parts,
    customerId: CustomerUuid,  # noqa: N803 - the name in the path, which OpenAPI shows
    cursor: Cursor = None,
    limit: Limit = PAGE_ROWS_DEFAULT,
) -> Response:
    """One customer's entries, newest first."""
    (before,) = read_cursor(cursor, number) or (None,)
    async with parts.db.shop(caller.shop_id) as conn:
        await require(conn, caller.shop_id, CustomerId(customerId))
        found = await statement_page(conn, caller.shop_id, customerId, before_sequence=before, limit=limit + 1)
    page, next_cursor = one_page(found, limit, lambda entry: (entry.sequence,))
    return answer(EntriesOut(entries=[EntryOut.of(entry) for entry in page], next_cursor=next_cursor))


@router.post(
    "/api/customers/{customerId}/sync",
    operation_id="syncCustomer",
    responses={
        200: {"model": CustomerSyncOut},
        502: {"model": CustomerSyncOut, "description": "Shopify refused"},
        **error_responses(404, 410),
    },
)
async def sync_customer_now(
    caller: CallerIs,
    parts: Parts,
    customerId: CustomerUuid,  # noqa: N803 - the name in the path, which OpenAPI shows
) -> Response:
    """Push one customer to Shopify now, in step or not."""
    return await sync_one(parts, caller, customerId)
