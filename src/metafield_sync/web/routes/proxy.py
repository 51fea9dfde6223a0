"""The shopper's balance in the storefront, asked through Shopify's app proxy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from metafield_sync.customers.identity import CustomerNotFound, CustomerRedacted, ShopifyCustomerId, find_by_shopify_id
from metafield_sync.errors import AppError
from metafield_sync.ledger.statements import current_balance
from metafield_sync.web.edge import AppIs, Parts, installed_shop
from metafield_sync.web.problems import problem

if TYPE_CHECKING:
    from metafield_sync.db.database import Database
    from metafield_sync.shopify.app import ProxyRequest

router = APIRouter()

LIQUID = "application/liquid"
NO_STORE = {"Cache-Control": "no-store"}
"""Of one shopper, at one moment: errors are kept by nobody either."""


@router.get("/proxy/balance")
async def shopper_balance(request: Request, parts: Parts, app: AppIs) -> Response:
    """The balance of whoever is logged in to the storefront, and of nobody else.

    `{"balance": 1500}`; `{"balance": null}` when nobody is logged in, so that a script need not tell errors apart. A
    balance below zero is shown as 0. With `format=liquid`, or when that is asked for by `Accept`, a fragment of HTML
    for a theme to put into a page.
    """
    try:
        asked = app.verifier.proxy(request.query_params.multi_items(), datetime.now(UTC))
        balance = await _balance(parts.db, asked)
    except AppError as error:
        return problem(error.status, error.code, error.detail, NO_STORE)
    if asked.format == "liquid" or (asked.format is None and LIQUID in request.headers.get("accept", "")):
        return Response(_fragment(balance), headers=NO_STORE, media_type=LIQUID)
    return JSONResponse({"balance": balance}, headers=NO_STORE)


async def _balance(db: Database, asked: ProxyRequest) -> int | None:
    shop_id = await installed_shop(db, asked.shop_domain)
    if asked.customer_id is None:
        return None
    async with db.shop(shop_id) as conn:
        try:
            customer = await find_by_shopify_id(conn, shop_id, ShopifyCustomerId(asked.customer_id))
        except (CustomerNotFound, CustomerRedacted):
            return 0  # has an account there and has not earned anything yet, or was forgotten
        return max(0, await current_balance(conn, shop_id, customer.id))


def _fragment(balance: int | None) -> str:
    """Liquid that Shopify renders by itself, without the theme around it.

    Nothing in it but digits comes from outside, so there is nothing in it for Liquid or a browser to run.
    """
    digits = "" if balance is None else str(balance)
    return f'{{% layout none %}}<span class="points-balance" data-points-balance="{digits}">{digits}</span>\n'
