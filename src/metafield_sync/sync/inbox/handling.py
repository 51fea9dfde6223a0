"""Handling what came in: each webhook exactly once, in any order, whoever dies on the way.

A row is claimed by moving the time it is due ahead, so a claim that nobody follows up ends by itself. It is handled in
one transaction that also marks it handled: what a handler did and that it did it are committed together or not at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import structlog
from psycopg import AsyncConnection

from metafield_sync.db.database import Database, ShopId, again_after_deadlock
from metafield_sync.db.migrate import DatabaseUnusable
from metafield_sync.shopify.exact_json import read_json
from metafield_sync.sync.error_text import error_text

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAIM_ROWS_MAX = 100
"""Rows of one shop claimed at a time: seconds of work, and as many that wait for CLAIM_S if this process is killed."""
CLAIM_S = 60
"""How long a claim is good for. Whoever overstays it does no harm: the row is only handled by whose claim it is."""
HANDLED_AT_ONCE_MAX = 6
"""Rows of one shop under way at a time, each with a connection of its own."""

RETRIES_S = (5, 30, 120, 600, 3_600, 10_800, 21_600)
"""After each failure the row waits for so long; after the last one it waits for somebody to look, some ten hours on."""
OUTCOME_CHARS_MAX = 500

TOPICS_OF_REMOVED_SHOPS = frozenset({"app/uninstalled", "customers/data_request", "customers/redact", "shop/redact"})
"""What is handled although the app is not installed any more: all else can change nothing that anybody sees."""
NOT_HANDLED = "not handled here"
NOT_INSTALLED = "the app is not installed"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Webhook:
    """One row of the inbox, as its handler sees it.

    `topic` is like `orders/paid`. `payload` is the fields that were kept, as JSON has them: whole numbers are ints of
    any size, others Decimals. `triggered_at` is Shopify's clock and `received_at` the database's.
    """

    id: int
    shop_id: ShopId
    topic: str
    payload: Mapping[str, Any]
    triggered_at: datetime | None
    received_at: datetime


Handler = Callable[[AsyncConnection, Webhook], Awaitable[str]]
"""Handles a webhook and says what came of it, in words: "order 1001: +12 points".

It runs inside one transaction of the shop, which also marks the row handled, and it neither commits nor calls anybody;
what has to be asked of Shopify it notes as an errand. It may be run in any order, and again after a failure. What it
raises is retried, ever later.
"""

Ending = Literal["handled", "failed", "taken"]
"""Of one attempt: handled; failed, to be tried again or given up; or by then somebody else's, or done."""


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A row in hand. `until` is its claim: what is due at another time by now is not ours any more."""

    webhook: Webhook
    until: datetime
    attempts: int


@dataclass(slots=True)
class Handled:
    """What one round came to."""

    claimed: int = 0
    handled: int = 0
    failed: int = 0


async def handle_due(db: Database, shop_id: ShopId, handlers: Mapping[str, Handler]) -> Handled:
    """Claim some of what is due in a shop, oldest first, and handle it, several at a time.

    Cancelled, it gives back what it has not begun.

    Args:
        db: whose connections are used, up to HANDLED_AT_ONCE_MAX at a time.
        shop_id: whose webhooks.
        handlers: by topic. A topic that has none is done with.

    Returns:
        What it came to; nothing claimed: nothing was due.
    """
    claimed = await _claim(db, shop_id)
    done = Handled(claimed=len(claimed))
    left = deque(claimed)

    async def handle_some() -> None:
        while left:
            ending = await _handle(db, left.popleft(), handlers)
            done.handled += ending == "handled"
            done.failed += ending == "failed"

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(HANDLED_AT_ONCE_MAX, len(claimed))):
                group.create_task(handle_some())
    except* DatabaseUnusable as lost:
        # Nothing could be noted either. The claims end by themselves, and the database may be back by then.
        raise lost.exceptions[0] from None
    finally:
        if left:
            await asyncio.shield(_give_back(db, shop_id, list(left)))
    return done


async def _claim(db: Database, shop_id: ShopId) -> list[_Claimed]:
    parameters = {"shop": shop_id, "rows": CLAIM_ROWS_MAX, "claim": CLAIM_S}
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(CLAIM_DUE, parameters)
        rows = await cur.fetchall()
    claimed = [
        _Claimed(
            Webhook(row_id, shop_id, topic, read_json(payload), triggered_at, received_at),
            until,
            attempts,
        )
        for row_id, topic, payload, triggered_at, received_at, until, attempts in rows
    ]
    return sorted(claimed, key=lambda one: (one.webhook.triggered_at or one.webhook.received_at, one.webhook.id))


# The payload as text: the driver would make binary fractions of its numbers. And a CTE, no subquery: that one would be
# run once for each row that it is joined to, and claim far more than it may.
CLAIM_DUE = """
with due as (
  select d.id
  from inbox d
  where d.shop_id = %(shop)s and d.due_at <= clock_timestamp()
  order by d.due_at
  limit %(rows)s
  for no key update skip locked
)
update inbox i
set due_at = clock_timestamp() + make_interval(secs => %(claim)s), attempts = i.attempts + 1
from due
where i.shop_id = %(shop)s and i.id = due.id
returning i.id, i.topic, i.payload::text, i.triggered_at, i.received_at, i.due_at, i.attempts
"""


async def _handle(db: Database, claimed: _Claimed, handlers: Mapping[str, Handler]) -> Ending:
    """One attempt. However it ends, it is on record, unless the database itself is gone."""
    webhook = claimed.webhook
    try:
        return await again_after_deadlock(lambda: _handle_once(db, claimed, handlers))
    except DatabaseUnusable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, the others go on, and it is tried again
        text = error_text(error)
        again_s = await _note_failure(db, claimed, text)
        # Without the traceback's own last line, which may quote the payload.
        about = {"shop_id": webhook.shop_id, "topic": webhook.topic, "webhook": webhook.id, "error": text}
        if again_s is None:
            log.error("webhook given up; see: metafield-sync inbox list --failed", **about)  # noqa: TRY400 - as above
        else:
            log.warning("webhook not handled", again_in_s=again_s, **about)
        return "failed"


async def _handle_once(db: Database, claimed: _Claimed, handlers: Mapping[str, Handler]) -> Ending:
    webhook = claimed.webhook
    parameters: dict[str, object] = {"shop": webhook.shop_id, "id": webhook.id, "until": claimed.until}
    async with db.shop(webhook.shop_id) as conn:
        async with conn.cursor() as cur:
            await cur.execute(HOLD_CLAIMED, parameters)
            row = await cur.fetchone()
        if row is None:
            return "taken"
        handler = handlers.get(webhook.topic)
        if row[0] and webhook.topic not in TOPICS_OF_REMOVED_SHOPS:
            outcome = NOT_INSTALLED
        elif handler is None:
            outcome = NOT_HANDLED
        else:
            outcome = await handler(conn, webhook)
        await conn.execute(MARK_HANDLED, {**parameters, "outcome": outcome[:OUTCOME_CHARS_MAX]})
    return "handled"


# Whoever else claims it waits for this transaction, and then finds it handled.
HOLD_CLAIMED = """
select s.status = 'removed'
from inbox i
join shops s on s.id = i.shop_id
where i.shop_id = %(shop)s and i.id = %(id)s and i.due_at = %(until)s
for no key update of i
"""

# Of somebody who was redacted before it came nothing is kept.
MARK_HANDLED = """
update inbox i
set
  due_at = null,
  handled_at = clock_timestamp(),
  outcome = case when w.names_redacted then 'redacted' else %(outcome)s end,
  payload = case when w.names_redacted then '{}' else i.payload end,
  error = null
from (
  select names_redacted(n.shop_id, n.topic, n.payload)
  from inbox n
  where n.shop_id = %(shop)s and n.id = %(id)s
) w
where i.shop_id = %(shop)s and i.id = %(id)s
"""


async def _note_failure(db: Database, claimed: _Claimed, text: str) -> float | None:
    """Note when to try again, and return in how many seconds; None: no more."""
    webhook = claimed.webhook
    again_s = RETRIES_S[claimed.attempts - 1] if claimed.attempts <= len(RETRIES_S) else None
    parameters = {"shop": webhook.shop_id, "id": webhook.id, "until": claimed.until, "error": text, "again": again_s}
    async with db.shop(webhook.shop_id) as conn:
        await conn.execute(NOTE_FAILURE, parameters)
    return again_s


NOTE_FAILURE = """
update inbox
set
  due_at = clock_timestamp() + make_interval(secs => %(again)s),
  failed_at = case when %(again)s::double precision is null then clock_timestamp() end,
  error = %(error)s
where shop_id = %(shop)s and id = %(id)s and due_at = %(until)s
"""


async def _give_back(db: Database, shop_id: ShopId, claimed: Sequence[_Claimed]) -> None:
    """End the claims on rows that were not begun, and do not count the attempt."""
    parameters = {
        "shop": shop_id,
        "ids": [one.webhook.id for one in claimed],
        "untils": [one.until for one in claimed],
    }
    async with db.shop(shop_id) as conn:
        await conn.execute(GIVE_BACK, parameters)


GIVE_BACK = """
update inbox i
set due_at = clock_timestamp(), attempts = i.attempts - 1
from unnest(%(ids)s::bigint[], %(untils)s::timestamptz[]) as c (id, until)
where i.shop_id = %(shop)s and i.id = c.id and i.due_at = c.until
"""
