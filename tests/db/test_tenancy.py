"""One shop never sees or touches another's rows, and the database itself says so, for tables to come too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from metafield_sync.db.database import ShopId
from metafield_sync.ledger.posting import EntryNotFound, Posting, PostingToUnknownCustomer, post, reverse

if TYPE_CHECKING:
    from metafield_sync.db.database import Database

# Of ours, `shops` itself and `schedule_ticks` have no shop_id: when something was last done names no shop. Alembic's
# table does not either, and procrastinate's hold ids and numbers only (which run of which shop is to be executed).
TABLES_OF_SHOPS = """
select c.relname
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attname = 'shop_id' and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
order by 1
"""

UNPROTECTED = """
select c.relname
from pg_class c
where
  c.relname = any (%s)
  and not (
    c.relrowsecurity
    and 1 = (
      select count(*)
      from pg_policies p
      where
        p.schemaname = 'public'
        and p.tablename = c.relname
        and p.permissive = 'PERMISSIVE'
        and p.cmd = 'ALL'
        and p.qual = '(shop_id = current_shop_id())'
        and coalesce(p.with_check, p.qual) = p.qual
    )
  )
"""

KEYS_NOT_LED_BY_THE_SHOP = """
select i.indexrelid::regclass::text
from pg_index i
join pg_class c on c.oid = i.indrelid
where
  c.relname = any (%s)
  and i.indisunique
  and (
    select a.attname from pg_attribute a where a.attrelid = i.indrelid and a.attnum = i.indkey[0]
  ) is distinct from 'shop_id'
"""

CARELESS_DEFINERS = """
select p.proname
from pg_proc p
where
  p.pronamespace = 'public'::regnamespace
  and p.prosecdef
  and (
    p.proconfig is null
    or 'search_path=public, pg_temp' <> all (p.proconfig)
    or exists (
      select
      from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g
      where g.grantee = 0
    )
  )
"""


def tables_of_shops(owner: psycopg.Connection) -> list[str]:
    return [name for (name,) in owner.execute(TABLES_OF_SHOPS)]


def test_every_table_of_a_shop_has_the_one_policy(owner: psycopg.Connection) -> None:
    tables = tables_of_shops(owner)
    assert {"customers", "ledger_entries", "ledger_metadata", "mirror_states"} <= set(tables)
    assert owner.execute(UNPROTECTED, (tables,)).fetchall() == []


def test_every_table_has_a_shop_but_the_one_of_shops(owner: psycopg.Connection) -> None:
    every = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
    assert {name for (name,) in owner.execute(every)} - set(tables_of_shops(owner)) == {
        "shops",
        "schedule_ticks",
        "alembic_version",
        "procrastinate_events",
        "procrastinate_jobs",
        "procrastinate_periodic_defers",
        "procrastinate_workers",
    }


def test_every_view_reads_with_the_rights_of_whoever_asks(owner: psycopg.Connection) -> None:
    views = """
    select relname
    from pg_class
    where
      relnamespace = 'public'::regnamespace
      and relkind in ('v', 'm')
      and not coalesce('security_invoker=true' = any (reloptions), false)
    """
    assert owner.execute(views).fetchall() == []


def test_every_unique_key_begins_with_the_shop(owner: psycopg.Connection) -> None:
    assert owner.execute(KEYS_NOT_LED_BY_THE_SHOP, (tables_of_shops(owner),)).fetchall() == []


def test_every_security_definer_function_has_a_fixed_path_and_is_not_everybodys(
    owner: psycopg.Connection,
) -> None:
    definers = "select count(*) from pg_proc where prosecdef and pronamespace = 'public'::regnamespace"
    assert owner.execute(definers).fetchone() != (0,)
    assert owner.execute(CARELESS_DEFINERS).fetchall() == []


async def test_a_shop_sees_its_own_rows_alone_in_every_table(
    db: Database, owner: psycopg.Connection, two_shops: tuple[ShopId, ShopId]
) -> None:
    for table in (*tables_of_shops(owner), "customer_standings"):
        rows_by_shop = sql.SQL("select shop_id, count(*) from {} group by shop_id order by 1").format(
            sql.Identifier(table)
        )
        kept = owner.execute(rows_by_shop).fetchall()
        assert [shop for shop, _ in kept] == sorted(two_shops), f"{table}: this test needs a row of each shop"
        for shop_id in two_shops:
            async with db.shop(shop_id) as conn:
                seen = await (await conn.execute(rows_by_shop)).fetchall()
            assert seen == [row for row in kept if row[0] == shop_id], table
        async with db.unscoped() as conn:
            assert await (await conn.execute(rows_by_shop)).fetchall() == [], table


async def test_a_shop_cannot_add_a_row_to_another(
    db: Database, owner: psycopg.Connection, two_shops: tuple[ShopId, ShopId]
) -> None:
    mine, other = two_shops
    for table in tables_of_shops(owner):
        columns = [
            sql.Identifier(column)
            for (column,) in owner.execute(
                "select column_name from information_schema.columns where table_name = %s and column_name <> 'shop_id'",
                (table,),
            )
        ]
        statement = sql.SQL(
            "insert into {table} (shop_id, {columns}) overriding system value select %s, {columns} from {table}"
        ).format(table=sql.Identifier(table), columns=sql.SQL(", ").join(columns))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"row-level security|permission denied"):
            async with db.shop(mine) as conn:
                await conn.execute(statement, (other,))


async def test_a_shop_cannot_change_or_hand_over_rows(
    db: Database, owner: psycopg.Connection, two_shops: tuple[ShopId, ShopId]
) -> None:
    mine, other = two_shops
    updatable = """
    select attname
    from pg_attribute
    where
      attrelid = %s::regclass
      and attnum > 0
      and not attisdropped
      and attidentity = ''
      and has_column_privilege('metafield_sync_app', attrelid, attnum, 'update')
    order by attname = 'shop_id'
    limit 1
    """
    for table in tables_of_shops(owner):
        name = sql.Identifier(table)
        row = owner.execute(updatable, (table,)).fetchone()
        if row is not None:
            touch = sql.SQL("update {} set {column} = {column} where shop_id = %s returning 1").format(
                name, column=sql.Identifier(row[0])
            )
            async with db.shop(mine) as conn:
                reached = [await (await conn.execute(touch, (shop_id,))).fetchall() for shop_id in (mine, other)]
            assert reached[0], table
            assert not reached[1], table
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with db.shop(mine) as conn:
                await conn.execute(sql.SQL("update {} set shop_id = %s").format(name), (other,))


async def test_a_posting_cannot_reach_another_shops_customer(
    db: Database, owner: psycopg.Connection, two_shops: tuple[ShopId, ShopId]
) -> None:
    mine, other = two_shops
    row = owner.execute("select id from customers where shop_id = %s", (other,)).fetchone()
    assert row is not None
    with pytest.raises(PostingToUnknownCustomer):
        await post(db, mine, "test", Posting(customer_id=row[0], amount=1, reason="theft"))
    with pytest.raises(EntryNotFound):
        await reverse(db, mine, "test", f"{row[0]}-1", reason="theft")
    assert owner.execute("select count(*) from ledger_entries").fetchone() == (2,)


@pytest.mark.parametrize(
    "statement",
    ["update ledger_entries set amount = 1", "delete from ledger_entries", "truncate ledger_entries cascade"],
)
@pytest.mark.usefixtures("two_shops")
async def test_the_application_holds_no_right_to_rewrite_the_ledger(owner: psycopg.Connection, statement: str) -> None:
    # Without the trigger, so that the grants alone are what refuses.
    owner.execute("alter table ledger_entries disable trigger user")
    owner.execute("set role metafield_sync_app")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute(statement.encode())


def test_the_application_may_do_to_the_ledger_nothing_but_read_and_add(owner: psycopg.Connection) -> None:
    granted = """
    select distinct privilege_type
    from information_schema.table_privileges
    where table_name = 'ledger_entries' and grantee in ('metafield_sync_app', 'PUBLIC')
    union
    select distinct privilege_type
    from information_schema.column_privileges
    where table_name = 'ledger_entries' and grantee in ('metafield_sync_app', 'PUBLIC')
    """
    assert {right for (right,) in owner.execute(granted)} == {"SELECT", "INSERT"}
