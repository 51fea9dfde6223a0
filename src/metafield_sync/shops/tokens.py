"""Access tokens on record: stored, renewed by one process at a time, sealed with a newer key. PostgreSQL only.

Everything here is sealed (see `vault`). Each token stored raises the shop's `token_version`, and whoever stores one
names the version it replaces: of two who fetched one at once, the second stores nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from psycopg.rows import class_row

from metafield_sync.db.database import ShopId
from metafield_sync.shops.registry import TokenSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

REFRESH_LEASE_S = 30
"""So long one process alone fetches a shop's next token: longer than its call may take. A killed one's just ends."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A shop's token as it is on record; `access_token` and `refresh_token` are ciphertext.

    `valid_s` and `refresh_valid_s` are seconds from now, by the database's clock; None: no end is known.
    `renewed_after_refusal`: Shopify refused the one before, so that a refusal of this one is to be believed.
    """

    shop_id: ShopId
    domain: str
    source: TokenSource | None
    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)
    valid_s: float | None
    refresh_valid_s: float | None
    version: int
    renewed_after_refusal: bool

    @property
    def is_renewable(self) -> bool:
        """Whether another one can be fetched without anybody doing anything."""
        return self.source == "client_credentials" or self.refresh_token is not None


@dataclass(frozen=True, slots=True)
class SealedPair:
    """A new token, sealed, ready to be stored. The times are None where it never lapses, or there is none."""

    source: TokenSource
    access_token: str = field(repr=False)
    expires_at: datetime | None = None
    refresh_token: str | None = field(default=None, repr=False)
    refresh_expires_at: datetime | None = None
    scopes: Sequence[str] = ()


async def find_token(conn: AsyncConnection, shop_id: ShopId) -> StoredToken | None:
    """The shop's token; None if there is no such shop, or it was removed."""
    async with conn.cursor(row_factory=class_row(StoredToken)) as cur:
        await cur.execute(FIND_STORED, {"shop": shop_id})
        return await cur.fetchone()


FIND_STORED = """
select
  id as shop_id,
  domain,
  token_source as source,
  access_token,
  refresh_token,
  extract(epoch from token_expires_at - clock_timestamp())::double precision as valid_s,
  extract(epoch from refresh_expires_at - clock_timestamp())::double precision as refresh_valid_s,
  token_version as version,
  token_renewed_after_refusal as renewed_after_refusal
from shops
where id = %(shop)s and status <> 'removed'
"""


async def store_token(
    conn: AsyncConnection,
    shop_id: ShopId,
    pair: SealedPair,
    *,
    replaces: int | None = None,
    after_refusal: bool = False,
) -> bool:
    """Store a token, in place of version `replaces` if given; False: that one has been replaced already.

    What it was granted is noted too, where it says.
    """
    parameters = {
        "shop": shop_id,
        "replaces": replaces,
        "source": pair.source,
        "token": pair.access_token,
        "expires": pair.expires_at,
        "refresh": pair.refresh_token,
        "refresh_expires": pair.refresh_expires_at,
        "scopes": sorted(set(pair.scopes)) or None,
        "after_refusal": after_refusal,
    }
    async with conn.cursor() as cur:
        await cur.execute(STORE_PAIR, parameters)
        return await cur.fetchone() is not None


STORE_PAIR = """
update shops
set
  token_source = %(source)s,
  access_token = %(token)s,
  token_expires_at = %(expires)s,
  refresh_token = %(refresh)s,
  refresh_expires_at = %(refresh_expires)s,
  token_version = token_version + 1,
  token_renewed_after_refusal = %(after_refusal)s,
  granted_scopes = coalesce(%(scopes)s::text[], granted_scopes),
  refresh_holder = null,
  refresh_until = '-infinity'
where
  id = %(shop)s
  and status <> 'removed'
  and (%(replaces)s::integer is null or token_version = %(replaces)s::integer)
returning id
"""


async def take_refresh(conn: AsyncConnection, token: StoredToken, holder: UUID) -> bool:
    """Become the one who fetches the token after this one; False: somebody else is at it, or has done it."""
    parameters = {"shop": token.shop_id, "version": token.version, "holder": holder, "lease": REFRESH_LEASE_S}
    async with conn.cursor() as cur:
        await cur.execute(TAKE_REFRESH, parameters)
        return await cur.fetchone() is not None


TAKE_REFRESH = """
update shops
set refresh_holder = %(holder)s, refresh_until = clock_timestamp() + make_interval(secs => %(lease)s)
where
  id = %(shop)s
  and status <> 'removed'
  and token_version = %(version)s
  and refresh_until <= clock_timestamp()
returning id
"""


async def give_back_refresh(conn: AsyncConnection, shop_id: ShopId, holder: UUID, *, again_s: float) -> None:
    """Nothing was fetched: let somebody try again in so many seconds."""
    await conn.execute(GIVE_BACK_REFRESH, {"shop": shop_id, "holder": holder, "again": again_s})


GIVE_BACK_REFRESH = """
update shops
set refresh_holder = null, refresh_until = clock_timestamp() + make_interval(secs => %(again)s)
where id = %(shop)s and refresh_holder = %(holder)s
"""


@dataclass(frozen=True, slots=True)
class SealedTexts:
    """What is stored under a key of ours for one shop."""

    shop_id: ShopId
    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)
    version: int


async def sealed_after(conn: AsyncConnection, after: ShopId | None, limit: int) -> list[SealedTexts]:
    """Up to `limit` shops that have anything sealed, by their number, after the one given."""
    async with conn.cursor(row_factory=class_row(SealedTexts)) as cur:
        await cur.execute(SEALED_AFTER, {"after": after, "limit": limit})
        return await cur.fetchall()


SEALED_AFTER = """
select id as shop_id, access_token, refresh_token, token_version as version
from shops
where (access_token is not null or refresh_token is not null) and (%(after)s::integer is null or id > %(after)s)
order by id
limit %(limit)s
"""


async def count_sealed(conn: AsyncConnection) -> int:
    """How many shops have anything sealed."""
    async with conn.cursor() as cur:
        await cur.execute(COUNT_SEALED)
        row = await cur.fetchone()
    return 0 if row is None else row[0]


COUNT_SEALED = "select count(*) from shops where access_token is not null or refresh_token is not null"


async def reseal(
    conn: AsyncConnection, before: SealedTexts, access_token: str | None, refresh_token: str | None
) -> bool:
    """Put the same tokens, sealed anew, in place of these; False: they have been replaced meanwhile."""
    parameters = {
        "shop": before.shop_id,
        "version": before.version,
        "old": before.access_token,
        "access": access_token,
        "refresh": refresh_token,
    }
    async with conn.cursor() as cur:
        await cur.execute(RESEAL, parameters)
        return await cur.fetchone() is not None


# The version stays: it is the same token, and whoever is fetching its successor may go on.
RESEAL = """
update shops
set access_token = %(access)s, refresh_token = %(refresh)s
where id = %(shop)s and token_version = %(version)s and access_token is not distinct from %(old)s
returning id
"""
