"""Writing balances: one `metafieldsSet` for up to 25 customers, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from metafield_sync.shopify.failures import OutcomeUnknown
from metafield_sync.shopify.ids import customer_gid
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

# `value` is selected so that "written" means what we sent, and not only that something was. Owner ids would
# tell which is which, but they are objects of an interface, whose price in this mutation nobody has written
# down, and the values of one call, taken together, say as much. `compareDigest` comes with the first feature
# that reads it.
METAFIELDS_SET_MUTATION = """
mutation MetafieldsSet($metafields: [MetafieldsSetInput!]!) {
  metafieldsSet(metafields: $metafields) {
    metafields {
      value
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
    """One customer's new value.

    `customer_id` is Shopify's numeric id; `value` must be within ±9,007,199,254,740,991.
    """

    customer_id: int
    value: int


class RefusalKind(StrEnum):
    """What a refused entry means for the customer it names."""

    OWNER_GONE = "owner_gone"
    """There is no such customer in the shop: deleted, merged, or never there."""
    WRONG_TYPE = "wrong_type"
    """The metafield or its definition has another type; the definition has to be put right, not the
    customer."""
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
class SetResult:
    """What became of one call: all written (`refused` is empty), or nothing at all and `refused` says why."""

    refused: tuple[Refusal, ...]
    cost: Cost | None

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
        access, METAFIELDS_SET_MUTATION, {"metafields": [_input(spec, write) for write in writes]}
    )
    payload = mapping(answer.data.get("metafieldsSet")) or {}
    errors = items(payload.get("userErrors"))
    metafields = items(payload.get("metafields")) or []
    if errors:
        refused = tuple(_refusal(error, count=len(writes)) for error in errors)
        nameless = next((refusal for refusal in refused if refusal.index is None), None)
        if not metafields and not (nameless and nameless.code == "INTERNAL_ERROR"):
            return SetResult(refused=refused, cost=answer.cost)
        # Either an atomic call that claims to have written beside its errors, or an internal error about no
        # entry in particular: halving the batch would only ask the same of a Shopify that is failing.
        raise _unknown(access, f"it answered {refused[0].code}: {refused[0].message}", answer.cost)
    if errors is None or not _acknowledges(metafields, writes):
        raise _unknown(access, "its acknowledgement is not about what was sent", answer.cost)
    return SetResult(refused=(), cost=answer.cost)


def _input(spec: MetafieldSpec, write: MetafieldWrite) -> dict[str, str]:
    """One MetafieldsSetInput. The type is always named: it is required as long as there is no definition."""
    return {
        "ownerId": customer_gid(write.customer_id),
        "namespace": spec.namespace,
        "key": spec.key,
        "type": METAFIELD_TYPE,
        "value": str(write.value),
    }


def _acknowledges(metafields: Sequence[Any], writes: Sequence[MetafieldWrite]) -> bool:
    """Whether the answer is about what was sent: as many, and, where it tells them, the same values.

    Sorted, since the order of the acknowledgement is not documented.
    """
    values = [text((mapping(metafield) or {}).get("value")) for metafield in metafields]
    told = sorted(value for value in values if value is not None)
    return len(values) == len(writes) and (not told or told == sorted(str(write.value) for write in writes))


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
    if code == "INVALID_TYPE" or attribute == "type":
        return RefusalKind.WRONG_TYPE
    return RefusalKind.OTHER


def _unknown(access: ShopAccess, what: str, cost: Cost | None) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{access.domain}: Shopify's answer to metafieldsSet cannot be trusted: {what}.",
        cost=cost,
    )
