"""The lease of a shop: whoever holds it is the one place that pushes to that shop and spends its API budget."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NewType

import structlog

from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId

LEASE_S = 10
LEASE_RENEW_S = 3
"""Two renewals may fail before the lease is lost."""

FencingToken = NewType("FencingToken", int)
"""Raised with every taking of the lease. What is recorded under an older one is refused."""

log = structlog.get_logger()


class LeaseLost(AppError):
    """Somebody else has taken the lease meanwhile; nothing was recorded."""

    code = "lease_lost"
    status = 503


@asynccontextmanager
async def shop_lease(db: Database, shop_id: ShopId, holder: str) -> AsyncGenerator[FencingToken | None]:
    """Hold the shop's lease if it is free, renewing it until the end; yields None, at once, if it is not."""
    token = await _take(db, shop_id, holder)
    if token is None:
        yield None
        return
    renewal = asyncio.create_task(_renew_forever(db, shop_id, token), name=f"lease of shop {shop_id}")
    try:
        yield token
    finally:
        renewal.cancel()
        await asyncio.gather(renewal, return_exceptions=True)
        await asyncio.shield(_give_back(db, shop_id, token))


async def require_lease(conn: AsyncConnection, shop_id: ShopId, token: FencingToken) -> None:
    """Make sure, for the rest of this transaction, that the lease is still ours.

    Raises:
        LeaseLost: it is not.
    """
    async with conn.cursor() as cur:
        await cur.execute(REQUIRE_LEASE, {"shop": shop_id, "token": token})
        if await cur.fetchone() is None:
            raise LeaseLost("Another process has taken over this shop's pushes; what it records counts.")


# A share lock: a takeover waits for this transaction, which is over in milliseconds.
REQUIRE_LEASE = "select 1 from shop_leases where shop_id = %(shop)s and token = %(token)s for share"

TAKE_LEASE = """
update shop_leases
set token = token + 1, holder = %(holder)s, expires_at = clock_timestamp() + make_interval(secs => %(lease)s)
where shop_id = %(shop)s and expires_at <= clock_timestamp()
returning token
"""

RENEW_LEASE = """
update shop_leases
set expires_at = clock_timestamp() + make_interval(secs => %(lease)s)
where shop_id = %(shop)s and token = %(token)s
"""

GIVE_BACK_LEASE = """
update shop_leases
set expires_at = '-infinity', holder = ''
where shop_id = %(shop)s and token = %(token)s
"""


async def _take(db: Database, shop_id: ShopId, holder: str) -> FencingToken | None:
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(TAKE_LEASE, {"shop": shop_id, "holder": holder, "lease": LEASE_S})
        row = await cur.fetchone()
    return None if row is None else FencingToken(row[0])


async def _renew_forever(db: Database, shop_id: ShopId, token: FencingToken) -> None:
    while True:
        await asyncio.sleep(LEASE_RENEW_S)
        try:
            async with db.shop(shop_id) as conn:
                await conn.execute(RENEW_LEASE, {"shop": shop_id, "lease": LEASE_S, "token": token})
        except Exception as error:  # noqa: BLE001 - a renewal that fails is tried again; the token guards the rest
            log.warning("lease not renewed", shop_id=shop_id, error=str(error))


async def _give_back(db: Database, shop_id: ShopId, token: FencingToken) -> None:
    async with db.shop(shop_id) as conn:
        await conn.execute(GIVE_BACK_LEASE, {"shop": shop_id, "token": token})
