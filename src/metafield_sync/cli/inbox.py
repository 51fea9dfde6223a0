"""`inbox`: webhooks that came in, and having handled again what was given up."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.table import Table

from metafield_sync.cli.output import hint, say, show_json, stdout
from metafield_sync.cli.parts import DONE, SHOPS_GROUP, JsonOption, ShopOption, UsageWrong, Whole, one_shop, opened
from metafield_sync.sync.inbox.records import (
    TOPIC_CHARS_MAX,
    WebhookRecord,
    WebhookStatus,
    find_webhook,
    resend_failed_webhooks,
    resend_webhook,
    webhook_page,
)
from metafield_sync.web.inbox_documents import WebhookOut, WebhookSummaryOut

if TYPE_CHECKING:
    from typing import Any

LIST_ROWS_MAX = 100
"""Webhooks in one list; GET /api/inbox has pages of them."""

app = App(
    name="inbox",
    help="Look at webhooks that came in, and have them handled again.",
    help_format="plaintext",
    group=SHOPS_GROUP,
)

WebhookNumber = Annotated[Whole, Parameter(metavar="NUMBER", help="The webhook's number, from `inbox list`.")]


@app.command(name="list")
async def list_(
    *,
    shop: ShopOption = None,
    failed: Annotated[bool, Parameter(negative=(), help="Only those given up.")] = False,
    waiting: Annotated[
        bool, Parameter(negative=(), help="Only those that wait for their turn or next attempt.")
    ] = False,
    topic: Annotated[str | None, Parameter(metavar="TOPIC", help="Only of this topic, such as orders/paid.")] = None,
    json: JsonOption = False,
) -> int:
    """List a shop's latest webhooks, with what came of each."""
    if failed and waiting:
        raise UsageWrong("--failed and --waiting: one of the two.")
    status: WebhookStatus | None = "failed" if failed else "waiting" if waiting else None
    async with opened() as runtime:
        found = await one_shop(runtime, shop)
        async with runtime.db.shop(found.id) as conn:
            records = await webhook_page(
                conn,
                found.id,
                status=status,
                topic=None if topic is None else topic[:TOPIC_CHARS_MAX],
                before=None,
                limit=LIST_ROWS_MAX,
            )
    if json:
        rows = [WebhookSummaryOut.of(record).model_dump(mode="json", by_alias=True) for record in records]
        show_json({"shop": found.domain, "webhooks": rows})
        return DONE
    if not records:
        say(f"{found.domain}: no webhooks{f' that are {status}' if status else ''}.")
        return DONE
    table = Table("No.", "Topic", "Received", "Status", "Tries", box=None, pad_edge=False)
    table.add_column("What came of it", overflow="fold")
    for record in records:
        table.add_row(
            str(record.id),
            record.topic,
            _second(record.received_at),
            record.status,
            str(record.attempts),
            _what_came(record),
        )
    stdout().print(table)
    if any(record.status == "failed" for record in records):
        hint(f"Have them handled again with: metafield-sync inbox resend --failed --shop {found.domain}")
    return DONE


@app.command
async def show(webhook: WebhookNumber, /, *, shop: ShopOption = None, json: JsonOption = False) -> int:
    """Show one webhook, with the fields of it that were kept: no names, addresses or e-mails."""
    async with opened() as runtime:
        found = await one_shop(runtime, shop)
        async with runtime.db.shop(found.id) as conn:
            record = await find_webhook(conn, found.id, webhook)
    document = _document(record)
    if json:
        show_json(document)
        return DONE
    say(f"Webhook {record.id} of {found.domain}: {record.topic}, {record.status}.")
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in document.items():
        if value is not None and name not in {"id", "topic", "status", "payload"}:
            table.add_row(name, str(value))
    stdout().print(table)
    stdout().print_json(data=document["payload"])
    return DONE


@app.command
async def resend(
    webhook: Annotated[
        Whole | None, Parameter(metavar="NUMBER", help="The webhook's number, from `inbox list`.")
    ] = None,
    /,
    *,
    failed: Annotated[bool, Parameter(negative=(), help="All that were given up.")] = False,
    shop: ShopOption = None,
    json: JsonOption = False,
) -> int:
    """Have one webhook handled again, or all that were given up. One that was handled earns nothing twice."""
    if (webhook is None) != failed:
        raise UsageWrong("Name one webhook by its number, or all that were given up with --failed.")
    async with opened() as runtime:
        found = await one_shop(runtime, shop)
        async with runtime.db.shop(found.id) as conn:
            if webhook is None:
                resent = await resend_failed_webhooks(conn, found.id)
            else:
                await resend_webhook(conn, found.id, webhook)
                resent = 1
    if json:
        show_json({"shop": found.domain, "resent": resent})
    else:
        say(f"{found.domain}: {resent} to be handled again, by the next worker that looks.")
    return DONE


def _document(record: WebhookRecord) -> dict[str, Any]:
    return WebhookOut.of(record).model_dump(mode="json", by_alias=True)


def _what_came(record: WebhookRecord) -> str:
    if record.outcome is not None:
        return record.outcome
    if record.error is None:
        return ""
    again = "" if record.next_attempt_at is None else f" (again at {_second(record.next_attempt_at)})"
    return f"{record.error}{again}"


def _second(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
