"""How far the orders of a shop have been read, kept so that a reading survives whoever was at it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from metafield_sync.sync.errands import note_errand

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

CATCH_UP = "catch_up"
"""The errand's kind."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Where the reading of a shop's orders stands.

    Every change before `read_until` is known. `since` and `cursor`: where the reading at work began, and got to; None:
    none is at work. `latest`: the latest change it has met. `trouble`: why orders cannot be read. `now` is when this
    was looked up, by the database's clock.
    """

    read_until: datetime
    since: datetime | None
    cursor: str | None
    latest: datetime | None
    finished_at: datetime | None
    trouble: str | None
    now: datetime


async def begin_catch_up(conn: AsyncConnection, shop_id: ShopId) -> None:
    """See to it that what webhooks do not bring of the shop's orders is read, now and from then on.

    For a shop that was just added, or installed again, or given other scopes. It reads on from where it was; the first
    time from when the shop was added.

    Args:
        conn: in a transaction of the shop.
        shop_id: whose.
    """
    await conn.execute(BEGIN_READINGS, {"shop": shop_id})
    await note_errand(conn, shop_id, CATCH_UP)


BEGIN_READINGS = """
insert into order_readings (shop_id, read_until)
select id, added_at
from shops
where id = %(shop)s
on conflict (shop_id) do nothing
"""


async def read_again_from(conn: AsyncConnection, shop_id: ShopId, start: datetime) -> None:
    """Have every order read again that changed since `start`, if that lies before what was read last."""
    await begin_catch_up(conn, shop_id)
    await conn.execute(READ_AGAIN, {"shop": shop_id, "start": start})


READ_AGAIN = """
update order_readings
set read_until = %(start)s, since = null, cursor = null, latest = null
where shop_id = %(shop)s and read_until > %(start)s
"""


async def get_reading(conn: AsyncConnection, shop_id: ShopId) -> Reading | None:
    """Where it stands; None: no catch-up has begun for this shop."""
    async with conn.cursor(row_factory=class_row(Reading)) as cur:
        await cur.execute(GET_READING, {"shop": shop_id})
        return await cur.fetchone()


GET_READING = """
select read_until, since, cursor, latest, finished_at, trouble, clock_timestamp() as now
from order_readings
where shop_id = %(shop)s
"""


async def note_page(
    conn: AsyncConnection,
    shop_id: ShopId,
    read_until: datetime,
    *,
    since: datetime,
    cursor: str | None,
    latest: datetime,
) -> None:
    """Note that a page of a reading was applied.

    Args:
        conn: in a transaction of the shop.
        shop_id: whose.
        read_until: as it was before the page. If somebody has asked meanwhile for more to be read, that stands.
        since: where the reading began.
        cursor: where it goes on; None: it was the last page, and the reading is finished.
        latest: the latest change it has met.
    """
    await conn.execute(
        NOTE_PAGE if cursor is not None else NOTE_LAST_PAGE,
        {
            "shop": shop_id,
            "read_until": read_until,
            "since": since,
            "cursor": cursor,
            "latest": latest,
        },
    )


NOTE_PAGE = """
update order_readings
set since = %(since)s, cursor = %(cursor)s, latest = %(latest)s, trouble = null
where shop_id = %(shop)s and read_until = %(read_until)s
"""

NOTE_LAST_PAGE = """
update order_readings
set
  read_until = greatest(read_until, %(latest)s::timestamptz),
  since = null,
  cursor = null,
  latest = null,
  finished_at = clock_timestamp(),
  trouble = null
where shop_id = %(shop)s and read_until = %(read_until)s
"""


async def forget_place(conn: AsyncConnection, shop_id: ShopId) -> None:
    """Have the reading at work begin anew from where it began."""
    await conn.execute(FORGET_PLACE, {"shop": shop_id})


FORGET_PLACE = "update order_readings set since = null, cursor = null, latest = null where shop_id = %(shop)s"


async def note_trouble(conn: AsyncConnection, shop_id: ShopId, trouble: str) -> None:
    """Note why orders cannot be read, for staff."""
    await conn.execute(NOTE_TROUBLE, {"shop": shop_id, "trouble": trouble})


NOTE_TROUBLE = "update order_readings set trouble = %(trouble)s where shop_id = %(shop)s"
