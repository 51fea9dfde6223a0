"""What happens by itself: each kind at the ticks of its cron expression, and every tick once over the whole fleet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, LiteralString, Self

from croniter import croniter

from metafield_sync.settings import CRON_OFF

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database
    from metafield_sync.settings import Settings

PRUNE_CRON = "17 2 * * *"
"""History ends at night, between the verifications and before the reconciliation."""

WEBHOOKS_KEPT_DAYS = 30
"""A webhook that was handled is kept for so long; one that was given up, as long as history is."""
PRUNE_ROWS_MAX = 2_000
"""Rows removed in one transaction."""

Scheduled = Literal["verify", "reconcile", "prune"]
"""A kind of run, asked for in every shop; or `prune`, one job. `take_tick` in the database knows what each asks for."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is done by itself: cron expressions in UTC by kind, and how many days history is kept."""

    crons: Mapping[Scheduled, str]
    history_days: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings wish for."""
        crons: dict[Scheduled, str] = {
            "verify": settings.verify_cron,
            "reconcile": settings.reconcile_cron,
            "prune": PRUNE_CRON,
        }
        return cls({kind: cron for kind, cron in crons.items() if cron != CRON_OFF}, settings.history_days)


def latest_tick(cron: str, now: datetime) -> datetime:
    """The last time at or before `now` that a cron expression means."""
    return croniter(cron, now + timedelta(microseconds=1)).get_prev(datetime)


async def take_ticks(db: Database, schedule: Schedule) -> list[Scheduled]:
    """Take the latest tick of every schedule, unless somebody has; whoever takes one asks for all it asks for.

    So it may be called at any time, by anybody, as often as one likes: what was missed while nobody called happens
    then, once. A schedule that the database has never heard of begins with its next tick.

    Returns:
        The kinds whose tick was taken now.
    """
    return [kind for kind, cron in schedule.crons.items() if await _take_tick(db, kind, cron)]


async def _take_tick(db: Database, kind: Scheduled, cron: str) -> bool:
    async with db.unscoped() as conn, conn.cursor() as cur:
        # The database's clock: one for the fleet, so that a worker whose own is fast takes no tick before its time.
        await cur.execute("select clock_timestamp()")
        row = await cur.fetchone()
        assert row is not None, "a select without a table has one row"  # noqa: S101 - PostgreSQL's promise
        await cur.execute(TAKE_TICK, {"kind": kind, "tick": latest_tick(cron, row[0])})
        return await cur.fetchone() == (True,)


TAKE_TICK = "select take_tick(%(kind)s, %(tick)s)"


async def prune_history(db: Database, days: int) -> int:
    """Remove runs that ended more than `days` days ago and all they recorded, in short transactions; returns the rows.

    Webhooks too, those that were handled sooner. The ledger is no history in this sense: it is never removed.
    """
    return await _prune(db, PRUNE_HISTORY, days) + await _prune(db, PRUNE_INBOX, days)


async def _prune(db: Database, statement: LiteralString, days: int) -> int:
    parameters = {"days": days, "handled_days": min(days, WEBHOOKS_KEPT_DAYS), "rows": PRUNE_ROWS_MAX}
    removed = 0
    while True:
        async with db.unscoped() as conn, conn.cursor() as cur:
            await cur.execute(statement, parameters)
            row = await cur.fetchone()
        now = 0 if row is None else row[0]
        removed += now
        if now < PRUNE_ROWS_MAX:
            return removed


PRUNE_HISTORY = "select prune_history(%(days)s, %(rows)s)"
PRUNE_INBOX = "select prune_inbox(%(handled_days)s, %(days)s, %(rows)s)"


async def workers_alive(conn: AsyncConnection) -> int:
    """How many workers have been heard of lately, over the whole fleet: a `serve` with its worker is one."""
    async with conn.cursor() as cur:
        await cur.execute("select workers_alive()")
        row = await cur.fetchone()
    return 0 if row is None else row[0]
