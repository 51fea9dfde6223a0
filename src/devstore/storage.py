"""Where a devstore keeps its shops: SQLite, in memory or in a file.

Why SQLite for both: a million customers with a metafield each must fit and stay quick (a row takes about 60
bytes, against some 300 for Python objects); `metafieldsSet` is atomic and so is a transaction; and a file in
WAL mode holds every committed write after kill -9, because the pages are with the operating system by then
(`synchronous = normal` gives up only the last commits of a power cut, which a stand-in may). One code path
serves both.

The bucket, faults, latency and the call log are not kept: they belong to a run, not to a shop.
"""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

_STATEMENTS_CACHED = 256

_LAST_METAFIELD_ID = "select coalesce(max(id), 0) from metafields"
_LAST_ORDER_ID = "select coalesce(max(last_id), ?) from orders"
# Orders and what is in them are numbered from here, past 2^53: a client that reads ids as JavaScript does loses digits.
_ORDER_ID_BASE = 820_982_911_000_000_000

_SCHEMA = """
create table if not exists shops (
    id integer primary key,
    domain text not null unique,
    token text,
    plan text not null,
    state text not null,
    created_s integer not null
) strict;

create table if not exists customers (
    shop integer not null,
    id integer not null,
    created_s integer not null,
    primary key (shop, id)
) strict, without rowid;

-- Only customers that somebody described have a row here; the rest are synthesised from their number.
create table if not exists customer_details (
    shop integer not null,
    id integer not null,
    details text not null,
    primary key (shop, id)
) strict, without rowid;

-- One row for each (owner type, namespace, key) in use, so that a metafield's row need not repeat them.
create table if not exists slots (
    id integer primary key,
    shop integer not null,
    owner_type text not null,
    namespace text not null,
    key text not null,
    unique (shop, owner_type, namespace, key)
) strict;

-- No index on id: only node(id: "gid://shopify/Metafield/…") would use it, and it would cost every write.
create table if not exists metafields (
    slot integer not null,
    owner integer not null,
    id integer not null,
    type text not null,
    value text not null,
    created_s integer not null,
    updated_s integer not null,
    primary key (slot, owner)
) strict, without rowid;

create table if not exists definitions (
    id integer primary key,
    shop integer not null,
    owner_type text not null,
    namespace text not null,
    key text not null,
    name text not null,
    description text,
    type text not null,
    admin text not null,
    storefront text not null,
    customer_account text not null,
    pinned_position integer,
    unique (shop, owner_type, namespace, key)
) strict;

-- The highest number a deleted customer had: it is not given again.
create table if not exists gone_customers (
    shop integer primary key,
    last_id integer not null
) strict;

-- `content` is the order as JSON; the other columns are what orders are looked for by. `last_id` is the highest number
-- given to anything in it.
create table if not exists orders (
    id integer primary key,
    shop integer not null,
    customer integer,
    ordinal integer not null,
    created_s integer not null,
    updated_s integer not null,
    processed_s integer not null,
    financial_status text not null,
    cancelled integer not null,
    test integer not null,
    last_id integer not null,
    content text not null
) strict;

create index if not exists orders_updated on orders (shop, updated_s, id);
create index if not exists orders_of_customers on orders (shop, customer, id) where customer is not null;

-- What the app may do, as a JSON list; null where it was uninstalled.
create table if not exists installations (
    shop integer primary key,
    scopes text
) strict;

-- A refresh token that is retired is null. `parent` is the grant whose refresh token this one was exchanged for.
create table if not exists grants (
    id integer primary key,
    shop integer not null,
    access_token text not null unique,
    expires_s integer,
    refresh_token text unique,
    refresh_expires_s integer,
    parent integer,
    refreshed_s integer
) strict;
"""


class Storage:
    """One SQLite database.

    Args:
        path: the file to keep everything in, created if missing; None keeps it in memory.

    Raises:
        sqlite3.Error: the file cannot be opened or is no database.
    """

    def __init__(self, path: Path | None) -> None:
        # The server's loop is the only user, but `with DevStore(…)` builds the storage in one thread and
        # serves from another.
        self.db = sqlite3.connect(
            path or ":memory:",
            isolation_level=None,
            cached_statements=_STATEMENTS_CACHED,
            check_same_thread=False,
        )
        self.db.execute("pragma journal_mode = wal")
        self.db.execute("pragma synchronous = normal")
        self.db.execute("pragma busy_timeout = 5000")
        self.db.executescript(_SCHEMA)
        self._metafield_id = cast("tuple[int]", self.db.execute(_LAST_METAFIELD_ID).fetchone())[0]
        self._order_id = cast("tuple[int]", self.db.execute(_LAST_ORDER_ID, (_ORDER_ID_BASE,)).fetchone())[0]

    def next_metafield_id(self) -> int:
        """A number no metafield of this storage has had in this run, nor any that is stored."""
        self._metafield_id += 1
        return self._metafield_id

    @property
    def last_order_id(self) -> int:
        """The last number `next_order_id` gave."""
        return self._order_id

    def next_order_id(self) -> int:
        """A number for an order, or for something in one, that no other of this storage has."""
        self._order_id += 1
        return self._order_id

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """All or nothing: commits at the end, rolls back when anything is raised."""
        self.db.execute("begin immediate")
        try:
            yield self.db
        except BaseException:
            self.db.execute("rollback")
            raise
        self.db.execute("commit")

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        self.db.close()
