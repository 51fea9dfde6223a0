"""Metafield definitions of one shop, and the rules of creating, changing and pinning them.

Left out because it is not known when Shopify answers so: UNSTRUCTURED_ALREADY_EXISTS. The published
description of `metafieldDefinitionCreate` says that existing values are checked and take the definition's
type, and that those that do not fit stay as they are; that is what happens here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from devstore.metafields import MetafieldBook, Slot
from devstore.storage import Storage
from devstore.values import (
    Complaint,
    ValueRefusedError,
    is_app_owned,
    is_reserved,
    is_type,
    key_complaint,
    namespace_complaint,
    normalise,
    resolve_namespace,
)

DEFINITIONS_PER_OWNER_TYPE_MAX = 256
PINNED_PER_OWNER_TYPE_MAX = 20
NAME_CHARS_MAX = 255
DESCRIPTION_CHARS_MAX = 255

_COLUMNS = """id, owner_type, namespace, key, name, description, type, admin, storefront, customer_account,
    pinned_position"""
_LOAD = f"select {_COLUMNS} from definitions where shop = ? order by id"  # noqa: S608  # a constant of this file
_ADD = """
insert into definitions (shop, owner_type, namespace, key, name, description, type, admin, storefront,
    customer_account, pinned_position)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
returning id
"""
_CHANGE = """
update definitions
set name = ?, description = ?, storefront = ?, customer_account = ?, pinned_position = ?, admin = ?
where id = ?
"""
_DELETE = "delete from definitions where id = ?"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read and write the values: members of the published access enums."""

    admin: str = "PUBLIC_READ_WRITE"
    storefront: str = "NONE"
    customer_account: str = "NONE"


@dataclass(frozen=True, slots=True)
class Definition:
    """One stored definition. `pinned_position` counts from 1; None is not pinned."""

    number: int
    slot: Slot
    name: str
    description: str | None
    type: str
    access: Access
    pinned_position: int | None


@dataclass(frozen=True, slots=True)
class UserError:
    """One entry of a payload's `userErrors`. `element_index` is null in everything recorded; some have no code."""

    field: tuple[str, ...] | None
    message: str
    code: str | None = None
    element_index: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a definition mutation came to: the definition as it now is, or what was wrong."""

    definition: Definition | None
    errors: tuple[UserError, ...] = ()


class DefinitionBook:
    """The definitions of one shop, all of them in memory (at most 256 an owner type) and written through."""

    def __init__(self, storage: Storage, shop: int, metafields: MetafieldBook) -> None:
        self._storage = storage
        self._shop = shop
        self._metafields = metafields
        self._by_slot: dict[Slot, Definition] = {}
        for row in storage.db.execute(_LOAD, (shop,)).fetchall():
            definition = _from_row(
                cast("tuple[int, str, str, str, str, str | None, str, str, str, str, int | None]", row)
            )
            self._by_slot[definition.slot] = definition

    def get(self, slot: Slot) -> Definition | None:
        """The definition of `slot`, or None."""
        return self._by_slot.get(slot)

    def find(self, number: int) -> Definition | None:
        """The definition with this number, or None."""
        return next((one for one in self._by_slot.values() if one.number == number), None)

    def of_type(self, owner_type: str) -> list[Definition]:
        """Every definition for one type of owner, oldest first."""
        return [one for one in self._by_slot.values() if one.slot.owner_type == owner_type]

    def create(self, given: Mapping[str, object]) -> Outcome:
        """`metafieldDefinitionCreate`: `given` is a coerced `MetafieldDefinitionInput`."""
        slot = slot_of(given)
        errors = [*_name_errors(given, slot), *_access_errors(given, slot)]
        if slot in self._by_slot:
            owner = slot.owner_type.capitalize()
            message = f"Key is in use for {owner} metafields on the '{slot.namespace}' namespace."
            errors.append(UserError(("definition", "key"), message, "TAKEN"))
        elif len(self.of_type(slot.owner_type)) >= DEFINITIONS_PER_OWNER_TYPE_MAX:
            message = f"Stores can only have {DEFINITIONS_PER_OWNER_TYPE_MAX} definitions for each store resource."
            errors.append(UserError(("definition",), message, "RESOURCE_TYPE_LIMIT_EXCEEDED"))
        pin = bool(given.get("pin"))
        if pin and not errors and self._pinned(slot.owner_type) >= PINNED_PER_OWNER_TYPE_MAX:
            errors.append(_pin_limit(("definition",)))
        if errors:
            return Outcome(None, tuple(errors))
        definition = Definition(
            number=0,
            slot=slot,
            name=cast("str", given["name"]),
            description=cast("str | None", given.get("description")),
            type=cast("str", given["type"]),
            access=_changed_access(_default_access(slot), given),
            pinned_position=self._pinned(slot.owner_type) + 1 if pin else None,
        )
        return Outcome(self._add(definition))

    def update(self, given: Mapping[str, object]) -> Outcome:
        """`metafieldDefinitionUpdate`: `given` is the coerced input; the type stays."""
        current = self._by_slot.get(slot_of(given))
        if current is None:
            return _not_found(("definition",))
        errors = [*_text_errors(given), *_access_errors(given, current.slot)]
        pin = given.get("pin")
        grows = pin is True and current.pinned_position is None
        if grows and self._pinned(current.slot.owner_type) >= PINNED_PER_OWNER_TYPE_MAX:
            errors.append(_pin_limit(("definition",)))
        if errors:
            return Outcome(None, tuple(errors))
        position = current.pinned_position
        if grows:
            position = self._pinned(current.slot.owner_type) + 1
        elif pin is False:
            position = None
        name = given.get("name")
        changed = replace(
            current,
            name=current.name if name is None else cast("str", name),
            description=cast("str | None", given.get("description", current.description)),
            access=_changed_access(current.access, given),
            pinned_position=position,
        )
        return Outcome(self._change(changed))

    def pin(self, definition: Definition | None) -> Outcome:
        """`metafieldDefinitionPin` of what the caller looked up."""
        if definition is None:
            return _not_found(None)
        if definition.pinned_position is not None:
            return Outcome(None, (UserError(None, "Definition already pinned.", "ALREADY_PINNED"),))
        pinned = self._pinned(definition.slot.owner_type)
        if pinned >= PINNED_PER_OWNER_TYPE_MAX:
            return Outcome(None, (_pin_limit(None),))
        return Outcome(self._change(replace(definition, pinned_position=pinned + 1)))

    def unpin(self, definition: Definition | None) -> Outcome:
        """`metafieldDefinitionUnpin` of what the caller looked up."""
        if definition is None:
            return _not_found(None)
        if definition.pinned_position is None:
            return Outcome(None, (UserError(None, "Definition isn't pinned.", "NOT_PINNED"),))
        return Outcome(self._change(replace(definition, pinned_position=None)))

    def delete(self, slot: Slot) -> bool:
        """Forget a definition and keep its values; False if there is none."""
        definition = self._by_slot.pop(slot, None)
        if definition is None:
            return False
        self._storage.db.execute(_DELETE, (definition.number,))
        return True

    def _add(self, definition: Definition) -> Definition:
        slot, access = definition.slot, definition.access
        values = (
            *(self._shop, slot.owner_type, slot.namespace, slot.key, definition.name, definition.description),
            *(definition.type, access.admin, access.storefront, access.customer_account),
            definition.pinned_position,
        )
        with self._storage.transaction() as db:
            number = cast("tuple[int]", db.execute(_ADD, values).fetchone())[0]
            self._adopt_values(definition)
        stored = replace(definition, number=number)
        self._by_slot[slot] = stored
        return stored

    def _change(self, definition: Definition) -> Definition:
        access = definition.access
        values = (
            *(definition.name, definition.description, access.storefront, access.customer_account),
            *(definition.pinned_position, access.admin, definition.number),
        )
        before = self._by_slot[definition.slot].pinned_position
        self._storage.db.execute(_CHANGE, values)
        self._by_slot[definition.slot] = definition
        if before is not None and definition.pinned_position is None:
            self._move_up(definition.slot.owner_type, before)
        return definition

    def _move_up(self, owner_type: str, position: int) -> None:
        """Close the gap an unpinned definition leaves."""
        for one in self.of_type(owner_type):
            if one.pinned_position is not None and one.pinned_position > position:
                self._change(replace(one, pinned_position=one.pinned_position - 1))

    def _adopt_values(self, definition: Definition) -> None:
        for owner, _kind, value in self._metafields.of_other_type(definition.slot, definition.type):
            try:
                fitting = normalise(definition.type, value)
            except ValueRefusedError:
                continue
            self._metafields.retype(definition.slot, owner, definition.type, fitting)

    def _pinned(self, owner_type: str) -> int:
        return sum(one.pinned_position is not None for one in self.of_type(owner_type))


def slot_of(given: Mapping[str, object]) -> Slot:
    """The slot an input object with ownerType, namespace and key names."""
    namespace = resolve_namespace(cast("str | None", given.get("namespace")))
    return Slot(cast("str", given["ownerType"]), namespace, cast("str", given["key"]))


def _from_row(
    row: tuple[int, str, str, str, str, str | None, str, str, str, str, int | None],
) -> Definition:
    return Definition(
        row[0], Slot(row[1], row[2], row[3]), row[4], row[5], row[6], Access(row[7], row[8], row[9]), row[10]
    )


def _not_found(path: tuple[str, ...] | None) -> Outcome:
    return Outcome(None, (UserError(path, "Definition not found.", "NOT_FOUND"),))


def _pin_limit(path: tuple[str, ...] | None) -> UserError:
    message = f"Limit of {PINNED_PER_OWNER_TYPE_MAX} pinned definitions."
    return UserError(path, message, "PINNED_LIMIT_REACHED")


def _name_errors(given: Mapping[str, object], slot: Slot) -> list[UserError]:
    errors = _text_errors(given)
    for name, complaint in (
        ("namespace", namespace_complaint(slot.namespace)),
        ("key", key_complaint(slot.key)),
    ):
        if complaint is not None:
            # Definitions have a code of their own for bad characters; metafieldsSet has not.
            code = "INVALID_CHARACTER" if complaint.code == "INVALID" else complaint.code
            errors.append(UserError(("definition", name), complaint.message, code))
    if is_reserved(slot.namespace):
        message = f"Namespace {slot.namespace} is reserved."
        errors.append(UserError(("definition", "namespace"), message, "RESERVED_NAMESPACE_KEY"))
    kind = cast("str", given["type"])
    if not is_type(kind):
        message = f"Type name {kind} is not a valid type."
        errors.append(UserError(("definition", "type"), message, "INCLUSION"))
    return errors


def _text_errors(given: Mapping[str, object]) -> list[UserError]:
    checks = (("name", NAME_CHARS_MAX), ("description", DESCRIPTION_CHARS_MAX))
    errors: list[UserError] = []
    for name, longest in checks:
        text = given.get(name)
        complaint: Complaint | None = None
        if name == "name" and isinstance(text, str) and not text.strip():
            complaint = Complaint("BLANK", "Name can't be blank")
        elif isinstance(text, str) and len(text) > longest:
            complaint = Complaint("TOO_LONG", f"{name.capitalize()} is too long (maximum is {longest} characters)")
        if complaint is not None:
            errors.append(UserError(("definition", name), complaint.message, complaint.code))
    return errors


def _access_errors(given: Mapping[str, object], slot: Slot) -> list[UserError]:
    access = cast("Mapping[str, object] | None", given.get("access"))
    if access is None or access.get("admin") is None or is_app_owned(slot.namespace):
        return []
    # Recorded so, although the schema also has ADMIN_ACCESS_INPUT_NOT_ALLOWED.
    message = 'Setting this access control is not permitted. It must be one of ["public_read_write"].'
    return [UserError(("definition", "access", "admin"), message, "INVALID")]


def _default_access(slot: Slot) -> Access:
    return Access(admin="PRIVATE") if is_app_owned(slot.namespace) else Access()


def _changed_access(current: Access, given: Mapping[str, object]) -> Access:
    access = cast("Mapping[str, str | None]", given.get("access") or {})
    return Access(
        admin=access.get("admin") or current.admin,
        storefront=access.get("storefront") or current.storefront,
        customer_account=access.get("customerAccount") or current.customer_account,
    )
