"""`post`: one change of points from the command line, by the same rules as through the API."""

from __future__ import annotations

import json as json_text
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import ValidationError

from metafield_sync.cli.output import hint, say, show_json, warn
from metafield_sync.cli.parts import (
    DONE,
    FAILURES,
    CustomerOption,
    JsonOption,
    ShopifyCustomerOption,
    ShopOption,
    UsageWrong,
    Whole,
    one_shop,
    opened,
)
from metafield_sync.ledger.posting import post as post_one
from metafield_sync.sync.one_customer import sync_customer
from metafield_sync.web.documents import EntryIn, PostedOut

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTOR = "cli"
"""How the ledger names who posted: the command line, whoever sat at it."""
SYNC_WAIT_S = 60

OPTIONS = {
    "customerId": "--customer",
    "shopifyCustomerId": "--shopify-customer",
    "amount": "--amount",
    "reason": "--reason",
    "externalId": "--external-id",
    "metadata": "--metadata",
}


async def post(
    *,
    shop: ShopOption = None,
    customer: Annotated[CustomerOption, Parameter(help="The customer, by our id.")] = None,
    shopify_customer: ShopifyCustomerOption = None,
    amount: Annotated[Whole, Parameter(metavar="POINTS", help="Positive adds, negative deducts.")],
    reason: Annotated[str, Parameter(metavar="REASON", help="Why, in a word or two, such as goodwill.")],
    external_id: Annotated[
        str | None,
        Parameter(metavar="KEY", help="Your key for this posting: the same again changes nothing."),
    ] = None,
    metadata: Annotated[str | None, Parameter(metavar="JSON", help="A JSON object to keep beside the entry.")] = None,
    allow_negative: Annotated[bool, Parameter(negative=(), help="Let the balance go below zero.")] = False,
    sync: Annotated[
        bool, Parameter(negative=(), help="Wait until Shopify shows the balance. Exit status 1 if it does not.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Post one change of a customer's points. Name the customer by --customer or --shopify-customer.

    Without --sync the worker pushes it within seconds, or the next `metafield-sync sync` does.
    """
    wanted = _checked(
        {
            "customerId": customer,
            "shopifyCustomerId": shopify_customer,
            "amount": amount,
            "reason": reason,
            "externalId": external_id,
            "metadata": _object(metadata),
            "allowNegative": allow_negative,
        }
    )
    async with opened() as runtime:
        found = await one_shop(runtime, shop)
        posted = await post_one(runtime.db, found.id, ACTOR, wanted.posting())
        outcome = (
            await sync_customer(runtime.mirror, found.id, posted.entry.customer_id, wait_s=SYNC_WAIT_S)
            if sync
            else None
        )
    synced = outcome is not None and outcome.synced
    document = PostedOut.of(posted, synced=synced)
    if json:
        show_json(document.model_dump(mode="json", by_alias=True, exclude_unset=True))
    else:
        entry = document.entry
        say(f"{document.message}: {entry.amount:+,} points, entry {entry.id} ({entry.reason}).")
        say(f"Balance now: {document.balance:,}{'; Shopify shows it.' if synced else '.'}")
    if outcome is None:
        if not json:
            hint(f"Push it now with: metafield-sync sync --shop {found.domain} --customer {posted.entry.customer_id}")
        return DONE
    if not synced:
        warn(f"The entry is recorded, but not pushed yet. {outcome.error}")
        return FAILURES
    return DONE


def _object(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json_text.loads(text)
    except ValueError as error:
        raise UsageWrong(f"--metadata: not JSON: {error}.") from None
    except RecursionError:
        raise UsageWrong("--metadata: nested too deep.") from None


def _checked(given: Mapping[str, Any]) -> EntryIn:
    try:
        return EntryIn.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        option = OPTIONS.get(str(found["loc"][0])) if found["loc"] else None
        message = found["msg"].removeprefix("Value error, ")
        if option is None:
            message = "name the customer by exactly one of --customer and --shopify-customer"
        raise UsageWrong(f"{option}: {message}." if option else f"{message[0].upper()}{message[1:]}.") from None
