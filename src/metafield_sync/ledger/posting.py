"""Posting: the only way points change. The rules themselves are in the database, in `post_entries`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, LiteralString, NewType
from uuid import UUID

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId

POINTS_MAX = 9_007_199_254_740_991
"""Where Shopify's number_integer ends, either way: 2^53 - 1."""
BATCH_ENTRIES_MAX = 1_000

EntryKey = NewType("EntryKey", str)
"""An entry's public id: its customer's id and its sequence, as in `0b5c…-…-9f-12`."""

ENTRY_KEY = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-([1-9][0-9]{0,18})")


class PostingRefused(AppError):
    """A posting the ledger will not take. Nothing was written. Its subclasses say why."""

    status = 422


class IdempotencyConflict(PostingRefused):
    """The key was used before, for another amount or reason."""

    code: ClassVar[str] = "idempotency_conflict"
    status: ClassVar[int] = 409


class InsufficientBalance(PostingRefused):
    """The deduction would take the balance below zero."""

    code: ClassVar[str] = "insufficient_balance"


class BalanceOutOfRange(PostingRefused):
    """The balance would leave what Shopify can show."""

    code: ClassVar[str] = "balance_out_of_range"


class PostingToUnknownCustomer(PostingRefused):
    """The posting names a customer this shop does not have."""

    code: ClassVar[str] = "customer_not_found"
    status: ClassVar[int] = 404


class PostingToRedactedCustomer(PostingRefused):
    """Who this customer was has been erased. The amounts are kept, and nothing is added to them."""

    code: ClassVar[str] = "customer_redacted"
    status: ClassVar[int] = 410


class EntryNotFound(PostingRefused):
    """There is no such entry in this shop."""

    code: ClassVar[str] = "entry_not_found"
    status: ClassVar[int] = 404


class NotReversible(PostingRefused):
    """Half of a merge cannot be taken back."""

    code: ClassVar[str] = "not_reversible"
    status: ClassVar[int] = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """A wish to change one customer's points. Name the customer by exactly one of the two ids.

    `amount` is in points, not zero, within ±POINTS_MAX; `external_id` is the caller's key for it, unique per customer;
    `metadata` must be JSON and is kept beside the entry, so that it can be emptied.
    """

    amount: int
    reason: str
    customer_id: UUID | None = None
    shopify_customer_id: int | None = None
    external_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    occurred_at: datetime | None = None
    allow_negative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One immutable change of one customer's points."""

    customer_id: UUID
    sequence: int
    amount: int
    balance_after: int
    reason: str
    external_id: str | None
    metadata: Mapping[str, Any] | None
    actor: str
    reverses_customer_id: UUID | None
    reverses: int | None
    occurred_at: datetime
    created_at: datetime

    @property
    def key(self) -> EntryKey:
        """Its public id."""
        return entry_key(self.customer_id, self.sequence)

    @property
    def reverses_key(self) -> EntryKey | None:
        """The public id of the entry it takes back: of another customer, if that one was merged into this one since."""
        return (
            None if self.reverses is None else entry_key(self.reverses_customer_id or self.customer_id, self.reverses)
        )


@dataclass(frozen=True, slots=True)
class Posted:
    """An accepted posting: the entry, whether this call made it, and the customer's balance as it is now.

    An entry made before a merge stays with whom it was made for; the balance is then the survivor's.
    """

    entry: Entry
    is_new: bool
    balance: int


def entry_key(customer_id: UUID, sequence: int) -> EntryKey:
    """The public id of a customer's entry number `sequence`."""
    return EntryKey(f"{customer_id}-{sequence}")


def parse_entry_key(key: str) -> tuple[UUID, int]:
    """The customer and the sequence in an entry's public id.

    Raises:
        EntryNotFound: it is not the form of one, so no entry can have it.
    """
    found = ENTRY_KEY.fullmatch(key)
    if found is None or int(found[2]) >= 2**63:
        raise _no_such_entry(key)
    return UUID(found[1]), int(found[2])


async def post(db: Database, shop_id: ShopId, actor: str, posting: Posting) -> Posted:
    """Post one change, in one round trip; the rules are those of `post_batch`.

    Raises:
        PostingRefused: one of its subclasses; nothing was written.
    """
    request = _request(posting)
    (outcome,) = await _post(db, [request], POST_ENTRY, {**request, "shop": shop_id, "actor": actor})
    if isinstance(outcome, PostingRefused):
        raise outcome
    return outcome


POST_ENTRY = """
select *
from post_entry(
  %(shop)s, %(actor)s, %(customerId)s::uuid, %(shopifyCustomerId)s::bigint, %(amount)s::bigint, %(reason)s,
  %(externalId)s, %(metadata)s::jsonb, %(occurredAt)s::timestamptz, %(allowNegative)s::boolean
)
"""


async def post_batch(
    db: Database, shop_id: ShopId, actor: str, postings: Sequence[Posting]
) -> list[Posted | PostingRefused]:
    """Post many changes in one round trip and one transaction, each with its own outcome, in the order given.

    A customer may come many times; later postings see the balance earlier ones left. A refused posting leaves its
    neighbours alone. A posting whose key was used before, with the same amount and reason, gets the first entry.
    One that names a merged customer is the survivor's; the keys are then those of all who were merged together.

    Args:
        db: where the shop's ledger is.
        shop_id: whose ledger.
        actor: who does this, such as `api-key:3`; never a person's name.
        postings: at most BATCH_ENTRIES_MAX.
    """
    return await _post_batch(db, shop_id, actor, [_request(posting) for posting in postings])


async def post_within(
    conn: AsyncConnection, shop_id: ShopId, actor: str, postings: Sequence[Posting]
) -> list[Posted | PostingRefused]:
    """As `post_batch`, inside the caller's transaction: what else it writes stands or falls with the entries.

    Whatever rows of its own the caller locks, it locks before this: customers, then their mirror, come last. Run the
    transaction with `again_after_deadlock`.
    """
    if not postings:
        return []
    requests = [_request(posting) for posting in postings]
    return await _call(conn, requests, POST_ENTRIES, _batch(shop_id, actor, requests))


async def reverse(
    db: Database, shop_id: ShopId, actor: str, key: str, *, reason: str, allow_negative: bool = False
) -> Posted:
    """Post the opposite of an entry. An entry is reversed once: again returns the reversal there is.

    That of a merged customer's entry is the survivor's.

    Raises:
        EntryNotFound: there is no such entry.
        NotReversible: it is half of a merge.
        PostingRefused: the balance would go below zero and `allow_negative` is not set.
    """
    customer_id, sequence = parse_entry_key(key)
    request = {
        "customerId": str(customer_id),
        "reverses": sequence,
        "reason": reason,
        "allowNegative": allow_negative,
    }
    (outcome,) = await _post_batch(db, shop_id, actor, [request])
    if isinstance(outcome, EntryNotFound | PostingToUnknownCustomer):
        raise _no_such_entry(key)
    if isinstance(outcome, PostingRefused):
        raise outcome
    return outcome


async def _post_batch(
    db: Database, shop_id: ShopId, actor: str, requests: Sequence[Mapping[str, Any]]
) -> list[Posted | PostingRefused]:
    if not requests:
        return []
    return await _post(db, requests, POST_ENTRIES, _batch(shop_id, actor, requests))


def _batch(shop_id: ShopId, actor: str, requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    plain = [request | {"metadata": _plain(request.get("metadata"))} for request in map(dict, requests)]
    return {"shop": shop_id, "actor": actor, "entries": Jsonb(plain)}


POST_ENTRIES = "select * from post_entries(%(shop)s, %(actor)s, %(entries)s) order by ord"


async def _post(
    db: Database, requests: Sequence[Mapping[str, Any]], statement: LiteralString, parameters: Mapping[str, Any]
) -> list[Posted | PostingRefused]:
    async def call() -> list[Posted | PostingRefused]:
        async with db.connection() as conn:
            return await _call(conn, requests, statement, parameters)

    return await again_after_deadlock(call)


async def _call(
    conn: AsyncConnection,
    requests: Sequence[Mapping[str, Any]],
    statement: LiteralString,
    parameters: Mapping[str, Any],
) -> list[Posted | PostingRefused]:
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(statement, parameters)
        rows = await cur.fetchall()
    return [_outcome(request, row) for request, row in zip(requests, rows, strict=True)]


def _plain(metadata: Jsonb | None) -> Any:
    return None if metadata is None else metadata.obj


def _request(posting: Posting) -> dict[str, Any]:
    return {
        "customerId": None if posting.customer_id is None else str(posting.customer_id),
        "shopifyCustomerId": posting.shopify_customer_id,
        "amount": posting.amount,
        "reason": posting.reason,
        "externalId": posting.external_id,
        "metadata": None if posting.metadata is None else Jsonb(posting.metadata),
        "occurredAt": None if posting.occurred_at is None else posting.occurred_at.astimezone(UTC).isoformat(),
        "allowNegative": posting.allow_negative,
    }


def _outcome(request: Mapping[str, Any], row: Mapping[str, Any]) -> Posted | PostingRefused:
    if row["outcome"] not in ("recorded", "replayed"):
        return _refusal(request, row)
    entry = Entry(**{name: row[name] for name in Entry.__dataclass_fields__})
    return Posted(entry, is_new=row["outcome"] == "recorded", balance=row["balance"])


def _refusal(request: Mapping[str, Any], row: Mapping[str, Any]) -> PostingRefused:
    refused: PostingRefused
    match row["outcome"]:
        case "idempotency_conflict":
            refused = IdempotencyConflict(
                f"externalId {request['externalId']!r} was already used for this customer, for {row['amount']} points "
                f"with reason {row['reason']!r} (entry {entry_key(row['customer_id'], row['sequence'])}). "
                "Send the same request again, or use another externalId."
            )
        case "insufficient_balance":
            refused = InsufficientBalance(
                f"The balance is {row['balance']}, too little for this deduction. "
                "Deduct less, or set allowNegative if a balance below zero is meant."
            )
        case "balance_out_of_range":
            refused = BalanceOutOfRange(
                f"The balance is {row['balance']}; this posting would take it beyond ±{POINTS_MAX}, "
                "the largest integer Shopify can show. Post a smaller amount."
            )
        case "customer_not_found":
            refused = PostingToUnknownCustomer(
                f"This shop has no customer {request['customerId']}. "
                "Name a new customer by shopifyCustomerId and the posting creates them."
            )
        case "customer_redacted":
            named = request.get("customerId") or f"with the Shopify id {request.get('shopifyCustomerId')}"
            refused = PostingToRedactedCustomer(
                f"Customer {named} was redacted: their amounts are kept, and nothing is added. Do not send it again."
            )
        case "entry_not_found":
            refused = _no_such_entry(str(request["customerId"]))
        case "not_reversible":
            refused = NotReversible(
                "This entry moved points from one customer to another when they were merged. "
                "Post an adjustment to the surviving customer instead."
            )
        case other:
            raise AssertionError(f"post_entries answered {other!r}")
    return refused


def _no_such_entry(key: str) -> EntryNotFound:
    return EntryNotFound(f"This shop has no ledger entry {key}. GET /api/customers/{{id}}/ledger lists a customer's.")
