"""Putting webhooks into the inbox: all that happens while Shopify waits for the answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import structlog

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.shopify.app import NotAuthentic
from metafield_sync.shopify.exact_json import JsonUnusable, read_json, write_json
from metafield_sync.shopify.shapes import mapping
from metafield_sync.sync.inbox.fields import FIELDS, SHOP_NAMED_BY, trim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.db.database import Database
    from metafield_sync.shopify.app import WebhookHeaders

Taken = Literal["taken", "repeated", "unknown_shop"]
"""In the inbox now; there before, and nothing changed; or no shop of ours has the domain, and nothing was stored."""
Received = Taken | Literal["not_handled", "unreadable"]
"""What became of a webhook that Shopify signed. Whichever it is, the same again would come to no more."""

TAKEN_TOGETHER_MAX = 100
"""Webhooks stored by one statement."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One webhook to be stored. `payload` is trimmed, and as `read_json` makes it; `body_digest` SHA-256 of the body.

    `delivery_id` is what makes it the same webhook when it comes again.
    """

    shop_domain: str
    delivery_id: str
    topic: str
    event_id: str | None
    api_version: str | None
    triggered_at: datetime | None
    body_digest: bytes
    payload: Mapping[str, Any]


async def receive(intake: Intake, headers: WebhookHeaders, body: bytes) -> Received:
    """Take in a webhook whose signature holds.

    A body that cannot be read is not asked for again: Shopify would send the same bytes eight times. What was in it is
    found by the job that reads orders by `updated_at`.

    Raises:
        NotAuthentic: the signed body names another shop than the header, which is not signed.
        DatabaseUnusable: the database is not to be had; Shopify should try again.
    """
    about = {"shop": headers.shop_domain, "topic": headers.topic, "delivery_id": headers.delivery_id}
    if headers.topic not in FIELDS:
        log.info("webhook of a topic that is not handled", **about)
        return "not_handled"
    try:
        delivery = read_delivery(headers, body)
        taken = await intake.take(delivery)
    except JsonUnusable as error:
        log.warning("webhook cannot be read", error=str(error), **about)
        return "unreadable"
    if taken == "unknown_shop":
        log.info("webhook for a shop that was never added", **about)
    return taken


def read_delivery(headers: WebhookHeaders, body: bytes) -> Delivery:
    """A webhook of a topic that we know, trimmed to what is kept of it.

    Raises:
        JsonUnusable: the body is no JSON object.
        NotAuthentic: it names another shop than the header.
    """
    payload = mapping(read_json(body))
    if payload is None:
        raise JsonUnusable("it is no JSON object")
    named_by = SHOP_NAMED_BY.get(headers.topic)
    if named_by is not None and payload.get(named_by) != headers.shop_domain:
        raise NotAuthentic(f"The header X-Shopify-Shop-Domain is not the {named_by} in the signed body.")
    digest = hashlib.sha256(body)
    return Delivery(
        shop_domain=headers.shop_domain,
        # One change is often told under several topics with the same body, so the body alone is no id.
        delivery_id=headers.delivery_id or f"sha256:{digest.hexdigest()}:{headers.topic}",
        topic=headers.topic,
        event_id=headers.event_id,
        api_version=headers.api_version,
        triggered_at=headers.triggered_at,
        body_digest=digest.digest(),
        payload=trim(headers.topic, payload),
    )


class Intake:
    """Stores webhooks; those that come while others are being stored are stored together, in one statement and commit.

    A burst then costs the database a commit for dozens of them, and a single one waits for nobody. One a process.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: list[_Waiting] = []
        self._storing: asyncio.Task[None] | None = None

    async def take(self, delivery: Delivery) -> Taken:
        """Store a webhook. One that is there already, by its delivery id, changes nothing.

        Raises:
            JsonUnusable: the payload holds what PostgreSQL cannot store.
            DatabaseUnusable: the database is not to be had.
        """
        taken: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(delivery, write_json(delivery.payload), taken))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store(), name="webhooks")
        return await taken

    async def _store(self) -> None:
        try:
            while self._waiting:
                some = self._waiting[:TAKEN_TOGETHER_MAX]
                del self._waiting[:TAKEN_TOGETHER_MAX]
                await self._store_some(some)
        finally:
            self._storing = None

    async def _store_some(self, some: Sequence[_Waiting]) -> None:
        try:
            outcomes = await again_after_deadlock(lambda: _take_all(self._db, some))
        except Exception as error:  # noqa: BLE001 - whatever it was, each of those who wait has to hear of it
            for one in some:
                one.fail(error)
            return
        for one, outcome in zip(some, outcomes, strict=True):
            one.succeed(outcome)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A webhook whose sender waits for the answer, unless they have gone."""

    delivery: Delivery
    payload: str
    taken: asyncio.Future[Taken]

    def succeed(self, outcome: Taken) -> None:
        if not self.taken.done():
            self.taken.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if not self.taken.done():
            self.taken.set_exception(error)


async def _take_all(db: Database, some: Sequence[_Waiting]) -> list[Taken]:
    deliveries = [one.delivery for one in some]
    parameters = {
        "domains": [one.shop_domain for one in deliveries],
        "deliveries": [one.delivery_id for one in deliveries],
        "topics": [one.topic for one in deliveries],
        "events": [one.event_id for one in deliveries],
        "versions": [one.api_version for one in deliveries],
        "triggered": [one.triggered_at for one in deliveries],
        "digests": [one.body_digest for one in deliveries],
        "payloads": [one.payload for one in some],
    }
    async with db.connection() as conn, conn.cursor() as cur:
        await cur.execute(TAKE_DELIVERIES, parameters)
        rows = await cur.fetchall()
    outcomes: list[Taken] = ["unknown_shop"] * len(some)
    for number, outcome in rows:
        outcomes[number - 1] = outcome
    return outcomes


TAKE_DELIVERIES = """
select
  d.number,
  take_delivery(
    d.domain, d.delivery_id, d.topic, d.event_id, d.api_version, d.triggered_at, d.body_digest, d.payload::jsonb
  )
from unnest(
  %(domains)s::text[], %(deliveries)s::text[], %(topics)s::text[], %(events)s::text[], %(versions)s::text[],
  %(triggered)s::timestamptz[], %(digests)s::bytea[], %(payloads)s::text[]
) with ordinality as d (domain, delivery_id, topic, event_id, api_version, triggered_at, body_digest, payload, number)
"""
