"""The backfills on record. SQL only; who may call this holds the lease."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from metafield_sync.sync.lease import require_lease

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.lease import Lease

PLAIN_PUSHES_AFTER_FAILURE_S = 3_600
"""So long after a backfill that was given up the shop is pushed in plain calls."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """One backfill as it stands. `attempts`: how often in a row a step has failed."""

    id: UUID
    started_at: datetime
    reading_asked_at: datetime | None
    reading_operation: str | None
    values_read_at: datetime | None
    collected_after: UUID | None
    collected_at: datetime | None
    customers: int
    attempts: int
    is_due: bool
    """Whether its next step may be taken now."""

    def marker(self, file: int | None = None) -> str:
        """The name by which the operation of a file, or the reading of values (None), is found in Shopify."""
        return f"Values_{self.id.hex}" if file is None else f"Backfill_{self.id.hex}_{file}"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a backfill as it stands."""

    number: int
    lines: int
    staged_path: str | None
    asked_at: datetime | None
    operation: str | None
    polls: int
    is_due: bool
    """Whether its operation may be looked at now."""


async def open_backfill(db: Database, lease: Lease, *, threshold: int) -> Backfill | None:
    """The shop's backfill under way, or a new one if so many customers are stale that it pays; else None."""
    parameters = {"shop": lease.shop_id, "threshold": threshold, "pause": PLAIN_PUSHES_AFTER_FAILURE_S}
    async with db.shop(lease.shop_id) as conn, conn.cursor(row_factory=class_row(Backfill)) as cur:
        await cur.execute(FIND_BACKFILL, parameters)
        found = await cur.fetchone()
        if found is not None:
            return found
        await require_lease(conn, lease)
        await cur.execute(BEGIN_BACKFILL, parameters)
        return await cur.fetchone()


FIND_BACKFILL = """
select
  id, started_at, reading_asked_at, reading_operation, values_read_at, collected_after, collected_at, customers,
  attempts, next_step_at <= clock_timestamp() as is_due
from backfills
where shop_id = %(shop)s and finished_at is null
"""

# What an earlier backfill or the installation has read need not be read again: the digests of what was written since
# are known.
BEGIN_BACKFILL = """
insert into backfills (shop_id, values_read_at)
select
  %(shop)s,
  greatest(
    (select max(b.values_read_at) from backfills b where b.shop_id = %(shop)s),
    (
      select i.read_at
      from installations i
      where i.shop_id = %(shop)s and i.finished_at is not null and i.warning is null
    )
  )
where
  (
    select count(*)
    from (
      select
      from mirror_states m
      where m.shop_id = %(shop)s and m.stale_since is not null and m.status = 'live' and m.due_at <= clock_timestamp()
      limit %(threshold)s
    ) enough
  ) >= %(threshold)s
  and not exists (
    select
    from backfills b
    where
      b.shop_id = %(shop)s
      and b.error is not null
      and b.finished_at > clock_timestamp() - make_interval(secs => %(pause)s)
  )
returning
  id, started_at, reading_asked_at, reading_operation, values_read_at, collected_after, collected_at, customers,
  attempts, true as is_due
"""


async def hasten_backfill(conn: AsyncConnection, shop_id: ShopId, operation: str) -> bool:
    """Have the backfill under way that waits for this operation look at it now; False: none does.

    Without the lease, since it changes nothing but when the holder of the next one looks.
    """
    async with conn.cursor() as cur:
        await cur.execute(HASTEN_BACKFILL, {"shop": shop_id, "operation": operation})
        return await cur.fetchone() is not None


HASTEN_BACKFILL = """
with file as (
  update backfill_files f
  set poll_at = clock_timestamp()
  where f.shop_id = %(shop)s and f.operation = %(operation)s and f.finished_at is null
  returning f.backfill_id
)
update backfills b
set next_step_at = clock_timestamp()
where
  b.shop_id = %(shop)s
  and b.finished_at is null
  and (b.reading_operation = %(operation)s or b.id in (select file.backfill_id from file))
returning b.id
"""


async def files_under_way(db: Database, shop_id: ShopId, backfill: Backfill) -> list[File]:
    """The files whose results are not all recorded."""
    async with db.shop(shop_id) as conn, conn.cursor(row_factory=class_row(File)) as cur:
        await cur.execute(FILES_UNDER_WAY, {"shop": shop_id, "backfill": backfill.id})
        return await cur.fetchall()


FILES_UNDER_WAY = """
select
  number, lines, staged_path, asked_at, operation, polls,
  poll_at is null or poll_at <= clock_timestamp() as is_due
from backfill_files
where shop_id = %(shop)s and backfill_id = %(backfill)s and finished_at is null
order by number
"""


async def note(db: Database, lease: Lease, statement: LiteralString, **parameters: Any) -> None:
    """Record a step with one of the statements below.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """
    async with db.shop(lease.shop_id) as conn:
        await require_lease(conn, lease)
        await conn.execute(statement, {"shop": lease.shop_id, **parameters})


READING_ASKED = """
update backfills
set reading_asked_at = clock_timestamp(), reading_operation = null
where shop_id = %(shop)s and id = %(backfill)s
"""
READING_NOT_STARTED = """
update backfills
set reading_asked_at = null, reading_operation = null
where shop_id = %(shop)s and id = %(backfill)s
"""
READING_STARTED = """
update backfills
set reading_operation = %(operation)s, attempts = 0
where shop_id = %(shop)s and id = %(backfill)s
"""
VALUES_READ = """
update backfills
set values_read_at = clock_timestamp(), attempts = 0
where shop_id = %(shop)s and id = %(backfill)s
"""

FILE_STAGED = """
update backfill_files
set staged_path = %(path)s, asked_at = null
where shop_id = %(shop)s and backfill_id = %(backfill)s and number = %(file)s
"""
FILE_ASKED = """
update backfill_files
set asked_at = clock_timestamp()
where shop_id = %(shop)s and backfill_id = %(backfill)s and number = %(file)s
"""
FILE_NOT_STARTED = """
update backfill_files
set asked_at = null
where shop_id = %(shop)s and backfill_id = %(backfill)s and number = %(file)s
"""
FILE_NOT_THERE = """
update backfill_files
set asked_at = null, staged_path = null
where shop_id = %(shop)s and backfill_id = %(backfill)s and number = %(file)s
"""
FILE_STARTED = """
with file as (
  update backfill_files
  set operation = %(operation)s, polls = 0, poll_at = clock_timestamp()
  where shop_id = %(shop)s and backfill_id = %(backfill)s and number = %(file)s
)
update backfills set attempts = 0 where shop_id = %(shop)s and id = %(backfill)s
"""
FILE_POLLED = """
update backfill_files
set polls = polls + 1, poll_at = clock_timestamp() + make_interval(secs => %(delay)s)
where shop_id = %(shop)s and backfill_id = %(backfill)s and number = %(file)s
"""
FILE_FINISHED = """
with file as (
  update backfill_files
  set finished_at = clock_timestamp()
  where shop_id = %(shop)s and backfill_id = %(backfill)s and number = %(file)s
)
update backfills
set attempts = 0, error = coalesce(%(error)s, error)
where shop_id = %(shop)s and id = %(backfill)s
"""

NEXT_STEP = """
update backfills
set next_step_at = clock_timestamp() + make_interval(secs => %(delay)s)
where shop_id = %(shop)s and id = %(backfill)s
"""
STEP_FAILED = """
update backfills
set attempts = attempts + 1, next_step_at = clock_timestamp() + make_interval(secs => %(delay)s)
where shop_id = %(shop)s and id = %(backfill)s
"""
FINISHED = """
update backfills
set finished_at = clock_timestamp()
where shop_id = %(shop)s and id = %(backfill)s
"""
GIVEN_UP = """
update backfills
set finished_at = clock_timestamp(), error = %(error)s
where shop_id = %(shop)s and id = %(backfill)s
"""
