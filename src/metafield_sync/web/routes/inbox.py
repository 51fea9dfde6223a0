"""The inbox: webhooks that came in, what came of them, and having one handled again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from metafield_sync.sync.inbox.records import (
    TOPIC_CHARS_MAX,
    WebhookStatus,
    find_webhook,
    resend_webhook,
    webhook_page,
)
from metafield_sync.web.edge import API, CallerIs, Parts, answer
from metafield_sync.web.inbox_documents import WebhookOut, WebhooksOut, WebhookSummaryOut
from metafield_sync.web.paging import PAGE_ROWS_DEFAULT, Cursor, Limit, number, one_page, read_cursor
from metafield_sync.web.problems import error_responses

ROW_NUMBER_MAX = 2**63 - 1

router = APIRouter(tags=["inbox"], dependencies=API)

StatusIs = Annotated[WebhookStatus | None, Query(description="Only those that stand so.")]
TopicIs = Annotated[
    str | None, Query(max_length=TOPIC_CHARS_MAX, pattern=r"^[a-z_]+/[a-z_]+$", description="Such as orders/paid.")
]
WebhookNumber = Annotated[int, Path(ge=1, le=ROW_NUMBER_MAX, description="The webhook's `id` in the list.")]


@router.get("/api/inbox", operation_id="listWebhooks", responses={200: {"model": WebhooksOut}, **error_responses()})
async def list_webhooks(
    caller: CallerIs,
    parts: Parts,
    status: StatusIs = None,
    topic: TopicIs = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_ROWS_DEFAULT,
) -> Response:
    """Webhooks, the latest to come in first. What was handled is kept for 30 days."""
    (before,) = read_cursor(cursor, number) or (None,)
    async with parts.db.shop(caller.shop_id) as conn:
        found = await webhook_page(conn, caller.shop_id, status=status, topic=topic, before=before, limit=limit + 1)
    page, next_cursor = one_page(found, limit, lambda record: (record.id,))
    return answer(WebhooksOut(webhooks=[WebhookSummaryOut.of(record) for record in page], next_cursor=next_cursor))


@router.get(
    "/api/inbox/{id}", operation_id="getWebhook", responses={200: {"model": WebhookOut}, **error_responses(404)}
)
async def get_webhook(
    caller: CallerIs,
    parts: Parts,
    id: WebhookNumber,  # noqa: A002 - the name in the path, which OpenAPI shows
) -> Response:
    """One webhook, with what was kept of it."""
    async with parts.db.shop(caller.shop_id) as conn:
        return answer(WebhookOut.of(await find_webhook(conn, caller.shop_id, id)))


@router.post(
    "/api/inbox/{id}/resend",
    operation_id="resendWebhook",
    status_code=202,
    responses={202: {"model": WebhookOut}, **error_responses(404)},
)
async def resend(
    caller: CallerIs,
    parts: Parts,
    id: WebhookNumber,  # noqa: A002 - the name in the path, which OpenAPI shows
) -> Response:
    """Have a webhook handled again, by the next worker that looks. One that was handled earns nothing twice."""
    async with parts.db.shop(caller.shop_id) as conn:
        return answer(WebhookOut.of(await resend_webhook(conn, caller.shop_id, id)), 202)
