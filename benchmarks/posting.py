"""Posting: with every guarantee, against the least that could be called a ledger, and against double entry."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from statistics import median

import psycopg
from psycopg.conninfo import conninfo_to_dict

from metafield_sync.db.embedded.server import wheel_programs

CUSTOMERS = 10_000
ISSUERS = 64
CLIENTS = (8, 32)
BATCH = 100

# The yardsticks are our own few lines, in a schema of their own: one statement that changes a balance and inserts a
# row under a key, with no guarantee but that key; and the textbook's double entry, where each posting moves points
# between the customer and one of 64 issuer accounts, with balances and entries on both sides.
YARDSTICKS = """
create schema yardstick;
create table yardstick.account (id integer primary key, balance bigint not null default 0, version bigint not null
  default 0);
insert into yardstick.account select g from generate_series(1, 10064) g;
create table yardstick.bare (id bigint generated always as identity primary key, account integer not null,
  amount bigint not null, balance bigint not null, key text not null, at timestamptz not null default now(),
  unique (account, key));
create table yardstick.transfer (id uuid primary key default gen_random_uuid(), from_account integer not null
  references yardstick.account, to_account integer not null references yardstick.account, amount numeric not null,
  at timestamptz not null default now());
create table yardstick.entry (id uuid primary key default gen_random_uuid(), account integer not null references
  yardstick.account, transfer uuid not null references yardstick.transfer, amount numeric not null,
  balance_before numeric not null, balance_after numeric not null, version bigint not null);
create index on yardstick.entry (account);
create index on yardstick.entry (transfer);
create function yardstick.move(p_from integer, p_to integer, p_amount numeric) returns uuid language plpgsql as $$
declare
  made uuid;
  a yardstick.account;
begin
  perform from yardstick.account where id in (p_from, p_to) order by id for update;
  insert into yardstick.transfer (from_account, to_account, amount) values (p_from, p_to, p_amount)
  returning id into made;
  update yardstick.account set balance = balance - p_amount, version = version + 1 where id = p_from returning * into a;
  insert into yardstick.entry (account, transfer, amount, balance_before, balance_after, version)
  values (p_from, made, -p_amount, a.balance + p_amount, a.balance, a.version);
  update yardstick.account set balance = balance + p_amount, version = version + 1 where id = p_to returning * into a;
  insert into yardstick.entry (account, transfer, amount, balance_before, balance_after, version)
  values (p_to, made, p_amount, a.balance - p_amount, a.balance, a.version);
  return made;
end
$$;
"""

SCRIPTS = {
    "bare statement, one key": r"""
\set c random(1, 10000)
\set k random(1, 1000000000)
with changed as (update yardstick.account set balance = balance + 1 where id = :c returning id, balance)
insert into yardstick.bare (account, amount, balance, key) select id, 1, balance, 'k' || :k from changed;
""",
    "double entry, 64 issuers": r"""
\set c random(1, 10000)
\set i random(10001, 10064)
select yardstick.move(:i, :c, 1);
""",
    "one posting": r"""
\set c random(1, 10000)
\set k random(1, 1000000000)
select * from post_entry(1, 'bench', null, :c, 1, 'bench', 'k' || :k, null, null, false);
""",
    "one posting, one hot customer": r"""
\set k random(1, 1000000000)
select * from post_entry(1, 'bench', null, 1, 1, 'bench', 'k' || :k, null, null, false);
""",
    f"postings, {BATCH} a batch": r"""
\set c random(1, 9900)
\set k random(1, 1000000000)
select count(*) from post_entries(1, 'bench', (select jsonb_agg(jsonb_build_object('shopifyCustomerId', :c::int + g,
  'amount', 1, 'reason', 'bench', 'externalId', 'b' || (:k::int) || '/' || g)) from generate_series(1, 100) g));
""",
}


def measure(url: str, *, seconds: int, rounds: int) -> None:
    """Print postings a second, medians, for each layout at 8 and 32 clients, and the bytes of an entry."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(YARDSTICKS)  # pyright: ignore[reportArgumentType] - several statements, no parameters
        conn.execute("insert into shops (domain) values ('bench.myshopify.com')")
        conn.execute(
            "insert into customers (shop_id, shopify_customer_id) select 1, g from generate_series(1, 10000) g"
        )
        conn.execute("vacuum analyze")
    figures: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for round_number in range(rounds):
            for clients in CLIENTS:
                for name, script in SCRIPTS.items():
                    each = _run(url, Path(folder), script, clients=clients, seconds=seconds)
                    times = BATCH if "batch" in name else 1
                    figures.setdefault((name, clients), []).append(each * times)
            print(f"posting: round {round_number + 1} of {rounds} done", flush=True)
    print(f"\n{'Postings a second, median of ' + str(rounds):34}" + "".join(f"{n:>10} clients" for n in CLIENTS))
    for name in SCRIPTS:
        print(f"{name:34}" + "".join(f"{median(figures[name, n]):>18,.0f}" for n in CLIENTS))
    for rival in ("bare statement, one key", "double entry, 64 issuers"):
        ratios = [
            median(ours / theirs for ours, theirs in zip(figures["one posting", n], figures[rival, n], strict=True))
            for n in CLIENTS
        ]
        print(f"{'one posting ÷ ' + rival:40}" + "".join(f"{ratio:>12.2f}×" for ratio in ratios))
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "select pg_total_relation_size('ledger_entries') / count(*), count(*) from ledger_entries"
        ).fetchone()
    assert row is not None
    print(f"bytes an entry, indexes included: {row[0]} (over {row[1]:,} entries)\n")


def _run(url: str, folder: Path, script: str, *, clients: int, seconds: int) -> float:
    path = folder / "script.sql"
    path.write_text(script)
    parts = conninfo_to_dict(url)
    command = [
        str(wheel_programs() / "pgbench"),
        *("-h", str(parts["host"]), "-p", str(parts.get("port", 5432)), "-U", str(parts["user"])),
        *("-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds), "-f", str(path)),
        str(parts["dbname"]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own program and words
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])
