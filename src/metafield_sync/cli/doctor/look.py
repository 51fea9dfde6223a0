"""What the database tells, read in transactions that can change nothing."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg

from metafield_sync.db.database import ShopId
from metafield_sync.db.migrate import CONNECT_TIMEOUT_S
from metafield_sync.shops.registry import Shop, list_shops
from metafield_sync.shops.tokens import StoredToken, find_token
from metafield_sync.sync.incoming import ErrandStanding, InboxStanding, errand_standings, inbox_standing
from metafield_sync.sync.install.store import Installation, find_installation
from metafield_sync.sync.schedule import workers_alive
from metafield_sync.sync.standing import (
    BackfillStanding,
    LastRuns,
    backfill_standing,
    failures_by_code,
    last_runs,
    shop_standing,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@dataclass(frozen=True, slots=True)
class ShopFigures:
    """One shop as the database has it."""

    shop: Shop
    standing: dict[str, Any]
    failures: dict[str, int]
    backfill: BackfillStanding | None
    runs: dict[str, LastRuns]
    token: StoredToken | None
    installation: Installation | None
    inbox: InboxStanding
    errands: list[ErrandStanding]


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything the database tells. `ahead_s`: by how much this machine's clock is ahead of the database's."""

    now: datetime
    ahead_s: float
    pooled: bool
    workers: int
    shops: list[ShopFigures]


async def look(url: str) -> Figures:
    """Read it all.

    Raises:
        psycopg.Error: the database has gone meanwhile.
    """
    async with await psycopg.AsyncConnection.connect(
        url, connect_timeout=CONNECT_TIMEOUT_S, prepare_threshold=None
    ) as conn:
        await conn.set_read_only(True)
        async with _acting_for(conn, ShopId(0)), conn.cursor() as cur:
            before = time.time()
            await cur.execute("select clock_timestamp(), pg_backend_pid()")
            row = await cur.fetchone()
            between = (before + time.time()) / 2
            assert row is not None, "a select without a table has one row"  # noqa: S101 - PostgreSQL's promise
            shops = await list_shops(conn)
            workers = await workers_alive(conn)
        return Figures(
            now=row[0],
            ahead_s=between - row[0].timestamp(),
            # A pooler in between invents the numbers of sessions.
            pooled=row[1] != conn.info.backend_pid,
            workers=workers,
            shops=[await _figures(conn, shop) for shop in shops],
        )


async def _figures(conn: psycopg.AsyncConnection, shop: Shop) -> ShopFigures:
    async with _acting_for(conn, shop.id):
        return ShopFigures(
            shop,
            await shop_standing(conn, shop.id),
            await failures_by_code(conn, shop.id),
            await backfill_standing(conn, shop.id),
            await last_runs(conn, shop.id),
            await find_token(conn, shop.id),
            await find_installation(conn, shop.id),
            await inbox_standing(conn, shop.id),
            await errand_standings(conn, shop.id),
        )


@asynccontextmanager
async def _acting_for(conn: psycopg.AsyncConnection, shop_id: ShopId) -> AsyncGenerator[None]:
    async with conn.transaction():
        await conn.execute("select act_for_shop(%s)", (shop_id,))
        yield
