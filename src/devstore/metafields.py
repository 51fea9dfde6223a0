"""The metafields of one shop as they are stored: a value for each owner in a slot."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from devstore.gids import Gid
from devstore.storage import Storage

# Which owners of the published schema this store has objects of, and what the schema's enum calls them.
OWNER_TYPES: dict[str, str] = {"Customer": "CUSTOMER", "Shop": "SHOP"}
OWNER_KINDS: dict[str, str] = {name: kind for kind, name in OWNER_TYPES.items()}

_SLOTS = "select id, owner_type, namespace, key from slots where shop = ?"
_SLOT = "select id from slots where shop = ? and owner_type = ? and namespace = ? and key = ?"
_ADD_SLOT = "insert into slots (shop, owner_type, namespace, key) values (?, ?, ?, ?) returning id"
_GET = "select id, type, value, created_s, updated_s from metafields where slot = ? and owner = ?"
_PUT = """
insert or replace into metafields (slot, owner, id, type, value, created_s, updated_s)
values (?, ?, ?, ?, ?, ?, ?)
"""
_DELETE = "delete from metafields where slot = ? and owner = ?"
_DUMP = "select owner, value from metafields where slot = ? order by owner"
_SCAN = "select owner, type, value from metafields where slot = ? and type <> ?"
_RETYPE = "update metafields set type = ?, value = ? where slot = ? and owner = ?"
_COUNT = "select count(*) from metafields where slot = ?"
_FIND = "select slot, owner from metafields where id = ?"


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a metafield may stand on every object of one type."""

    owner_type: str
    namespace: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredMetafield:
    """One metafield. `owner` is the owner's number, times are seconds since 1970, `digest` 64 hex digits."""

    slot: Slot
    owner: int
    number: int
    type: str
    value: str
    created_s: int
    updated_s: int
    digest: str

    @property
    def owner_gid(self) -> Gid:
        """Global id of the object it belongs to."""
        return Gid(OWNER_KINDS[self.slot.owner_type], self.owner)


class MetafieldBook:
    """Reads and writes metafields of one shop. Writers call inside a transaction of `Storage`."""

    def __init__(self, storage: Storage, shop: int) -> None:
        self._storage = storage
        self._shop = shop
        # Numbers of slots that are committed: what a transaction adds may yet be rolled back.
        self._known: dict[Slot, int] = {}

    def get(self, slot: Slot, owner: int) -> StoredMetafield | None:
        """The metafield in `slot` on `owner`, or None."""
        slot_id = self._find_slot(slot)
        if slot_id is None:
            return None
        row = self._storage.db.execute(_GET, (slot_id, owner)).fetchone()
        if row is None:
            return None
        number, kind, value, created_s, updated_s = cast("tuple[int, str, str, int, int]", row)
        digest = self._digest(kind, value)
        return StoredMetafield(slot, owner, number, kind, value, created_s, updated_s, digest)

    def put(self, slot: Slot, owner: int, kind: str, value: str, now_s: int) -> None:
        """Write a value, creating the metafield if needed; one that already holds it is left untouched.

        `updatedAt` moves only when the value changes: an unchanged value is a no-op, as Shopify's changelog
        of 2025-02-18 says.
        """
        current = self.get(slot, owner)
        if current is not None and (current.type, current.value) == (kind, value):
            return
        number, created_s = (
            (current.number, current.created_s) if current else (self._storage.next_metafield_id(), now_s)
        )
        values = (self._slot_id(slot), owner, number, kind, value, created_s, now_s)
        self._storage.db.execute(_PUT, values)

    def delete(self, slot: Slot, owner: int) -> bool:
        """Remove a metafield; False if there is none."""
        slot_id = self._find_slot(slot)
        return slot_id is not None and self._storage.db.execute(_DELETE, (slot_id, owner)).rowcount > 0

    def delete_owner(self, owner_type: str, owner: int) -> None:
        """Remove everything an object owns, as when it is deleted."""
        for slot in self._slots():
            if slot.owner_type == owner_type:
                self.delete(slot, owner)

    def of_owner(self, owner_type: str, owner: int) -> list[StoredMetafield]:
        """All metafields of one object, oldest first."""
        found = (self.get(slot, owner) for slot in self._slots() if slot.owner_type == owner_type)
        return sorted((one for one in found if one is not None), key=lambda one: one.number)

    def find(self, number: int) -> StoredMetafield | None:
        """The metafield with this number: a scan of the table, see the note in the schema."""
        names = {slot_id: slot for slot, slot_id in self._slots().items()}
        for slot_id, owner in cast("list[tuple[int, int]]", self._storage.db.execute(_FIND, (number,)).fetchall()):
            if slot_id in names:
                return self.get(names[slot_id], owner)
        return None

    def count(self, slot: Slot) -> int:
        """How many objects have a value in `slot`."""
        slot_id = self._find_slot(slot) or 0
        return cast("tuple[int]", self._storage.db.execute(_COUNT, (slot_id,)).fetchone())[0]

    def dump(self, slot: Slot) -> dict[int, str]:
        """Every owner's number and value in `slot`, by number."""
        rows = self._storage.db.execute(_DUMP, (self._find_slot(slot) or 0,)).fetchall()
        return dict(cast("list[tuple[int, str]]", rows))

    def of_other_type(self, slot: Slot, kind: str) -> Iterator[tuple[int, str, str]]:
        """Owner, type and value of the metafields in `slot` that are not of type `kind`."""
        rows = self._storage.db.execute(_SCAN, (self._find_slot(slot) or 0, kind)).fetchall()
        yield from cast("list[tuple[int, str, str]]", rows)

    def retype(self, slot: Slot, owner: int, kind: str, value: str) -> None:
        """Give an existing metafield another type, as creating a definition does."""
        self._storage.db.execute(_RETYPE, (kind, value, self._slot_id(slot), owner))

    def _digest(self, kind: str, value: str) -> str:
        # A digest says what the value is, not which write it was: a value that returns has its old digest
        # again. The shop's number keeps clients from computing it; to them it is opaque.
        return hashlib.sha256(f"{self._shop}\0{kind}\0{value}".encode()).hexdigest()

    def _slots(self) -> dict[Slot, int]:
        rows = cast("list[tuple[int, str, str, str]]", self._storage.db.execute(_SLOTS, (self._shop,)).fetchall())
        return {Slot(row[1], row[2], row[3]): row[0] for row in rows}

    def _find_slot(self, slot: Slot) -> int | None:
        known = self._known.get(slot)
        if known is not None:
            return known
        values = (self._shop, slot.owner_type, slot.namespace, slot.key)
        row = cast("tuple[int] | None", self._storage.db.execute(_SLOT, values).fetchone())
        if row is None:
            return None
        if not self._storage.db.in_transaction:
            self._known[slot] = row[0]
        return row[0]

    def _slot_id(self, slot: Slot) -> int:
        known = self._find_slot(slot)
        if known is not None:
            return known
        values = (self._shop, slot.owner_type, slot.namespace, slot.key)
        return cast("tuple[int]", self._storage.db.execute(_ADD_SLOT, values).fetchone())[0]
