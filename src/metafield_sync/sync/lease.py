"""The lease of a shop: whoever holds it is the one place that pushes to that shop and spends its API budget."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
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

LEASE_MARGIN_S = 2
"""Nothing is sent any more so long before the lease ends: clocks drift, and a send takes its time."""

FencingToken = NewType("FencingToken", int)
"""Raised with every taking of the lease. What is recorded under an older one is refused."""

log = structlog.get_logger()


class LeaseLost(AppError):
    """Somebody else has taken the lease meanwhile, or may have; nothing is sent or recorded any more."""

    code = "lease_lost"
    status = 503


class LeaseEnding(LeaseLost):
    """There is too little time left on the lease: what was to be sent was not."""


@dataclass(slots=True)
class Lease:
    """A lease in hand. `ends_at` is on this process's monotonic clock, counted from before the database was asked."""

    shop_id: ShopId
    token: FencingToken
    ends_at: float

    def require_time(self) -> None:
        """Make sure, right before something is sent, that nobody else can have taken over.

        The token keeps an overslept holder from recording; this keeps it from sending.

        Raises:
            LeaseEnding: the lease has ended, or is about to.
        """
        if time.monotonic() > self.ends_at - LEASE_MARGIN_S:
            raise LeaseEnding("This process held up its pushes for too long; another takes them over.")


@asynccontextmanager
async def shop_lease(db: Database, shop_id: ShopId, holder: str) -> AsyncGenerator[Lease | None]:
    """Hold the shop's lease if it is free, renewing it until the end; yields None, at once, if it is not."""
    asked_at = time.monotonic()
    token = await _take(db, shop_id, holder)
    if token is None:
        yield None
        return
    lease = Lease(shop_id, token, asked_at + LEASE_S)
    renewal = asyncio.create_task(_renew_forever(db, lease), name=f"lease of shop {shop_id}")
    try:
        yield lease
    finally:
        renewal.cancel()
        await asyncio.gather(renewal, return_exceptions=True)
        await asyncio.shield(_give_back(db, shop_id, token))


async def require_lease(conn: AsyncConnection, lease: Lease) -> None:
    """Make sure, for the rest of this transaction, that the lease is still ours.

    Raises:
        LeaseLost: it is not.
    """
    async with conn.cursor() as cur:
        await cur.execute(REQUIRE_LEASE, {"shop": lease.shop_id, "token": lease.token})
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
returning token
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


async def _renew_forever(db: Database, lease: Lease) -> None:
    while True:
        await asyncio.sleep(LEASE_RENEW_S)
        asked_at = time.monotonic()
        try:
            async with db.shop(lease.shop_id) as conn, conn.cursor() as cur:
                await cur.execute(RENEW_LEASE, {"shop": lease.shop_id, "lease": LEASE_S, "token": lease.token})
                renewed = await cur.fetchone()
        except Exception as error:  # noqa: BLE001 - a renewal that fails is tried again; the end stays where it was
            log.warning("lease not renewed", shop_id=lease.shop_id, error=str(error))
        else:
            lease.ends_at = asked_at + LEASE_S if renewed else 0.0


async def _give_back(db: Database, shop_id: ShopId, token: FencingToken) -> None:
    async with db.shop(shop_id) as conn:
        await conn.execute(GIVE_BACK_LEASE, {"shop": shop_id, "token": token})
