"""`metafieldsSet`: at most 25 values, all or none, each compared with what is stored if asked to.

Messages and codes are those recorded from live stores, unless a comment says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from devstore.definitions import DefinitionBook, UserError
from devstore.gids import Gid, parse_gid
from devstore.metafields import OWNER_TYPES, MetafieldBook, Slot, StoredMetafield
from devstore.storage import Storage
from devstore.values import (
    Complaint,
    ValueRefusedError,
    is_reserved,
    is_type,
    key_complaint,
    namespace_complaint,
    normalise,
    resolve_namespace,
)

METAFIELDS_PER_CALL_MAX = 25

# Objects of the published schema that can own metafields. This store has customers and the shop itself; of
# the others none exists, so naming one is "Owner does not exist.", as recorded for products.
_OWNER_KINDS = frozenset(
    {
        *OWNER_TYPES,
        "Article",
        "Blog",
        "Collection",
        "Company",
        "CompanyLocation",
        "DraftOrder",
        "Location",
        "Market",
    }
    | {"Order", "Page", "Product", "ProductVariant"}
)

_STALE = "The resource has been updated since it was loaded. Try again with an updated `compareDigest` value."
_INVALID_DIGEST = "Invalid `compareDigest` value."
_NOT_ALLOWED = "Access to this namespace and key on Metafields for this resource type is not allowed."


class Owners(Protocol):
    """Whoever knows which objects a shop has."""

    def exists(self, owner: Gid) -> bool:
        """Whether the shop has this object."""
        ...


class InvalidIdError(Exception):
    """An id is well formed and names no type that has metafields; the whole call fails, not one entry."""


@dataclass(frozen=True, slots=True)
class SetResult:
    """The payload: the metafields in the order of the input; None when the input as a whole was refused."""

    metafields: tuple[StoredMetafield, ...] | None
    errors: tuple[UserError, ...] = ()


@dataclass(frozen=True, slots=True)
class _Write:
    """One entry that may be written."""

    slot: Slot
    owner: int
    type: str
    value: str


class _RefusedError(Exception):
    """One entry is not acceptable; `error` says where and why."""

    def __init__(self, error: UserError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class MetafieldSetter:
    """Everything the mutation has to look at in one shop."""

    storage: Storage
    metafields: MetafieldBook
    definitions: DefinitionBook

    def run(self, entries: Sequence[Mapping[str, object]], owners: Owners, now_s: int) -> SetResult:
        """Check every entry, then write all of them in one transaction, or none.

        Args:
            entries: coerced `MetafieldsSetInput` objects; a missing `compareDigest` key means no comparison,
            null
                means "only if absent".
            owners: tells which objects exist.
            now_s: seconds since 1970, for createdAt and updatedAt.

        Raises:
            InvalidIdError: an ownerId names a type that cannot own metafields.
        """
        if len(entries) > METAFIELDS_PER_CALL_MAX:
            message = f"Exceeded the maximum metafields input limit of {METAFIELDS_PER_CALL_MAX}."
            return SetResult(None, (UserError(("metafields",), message, "LESS_THAN_OR_EQUAL_TO"),))
        errors: list[UserError] = []
        writes: list[_Write] = []
        for index, entry in enumerate(entries):
            try:
                writes.append(self._check(index, entry, owners))
            except _RefusedError as refused:
                errors.append(refused.error)
        if errors:
            return SetResult((), tuple(errors))
        with self.storage.transaction():
            # The same metafield twice in one call is accepted and the last one wins: writing in order does
            # it.
            for write in writes:
                self.metafields.put(write.slot, write.owner, write.type, write.value, now_s)
        written = (self.metafields.get(write.slot, write.owner) for write in writes)
        return SetResult(tuple(one for one in written if one is not None))

    def _check(self, index: int, entry: Mapping[str, object], owners: Owners) -> _Write:
        owner = _owner(cast("str", entry["ownerId"]))
        if not owners.exists(owner):
            raise _refusal(index, "ownerId", Complaint("INVALID_VALUE", "Owner does not exist."))
        namespace = resolve_namespace(cast("str | None", entry.get("namespace")))
        slot = Slot(OWNER_TYPES[owner.kind], namespace, cast("str", entry["key"]))
        for part, complaint in (
            ("namespace", namespace_complaint(namespace)),
            ("key", key_complaint(slot.key)),
        ):
            if complaint is not None:
                raise _refusal(index, part, complaint)
        if is_reserved(namespace):
            raise _refusal(index, "namespace", Complaint("APP_NOT_AUTHORIZED", _NOT_ALLOWED))
        kind = self._type(index, slot, cast("str | None", entry.get("type")))
        try:
            value = normalise(kind, cast("str", entry["value"]))
        except ValueRefusedError as refused:
            raise _refusal(index, "value", refused.complaint) from refused
        write = _Write(slot, owner.number, kind, value)
        if "compareDigest" in entry:
            self._compare(index, write, cast("str | None", entry["compareDigest"]))
        return write

    def _type(self, index: int, slot: Slot, given: str | None) -> str:
        definition = self.definitions.get(slot)
        if definition is not None:
            if given in {None, "", definition.type}:
                return definition.type
            # The code is Shopify's; the wording is not recorded.
            message = f"Type '{given}' must be consistent with the definition's type: '{definition.type}'."
            raise _refusal(index, "type", Complaint("INVALID_TYPE", message))
        if not given:
            raise _refusal(index, "type", Complaint("BLANK", "Type can't be blank"))
        if not is_type(given):
            raise _refusal(index, "type", Complaint("INCLUSION", "Type is not included in the list"))
        return given

    def _compare(self, index: int, write: _Write, digest: str | None) -> None:
        """Compare-and-set. What is compared is the state before the call, for a repeated metafield too."""
        current = self.metafields.get(write.slot, write.owner)
        if current is None:
            if digest is not None:
                raise _RefusedError(UserError(("metafields", str(index)), _INVALID_DIGEST, "INVALID_COMPARE_DIGEST"))
            return
        unchanged = (current.type, current.value) == (write.type, write.value)
        # An identical value and type is no change, whatever digest comes with it.
        if not unchanged and digest != current.digest:
            raise _RefusedError(UserError(("metafields", str(index)), _STALE, "STALE_OBJECT"))


def _owner(text: str) -> Gid:
    owner = parse_gid(text)
    if owner is None or owner.kind not in _OWNER_KINDS:
        raise InvalidIdError(text)
    return owner


def _refusal(index: int, part: str, complaint: Complaint) -> _RefusedError:
    return _RefusedError(UserError(("metafields", str(index), part), complaint.message, complaint.code))
