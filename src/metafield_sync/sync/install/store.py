"""The installation on record: how far it has come, and what it has found. SQL only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from metafield_sync.sync.lease import require_lease

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId
    from metafield_sync.sync.turn import Turn

Choice = Literal["adopt", "overwrite"]
"""What becomes of values that an earlier app has left: opening balances, or nothing."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One shop's latest installation as it stands.

    `objects`: how many Shopify has been through; for `quiet_s` it has come no further. `is_paged`: everybody is read
    page by page, and the last one ended at `page_after`. `read_at`: everybody is known; then the figures are.
    `with_values` customers showed another number than 0, `values_sum` in all; `malformed` showed something that is no
    balance. `adopted` got an opening balance, `left_alone` had entries already. `failures` in a row; `warning`: what it
    did without.
    """

    id: UUID
    begun_at: datetime
    choice: Choice | None
    asked_at: datetime | None
    operation: str | None
    polls: int
    objects: int
    quiet_s: float | None
    is_paged: bool
    page_after: str | None
    read_at: datetime | None
    customers: int
    with_values: int
    values_sum: Decimal
    malformed: int
    adopted: int
    left_alone: int
    failures: int
    error: str | None
    warning: str | None
    finished_at: datetime | None

    @property
    def marker(self) -> str:
        """The name by which the reading is found in Shopify."""
        return f"Install_{self.id.hex}"

    @property
    def has_values(self) -> bool:
        """Whether anything was found that overwriting would lose."""
        return self.with_values + self.malformed > 0

    @property
    def waits_for_choice(self) -> bool:
        """Whether it goes no further until somebody says what becomes of the values."""
        return self.finished_at is None and self.read_at is not None and self.has_values and self.choice is None


async def find_installation(conn: AsyncConnection, shop_id: ShopId) -> Installation | None:
    """The shop's latest installation; None if it was never installed, or before there was a record of it."""
    async with conn.cursor(row_factory=class_row(Installation)) as cur:
        await cur.execute(FIND_INSTALLATION, {"shop": shop_id})
        return await cur.fetchone()


FIND_INSTALLATION = """
select
  id, begun_at, choice, asked_at, operation, polls, objects,
  extract(epoch from clock_timestamp() - quiet_since)::double precision as quiet_s,
  paged_at is not null as is_paged, page_after, read_at, customers, with_values,
  values_sum, malformed, adopted, left_alone, failures, error, warning, finished_at
from installations
where shop_id = %(shop)s
"""


async def begin_installation(conn: AsyncConnection, shop_id: ShopId, choice: Choice | None) -> None:
    """Begin from nothing, whatever the last one came to."""
    await conn.execute(FORGET_VALUES, {"shop": shop_id})
    await conn.execute(BEGIN_INSTALLATION, {"shop": shop_id, "choice": choice})


FORGET_VALUES = "delete from found_values where shop_id = %(shop)s"

BEGIN_INSTALLATION = """
insert into installations as i (shop_id, choice)
values (%(shop)s, %(choice)s)
on conflict (shop_id) do update
set
  id = gen_random_uuid(),
  begun_at = clock_timestamp(),
  choice = excluded.choice,
  asked_at = null,
  operation = null,
  polls = 0,
  objects = 0,
  quiet_since = null,
  paged_at = null,
  page_after = null,
  read_at = null,
  customers = 0,
  with_values = 0,
  values_sum = 0,
  malformed = 0,
  adopted = 0,
  left_alone = 0,
  failures = 0,
  error = null,
  warning = null,
  finished_at = null
"""


async def set_choice(conn: AsyncConnection, shop_id: ShopId, choice: Choice) -> bool:
    """Note what becomes of the values; False: there is nothing to choose, it is finished."""
    async with conn.cursor() as cur:
        await cur.execute(SET_CHOICE, {"shop": shop_id, "choice": choice})
        return await cur.fetchone() is not None


SET_CHOICE = """
update installations
set choice = %(choice)s
where shop_id = %(shop)s and finished_at is null and (choice is null or choice = %(choice)s or read_at is null)
returning shop_id
"""


async def note(turn: Turn, statement: LiteralString, installation: Installation, **more: object) -> None:
    """Run one of the statements below, in a transaction of its own. It touches this installation and no later one.

    Raises:
        LeaseLost: another process has taken over, and goes on with the installation.
    """
    async with turn.db.shop(turn.shop.id) as conn:
        await require_lease(conn, turn.lease)
        await conn.execute(statement, {"shop": turn.shop.id, "id": installation.id, **more})


READING_ASKED = """
update installations
set asked_at = coalesce(asked_at, clock_timestamp()), operation = null
where shop_id = %(shop)s and id = %(id)s
"""
READING_STARTED = """
update installations
set operation = %(operation)s, polls = 0, error = null
where shop_id = %(shop)s and id = %(id)s
"""
READING_NOT_STARTED = """
update installations
set
  asked_at = null,
  operation = null,
  quiet_since = coalesce(quiet_since, clock_timestamp()),
  failures = failures + 1,
  error = %(error)s
where shop_id = %(shop)s and id = %(id)s
"""
START_UNKNOWN = """
update installations
set failures = failures + 1, error = %(error)s
where shop_id = %(shop)s and id = %(id)s
"""
READING_POLLED = """
update installations
set
  polls = polls + 1,
  quiet_since = case
    when %(objects)s <= objects and quiet_since is not null then quiet_since
    else clock_timestamp()
  end,
  objects = %(objects)s
where shop_id = %(shop)s and id = %(id)s
"""
PAGING_BEGUN = """
update installations
set paged_at = clock_timestamp(), page_after = null, customers = 0, failures = 0, error = %(error)s
where shop_id = %(shop)s and id = %(id)s and paged_at is null
"""
PAGE_READ = """
update installations
set page_after = %(after)s, customers = customers + %(customers)s, failures = 0, error = null
where shop_id = %(shop)s and id = %(id)s and page_after is not distinct from %(before)s::text
"""
READING_SKIPPED = """
update installations
set read_at = clock_timestamp(), warning = %(warning)s, error = null
where shop_id = %(shop)s and id = %(id)s
"""
EVERYBODY_READ = """
update installations i
set
  read_at = clock_timestamp(),
  customers = %(customers)s,
  with_values = f.with_values,
  values_sum = f.values_sum,
  malformed = f.malformed,
  failures = 0,
  error = null
from (
  select
    count(*) filter (where shown <> 0) as with_values,
    coalesce(sum(shown), 0) as values_sum,
    count(*) filter (where shown is null) as malformed
  from found_values
  where shop_id = %(shop)s
) f
where i.shop_id = %(shop)s and i.id = %(id)s
"""
FINISHED = """
update installations
set finished_at = clock_timestamp()
where shop_id = %(shop)s and id = %(id)s and finished_at is null
returning shop_id
"""
COUNT_APPLIED = """
update installations
set adopted = adopted + %(adopted)s, left_alone = left_alone + %(left_alone)s
where shop_id = %(shop)s and id = %(id)s
"""
