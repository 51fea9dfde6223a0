"""The customers of one shop: their numbers, and details only of those whom somebody described."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import cast

from devstore.gids import NUMBER_MAX
from devstore.storage import Storage

COUNT_DEFAULT_MAX = 10_000
_INSERT_BATCH = 10_000

_INSERT = "insert or ignore into customers (shop, id, created_s) values (?, ?, ?)"
_INSERT_RANGE = """
with recursive numbers (id) as (
    select :first
    union all
    select id + 1 from numbers where id < :last
)
insert or ignore into customers (shop, id, created_s)
select :shop, id, :created_s from numbers
"""
_EXISTS = "select 1 from customers where shop = ? and id = ?"
_CREATED = "select created_s from customers where shop = ? and id = ?"
_DELETE = "delete from customers where shop = ? and id = ?"
_DELETE_DETAILS = "delete from customer_details where shop = ? and id = ?"
_DETAILS = "select details from customer_details where shop = ? and id = ?"
_PUT_DETAILS = "insert or replace into customer_details (shop, id, details) values (?, ?, ?)"
_COUNT = "select count(*) from (select 1 from customers where shop = ? and id between ? and ? limit ?)"
_GONE = "select last_id from gone_customers where shop = ?"
_NOTE_GONE = """
insert into gone_customers (shop, last_id) values (?, ?)
on conflict (shop) do update set last_id = max(last_id, excluded.last_id)
"""
_LAST = "select coalesce(max(id), 0) from customers where shop = ?"
_PAGE = "select id from customers where shop = ? and id between ? and ? order by id limit ?"
_PAGE_BACK = "select id from customers where shop = ? and id between ? and ? order by id desc limit ?"


@dataclass(frozen=True, slots=True)
class CustomerDetails:
    """What a customer was created with; everything is optional, as in `CustomerInput`."""

    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    note: str | None = None
    tags: tuple[str, ...] = ()

    def display_name(self, number: int) -> str:
        """Full name, else email address, as Shopify does; else "Customer" and the number."""
        named = " ".join(part for part in (self.first_name, self.last_name) if part)
        return named or self.email or f"Customer {number}"


@dataclass(frozen=True, slots=True)
class IdRange:
    """Numbers from `first` to `last`, both included. Empty if `first` is the larger one."""

    first: int = 1
    last: int = NUMBER_MAX


class CustomerBook:
    """Customers of one shop, by number. A deleted one's metafields are the shop's business."""

    def __init__(self, storage: Storage, shop: int) -> None:
        self._storage = storage
        self._shop = shop

    def add_range(self, first: int, count: int, created_s: int) -> None:
        """Add `count` customers numbered from `first` on; those that exist stay as they are."""
        if count < 1:
            return
        values = {"first": first, "last": first + count - 1, "shop": self._shop, "created_s": created_s}
        with self._storage.transaction() as db:
            db.execute(_INSERT_RANGE, values)

    def add(self, numbers: Iterable[int], created_s: int) -> None:
        """Add customers by number; those that exist stay as they are."""
        with self._storage.transaction() as db:
            db.executemany(_INSERT, ((self._shop, number, created_s) for number in numbers))

    def create(self, details: CustomerDetails, created_s: int) -> int:
        """Add one customer with details under the next free number, and return that number."""
        gone = cast("tuple[int] | None", self._storage.db.execute(_GONE, (self._shop,)).fetchone())
        number = max(self.last(), gone[0] if gone else 0) + 1
        with self._storage.transaction() as db:
            db.execute(_INSERT, (self._shop, number, created_s))
            self.describe(number, details)
        return number

    def describe(self, number: int, details: CustomerDetails) -> None:
        """Replace a customer's details."""
        text = json.dumps(asdict(details), separators=(",", ":"))
        self._storage.db.execute(_PUT_DETAILS, (self._shop, number, text))

    def remove(self, number: int) -> bool:
        """Delete a customer, inside the caller's transaction; False if there is none."""
        db = self._storage.db
        db.execute(_DELETE_DETAILS, (self._shop, number))
        db.execute(_NOTE_GONE, (self._shop, number))
        return db.execute(_DELETE, (self._shop, number)).rowcount > 0

    def exists(self, number: int) -> bool:
        """Whether there is such a customer."""
        return self._storage.db.execute(_EXISTS, (self._shop, number)).fetchone() is not None

    def created_s(self, number: int) -> int:
        """When the customer was created, in seconds since 1970; 0 if it is gone."""
        row = cast("tuple[int] | None", self._storage.db.execute(_CREATED, (self._shop, number)).fetchone())
        return row[0] if row else 0

    def details(self, number: int) -> CustomerDetails:
        """What the customer was created with; nothing for a synthetic one."""
        row = cast("tuple[str] | None", self._storage.db.execute(_DETAILS, (self._shop, number)).fetchone())
        if row is None:
            return CustomerDetails()
        stored = cast("dict[str, object]", json.loads(row[0]))
        stored["tags"] = tuple(cast("Sequence[str]", stored["tags"]))
        return CustomerDetails(**stored)  # pyright: ignore[reportArgumentType]  # written by `create` from this class

    def count(self, span: IdRange, limit: int | None) -> int:
        """How many customers have a number in `span`, stopping at `limit` (None: never)."""
        values = (self._shop, span.first, span.last, -1 if limit is None else limit)
        return cast("tuple[int]", self._storage.db.execute(_COUNT, values).fetchone())[0]

    def last(self) -> int:
        """The highest number in use, 0 in an empty shop."""
        return cast("tuple[int]", self._storage.db.execute(_LAST, (self._shop,)).fetchone())[0]

    def page(self, span: IdRange, limit: int, *, backwards: bool = False) -> list[int]:
        """At most `limit` numbers in `span`, ascending, or descending from its end if `backwards`."""
        statement = _PAGE_BACK if backwards else _PAGE
        rows = self._storage.db.execute(statement, (self._shop, span.first, span.last, limit)).fetchall()
        return [row[0] for row in cast("list[tuple[int]]", rows)]
