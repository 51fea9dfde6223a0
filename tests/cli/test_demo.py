"""The demo from beginning to end, as a process: on real purchases, killed halfway, beside another, and served."""

from __future__ import annotations

import errno
import json
import re
import shlex
import signal
import socket
import stat
import time
from contextlib import ExitStack, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cli_support import PATIENCE_S, Program, clean_environment

from metafield_sync.cli.demo.comparison import Row
from metafield_sync.cli.demo.purchases import points_earned, read_orders

if TYPE_CHECKING:
    from pathlib import Path

CUSTOMERS = 2357
ORDERS = 6919
ORDERS_THAT_EARN = 6911
PORT_DEFAULT = 8000


def _settings(folder: Path) -> dict[str, str]:
    """What the demo leaves for the command line."""
    return dict(word.split("=", 1) for word in shlex.split((folder / "demo" / "environment").read_text()))


def _nothing_is_left(folder: Path) -> None:
    """Neither its devstore nor its PostgreSQL is still there; the devstore may take a moment to notice."""
    origin = httpx.URL(_settings(folder)["SHOPIFY_ADMIN_ORIGIN"].replace("{shop}", ""))
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((origin.host, origin.port or 0)) == errno.ECONNREFUSED:
                return
        assert time.monotonic() < deadline, f"{origin} still answers"
        time.sleep(0.05)


def _postgres_is_stopped(folder: Path) -> bool:
    return not (folder / "demo" / "postgresql" / "data" / "postmaster.pid").exists()


def test_the_purchases_are_those_of_the_file() -> None:
    orders = read_orders()
    assert len(orders) == ORDERS
    first = orders[0]
    assert (first.line, first.customer, first.usd, first.points) == (1, 4, Decimal("29.33"), 29)
    assert (first.posting.external_id, first.posting.metadata) == ("cdnow/line/1", {"usd": "29.33", "items": 2})
    assert first.day.isoformat() == "1997-01-01T00:00:00+00:00"
    assert sum(order.points > 0 for order in orders) == ORDERS_THAT_EARN
    earned = points_earned(orders)
    assert len(earned) == CUSTOMERS
    assert sum(earned.values()) == sum(int(order.usd) for order in orders)


@pytest.mark.parametrize(
    ("ledger", "balance", "shopify", "agrees"),
    [
        (5, 5, 5, True),
        (5, 5, 4, False),
        (5, 4, 5, False),
        (4, 5, 5, False),
        (5, 5, None, False),
        (5, 5, "5 (json)", False),
    ],
)
def test_a_row_agrees_when_all_four_figures_are_the_same(
    ledger: int, balance: int, shopify: int | str | None, *, agrees: bool
) -> None:
    assert Row(1, 1, 5, ledger, balance, shopify).agrees is agrees
    assert not Row(1, 0, None, None, None, None).agrees


def test_killed_halfway_the_next_one_completes_and_doubles_nothing(tmp_path: Path) -> None:
    environment = clean_environment(DATA_DIR=str(tmp_path), PORT="0")
    with Program("demo", environment=environment) as killed:
        killed.wait_for(lambda: "Posting orders" in killed.err)
        with Program("demo", "--check", environment=environment) as second:
            refused = second.result()
        assert refused.status == 2
        assert "Another demo is running" in refused.complaint
        assert killed.stop(signal.SIGKILL).status == -signal.SIGKILL
    _nothing_is_left(tmp_path)
    with Program("demo", "--check", "--json", environment=environment) as program:
        ended = program.result()
    assert ended.status == 0, ended.err
    document = ended.document
    points = sum(int(order.usd) for order in read_orders())
    assert document["points"] == {"earned": points, "ledger": points, "balances": points, "shopify": points}
    assert (document["customers"], document["agreeing"], document["disagreeing"]) == (CUSTOMERS, CUSTOMERS, [])
    assert (document["entries"], document["throttled"]) == (ORDERS_THAT_EARN, 0)
    assert f"{CUSTOMERS:,} of {CUSTOMERS:,} customers agree" in ended.err
    assert "\x1b" not in ended.err
    assert "\r" not in ended.err
    _nothing_is_left(tmp_path)
    assert _postgres_is_stopped(tmp_path)


def test_it_goes_on_serving_with_things_to_try(tmp_path: Path) -> None:
    environment = clean_environment(DATA_DIR=str(tmp_path), DATABASE_URL="postgresql://127.0.0.1:9/mine")
    with ExitStack() as stack:
        with suppress(OSError):  # or somebody else has taken it, which is as good
            stack.enter_context(socket.create_server(("127.0.0.1", PORT_DEFAULT)))
        program = stack.enter_context(Program("demo", "--plan", "plus", environment=environment))
        program.wait_for(lambda: "shops list" in program.out)
        assert "DATABASE_URL is set; the demo leaves it alone" in program.out
        assert f"Port {PORT_DEFAULT} is in use; serving on" in program.out
        assert f"✓ {CUSTOMERS:,} of {CUSTOMERS:,} customers agree." in program.out
        _try(program.out)
        _earn(program.out, _settings(tmp_path))
        assert stat.S_IMODE((tmp_path / "demo" / "encryption.key").stat().st_mode) == 0o600
        with Program("verify", "--json", environment=clean_environment(**_settings(tmp_path))) as verify:
            assert verify.result().document["total"] == CUSTOMERS
        stopped = program.stop(signal.SIGINT)
    assert stopped.status == 0
    assert "Traceback" not in stopped.err
    assert _postgres_is_stopped(tmp_path)


def _try(shown: str) -> None:
    """The lines it prints do what they say."""
    key = next(re.finditer(r"KEY=(mfs_\S+)", shown))[1]
    tries = [shlex.split(line.replace("$KEY", key)) for line in shown.splitlines() if line.startswith("  curl")]
    answers = [_curl(words) for words in tries]
    assert [answer.get("message") for answer in answers] == [
        "Customer synced",
        "Transaction recorded",
        "Balance verification complete",
        None,
    ]
    assert answers[1]["synced"] is True
    assert answers[3]["data"]["customer"]["metafield"]["value"] == str(answers[1]["balance"])


def _earn(shown: str, settings: dict[str, str]) -> None:
    """An order placed in the shop's pages earns points, and the storefront shows them."""
    admin = next(re.finditer(r"http\S+/admin/customers/(\d+)", shown))
    customer, shop = admin[1], settings["SHOPIFY_ADMIN_ORIGIN"].replace("{shop}", "demo.myshopify.com")

    def points() -> int:
        return httpx.get(f"{shop}/apps/points/balance?customer={customer}", trust_env=False).json()["balance"]

    before = points()
    order = {"customer": customer, "title_1": "Record", "price_1": "11.77", "quantity_1": "2", "paid": "yes"}
    assert httpx.post(f"{shop}/admin/orders", data=order, trust_env=False).status_code == httpx.codes.SEE_OTHER
    deadline = time.monotonic() + PATIENCE_S
    while points() != before + 23:
        assert time.monotonic() < deadline, f"{points()}, not {before} + 23"
        time.sleep(0.05)
    assert httpx.get(admin[0], trust_env=False).is_success


def _curl(words: list[str]) -> Any:
    """As much of curl as the lines use."""
    headers: dict[str, str] = {}
    url, body, rest = "", None, iter(words[2:])
    for word in rest:
        if word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = json.loads(next(rest))
        else:
            url = word
    method = "GET" if body is None else "POST"
    return httpx.request(method, url, headers=headers, json=body, trust_env=False, timeout=PATIENCE_S).json()


def test_interrupted_before_it_is_done_it_ends_quietly(tmp_path: Path) -> None:
    with Program("demo", environment=clean_environment(DATA_DIR=str(tmp_path), PORT="0")) as program:
        program.wait_for(lambda: "Posting orders" in program.err)
        stopped = program.stop(signal.SIGINT)
    assert stopped.status == 130
    assert "Traceback" not in stopped.out + stopped.err
    _nothing_is_left(tmp_path)
    assert _postgres_is_stopped(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Program("demo", environment=clean_environment(DATA_DIR=str(tmp_path / "file"), PORT="0")) as program:
        refused = program.result()
    assert refused.status == 2
    assert "Set DATA_DIR" in refused.complaint
