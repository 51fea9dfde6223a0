"""Writing balances: one `metafieldsSet` for up to 25 customers, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from metafield_sync.shopify.failures import OutcomeUnknown
from metafield_sync.shopify.ids import customer_gid, read_customer_id
from metafield_sync.shopify.shapes import items, mapping, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.shopify.client import AdminClient, ShopAccess
    from metafield_sync.shopify.cost import Cost

METAFIELDS_SET_MAX = 25
"""How many metafields one `metafieldsSet` takes; the 26th gets the whole call refused (published schema)."""
METAFIELD_TYPE = "number_integer"
"""A whole number within ±9,007,199,254,740,991."""
MUTATION_BASE_POINTS = 10
CUSTOMER_WEIGHT_POINTS = 1
"""`metafieldsSet` costs its base and a weight for each distinct owner, since 2026-09-15; a customer weighs 1
(https://shopify.dev/changelog, "Dynamic complexity cost for metafieldsSet")."""

_CONFLICT_CODES = frozenset({"STALE_OBJECT", "INVALID_COMPARE_DIGEST"})
"""Recorded: the value has changed since it was read; a digest came for a metafield that is not there."""
_NOT_ABOUT_IT = "its acknowledgement is not about what was sent"

# `value` is selected so that "written" means what we sent, and not only that something was; `compareDigest` is
# what the next write of the same customer will be compared with; the owner says whose it is, since the order of the
# answer is not documented. What an owner, an object of an interface, adds to the price is not documented either: one
# recorded call with one entry cost a point more with it (2026-04, before the weights), which the budget's margin
# covers, and the devstore charges nothing for a mutation's payload.
METAFIELDS_SET_MUTATION = """
mutation MetafieldsSet($metafields: [MetafieldsSetInput!]!) {
  metafieldsSet(metafields: $metafields) {
    metafields {
      value
      compareDigest
      owner {
        ... on Customer {
          id
        }
      }
    }
    userErrors {
      field
      message
      code
    }
  }
}
"""


@dataclass(frozen=True, slots=True)
class MetafieldSpec:
    """Which metafield of a customer: `namespace` (3 to 255 of `[A-Za-z0-9_-]`) and `key` (2 to 64)."""

    namespace: str
    key: str


@dataclass(frozen=True, slots=True)
class MetafieldWrite:
    """One customer's new value, and what it may replace.

    `customer_id` is Shopify's numeric id; `value` must be within ±9,007,199,254,740,991. `digest` is Shopify's
    `compareDigest` of the value believed to be there, None for none: then the write goes through only if there is no
    value yet. A write that is of the same value and type as what is there goes through whatever the digest.
    """

    customer_id: int
    value: int
    digest: str | None


class RefusalKind(StrEnum):
    """What a refused entry means for the customer it names."""

    OWNER_GONE = "owner_gone"
    """There is no such customer in the shop: deleted, merged, or never there."""
    WRONG_TYPE = "wrong_type"
    """The metafield or its definition has another type; the definition has to be put right, not the
    customer."""
    CONFLICT = "conflict"
    """What is there is not what the digest says: somebody else wrote, or deleted it, or it was never as believed."""
    OTHER = "other"
    """See `code` and `message`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One error of a refused call.

    `index` is the place in the sequence that was sent, None if Shopify did not say (the caller finds the
    offender by sending halves). `code` is Shopify's, None if it gave none; `field` the path as it came.
    """

    index: int | None
    kind: RefusalKind
    code: str | None
    message: str
    field: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WrittenMetafield:
    """One acknowledged metafield: whose, its value now, its digest now; None is what the answer left out."""

    customer_id: int | None
    value: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class SetPayload:
    """One `metafieldsSet` payload, judged by itself. Exactly one of the three is there.

    `written` holds as many as were sent, in any order; `refused` says why nothing was written; `doubt` says, as part
    of a sentence, why it cannot be known whether anything was.
    """

    written: tuple[WrittenMetafield, ...] = ()
    refused: tuple[Refusal, ...] = ()
    doubt: str | None = None


@dataclass(frozen=True, slots=True)
class SetResult:
    """What became of one call: all written (`refused` is empty), or nothing at all and `refused` says why.

    `digests` holds the digest of each value written, by customer; one that the answer does not tell is missing.
    """

    refused: tuple[Refusal, ...]
    cost: Cost | None
    digests: dict[int, str] = field(default_factory=dict[int, str])

    @property
    def written(self) -> bool:
        """Whether every value of the call is now in Shopify."""
        return not self.refused


def set_cost(count: int) -> int:
    """The points of one `metafieldsSet` for `count` distinct customers: 11 for one, 35 for 25."""
    return MUTATION_BASE_POINTS + CUSTOMER_WEIGHT_POINTS * count


async def set_metafields(
    client: AdminClient, access: ShopAccess, spec: MetafieldSpec, writes: Sequence[MetafieldWrite]
) -> SetResult:
    """Write 1 to `METAFIELDS_SET_MAX` customers' values in one call, atomically.

    A refusal by Shopify's rules is a result, not an error: nothing was written, and the caller resends
    without the entries it names. Raises ValueError for none, too many, or a customer named twice (Shopify
    would let the last one win), the failures of `AdminClient.call`, and OutcomeUnknown when the answer fits
    neither success nor refusal.
    """
    if not 1 <= len(writes) <= METAFIELDS_SET_MAX:
        raise ValueError(f"one call writes 1 to {METAFIELDS_SET_MAX} metafields, not {len(writes)}")
    if len({write.customer_id for write in writes}) != len(writes):
        raise ValueError("one call writes each customer once")
    answer = await client.call(
        access, METAFIELDS_SET_MUTATION, {"metafields": [metafield_input(spec, write) for write in writes]}
    )
    payload = read_set_payload(answer.data.get("metafieldsSet"), count=len(writes))
    if payload.refused:
        return SetResult(refused=payload.refused, cost=answer.cost)
    doubt = payload.doubt or (None if _acknowledges(payload.written, writes) else _NOT_ABOUT_IT)
    if doubt is not None:
        raise OutcomeUnknown(
            f"{access.domain}: Shopify's answer to metafieldsSet cannot be trusted: {doubt}.",
            cost=answer.cost,
        )
    return SetResult(refused=(), cost=answer.cost, digests=_digests(payload.written, writes))


def metafield_input(spec: MetafieldSpec, write: MetafieldWrite) -> dict[str, str | None]:
    """One MetafieldsSetInput, as JSON.

    The type is always named: it is required as long as there is no definition. The digest is always there too, null
    if there is none: a key left out would mean "do not compare", and null means "only if absent" (recorded answers
    tell the two apart).
    """
    return {
        "ownerId": customer_gid(write.customer_id),
        "namespace": spec.namespace,
        "key": spec.key,
        "type": METAFIELD_TYPE,
        "value": str(write.value),
        "compareDigest": write.digest,
    }


def read_set_payload(payload: Any, *, count: int) -> SetPayload:
    """Judge what `metafieldsSet` answered to `count` entries, in a call or on one line of a bulk operation's result.

    Whether the values acknowledged are those sent is for the caller to see, who knows them.
    """
    known = mapping(payload) or {}
    errors = items(known.get("userErrors"))
    metafields = items(known.get("metafields")) or []
    if errors:
        refused = tuple(_refusal(error, count=count) for error in errors)
        nameless = next((refusal for refusal in refused if refusal.index is None), None)
        if not metafields and not (nameless and nameless.code == "INTERNAL_ERROR"):
            return SetPayload(refused=refused)
        # Either an atomic call that claims to have written beside its errors, or an internal error about no
        # entry in particular: halving the batch would only ask the same of a Shopify that is failing.
        return SetPayload(doubt=f"it answered {refused[0].code}: {refused[0].message}")
    if errors is None or len(metafields) != count:
        return SetPayload(doubt=_NOT_ABOUT_IT)
    return SetPayload(written=tuple(_written(metafield) for metafield in metafields))


def _written(metafield: Any) -> WrittenMetafield:
    told = mapping(metafield) or {}
    return WrittenMetafield(
        customer_id=read_customer_id((mapping(told.get("owner")) or {}).get("id")),
        value=text(told.get("value")),
        digest=text(told.get("compareDigest")),
    )


def _acknowledges(written: Sequence[WrittenMetafield], writes: Sequence[MetafieldWrite]) -> bool:
    """Whether the answer is about what was sent: where it tells the values, they are the same.

    Sorted, since the order of the acknowledgement is not documented.
    """
    told = sorted(one.value for one in written if one.value is not None)
    return not told or told == sorted(str(write.value) for write in writes)


def _digests(written: Sequence[WrittenMetafield], writes: Sequence[MetafieldWrite]) -> dict[int, str]:
    sent = {write.customer_id for write in writes}
    return {
        one.customer_id: one.digest
        for one in written
        if one.customer_id is not None and one.customer_id in sent and one.digest is not None
    }


def _refusal(error: Any, *, count: int) -> Refusal:
    """Read one MetafieldsSetUserError.

    The entry is in the `field` path, `["metafields", "0", "ownerId"]`, its number a string. `elementIndex` is
    not it: recorded batch errors leave it null, since it counts the elements of list-typed values.
    """
    described = mapping(error) or {}
    path = tuple(text(part) or "?" for part in items(described.get("field")) or [])
    code = text(described.get("code"))
    return Refusal(
        index=_index(path, count=count),
        kind=_kind(code, path[2] if len(path) > 2 else None),  # noqa: PLR2004 - metafields, index, attribute
        code=code,
        message=text(described.get("message")) or "no message",
        field=path,
    )


def _index(path: tuple[str, ...], *, count: int) -> int | None:
    match path:
        case ("metafields", number, *_) if number.isascii() and number.isdigit() and len(number) <= len(str(count)):
            return int(number) if int(number) < count else None
        case _:
            return None


def _kind(code: str | None, attribute: str | None) -> RefusalKind:
    # INVALID_VALUE alone is a bad value as often as a missing owner; the attribute tells them apart.
    if code == "INVALID_VALUE" and attribute == "ownerId":
        return RefusalKind.OWNER_GONE
    if code in _CONFLICT_CODES:
        return RefusalKind.CONFLICT
    if code == "INVALID_TYPE" or attribute == "type":
        return RefusalKind.WRONG_TYPE
    return RefusalKind.OTHER
