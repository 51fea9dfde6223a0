"""The inbox as staff read it: what came in, what came of it, and having it handled again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from psycopg.rows import class_row

from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

WebhookStatus = Literal["waiting", "handled", "failed"]

TOPIC_CHARS_MAX = 100


class WebhookNotFound(AppError):
    """No such webhook in this shop's inbox."""

    code = "webhook_not_found"
    status = 404
    exit_status = 2


@dataclass(frozen=True, slots=True)
class WebhookRecord:
    """One webhook as it stands.

    `status`: waiting to be handled, for the first time or again; handled, with `outcome` in words; failed, given up
    after `attempts`, with `error`. `next_attempt_at`: while it waits. `payload`: only what was kept of it.
    """

    id: int
    topic: str
    status: WebhookStatus
    delivery_id: str
    event_id: str | None
    api_version: str | None
    triggered_at: datetime | None
    received_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    handled_at: datetime | None
    failed_at: datetime | None
    outcome: str | None
    error: str | None
    payload: dict[str, Any] | None
    """None in a list."""


async def webhook_page(
    conn: AsyncConnection,
    shop_id: ShopId,
    *,
    status: WebhookStatus | None,
    topic: str | None,
    before: int | None,
    limit: int,
) -> list[WebhookRecord]:
    """Up to `limit` webhooks, the latest to come in first, all with an id below `before` when it is given."""
    parameters = {"shop": shop_id, "status": status, "topic": topic, "before": before, "limit": limit}
    async with conn.cursor(row_factory=class_row(WebhookRecord)) as cur:
        await cur.execute(WEBHOOK_PAGE, parameters, prepare=False)
        return await cur.fetchall()


# Not prepared: which index serves depends on the status that is asked for.
WEBHOOK_PAGE = """
select
  id, topic,
  case when failed_at is not null then 'failed' when handled_at is not null then 'handled' else 'waiting' end as status,
  delivery_id, event_id, api_version, triggered_at, received_at, attempts, due_at as next_attempt_at, handled_at,
  failed_at, outcome, error, null as payload
from inbox
where
  shop_id = %(shop)s
  and (%(before)s::bigint is null or id < %(before)s)
  and (%(topic)s::text is null or topic = %(topic)s)
  and (%(status)s::text is distinct from 'waiting' or due_at is not null)
  and (%(status)s::text is distinct from 'handled' or handled_at is not null)
  and (%(status)s::text is distinct from 'failed' or failed_at is not null)
order by id desc
limit %(limit)s
"""


async def find_webhook(conn: AsyncConnection, shop_id: ShopId, webhook_id: int) -> WebhookRecord:
    """One webhook, with the fields of its payload that were kept.

    Raises:
        WebhookNotFound: the shop has none of this number.
    """
    async with conn.cursor(row_factory=class_row(WebhookRecord)) as cur:
        await cur.execute(FIND_WEBHOOK, {"shop": shop_id, "id": webhook_id})
        found = await cur.fetchone()
    if found is None:
        raise WebhookNotFound(
            f"This shop's inbox has no webhook {webhook_id}; what was handled is kept for 30 days. "
            "GET /api/inbox lists what there is."
        )
    return found


FIND_WEBHOOK = """
select
  id, topic,
  case when failed_at is not null then 'failed' when handled_at is not null then 'handled' else 'waiting' end as status,
  delivery_id, event_id, api_version, triggered_at, received_at, attempts, due_at as next_attempt_at, handled_at,
  failed_at, outcome, error, payload
from inbox
where shop_id = %(shop)s and id = %(id)s
"""


async def resend_webhook(conn: AsyncConnection, shop_id: ShopId, webhook_id: int) -> WebhookRecord:
    """Have a webhook handled, now, as if it had just come in; one that was handled, too, since that changes nothing.

    Raises:
        WebhookNotFound: the shop has none of this number.
    """
    await conn.execute(RESEND_WEBHOOK, {"shop": shop_id, "id": webhook_id})
    return await find_webhook(conn, shop_id, webhook_id)


RESEND_WEBHOOK = """
update inbox
set
  due_at = clock_timestamp(), attempts = 0, handled_at = null, failed_at = null, outcome = null, error = null
where shop_id = %(shop)s and id = %(id)s
"""


async def resend_failed_webhooks(conn: AsyncConnection, shop_id: ShopId) -> int:
    """Have every webhook handled again that was given up; how many."""
    async with conn.cursor() as cur:
        await cur.execute(RESEND_FAILED, {"shop": shop_id})
        row = await cur.fetchone()
    return 0 if row is None else row[0]


RESEND_FAILED = """
with resent as (
  update inbox
  set due_at = clock_timestamp(), attempts = 0, failed_at = null, error = null
  where shop_id = %(shop)s and failed_at is not null
  returning 1
)
select count(*) from resent
"""
