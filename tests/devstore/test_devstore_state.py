"""What outlives a run: the state file, kill -9 included, and the command line that starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from devstore_support import DEFINE, DOMAIN, SET, TOKEN, a_depot, definition, entry
from order_support import an_order

from devstore import Plan, ShopSpec, ShopState
from devstore.__main__ import main
from devstore.clock import ManualClock
from devstore.customers import CustomerDetails, IdRange
from devstore.gids import Gid
from devstore.shops import open_shop, stored_domains
from devstore.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

POINTS = f"/_devstore/shops/{DOMAIN}/metafields?namespace=loyalty&key=points_balance"


@contextmanager
def running(*arguments: str) -> Generator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command line, started and ready; killed at the end if it still runs."""
    command = [sys.executable, "-m", "devstore", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def call(ready: dict[str, Any], query: str, variables: dict[str, Any]) -> dict[str, Any]:
    url = ready["adminOrigin"].replace("{shop}", DOMAIN)
    body = {"query": query, "variables": variables}
    answer = httpx.post(f"{url}/admin/api/2026-10/graphql.json", json=body, headers={"X-Shopify-Access-Token": TOKEN})
    return answer.json()["data"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_stops_cleanly(stop: signal.Signals) -> None:
    with running("--shop", f"{DOMAIN}:{TOKEN}", "--shop", "b.myshopify.com:t") as (process, ready):
        assert ready["shops"] == [DOMAIN, "b.myshopify.com"]
        assert httpx.get(f"{ready['origin']}/_devstore/health").json()["ok"]
        process.send_signal(stop)
        assert process.wait(timeout=10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_state_survives_kill_9(tmp_path: Path) -> None:
    path, ids = tmp_path / "state.db", tmp_path / "ids"
    ids.write_text("501\ngid://shopify/Customer/502\n", encoding="utf-8")
    first = [
        "--shop",
        DOMAIN,
        "--token",
        TOKEN,
        "--customers",
        "3",
        "--customers-file",
        str(ids),
        "--plan",
        "plus",
    ]
    with running(*first, "--state", str(path)) as (process, ready):
        call(ready, DEFINE, {"d": definition(pin=True)})
        (before,) = call(ready, SET, {"m": [entry(502, "7")]})["metafieldsSet"]["metafields"]
        process.kill()
        process.wait(timeout=10)
    with running("--state", str(path)) as (_, ready):
        assert ready["shops"] == [DOMAIN]
        assert httpx.get(f"{ready['origin']}{POINTS}").json() == {"502": "7"}
        (shop,) = httpx.get(f"{ready['origin']}/_devstore/shops").json()
        assert (shop["customers"], shop["plan"], shop["token"]) == (5, "plus", TOKEN)
        (kept,) = httpx.get(f"{ready['origin']}/_devstore/shops/{DOMAIN}/definitions").json()
        assert kept["pinnedPosition"] == 1
        (after,) = call(ready, SET, {"m": [entry(502, "7", compareDigest=None)]})["metafieldsSet"]["metafields"]
        assert after == before
        (new,) = call(ready, SET, {"m": [entry(501, "7")]})["metafieldsSet"]["metafields"]
        assert new["id"] != before["id"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shop", DOMAIN], "token"),
        (["--shop", DOMAIN, "--token", "t", "--state", "/proc/none/state.db"], "unable to open"),
        (["--shop", DOMAIN, "--token", "t", "--latency-ms", "slow"], "could not convert"),
        (["--shop", DOMAIN, "--token", "t", "--port", "70000"], "port"),
    ],
)
def test_a_start_that_cannot_be_ends_with_one_line_and_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.count("\n") == 1


def test_a_shops_state_token_and_plan_are_kept(tmp_path: Path) -> None:
    clock = ManualClock().clock
    storage = Storage(tmp_path / "state.db")
    shop = open_shop(storage, ShopSpec(DOMAIN, TOKEN), clock, a_depot())
    shop.change(token=None, plan=Plan.ADVANCED, state=ShopState.FROZEN)
    storage.close()
    storage = Storage(tmp_path / "state.db")
    again = open_shop(storage, ShopSpec(DOMAIN), clock, a_depot())
    assert (again.token, again.budget.plan, again.state) == (None, Plan.ADVANCED, ShopState.FROZEN)
    assert stored_domains(storage) == [DOMAIN]
    storage.close()


def test_a_hundred_thousand_customers_are_seeded_at_once() -> None:
    storage = Storage(None)
    shop = open_shop(storage, ShopSpec(DOMAIN, TOKEN, customers=100_000), ManualClock().clock, a_depot())
    assert shop.count_customers() == 100_000
    assert shop.customers.page(IdRange(), 2, backwards=True) == [100_000, 99_999]
    storage.close()


def test_a_write_that_is_rolled_back_leaves_no_trace() -> None:
    storage = Storage(None)
    shop = open_shop(storage, ShopSpec(DOMAIN, TOKEN, customers=2), ManualClock().clock, a_depot())
    with pytest.raises(UnicodeEncodeError):
        shop.put_metafield(Gid("Customer", 1), "loyalty", "one", "\ud800", "json")
    shop.put_metafield(Gid("Customer", 1), "loyalty", "two", "2", "json")
    shop.put_metafield(Gid("Customer", 1), "loyalty", "one", "1", "json")
    assert [(one.slot.key, one.value) for one in shop.metafields.of_owner("CUSTOMER", 1)] == [
        ("two", "2"),
        ("one", "1"),
    ]
    storage.close()


def test_a_deleted_customer_stays_deleted_when_the_state_is_opened_again(tmp_path: Path) -> None:
    for expected in (3, 2):
        storage = Storage(tmp_path / "state.db")
        shop = open_shop(storage, ShopSpec(DOMAIN, TOKEN, customers=3), ManualClock().clock, a_depot())
        assert shop.count_customers() == expected
        shop.delete_customer(2)
        storage.close()


def test_orders_outlive_a_restart_and_numbers_go_on(tmp_path: Path) -> None:
    clock = ManualClock().clock
    storage = Storage(tmp_path / "state.db")
    shop = open_shop(storage, ShopSpec(DOMAIN, TOKEN, customers=3), clock, a_depot())
    order = an_order(shop, customer=2, discount="1.00", tax_rate="0.19")
    order = shop.orders.edit(order.number, quantities={order.lines[0].number: 1})
    customer = shop.create_customer(CustomerDetails(email="a@example.org"))
    shop.delete_customer(customer)
    storage.close()
    storage = Storage(tmp_path / "state.db")
    again = open_shop(storage, ShopSpec(DOMAIN), clock, a_depot())
    assert again.orders.get(order.number) == order
    assert again.orders.count_of(2) == 1
    later = an_order(again)
    assert later.ordinal == order.ordinal + 1
    # Ids of what is in an order are taken too.
    assert later.number > max(one.number for one in order.refunds[0].adjustments)
    assert again.create_customer(CustomerDetails(email="b@example.org")) == customer + 1
    storage.close()
