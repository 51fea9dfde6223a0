"""`sync` and `verify`: Shopify made to show every balance, every balance held against its ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Group

from metafield_sync.cli.output import rows_table, say, show_json, stdout
from metafield_sync.cli.parts import (
    DONE,
    FAILURES,
    CustomerOption,
    JsonOption,
    ShopOption,
    one_document,
    one_shop,
    opened,
    these_shops,
)
from metafield_sync.cli.running import run_all
from metafield_sync.customers.identity import CustomerId, find_survivor
from metafield_sync.ledger.verification import verify as hold_against_ledger
from metafield_sync.runtime import require_readable_tokens
from metafield_sync.sync.one_customer import sync_customer
from metafield_sync.sync.run_result import RESULT_ROWS_MAX
from metafield_sync.sync.standing import shop_standing
from metafield_sync.web.run_documents import CustomerSyncOut, DiscrepancyOut

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from metafield_sync.runtime import Runtime
    from metafield_sync.shops.registry import Shop

CUSTOMER_WAIT_S = 60
"""How long one customer's sync is waited for. A terminal hangs up later than an HTTP client."""


async def sync(
    *,
    shop: ShopOption = None,
    customer: CustomerOption = None,
    force: Annotated[bool, Parameter(negative=(), help="Write everybody, in step or not.")] = False,
    json: JsonOption = False,
) -> int:
    """Make Shopify show every balance: push whatever is behind, in every shop or in one.

    Calling it again costs nothing for customers who are in step; those who failed are tried again whatever their
    back-off. Exit status 1 if somebody could not be synced.
    """
    async with opened() as runtime:
        await require_readable_tokens(runtime)
        if customer is not None:
            found = await one_shop(runtime, shop)
            return _tell_customer(await _sync_one(runtime, found, customer), json=json)
        shops = await these_shops(runtime, shop)
        documents = await run_all(runtime, shops, kind="sync", trigger="cli", forced=force)
    return _tell_runs(list(zip(shops, documents, strict=True)), json=json)


async def verify(
    *,
    shop: ShopOption = None,
    customer: CustomerOption = None,
    dry_run: Annotated[
        bool,
        Parameter(negative=(), help="Only look: repair nothing, push nothing. Exit status 1 if something is wrong."),
    ] = False,
    json: JsonOption = False,
) -> int:
    """Hold every stored balance against the sum of its ledger entries, repair what differs, and sync what changed.

    The ledger is the truth: a balance is repaired from it, never the other way. A corrected balance is not a failure.
    """
    async with opened() as runtime:
        await require_readable_tokens(runtime)
        shops = [await one_shop(runtime, shop)] if customer is not None else await these_shops(runtime, shop)
        if customer is not None:
            customer = await _require(runtime, shops[0], customer)
        if dry_run:
            documents = [await _look(runtime, one, customer) for one in shops]
        elif customer is not None:
            return _tell_customer(await _verify_one(runtime, shops[0], customer), json=json)
        else:
            documents = await run_all(runtime, shops, kind="verify", trigger="cli")
    status = _tell_runs(list(zip(shops, documents, strict=True)), json=json)
    if dry_run:
        return FAILURES if any(document["discrepancies"] for document in documents) else DONE
    return status


async def _require(runtime: Runtime, shop: Shop, customer: UUID) -> CustomerId:
    """The customer, if there is one: of a merged one, the survivor."""
    async with runtime.db.shop(shop.id) as conn:
        return (await find_survivor(conn, shop.id, CustomerId(customer))).id


async def _sync_one(runtime: Runtime, shop: Shop, customer: UUID) -> CustomerSyncOut:
    await _require(runtime, shop, customer)
    return CustomerSyncOut.of(await sync_customer(runtime.mirror, shop.id, customer, wait_s=CUSTOMER_WAIT_S))


async def _verify_one(runtime: Runtime, shop: Shop, customer: UUID) -> CustomerSyncOut:
    corrected = await hold_against_ledger(runtime.db, shop.id, customer_id=customer)
    document = await _sync_one(runtime, shop, customer)
    document.corrected = len(corrected)
    document.discrepancies = [DiscrepancyOut.of(found) for found in corrected]
    return document


async def _look(runtime: Runtime, shop: Shop, customer: UUID | None) -> dict[str, Any]:
    """What a verification would correct: its document, with nothing corrected and nothing synced."""
    found = await hold_against_ledger(runtime.db, shop.id, customer_id=customer, repair=False)
    async with runtime.db.shop(shop.id) as conn:
        total = 1 if customer is not None else (await shop_standing(conn, shop.id))["customers"]
    return {
        "message": "Balance verification complete",
        "dryRun": True,
        "total": total,
        "verified": total - len(found),
        "corrected": 0,
        "discrepancies": [
            DiscrepancyOut.of(one).model_dump(mode="json", by_alias=True) for one in found[:RESULT_ROWS_MAX]
        ],
    }


def _tell_customer(document: CustomerSyncOut, *, json: bool) -> int:
    if json:
        show_json(document.model_dump(mode="json", by_alias=True, exclude_unset=True))
    else:
        for found in document.discrepancies or []:
            say(f"Balance corrected: {found.stored} was stored, the ledger says {found.calculated}.")
        if document.synced:
            say(f"Customer {document.customer_id}: synced, {document.balance:,} points.")
        else:
            say(f"Customer {document.customer_id}: not synced ({document.balance:,} points). {document.error}")
    return DONE if document.synced else FAILURES


def _tell_runs(found: Sequence[tuple[Shop, dict[str, Any]]], *, json: bool) -> int:
    if json:
        show_json(one_document(found))
    else:
        for shop, document in found:
            stdout().print(_summary(shop, document))
    return FAILURES if any(document.get("errors") for _, document in found) else DONE


def _summary(shop: Shop, document: dict[str, Any]) -> Group:
    parts: list[Any] = [f"{shop.domain}: {document['message']}"]
    if "verified" in document:
        wrong = (
            f"{len(document['discrepancies']):,} wrong"
            if document.get("dryRun")
            else f"{document['corrected']:,} corrected"
        )
        parts.append(f"  {document['total']:,} customers, {document['verified']:,} right, {wrong}")
    if "synced" in document:
        parts.append(
            f"  {document['total']:,} customers, {document['synced']:,} synced ({document['pushed']:,} pushed, "
            f"{document['unchanged']:,} unchanged), {document['errors']:,} failed; {document['pointsSpent']:,} API "
            f"points, {document['durationMs'] / 1000:.1f} s"
        )
    discrepancies, failures = document.get("discrepancies", []), document.get("failedSyncs", [])
    if discrepancies:
        columns = ("Customer", "Shopify id", "Stored", "Ledger", "Difference")
        names = ("customerId", "shopifyCustomerId", "stored", "calculated", "difference")
        parts += rows_table(columns, names, discrepancies, document.get("corrected", 0))
    if failures:
        columns = ("Customer", "Shopify id", "Error")
        parts += rows_table(columns, ("customerId", "shopifyCustomerId", "error"), failures, document["errors"])
    return Group(*parts)
