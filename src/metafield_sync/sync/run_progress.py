"""What a run has still to do: whom it makes due, and how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.db.database import again_after_deadlock

if TYPE_CHECKING:
    from typing import LiteralString
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId

MARK_CUSTOMERS_MAX = 500
"""Customers made due, or stale, in one transaction: few enough that a posting to one of them waits milliseconds."""


async def make_due(db: Database, shop_id: ShopId, run_id: UUID) -> None:
    """Let the run try whoever fails, whatever the back-off: somebody asked. Who is gone is looked for by reading."""
    await _mark(db, shop_id, run_id, MAKE_EVERYTHING_DUE)


# The rows are locked by customer id first, the order of postings and drains, so that nobody waits in a circle.
MAKE_EVERYTHING_DUE = """
with batch as materialized (
  select m.customer_id
  from mirror_states m
  join sync_runs r on r.shop_id = m.shop_id and r.id = %(run)s
  where
    m.shop_id = %(shop)s
    and (%(after)s::uuid is null or m.customer_id > %(after)s)
    and m.failing_since is not null
    and m.status = 'live'
    and m.due_at < 'infinity'
    and (m.attempted_at is null or m.attempted_at < r.started_at)
  order by m.customer_id
  limit %(limit)s
  for no key update of m
),
made as (
  update mirror_states m
  set due_at = clock_timestamp(), check_at = case when m.in_doubt then clock_timestamp() else m.check_at end
  from batch b
  where m.shop_id = %(shop)s and m.customer_id = b.customer_id
)
select customer_id from batch order by customer_id desc limit 1
"""


async def cover_corrected(db: Database, shop_id: ShopId, run_id: UUID) -> None:
    """Let a verification push whom it corrected: they fell behind after it began, by its own doing."""
    await _mark(db, shop_id, run_id, COVER_CORRECTED)


COVER_CORRECTED = """
with batch as materialized (
  select m.customer_id, r.started_at
  from mirror_states m
  join sync_runs r on r.shop_id = m.shop_id and r.id = %(run)s
  where
    m.shop_id = %(shop)s
    and (%(after)s::uuid is null or m.customer_id > %(after)s)
    and m.stale_since > r.started_at
    and m.customer_id in (
      select b.customer_id from balance_corrections b where b.shop_id = %(shop)s and b.run_id = %(run)s
    )
  order by m.customer_id
  limit %(limit)s
  for no key update of m
),
made as (
  update mirror_states m
  set stale_since = b.started_at
  from batch b
  where m.shop_id = %(shop)s and m.customer_id = b.customer_id
)
select customer_id from batch order by customer_id desc limit 1
"""


async def make_stale(db: Database, shop_id: ShopId, run_id: UUID) -> None:
    """Let the run write everybody, in step or not."""
    await _mark(db, shop_id, run_id, MAKE_EVERYTHING_STALE)


MAKE_EVERYTHING_STALE = """
with batch as materialized (
  select m.customer_id, r.started_at
  from mirror_states m
  join sync_runs r on r.shop_id = m.shop_id and r.id = %(run)s
  where
    m.shop_id = %(shop)s
    and (%(after)s::uuid is null or m.customer_id > %(after)s)
    and m.status = 'live'
    and (m.attempted_at is null or m.attempted_at < r.started_at)
  order by m.customer_id
  limit %(limit)s
  for no key update of m
),
made as (
  update mirror_states m
  set
    wanted_version = m.wanted_version + 1,
    stale_since = coalesce(m.stale_since, b.started_at),
    due_at = case when m.stale_since is null then clock_timestamp() else m.due_at end
  from batch b
  where m.shop_id = %(shop)s and m.customer_id = b.customer_id
)
select customer_id from batch order by customer_id desc limit 1
"""


async def note_progress(db: Database, shop_id: ShopId, run_id: UUID) -> tuple[int, bool]:
    """How many customers a run at work has still to try, and whether a backfill is under way that may hold some.

    They are made due, and it is noted that the run is alive.
    """
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(RUN_PROGRESS, {"shop": shop_id, "run": run_id})
        row = await cur.fetchone()
    return (0, False) if row is None else row


RUN_PROGRESS = """
with left_over as materialized (
  select m.customer_id
  from mirror_states m
  join sync_runs r on r.shop_id = m.shop_id and r.id = %(run)s
  where
    m.shop_id = %(shop)s
    and m.stale_since <= r.started_at
    and m.status = 'live'
    and (m.attempted_at is null or m.attempted_at < r.started_at)
    and m.due_at > clock_timestamp()
    and m.due_at < 'infinity'
  order by m.customer_id
  for no key update of m
),
hurried as (
  update mirror_states m
  set due_at = least(m.due_at, clock_timestamp())
  from left_over l
  where m.shop_id = %(shop)s and m.customer_id = l.customer_id
),
counted as (
  select count(*) as n
  from mirror_states m
  join sync_runs r on r.shop_id = m.shop_id and r.id = %(run)s
  where
    m.shop_id = %(shop)s
    and m.stale_since <= r.started_at
    and m.status = 'live'
    and (m.attempted_at is null or m.attempted_at < r.started_at)
)
update sync_runs r
set
  progress_total = greatest(r.progress_total, counted.n),
  progress_done = greatest(r.progress_total, counted.n) - counted.n,
  heartbeat_at = clock_timestamp()
from counted
where r.shop_id = %(shop)s and r.id = %(run)s and r.status = 'running'
returning counted.n, exists (select from backfills b where b.shop_id = %(shop)s and b.finished_at is null)
"""


async def begin_reading(db: Database, shop_id: ShopId, run_id: UUID) -> int:
    """How many customers a reconciliation has to read back: that is its progress, until it repairs."""
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(BEGIN_READING, {"shop": shop_id, "run": run_id})
        row = await cur.fetchone()
    return 0 if row is None else row[0]


BEGIN_READING = """
update sync_runs r
set
  progress_total = (
    select count(*)
    from customers c
    where c.shop_id = r.shop_id and c.merged_into is null and c.redacted_at is null
  ),
  progress_done = 0,
  heartbeat_at = clock_timestamp()
where r.shop_id = %(shop)s and r.id = %(run)s
returning r.progress_total
"""


async def note_read(db: Database, shop_id: ShopId, run_id: UUID, read: int) -> None:
    """Note how many customers have been read back. Some may be the shop's and not ours: they count for nothing."""
    async with db.shop(shop_id) as conn:
        await conn.execute(NOTE_READ, {"shop": shop_id, "run": run_id, "read": read})


NOTE_READ = """
update sync_runs
set progress_done = least(%(read)s, progress_total), heartbeat_at = clock_timestamp()
where shop_id = %(shop)s and id = %(run)s and status = 'running'
"""


async def note_alive(db: Database, shop_id: ShopId, run_id: UUID) -> None:
    """Note that a run is being executed."""
    async with db.shop(shop_id) as conn:
        await conn.execute(NOTE_ALIVE, {"shop": shop_id, "run": run_id})


NOTE_ALIVE = """
update sync_runs
set heartbeat_at = clock_timestamp()
where shop_id = %(shop)s and id = %(run)s and status = 'running'
"""


async def count_left(conn: AsyncConnection, shop_id: ShopId, run_id: UUID) -> int:
    """How many customers a run has still to try."""
    async with conn.cursor() as cur:
        await cur.execute(RUN_LEFT, {"shop": shop_id, "run": run_id})
        row = await cur.fetchone()
    return 0 if row is None else row[0]


# What a run has still to try: stale when it began, and not tried since.
RUN_LEFT = """
select count(*)
from mirror_states m
join sync_runs r on r.shop_id = m.shop_id and r.id = %(run)s
where
  m.shop_id = %(shop)s
  and m.stale_since <= r.started_at
  and m.status = 'live'
  and (m.attempted_at is null or m.attempted_at < r.started_at)
"""


async def _mark(db: Database, shop_id: ShopId, run_id: UUID, statement: LiteralString) -> None:
    """Go through the shop's customers in short transactions, so that postings never wait long for one."""
    after: UUID | None = None

    async def mark() -> UUID | None:
        async with db.shop(shop_id) as conn, conn.cursor() as cur:
            await cur.execute(statement, {"shop": shop_id, "run": run_id, "after": after, "limit": MARK_CUSTOMERS_MAX})
            row = await cur.fetchone()
        return None if row is None else row[0]

    while (last := await again_after_deadlock(mark)) is not None:
        after = last
