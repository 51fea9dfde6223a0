"""API keys: random, shown once, stored as a hash, read or write."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row

from metafield_sync.db.database import ShopId
from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from psycopg import AsyncConnection

KEY_PREFIX = "mfs_"
"""So that a key found where it should not be can be recognised, by people and by secret scanners."""
KEY_BYTES = 32
NAME_CHARS_MAX = 100

Scope = Literal["read", "write"]


class KeyNotFound(AppError):
    """No such key in this shop."""

    code = "key_not_found"
    status = 404
    exit_status = 2


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a key speaks for."""

    shop_id: ShopId
    key_id: int
    can_write: bool

    @property
    def actor(self) -> str:
        """How the ledger names who did it."""
        return f"api-key:{self.key_id}"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it can be listed: never the key itself."""

    id: int
    name: str
    scope: Scope
    created_at: datetime
    revoked_at: datetime | None


async def create_key(conn: AsyncConnection, shop_id: ShopId, *, name: str, scope: Scope) -> str:
    """Make a key for the shop and return it. It is nowhere to be read again: only its hash is stored."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    await conn.execute(CREATE_KEY, {"shop": shop_id, "name": name, "scope": scope, "hash": hash_key(key)})
    return key


CREATE_KEY = """
insert into api_keys (shop_id, name, scope, key_hash)
values (%(shop)s, %(name)s, %(scope)s, %(hash)s)
"""


async def list_keys(conn: AsyncConnection, shop_id: ShopId) -> list[ApiKey]:
    """The shop's keys, oldest first, revoked ones included."""
    async with conn.cursor(row_factory=class_row(ApiKey)) as cur:
        await cur.execute(LIST_KEYS, {"shop": shop_id})
        return await cur.fetchall()


LIST_KEYS = "select id, name, scope, created_at, revoked_at from api_keys where shop_id = %(shop)s order by id"


async def revoke_key(conn: AsyncConnection, shop_id: ShopId, key_id: int) -> None:
    """Make a key worthless from now on.

    Raises:
        KeyNotFound: the shop has no such key, or it was revoked before.
    """
    async with conn.cursor() as cur:
        await cur.execute(REVOKE_KEY, {"shop": shop_id, "key": key_id})
        if await cur.fetchone() is None:
            raise KeyNotFound(f"This shop has no key number {key_id} in use. See: metafield-sync keys list")


REVOKE_KEY = """
update api_keys
set revoked_at = clock_timestamp()
where shop_id = %(shop)s and id = %(key)s and revoked_at is null
returning id
"""


async def find_caller(conn: AsyncConnection, key: str) -> Caller | None:
    """Whom a presented key speaks for; None if it is unknown or revoked."""
    async with conn.cursor() as cur:
        await cur.execute("select shop_id, key_id, can_write from find_api_key(%s)", (hash_key(key),))
        row = await cur.fetchone()
    return None if row is None else Caller(ShopId(row[0]), row[1], row[2])


def hash_key(key: str) -> bytes:
    """What is stored of a key. 256 random bits need no slow hash: there is nothing to guess."""
    return hashlib.sha256(key.encode()).digest()
