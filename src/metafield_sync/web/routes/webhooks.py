"""What Shopify tells us: verified, stored, answered. Handled by the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import structlog
from fastapi.responses import Response
from starlette.routing import Route

from metafield_sync.shopify.app import NotAuthentic
from metafield_sync.sync.inbox.fields import FIELDS
from metafield_sync.sync.inbox.store import receive
from metafield_sync.web.edge import app_parts

if TYPE_CHECKING:
    from fastapi import Request

    from metafield_sync.sync.inbox.store import Intake
    from metafield_sync.web.metrics import Metrics

OTHER_TOPIC = "other"
"""Anybody can send any topic; only those we know become a label."""

log = structlog.get_logger()


async def take_webhook(request: Request) -> Response:
    """Store one webhook, whatever its topic.

    Whatever is 200 is not sent again: also what we had before, have no use for, or cannot read. A body over the limit
    of every request (413) is not made smaller by Shopify's retries; the subscriptions' `include_fields` keep the
    largest order far below it.
    """
    app = await app_parts(request)
    metrics = cast("Metrics", request.app.state.metrics)
    intake = cast("Intake", request.app.state.intake)
    body = await request.body()
    topic = OTHER_TOPIC
    try:
        headers = app.verifier.webhook(request.headers, body)
        topic = headers.topic if headers.topic in FIELDS else OTHER_TOPIC
        outcome = await receive(intake, headers, body)
    except NotAuthentic as error:
        metrics.webhooks.labels(topic, error.code).inc()
        log.warning("webhook refused", reason=error.detail)
        raise
    metrics.webhooks.labels(topic, outcome).inc()
    return Response(status_code=200)


WEBHOOKS = Route("/webhooks", take_webhook, methods=["POST"])
"""A plain route: reading and checking arguments as the others do would cost a burst a quarter of what it takes."""
