"""The lines of a backfill: who is on them, and what came of each. SQL only; who may call this holds the lease."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row, dict_row

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.shopify import MetafieldWrite, metafield_input
from metafield_sync.sync import outcomes
from metafield_sync.sync.claims import Claim
from metafield_sync.sync.lease import require_lease

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database
    from metafield_sync.shopify import MetafieldSpec
    from metafield_sync.sync.backfill.store import Backfill
    from metafield_sync.sync.lease import Lease
    from metafield_sync.sync.outcomes import Failure

COLLECTED_MAX = 2_000
"""Customers put on lines in one transaction: few enough that a posting to one of them waits milliseconds."""
FILE_BYTES_MAX = 100_000_000
"""Shopify takes 100 MB a file (changelog of 2025-12-15)."""
DIGEST_CHARS = 64
"""Recorded digests have so many hexadecimal digits."""
WRITTEN_MAX = 5_000
"""Lines held in memory while a file is written."""


@dataclass(frozen=True, slots=True)
class Collected:
    """How far the collecting has come: the last customer, and the file and bytes that the next line goes after."""

    after: UUID | None
    file: int
    lines: int
    bytes: int
    is_done: bool


async def collect(
    db: Database, lease: Lease, backfill: Backfill, spec: MetafieldSpec, so_far: Collected, besides: Collection[UUID]
) -> Collected:
    """Put the next stale customers on lines, leaving out those `besides` (in flight). No drain claims them then.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """

    async def collect_some() -> Collected:
        async with db.shop(lease.shop_id) as conn:
            await require_lease(conn, lease)
            claims = await _claim(conn, lease, so_far.after, besides)
            if not claims:
                await conn.execute(COLLECTED_ALL, {"shop": lease.shop_id, "backfill": backfill.id})
                return Collected(so_far.after, so_far.file, so_far.lines, so_far.bytes, is_done=True)
            files, lines, size = _places(claims, spec, so_far)
            await conn.execute(
                PUT_ON_LINES,
                {
                    "shop": lease.shop_id,
                    "backfill": backfill.id,
                    "files": files,
                    "lines": lines,
                    "customers": [claim.customer_id for claim in claims],
                    "shopify_ids": [claim.shopify_customer_id for claim in claims],
                    "versions": [claim.version for claim in claims],
                    "balances": [claim.balance for claim in claims],
                    "claimed": [claim.claimed_at for claim in claims],
                    "after": claims[-1].customer_id,
                },
            )
            return Collected(claims[-1].customer_id, files[-1], lines[-1] + 1, size, is_done=False)

    return await again_after_deadlock(collect_some)


async def collected_so_far(db: Database, lease: Lease, backfill: Backfill) -> Collected:
    """Where collecting goes on. In a new file: how large the last one was to become is nobody's to remember."""
    async with db.shop(lease.shop_id) as conn, conn.cursor() as cur:
        await cur.execute(LAST_FILE, {"shop": lease.shop_id, "backfill": backfill.id})
        row = await cur.fetchone()
    return Collected(backfill.collected_after, 0 if row is None else row[0] + 1, 0, 0, is_done=False)


def line_of(spec: MetafieldSpec, claim: Claim) -> bytes:
    """The line that writes one customer's balance."""
    write = MetafieldWrite(claim.shopify_customer_id, claim.balance, claim.digest)
    return json.dumps({"metafields": [metafield_input(spec, write)]}, separators=(",", ":")).encode() + b"\n"


async def _claim(conn: AsyncConnection, lease: Lease, after: UUID | None, besides: Collection[UUID]) -> list[Claim]:
    async with conn.cursor(row_factory=class_row(Claim)) as cur:
        await cur.execute(
            CLAIM_FOR_LINES,
            {"shop": lease.shop_id, "after": after, "besides": list(besides), "limit": COLLECTED_MAX},
        )
        return await cur.fetchall()


def _places(claims: Sequence[Claim], spec: MetafieldSpec, so_far: Collected) -> tuple[list[int], list[int], int]:
    files: list[int] = []
    lines: list[int] = []
    file, line, size = so_far.file, so_far.lines, so_far.bytes
    for claim in claims:
        # Digests may be learned until the file is written: room is left for one.
        length = len(line_of(spec, dataclasses.replace(claim, digest="0" * DIGEST_CHARS)))
        if size + length > FILE_BYTES_MAX:
            file, line, size = file + 1, 0, 0
        files.append(file)
        lines.append(line)
        line, size = line + 1, size + length
    return files, lines, size


# Locked by customer id, as postings and drains do. Who is to be read back first is left to the drain.
CLAIM_FOR_LINES = """
select
  m.customer_id, c.shopify_customer_id, m.wanted_version as version, c.current_balance as balance, m.digest,
  m.attempts, statement_timestamp() as claimed_at
from mirror_states m
join customers c on c.shop_id = m.shop_id and c.id = m.customer_id
where
  m.shop_id = %(shop)s
  and (%(after)s::uuid is null or m.customer_id > %(after)s)
  and m.stale_since is not null
  and m.status = 'live'
  and m.due_at <= clock_timestamp()
  and not m.in_doubt
  and m.check_at is null
  and m.customer_id <> all (%(besides)s)
order by m.customer_id
limit %(limit)s
for no key update of m
"""

PUT_ON_LINES = """
with put as materialized (
  select *
  from unnest(
    %(files)s::integer[], %(lines)s::integer[], %(customers)s::uuid[], %(shopify_ids)s::bigint[],
    %(versions)s::bigint[], %(balances)s::bigint[], %(claimed)s::timestamptz[]
  ) as t (file, line, customer_id, shopify_customer_id, version, balance, claimed_at)
),
filed as (
  insert into backfill_files (shop_id, backfill_id, number, lines)
  select %(shop)s, %(backfill)s, p.file, count(*)
  from put p
  group by p.file
  on conflict (shop_id, backfill_id, number) do update set lines = backfill_files.lines + excluded.lines
  returning number
),
lined as (
  insert into backfill_lines (
    shop_id, backfill_id, file, line, customer_id, shopify_customer_id, version, balance, claimed_at
  )
  select
    %(shop)s, %(backfill)s, f.number, p.line, p.customer_id, p.shopify_customer_id, p.version, p.balance, p.claimed_at
  from put p
  join filed f on f.number = p.file
),
held as (
  update mirror_states m
  set due_at = 'infinity'
  from put p
  where m.shop_id = %(shop)s and m.customer_id = p.customer_id
)
update backfills
set collected_after = %(after)s, customers = customers + (select count(*) from put)
where shop_id = %(shop)s and id = %(backfill)s
"""

COLLECTED_ALL = """
update backfills
set collected_at = clock_timestamp(), attempts = 0
where shop_id = %(shop)s and id = %(backfill)s
"""

LAST_FILE = """
select max(number)
from backfill_files
where shop_id = %(shop)s and backfill_id = %(backfill)s
having count(*) > 0
"""


async def written_lines(
    db: Database, lease: Lease, backfill: Backfill, file: int, spec: MetafieldSpec
) -> AsyncGenerator[bytes]:
    """The file's content, in pieces: the same, byte for byte, whenever it is asked for until its results are in."""
    after = -1
    while True:
        async with db.shop(lease.shop_id) as conn, conn.cursor(row_factory=dict_row) as cur:
            await cur.execute(
                SOME_LINES,
                {
                    "shop": lease.shop_id,
                    "backfill": backfill.id,
                    "file": file,
                    "after": after,
                    "limit": WRITTEN_MAX,
                },
            )
            rows = await cur.fetchall()
        if not rows:
            return
        after = rows[-1]["line"]
        yield b"".join(line_of(spec, _claim_of(row)) for row in rows)


def _claim_of(row: Mapping[str, Any]) -> Claim:
    return Claim(**{name: value for name, value in row.items() if name != "line"})


SOME_LINES = """
select l.line, l.customer_id, l.shopify_customer_id, l.version, l.balance, m.digest, m.attempts, l.claimed_at
from backfill_lines l
join mirror_states m on m.shop_id = l.shop_id and m.customer_id = l.customer_id
where l.shop_id = %(shop)s and l.backfill_id = %(backfill)s and l.file = %(file)s and l.line > %(after)s
order by l.line
limit %(limit)s
"""


async def is_anybody_behind(db: Database, lease: Lease, backfill: Backfill, file: int) -> bool:
    """Whether a balance on the file is not shown yet, as far as is known by now."""
    async with db.shop(lease.shop_id) as conn, conn.cursor() as cur:
        await cur.execute(ANYBODY_BEHIND, {"shop": lease.shop_id, "backfill": backfill.id, "file": file})
        return await cur.fetchone() is not None


ANYBODY_BEHIND = """
select 1
from backfill_lines l
join mirror_states m on m.shop_id = l.shop_id and m.customer_id = l.customer_id
where
  l.shop_id = %(shop)s and l.backfill_id = %(backfill)s and l.file = %(file)s and m.pushed_version < l.version
limit 1
"""


async def claims_on(
    db: Database, lease: Lease, backfill: Backfill, file: int, lines: Sequence[int]
) -> dict[int, Claim]:
    """Who is on these lines, by line; those whose result is recorded are on none any more."""
    async with db.shop(lease.shop_id) as conn, conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(
            CLAIMS_ON_LINES,
            {"shop": lease.shop_id, "backfill": backfill.id, "file": file, "lines": list(lines)},
        )
        return {row["line"]: _claim_of(row) for row in await cur.fetchall()}


CLAIMS_ON_LINES = """
select
  l.line, l.customer_id, l.shopify_customer_id, l.version, l.balance, m.digest, m.attempts, l.claimed_at
from backfill_lines l
join mirror_states m on m.shop_id = l.shop_id and m.customer_id = l.customer_id
where
  l.shop_id = %(shop)s and l.backfill_id = %(backfill)s and l.file = %(file)s and l.line = any (%(lines)s)
"""


@dataclass(frozen=True, slots=True)
class Results:
    """What came of some lines: written (with Shopify's digest, if told), refused, or not known. By line."""

    written: Mapping[int, tuple[Claim, str | None]]
    refused: Mapping[int, Failure]
    unknown: Mapping[int, Claim]


async def record_results(db: Database, lease: Lease, backfill: Backfill, file: int, results: Results) -> None:
    """Record what came of some lines and take them off; who is stale still is due for the drain at once.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """
    written = [claim for claim, _ in results.written.values()]
    digests = {claim.shopify_customer_id: digest for claim, digest in results.written.values() if digest is not None}
    refused = list(results.refused.values())
    customers = [
        *(claim.customer_id for claim in written),
        *(failure.claim.customer_id for failure in refused),
        *(claim.customer_id for claim in results.unknown.values()),
    ]
    parameters = {
        "shop": lease.shop_id,
        "backfill": backfill.id,
        "file": file,
        "lines": [*results.written, *results.refused, *results.unknown],
        "customers": customers,
        "written": len(written),
        "refused": len(refused),
        "unknown": len(results.unknown),
    }

    async def record() -> None:
        async with db.shop(lease.shop_id) as conn:
            await require_lease(conn, lease)
            await conn.execute(outcomes.LOCK_ROWS, parameters)
            await conn.execute(RELEASE, parameters)
            if written:
                await conn.execute(
                    outcomes.RECORD_PUSHED, {"shop": lease.shop_id, **outcomes.pushed_parameters(written, digests)}
                )
            if refused:
                await conn.execute(
                    outcomes.RECORD_FAILURES, {"shop": lease.shop_id, **outcomes.failure_parameters(refused)}
                )
            await conn.execute(COUNT_RESULTS, parameters)

    await again_after_deadlock(record)


RELEASE = """
with gone as (
  delete from backfill_lines
  where
    shop_id = %(shop)s and backfill_id = %(backfill)s and file = %(file)s and line = any (%(lines)s)
)
update mirror_states
set due_at = clock_timestamp()
where shop_id = %(shop)s and customer_id = any (%(customers)s) and due_at = 'infinity'
"""

COUNT_RESULTS = """
with activity as (
  update shop_activity
  set
    customers_pushed = customers_pushed + %(written)s,
    customers_refused = customers_refused + %(refused)s,
    backfilled = backfilled + %(written)s
  where shop_id = %(shop)s
)
update backfills
set written = written + %(written)s, refused = refused + %(refused)s, unknown = unknown + %(unknown)s
where shop_id = %(shop)s and id = %(backfill)s
"""


async def lines_left(db: Database, lease: Lease, backfill: Backfill, file: int) -> dict[int, Claim]:
    """Up to `COLLECTED_MAX` lines of the file without a result."""
    async with db.shop(lease.shop_id) as conn, conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(
            SOME_LINES,
            {"shop": lease.shop_id, "backfill": backfill.id, "file": file, "after": -1, "limit": COLLECTED_MAX},
        )
        return {row["line"]: _claim_of(row) for row in await cur.fetchall()}
