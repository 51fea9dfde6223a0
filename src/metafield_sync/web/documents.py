"""The documents of customers and postings: what callers send, and what they get."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, StrictBool, WithJsonSchema, model_validator

from metafield_sync.ledger.posting import BATCH_ENTRIES_MAX, Entry, Posted, Posting
from metafield_sync.sync.standing import CustomerStanding, MirrorStatus
from metafield_sync.web.fields import (
    Amount,
    CustomerUuid,
    Document,
    ExternalId,
    Metadata,
    Moment,
    Reason,
    ShopifyId,
)


class CustomerIn(Document):
    """A customer to mirror."""

    shopify_customer_id: ShopifyId


class EntryIn(Document):
    """One posting. Name the customer by exactly one of the two ids."""

    customer_id: CustomerUuid | None = None
    shopify_customer_id: ShopifyId | None = Field(default=None, description="An unknown one creates the customer.")
    amount: Amount = Field(description="Points: positive adds, negative deducts.")
    reason: Reason
    external_id: ExternalId | None = Field(
        None,
        description="Your key for this posting. The same again, with the same amount and reason, changes nothing.",
    )
    metadata: Metadata | None = Field(default=None, description="Kept beside the entry; 16 KiB of JSON at most.")
    occurred_at: Moment | None = Field(default=None, description="When it happened; else when it is recorded.")
    allow_negative: StrictBool = Field(default=False, description="Let the balance go below zero.")

    @model_validator(mode="after")
    def _one_customer(self) -> Self:
        if (self.customer_id is None) == (self.shopify_customer_id is None):
            raise ValueError("name the customer by exactly one of customerId and shopifyCustomerId")
        return self

    def posting(self) -> Posting:
        """As the ledger takes it."""
        return Posting(
            amount=self.amount,
            reason=self.reason,
            customer_id=self.customer_id,
            shopify_customer_id=None if self.shopify_customer_id is None else int(self.shopify_customer_id),
            external_id=self.external_id,
            metadata=self.metadata,
            occurred_at=self.occurred_at,
            allow_negative=self.allow_negative,
        )


class PostingIn(EntryIn):
    """One posting by itself, which may wait for Shopify."""

    sync_to_shopify: StrictBool = Field(
        default=False, description="Answer when Shopify shows the balance, or after 5 seconds with `synced` false."
    )


class BatchIn(Document):
    """Postings to take one after another. Each is checked and answered for itself."""

    entries: Annotated[
        list[Any],
        Field(max_length=BATCH_ENTRIES_MAX),
        WithJsonSchema(
            {
                "type": "array",
                "maxItems": BATCH_ENTRIES_MAX,
                "items": {"$ref": "#/components/schemas/EntryIn"},
            }
        ),
    ]


class ReversalIn(Document):
    """How to reverse an entry."""

    reason: Reason = "reversal"
    allow_negative: StrictBool = Field(default=False, description="Let the balance go below zero.")


class EntryOut(Document):
    """One immutable ledger entry."""

    id: str
    customer_id: UUID
    amount: int
    balance_after: int
    sequence: int
    reason: str
    external_id: str | None
    metadata: dict[str, Any] | None
    actor: str
    reverses: str | None = Field(description="The id of the entry that this one takes back.")
    occurred_at: Moment
    created_at: Moment

    @classmethod
    def of(cls, entry: Entry) -> EntryOut:
        """The document of an entry."""
        return cls(
            id=entry.key,
            customer_id=entry.customer_id,
            amount=entry.amount,
            balance_after=entry.balance_after,
            sequence=entry.sequence,
            reason=entry.reason,
            external_id=entry.external_id,
            metadata=None if entry.metadata is None else dict(entry.metadata),
            actor=entry.actor,
            reverses=entry.reverses_key,
            occurred_at=entry.occurred_at,
            created_at=entry.created_at,
        )


class PostedOut(Document):
    """An accepted posting."""

    message: Literal["Transaction recorded", "Transaction already processed"]
    entry: EntryOut
    balance: int = Field(description="The customer's balance now.")
    synced: bool = Field(description="Shopify is known to show this balance; only with `syncToShopify`.")

    @classmethod
    def of(cls, posted: Posted, *, synced: bool) -> PostedOut:
        """The document of an accepted posting."""
        message = "Transaction recorded" if posted.is_new else "Transaction already processed"
        return cls(message=message, entry=EntryOut.of(posted.entry), balance=posted.balance, synced=synced)


class BatchOutcome(Document):
    """What became of one posting of a batch: `entry` when accepted, else `code` and `detail`."""

    status: int = Field(description="As the posting by itself would have been answered.")
    entry: EntryOut | None = None
    code: str | None = None
    detail: str | None = None


class BatchOut(Document):
    """One outcome for each posting, in their order."""

    results: list[BatchOutcome]


class MirrorOut(Document):
    """How far Shopify has been told of a customer's balance."""

    status: MirrorStatus
    pushed_balance: int | None
    pushed_at: Moment | None
    stale_since: Moment | None
    attempts: int
    error: str | None


class CustomerOut(Document):
    """A customer."""

    id: UUID
    shopify_customer_id: str
    balance: int
    sequence: int = Field(description="How many entries the ledger has for them.")
    created_at: Moment
    merged_into: UUID | None = Field(description="Who has their points since they were merged; else null.")
    mirror: MirrorOut

    @classmethod
    def of(cls, standing: CustomerStanding) -> CustomerOut:
        """The document of a customer."""
        return cls(
            id=standing.id,
            shopify_customer_id=str(standing.shopify_customer_id),
            balance=standing.balance,
            sequence=standing.sequence,
            created_at=standing.created_at,
            merged_into=standing.merged_into,
            mirror=MirrorOut(
                status=standing.status,
                pushed_balance=standing.pushed_balance,
                pushed_at=standing.pushed_at,
                stale_since=standing.stale_since,
                attempts=standing.attempts,
                error=standing.error,
            ),
        )


class CustomerAsOfOut(CustomerOut):
    """A customer with the balance and sequence of an earlier time."""

    as_of: Moment | None = None


class CustomersOut(Document):
    """A page of customers."""

    customers: list[CustomerOut]
    next_cursor: str | None


class EntriesOut(Document):
    """A page of one customer's entries, newest first."""

    entries: list[EntryOut]
    next_cursor: str | None
