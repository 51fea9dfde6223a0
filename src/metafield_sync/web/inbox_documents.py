"""The documents of the inbox."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from metafield_sync.sync.inbox.records import WebhookRecord, WebhookStatus
from metafield_sync.web.fields import Document, Moment


class WebhookSummaryOut(Document):
    """A webhook that came in, and what came of it."""

    id: int
    topic: str = Field(examples=["orders/paid"])
    status: WebhookStatus = Field(
        description="`waiting` for its turn or its next attempt; `handled`; `failed`: given up after many attempts, "
        "until somebody resends it."
    )
    triggered_at: Moment | None = Field(description="When what it tells of happened, by Shopify's clock.")
    received_at: Moment
    attempts: int
    next_attempt_at: Moment | None
    handled_at: Moment | None
    failed_at: Moment | None
    outcome: str | None = Field(description="What came of it, in words.")
    error: str | None = Field(description="Why the last attempt failed.")

    @classmethod
    def of(cls, record: WebhookRecord) -> WebhookSummaryOut:
        """The document of a webhook, in a list."""
        return cls(**{name: getattr(record, name) for name in WebhookSummaryOut.model_fields})


class WebhookOut(WebhookSummaryOut):
    """A webhook with the fields of its payload that were kept: no names, addresses or e-mails."""

    delivery_id: str = Field(description="Shopify's `X-Shopify-Webhook-Id`: the same for every attempt to deliver.")
    event_id: str | None
    api_version: str | None
    payload: dict[str, Any]

    @classmethod
    def of(cls, record: WebhookRecord) -> WebhookOut:
        """The document of a webhook by itself."""
        return cls(**{name: getattr(record, name) for name in WebhookOut.model_fields})


class WebhooksOut(Document):
    """A page of the inbox."""

    webhooks: list[WebhookSummaryOut]
    next_cursor: str | None
