"""`doctor`: a healthy set-up, and one broken in every way there is; it names what is wrong and changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from cli_support import DOMAIN, KEY, OTHER, TOKEN, Store
from cryptography.fernet import Fernet
from psycopg import sql

from metafield_sync.cli.doctor.database_checks import check_clock, check_pooler
from metafield_sync.cli.doctor.findings import lasting
from metafield_sync.db.migrate import head_revision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import LiteralString

    from cli_support import Cli, Result

NOWHERE = "postgresql://me:secret@127.0.0.1:9/nowhere"
ANOTHER_TYPE = """
mutation { metafieldDefinitionCreate(definition: {
  ownerType: CUSTOMER, namespace: "loyalty", key: "points_balance", name: "Points", type: "single_line_text_field"
}) { userErrors { message } } }
"""


@pytest.fixture
def worked(cli: Cli, shop: str, owner: psycopg.Connection) -> str:
    """A shop in step, just verified and reconciled, and a worker that is alive."""
    _post(cli, 1)
    assert cli("verify").status == 0
    assert cli("reconcile").status == 0
    owner.execute("insert into procrastinate_workers (last_heartbeat) values (now() + interval '1 hour')")
    return shop


def _post(cli: Cli, customer: int, shop: str = DOMAIN) -> None:
    posted = cli("post", "--shop", shop, "--shopify-customer", str(customer), "--amount", "5", "--reason", "gift")
    assert posted.status == 0, posted.err


def _checks(told: Result, shop: str | None = None) -> dict[str, tuple[str, str, str | None]]:
    """What a report says: by check its status, what was found, and the cure."""
    return {
        one["check"]: (one["status"], one["found"], one["cure"])
        for one in told.document["checks"]
        if one["shop"] == shop
    }


def _not_well(told: Result) -> dict[str, str]:
    """The checks that are not well, with their status."""
    return {one["check"]: one["status"] for one in told.document["checks"] if one["status"] != "ok"}


def _grow_old(owner: psycopg.Connection) -> None:
    owner.execute("update mirror_states set stale_since = stale_since - interval '10 minutes'")


def test_a_healthy_installation_is_well(cli: Cli, worked: str) -> None:
    told = cli("doctor", "--json")
    assert (told.status, told.err) == (0, "")
    assert told.document["status"] == "ok"
    assert _not_well(told) == {}
    assert set(_checks(told)) == {"settings", "database", "schema", "role", "pooler", "clock", "keys", "workers"}
    of_shop = _checks(told, worked)
    assert set(of_shop) == {
        "token",
        "definition",
        "api version",
        "age",
        "scopes",
        "budget",
        "verify",
        "reconcile",
        "webhooks",
    }
    assert "restores 100 API points a second (Standard)" in of_shop["budget"][1]
    assert "last done" in of_shop["reconcile"][1]
    shown = cli("doctor")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.endswith("\n0 wrong, 0 to look at, 17 well.\n")
    assert f"\n{worked}\n" in shown.out


def test_it_changes_nothing(cli: Cli, worked: str, owner: psycopg.Connection, store: Store) -> None:
    _post(cli, 999)
    _post(cli, 2)
    tables = [
        row[0]
        for row in owner.execute("select tablename from pg_tables where schemaname = 'public' order by tablename")
    ]

    def everything() -> dict[str, Any]:
        return {
            name: owner.execute(sql.SQL("select t::text from {} t order by 1").format(sql.Identifier(name))).fetchall()
            for name in tables
        }

    before, shown = everything(), store.shown()
    assert len(before) > 15
    for state in ("active", "frozen", "active"):
        store.control("PATCH", f"/shops/{worked}", {"state": state})
        cli("doctor")
    assert (everything(), store.shown()) == (before, shown)


def test_a_setting_that_cannot_be_read_is_named(cli: Cli) -> None:
    told = cli("doctor", "--json", LOG_LEVEL="loud")
    assert told.status == 2
    (only,) = told.document["checks"]
    assert (only["check"], only["status"]) == ("settings", "wrong")
    assert only["found"].startswith("LOG_LEVEL: ")
    assert "wrong" in cli("doctor", LOG_LEVEL="loud").out


def test_a_database_out_of_reach_is_named_without_its_password(cli: Cli) -> None:
    told = cli("doctor", "--json", DATABASE_URL=NOWHERE)
    assert told.status == 2
    assert _not_well(told) == {"database": "wrong", "shops": "warn"}
    assert "DATABASE_URL" in _checks(told)["database"][1]
    assert "secret" not in told.out


def test_an_empty_database_is_not_migrated(cli: Cli, empty_database_url: str) -> None:
    told = cli("doctor", "--json", DATABASE_URL=empty_database_url)
    assert told.status == 1
    assert _checks(told)["schema"] == ("wrong", "The database is empty.", "Run: metafield-sync migrate")
    with psycopg.connect(empty_database_url) as conn:
        assert conn.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("revision", "status", "said"), [("0001", 1, "metafield-sync migrate"), ("9999", 2, "newer version")]
)
def test_another_schema_is_named_and_left_alone(
    cli: Cli, worked: str, owner: psycopg.Connection, revision: str, status: int, said: str
) -> None:
    owner.execute("update alembic_version set version_num = %s", (revision,))
    told = cli("doctor", "--json")
    assert told.status == status
    level, found, cure = _checks(told)["schema"]
    assert level == "wrong"
    assert revision in found
    assert said in str(cure)
    assert (head_revision() in found) == (revision == "0001")
    assert _checks(told, worked) == {}
    assert owner.execute("select version_num from alembic_version").fetchone() == (revision,)


def test_a_login_that_may_not_take_the_role_is_named(
    cli: Cli, worked: str, owner: psycopg.Connection, environment: dict[str, str]
) -> None:
    login = f"nobody_{time.time_ns()}"
    owner.execute(sql.SQL("create role {} login").format(sql.Identifier(login)))
    try:
        url = environment["DATABASE_URL"].replace("postgres@", f"{login}@", 1)
        told = cli("doctor", "--json", DATABASE_URL=url, DATABASE_OWNER_URL=environment["DATABASE_URL"])
        assert told.status == 2
        assert _not_well(told) == {"role": "wrong", "shops": "warn"}
        assert "grant metafield_sync_app to" in _checks(told)["role"][1]
        assert _checks(told, worked) == {}
        alone = cli("doctor", "--json", DATABASE_URL=url)
        assert alone.status == 2
        assert "DATABASE_OWNER_URL" in str(_checks(alone)["schema"][2])
    finally:
        owner.execute(sql.SQL("drop role {}").format(sql.Identifier(login)))


def test_an_owner_that_does_not_get_in_hides_nothing_else(cli: Cli, worked: str) -> None:
    told = cli("doctor", "--json", DATABASE_OWNER_URL=NOWHERE)
    assert told.status == 2
    assert _not_well(told) == {"owner": "wrong"}
    assert "age" in _checks(told, worked)


def test_an_embedded_database_that_was_never_made_is_not_made_now(cli: Cli, tmp_path: Path) -> None:
    told = cli("doctor", "--json", DATABASE_URL="", DATA_DIR=str(tmp_path))
    assert told.status == 1
    assert "no database yet" in _checks(told)["database"][1]
    assert list(tmp_path.iterdir()) == []


def test_an_embedded_database_is_looked_into(cli: Cli, tmp_path: Path) -> None:
    assert cli("migrate", DATABASE_URL="", DATA_DIR=str(tmp_path)).status == 0
    told = cli("doctor", "--json", DATABASE_URL="", DATA_DIR=str(tmp_path))
    assert told.status == 0
    assert "the embedded one" in _checks(told)["database"][1]
    assert _not_well(told) == {"workers": "warn", "shops": "warn"}
    assert "shops add" in str(_checks(told)["shops"][2])


@pytest.mark.parametrize("keys", ["", Fernet.generate_key().decode()])
def test_keys_that_open_no_token_are_named_and_the_rest_is_still_looked_at(cli: Cli, worked: str, keys: str) -> None:
    told = cli("doctor", "--json", ENCRYPTION_KEYS=keys)
    assert told.status == 2
    assert _not_well(told) == {"keys": "wrong", "token": "warn"}
    assert worked in _checks(told)["keys"][1]
    assert _checks(told, worked)["age"][0] == "ok"


def test_an_older_key_in_the_list_is_as_good(cli: Cli, worked: str) -> None:
    told = cli("doctor", "--json", ENCRYPTION_KEYS=f"{Fernet.generate_key().decode()},{KEY}")
    assert (told.status, _not_well(told)) == (0, {})
    assert _checks(told, worked)["token"][0] == "ok"


def test_a_shop_without_a_token_is_named(cli: Cli, worked: str) -> None:
    cli("shops", "add", OTHER)
    told = cli("doctor", "--json")
    assert told.status == 1
    assert "--access-token" in str(_checks(told, OTHER)["token"][2])
    assert _checks(told, worked)["token"][0] == "ok"


@pytest.mark.parametrize(
    ("change", "said"), [({"token": "shpat_the_next_one"}, "refused the access token"), ({"state": "frozen"}, "frozen")]
)
def test_what_shopify_refuses_is_named_and_hides_no_other_shop(
    cli: Cli, worked: str, store: Store, change: dict[str, str], said: str
) -> None:
    cli("shops", "add", OTHER, "--access-token", TOKEN)
    store.control("PATCH", f"/shops/{worked}", change)
    told = cli("doctor", "--json")
    assert told.status == 1
    level, found, cure = _checks(told, worked)["token"]
    assert level == "wrong"
    assert said in found
    assert "shops resume" in str(cure)
    assert TOKEN not in told.out
    assert _checks(told, worked)["age"][0] == "ok"
    assert _checks(told, OTHER)["token"][0] == _checks(told, OTHER)["definition"][0] == "ok"
    assert cli("shops", "list", "--json").document["shops"][0]["status"] == "active", "looked at only, not paused"


@pytest.mark.parametrize("fault", [{"status": 503}, {"answer": "drop"}, {"answer": "throttled"}])
def test_a_shopify_in_trouble_is_nothing_that_is_wrong_here(
    cli: Cli, worked: str, store: Store, fault: dict[str, Any]
) -> None:
    store.control("POST", "/faults", {**fault, "operation": "metafieldDefinition"})
    told = cli("doctor", "--json")
    assert (told.status, told.document["status"]) == (0, "warn")
    level, found, cure = _checks(told, worked)["token"]
    assert (level, "SHOPIFY_ADMIN_ORIGIN" in str(cure)) == ("warn", True)
    assert "written" not in found, "it was only a question"
    unreachable = cli("doctor", "--json", SHOPIFY_ADMIN_ORIGIN="http://127.0.0.1:9/{shop}")
    assert _not_well(unreachable) == {"token": "warn"}


def test_a_definition_that_is_not_as_it_should_be_is_named(cli: Cli, worked: str, store: Store) -> None:
    body = {"namespace": "loyalty", "key": "points_balance"}
    differs = cli("doctor", "--json", METAFIELD_STOREFRONT_ACCESS="NONE")
    assert _checks(differs, worked)["definition"][0] == "warn"
    assert "PUBLIC_READ instead of NONE" in _checks(differs, worked)["definition"][1]
    store.control("DELETE", f"/shops/{worked}/definitions", body)
    told = cli("doctor", "--json")
    assert told.status == 0
    level, found, cure = _checks(told, worked)["definition"]
    assert (level, cure) == ("warn", f"Run: metafield-sync reconcile --shop {worked} --repair")
    assert "no metafield definition loyalty.points_balance" in found
    store.graphql(ANOTHER_TYPE)
    told = cli("doctor", "--json")
    assert told.status == 1
    assert "single_line_text_field" in _checks(told, worked)["definition"][1]
    assert _checks(told, worked)["definition"][0] == "wrong"


def test_an_api_version_that_is_not_served_any_more_is_named(cli: Cli, worked: str) -> None:
    told = cli("doctor", "--json", SHOPIFY_API_VERSION="2024-01")
    assert (told.status, _not_well(told)) == (0, {"api version": "warn"})
    assert "instead of 2024-01" in _checks(told, worked)["api version"][1]


def test_a_change_that_waits_too_long_is_wrong_and_errors_are_not(
    cli: Cli, worked: str, owner: psycopg.Connection
) -> None:
    _post(cli, 2)
    owner.execute(
        """
        update mirror_states
        set failing_since = now(), error_code = 'INVALID_TYPE', attempts = 3
        where stale_since is not null
        """
    )
    told = cli("doctor", "--json")
    assert (told.status, _not_well(told)) == (0, {"failing": "warn"})
    level, found, cure = _checks(told, worked)["failing"]
    assert found.startswith("1 customer failing with INVALID_TYPE: ")
    assert "Custom data" in str(cure)
    _grow_old(owner)
    told = cli("doctor", "--json")
    assert (told.status, told.document["status"]) == (1, "wrong")
    level, found, _ = _checks(told, worked)["age"]
    assert (level, "10 minutes" in found) == ("wrong", True)


def test_a_code_that_nobody_has_heard_of_is_still_named(cli: Cli, worked: str, owner: psycopg.Connection) -> None:
    _post(cli, 2)
    owner.execute("update mirror_states set failing_since = now(), error_code = 'NEWFANGLED' where in_doubt is false")
    told = cli("doctor", "--json")
    assert "NEWFANGLED" in _checks(told, worked)["failing"][1]
    assert "/api/sync-failures" in str(_checks(told, worked)["failing"][2])


def test_who_is_gone_is_named_and_nothing_is_wrong(cli: Cli, worked: str, owner: psycopg.Connection) -> None:
    _post(cli, 999)
    cli("sync")
    _grow_old(owner)
    told = cli("doctor", "--json")
    assert (told.status, _not_well(told)) == (0, {})
    level, found, cure = _checks(told, worked)["missing"]
    assert (level, found.startswith("1 customer gone from Shopify")) == ("ok", True)
    assert "dismiss" in str(cure)


def test_who_is_in_doubt_is_named(cli: Cli, worked: str, owner: psycopg.Connection) -> None:
    _post(cli, 2)
    owner.execute("update mirror_states set in_doubt = true, check_at = now() where stale_since is not null")
    told = cli("doctor", "--json")
    assert (told.status, _not_well(told)) == (0, {"in doubt": "warn"})
    assert _checks(told, worked)["in doubt"][1].startswith("1 customer in doubt")


def test_a_shop_paused_by_staff_is_named_and_not_asked(
    cli: Cli, worked: str, store: Store, owner: psycopg.Connection
) -> None:
    _post(cli, 2)
    _grow_old(owner)
    cli("shops", "pause", worked)
    store.control("DELETE", "/calls")
    told = cli("doctor", "--json")
    assert (told.status, _not_well(told)) == (0, {"paused": "warn"})
    assert f"metafield-sync shops resume {worked}" in str(_checks(told, worked)["paused"][2])
    assert store.calls("metafieldDefinition") == 0


def test_a_shop_that_shopify_refused_is_named_with_reason_and_next_attempt(
    cli: Cli, worked: str, store: Store, owner: psycopg.Connection
) -> None:
    _post(cli, 2)
    store.control("PATCH", f"/shops/{worked}", {"state": "frozen"})
    cli("sync")
    store.control("PATCH", f"/shops/{worked}", {"state": "active"})
    told = cli("doctor", "--json")
    level, found, _ = _checks(told, worked)["paused"]
    assert (level, "shop_frozen" in found, "tried again by itself at 20" in found) == ("warn", True, True)
    assert _checks(told, worked)["token"][0] == "ok", "it would be taken again"
    assert told.status == 0
    _grow_old(owner)
    assert cli("doctor").status == 1, "people wait"


def test_without_a_worker_it_is_wrong_only_if_somebody_waits(cli: Cli, worked: str, owner: psycopg.Connection) -> None:
    owner.execute("delete from procrastinate_workers")
    told = cli("doctor", "--json")
    assert (told.status, _not_well(told)) == (0, {"workers": "warn"})
    _post(cli, 2)
    told = cli("doctor", "--json")
    assert (told.status, _not_well(told)) == (1, {"workers": "wrong"})
    assert "metafield-sync worker" in str(_checks(told)["workers"][2])
    cli("shops", "pause", worked)
    assert _not_well(cli("doctor", "--json")) == {"workers": "warn", "paused": "warn"}


def test_a_backfill_that_is_held_up_is_named(cli: Cli, worked: str, owner: psycopg.Connection) -> None:
    owner.execute("insert into backfills (shop_id, customers, written) select id, 9000, 5000 from shops")
    told = cli("doctor", "--json")
    assert (told.status, _not_well(told)) == (0, {})
    assert "A backfill of 9,000 customers is under way" in _checks(told, worked)["backfill"][1]
    owner.execute("update backfills set next_step_at = now() - interval '20 minutes'")
    told = cli("doctor", "--json")
    assert _not_well(told) == {"backfill": "warn"}
    assert "for 20 minutes" in _checks(told, worked)["backfill"][1]
    owner.execute("update backfills set attempts = 4, collected_at = now()")
    assert "failed 4 times in a row" in _checks(cli("doctor", "--json"), worked)["backfill"][1]


def test_much_throttling_says_that_somebody_else_spends(cli: Cli, worked: str, owner: psycopg.Connection) -> None:
    owner.execute("update shop_activity set throttled = 1, calls = 1000, points_spent = 12345")
    told = cli("doctor", "--json")
    assert _not_well(told) == {}
    assert "12,345 points spent in 1,000 calls, 1 of them throttled" in _checks(told, worked)["budget"][1]
    owner.execute("update shop_activity set throttled = 11")
    assert _not_well(cli("doctor", "--json")) == {"budget": "warn"}


def _never_ran(owner: psycopg.Connection) -> None:
    owner.execute("delete from sync_run_changes")
    owner.execute("delete from sync_runs")


def _ran_long_ago(owner: psycopg.Connection) -> None:
    owner.execute(
        "update sync_runs set requested_at = now() - interval '3 days', finished_at = now() - interval '3 days'"
    )


def _failed_since(owner: psycopg.Connection) -> None:
    owner.execute(
        """
        insert into sync_runs (shop_id, kind, trigger, status, finished_at, error)
        select s.id, k.kind, 'schedule', 'failed', now(), 'No luck.'
        from shops s, unnest(array['verify', 'reconcile']) k (kind)
        """
    )


@pytest.mark.parametrize(
    ("arrange", "said"),
    [(_never_ran, "never done; by its schedule"), (_ran_long_ago, "last done 3 days ago"), (_failed_since, "No luck.")],
)
def test_a_schedule_that_was_missed_is_named_unless_it_is_off(
    cli: Cli, worked: str, owner: psycopg.Connection, arrange: Callable[[psycopg.Connection], None], said: str
) -> None:
    arrange(owner)
    if arrange is _never_ran:
        assert _not_well(cli("doctor", "--json")) == {}, "a shop that was just added is not behind"
    owner.execute("update shops set added_at = now() - interval '9 days'")
    told = cli("doctor", "--json")
    assert (told.status, _not_well(told)) == (0, {"verify": "warn", "reconcile": "warn"})
    for kind in ("verify", "reconcile"):
        _, found, cure = _checks(told, worked)[kind]
        assert said in found
        assert f"metafield-sync {kind} --shop {worked}" in str(cure)
    off = cli("doctor", "--json", VERIFY_CRON="off", RECONCILE_CRON="off")
    assert _not_well(off) == {}
    assert "switched off (VERIFY_CRON)" in _checks(off, worked)["verify"][1]


def test_what_the_last_reconciliation_left_is_named(cli: Cli, worked: str, store: Store) -> None:
    body = {"customerId": "1", "namespace": "loyalty", "key": "points_balance", "value": "4711"}
    store.control("PUT", f"/shops/{worked}/metafields", body)
    cli("reconcile")
    told = cli("doctor", "--json")
    assert (told.status, _not_well(told)) == (0, {"drift": "warn"})
    _, found, cure = _checks(told, worked)["drift"]
    assert "found 1 customer who drifted, and repaired 0: 1 foreign_write (" in found
    assert cure == f"Run: metafield-sync reconcile --shop {worked} --repair"
    cli("reconcile", "--repair")
    told = cli("doctor", "--json")
    assert (_not_well(told), _checks(told, worked)["drift"][0]) == ({}, "ok")
    cli("reconcile")
    assert "drift" not in _checks(cli("doctor", "--json"), worked)


def test_a_shop_that_was_removed_is_none(cli: Cli, worked: str) -> None:
    cli("shops", "remove", worked)
    told = cli("doctor", "--json")
    assert (told.status, _checks(told, worked)) == (0, {})


@pytest.mark.parametrize(("ahead_s", "said"), [(5.1, "5 seconds ahead of"), (-7200.0, "7,200 seconds behind")])
def test_clocks_that_differ_are_named(ahead_s: float, said: str) -> None:
    found = check_clock(ahead_s)
    assert found.level == "warn"
    assert said in found.found
    assert check_clock(-4.9).level == "ok"


def test_a_pooler_is_named() -> None:
    assert "PgBouncer" in check_pooler(pooled=True).found
    assert check_pooler(pooled=True).level == "ok"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1.4, "1 second"), (119, "119 seconds"), (600, "10 minutes"), (7199, "119 minutes"), (200_000, "2 days")],
)
def test_a_length_of_time_in_words(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


@pytest.mark.parametrize(
    ("change", "check", "status", "said"),
    [
        (
            "token_source = 'exchanged', refresh_token = access_token, token_expires_at = now() + interval '1 hour'",
            "token lapse",
            "wrong",
            "SHOPIFY_API_SECRET",
        ),
        ("token_expires_at = now() - interval '1 minute'", "token lapse", "wrong", "has lapsed, and nothing renews it"),
        ("granted_scopes = '{write_customers}'", "scopes", "warn", "read_orders: orders earn nothing"),
        ("granted_scopes = '{read_orders}'", "scopes", "wrong", "write_customers: no balance is written"),
        ("hold = 'installing'", "installation", "warn", "It is being installed"),
    ],
)
def test_access_to_a_shop_is_looked_at(
    cli: Cli, worked: str, owner: psycopg.Connection, change: LiteralString, check: str, status: str, said: str
) -> None:
    owner.execute(sql.SQL("update shops set {}").format(sql.SQL(change)))
    told = cli("doctor", "--json")
    level, found, cure = _checks(told, worked)[check]
    assert (level, said in found) == (status, True), found
    assert cure


def test_a_token_that_is_renewed_in_time_is_well(cli: Cli, worked: str, owner: psycopg.Connection) -> None:
    owner.execute(
        "update shops set token_source = 'exchanged', refresh_token = access_token, "
        "token_expires_at = now() + interval '50 minutes'"
    )
    told = cli("doctor", "--json", SHOPIFY_API_KEY="key", SHOPIFY_API_SECRET="a secret")  # noqa: S106 - made up
    level, found, cure = _checks(told, worked)["token lapse"]
    assert (level, cure) == ("ok", None)
    assert "49 minutes more, and is renewed by itself" in found
