"""How what came in stands: webhooks that wait or were given up, and errands that wait or fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row, dict_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId


@dataclass(frozen=True, slots=True)
class InboxStanding:
    """A shop's webhooks that are not handled: those that wait, the age of the oldest in seconds, and those given up."""

    waiting: int
    failed: int
    oldest_s: float


async def inbox_standing(conn: AsyncConnection, shop_id: ShopId) -> InboxStanding:
    """How a shop's inbox stands."""
    async with conn.cursor(row_factory=class_row(InboxStanding)) as cur:
        await cur.execute(INBOX_STANDING, {"shop": shop_id})
        found = await cur.fetchone()
    assert found is not None, "a count has a row"  # noqa: S101 - PostgreSQL's promise
    return found


INBOX_STANDING = """
select
  w.waiting,
  (select count(*) from inbox i where i.shop_id = %(shop)s and i.failed_at is not null) as failed,
  coalesce(extract(epoch from clock_timestamp() - w.oldest)::double precision, 0) as oldest_s
from (
  select count(*) as waiting, min(i.received_at) as oldest
  from inbox i
  where i.shop_id = %(shop)s and i.due_at is not null
) w
"""


@dataclass(frozen=True, slots=True)
class ErrandStanding:
    """A shop's errands of one kind.

    `waiting`: how many are due. `failing`: how many failed the last time, and are tried again. `oldest_s`: for how long
    the oldest of either has been due, or failing, in seconds. `error`: that of one that fails.
    """

    kind: str
    waiting: int
    failing: int
    oldest_s: float
    error: str | None


async def errand_standings(conn: AsyncConnection, shop_id: ShopId) -> list[ErrandStanding]:
    """The kinds of errands that are due in a shop, or fail. What is only to be done later is not listed."""
    async with conn.cursor(row_factory=class_row(ErrandStanding)) as cur:
        await cur.execute(ERRAND_STANDINGS, {"shop": shop_id})
        return await cur.fetchall()


ERRAND_STANDINGS = """
select
  e.kind,
  count(*) filter (where e.due_at <= clock_timestamp()) as waiting,
  count(*) filter (where e.failing_since is not null) as failing,
  extract(epoch from clock_timestamp() - min(coalesce(e.failing_since, e.due_at)))::double precision as oldest_s,
  (array_agg(e.error order by e.failing_since) filter (where e.error is not null))[1] as error
from errands e
where e.shop_id = %(shop)s and (e.due_at <= clock_timestamp() or e.failing_since is not null)
group by e.kind
order by e.kind
"""


async def fleet_incoming(conn: AsyncConnection) -> Mapping[str, Any]:
    """Numbers over every shop: webhooks and errands that wait, that were given up or fail, and ages in seconds."""
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute("select * from fleet_incoming()")
        return await cur.fetchone() or {}
