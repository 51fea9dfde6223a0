"""Verification of a whole shop, against the bare GROUP BY that nothing can beat."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import psycopg

from metafield_sync.db.database import Database, ShopId
from metafield_sync.ledger.verification import verify

CUSTOMERS = 100_000
ENTRIES_EACH = 10

FILL = """
insert into shops (domain) values ('verified.myshopify.com');
insert into customers (shop_id, shopify_customer_id, current_balance)
select s.id, g, 55 from shops s, generate_series(1, 100000) g where s.domain = 'verified.myshopify.com';
insert into ledger_entries (shop_id, customer_id, sequence, amount, balance_after, occurred_at, created_at, reason,
  actor, external_id)
select c.shop_id, c.id, n, n, n * (n + 1) / 2, now(), now(), 'bench', 'bench', 'order/' || n
from customers c
join shops s on s.id = c.shop_id and s.domain = 'verified.myshopify.com'
cross join generate_series(1, 10) n;
"""


def measure(url: str, *, rounds: int) -> None:
    """Print how long both take, in turn, and the ratio of each pair."""
    print(f"verification: filling {CUSTOMERS:,} customers with {CUSTOMERS * ENTRIES_EACH:,} entries …", flush=True)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(FILL)  # pyright: ignore[reportArgumentType] - several statements, no parameters
        conn.execute("vacuum analyze")
        row = conn.execute("select id from shops where domain = 'verified.myshopify.com'").fetchone()
        assert row is not None
        shop_id = ShopId(row[0])
        bare: list[float] = []
        ours: list[float] = []
        for _ in range(rounds):
            began = time.perf_counter()
            conn.execute(
                "select customer_id, sum(amount) from ledger_entries where shop_id = %s group by customer_id",
                (shop_id,),
            ).fetchall()
            bare.append(time.perf_counter() - began)
            began = time.perf_counter()
            found = asyncio.run(_verify(url, shop_id))
            ours.append(time.perf_counter() - began)
            assert found == 0
    ratio = median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))
    print(f"bare GROUP BY: {median(bare):.2f} s, verification: {median(ours):.2f} s, ratio {ratio:.2f}×\n")


async def _verify(url: str, shop_id: ShopId) -> int:
    async with Database(url) as db:
        return len(await verify(db, shop_id))
