"""`data-requests`: what shoppers have asked the merchant for, and the document to hand over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from metafield_sync.cli.output import say, show_json, stdout
from metafield_sync.cli.parts import SHOPS_GROUP, JsonOption, ShopOption, Whole, one_shop, opened
from metafield_sync.sync.people.data_requests import (
    complete_data_request,
    data_document,
    data_request_page,
    get_data_request,
)

if TYPE_CHECKING:
    from metafield_sync.sync.people.data_requests import DataRequest

ROWS_MAX = 1_000

app = App(name="data-requests", help="What shoppers have asked for under data protection law.", group=SHOPS_GROUP)

RequestNumber = Annotated[Whole, Parameter(metavar="NUMBER", help="Shopify's number of the request.")]


@app.command(name="list")
async def list_requests(*, shop: ShopOption = None, json: JsonOption = False) -> None:
    """Show the latest 1,000 requests of a shop."""
    async with opened() as runtime:
        one = await one_shop(runtime, shop)
        async with runtime.db.shop(one.id) as conn:
            found = await data_request_page(conn, one.id, before=None, limit=ROWS_MAX)
    if json:
        show_json({"dataRequests": [_described(request) for request in found]})
    elif not found:
        say("Nobody has asked for their data.")
    else:
        table = Table("Request", "Customer in Shopify", "Received", "Handed over", box=None, padding=(0, 2))
        for request in found:
            table.add_row(*(str(value or "-") for value in _described(request).values()))
        stdout().print(table)


@app.command
async def show(request: RequestNumber, /, *, shop: ShopOption = None) -> None:
    """Print the document to hand over: everything that is stored about the customer, as JSON."""
    async with opened() as runtime:
        one = await one_shop(runtime, shop)
        async with runtime.db.shop(one.id) as conn:
            document = await data_document(conn, one.id, await get_data_request(conn, one.id, request))
    show_json(document)


@app.command
async def complete(request: RequestNumber, /, *, shop: ShopOption = None) -> None:
    """Note that the document was handed over."""
    async with opened() as runtime:
        one = await one_shop(runtime, shop)
        async with runtime.db.shop(one.id) as conn:
            done = await complete_data_request(conn, one.id, request)
    say(f"Data request {done.id}: handed over, noted on {done.completed_at:%Y-%m-%d}.")


def _described(request: DataRequest) -> dict[str, Any]:
    return {
        "dataRequestId": str(request.id),
        "shopifyCustomerId": None if request.shopify_customer_id is None else str(request.shopify_customer_id),
        "receivedAt": request.received_at.isoformat(),
        "completedAt": None if request.completed_at is None else request.completed_at.isoformat(),
    }
