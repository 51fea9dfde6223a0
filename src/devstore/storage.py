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

    def next_metafield_id(self) -> int:
        """A number no metafield of this storage has had in this run, nor any that is stored."""
        self._metafield_id += 1
        return self._metafield_id

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
