"""`post`, `sync` and `verify`: what they print, what they do, and how they end."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from cli_support import DOMAIN, OTHER, TOKEN, Store

if TYPE_CHECKING:
    import psycopg
    from cli_support import Cli

NOBODY = "0b5cf5f4-58a6-4d7e-9a55-3f4f4f5d8d10"


def _post(cli: Cli, customer: int = 1, amount: int = 100, *more: str) -> str:
    """Post to one customer; our id of theirs."""
    posted = cli(
        "post", "--shopify-customer", str(customer), "--amount", str(amount), "--reason", "gift", "--json", *more
    )
    assert posted.status == 0, posted.err
    return posted.document["entry"]["customerId"]


def _damage(owner: psycopg.Connection, customer: str, balance: int) -> None:
    owner.execute("update customers set current_balance = %s where id = %s", (balance, customer))


def test_a_posting_is_recorded_with_everything_given(cli: Cli, shop: str) -> None:
    posted = cli(
        *("post", "--shop", shop, "--shopify-customer", "7", "--amount", "150", "--reason", "order_paid", "--json"),
        *("--external-id", "order/1001", "--metadata", '{"channel": "web"}'),
    )
    assert posted.status == 0
    document = posted.document
    assert list(document) == ["message", "entry", "balance", "synced"]
    assert document["message"] == "Transaction recorded"
    assert (document["balance"], document["synced"]) == (150, False)
    entry = document["entry"]
    assert (entry["amount"], entry["externalId"], entry["metadata"], entry["actor"]) == (
        150,
        "order/1001",
        {"channel": "web"},
        "cli",
    )
    assert posted.err == ""


def test_the_same_posting_again_changes_nothing_and_another_is_refused(cli: Cli, shop: str) -> None:
    once = ("post", "--shop", shop, "--shopify-customer", "7", "--reason", "gift", "--external-id", "a")
    assert "Transaction recorded: +5 points" in cli(*once, "--amount", "5").out
    again = cli(*once, "--amount", "5")
    assert again.status == 0
    assert "Transaction already processed" in again.out
    assert "Balance now: 5" in again.out
    refused = cli(*once, "--amount", "6")
    assert refused.status == 1
    assert "another externalId" in refused.complaint


def test_a_deduction_may_go_below_zero_only_when_allowed(cli: Cli, shop: str) -> None:
    customer = _post(cli, amount=10)
    deduct = ("post", "--shop", shop, "--customer", customer, "--amount", "-11", "--reason", "fix")
    refused = cli(*deduct)
    assert refused.status == 1
    assert "The balance is 10" in refused.complaint
    assert cli(*deduct, "--allow-negative", "--json").document["balance"] == -1


def test_a_posting_can_wait_until_shopify_shows_it(cli: Cli, shop: str, store: Store) -> None:
    posted = cli("post", "--shopify-customer", "3", "--amount", "5", "--reason", "gift", "--sync")
    assert posted.status == 0
    assert "Shopify shows it" in posted.out
    assert store.shown(shop) == {"3": "5"}


def test_a_posting_shopify_does_not_take_is_recorded_and_said_so(cli: Cli, shop: str, store: Store) -> None:
    posted = cli("post", "--shop", shop, "--shopify-customer", "999", "--amount", "5", "--reason", "gift", "--sync")
    assert posted.status == 1
    assert "Balance now: 5." in posted.out
    assert "recorded, but not pushed" in posted.err
    assert store.shown() == {}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--shopify-customer", "1", "--amount", "0", "--reason", "x"], "--amount"),
        (["--shopify-customer", "1", "--amount", "1.5", "--reason", "x"], "--amount"),
        (["--shopify-customer", "1", "--amount", "1e3", "--reason", "x"], "--amount"),
        (["--shopify-customer", "1", "--amount", "1_000", "--reason", "x"], "--amount"),
        (["--shopify-customer", "1", "--amount", "9007199254740992", "--reason", "x"], "--amount"),
        (["--shopify-customer", "1", "--amount", "1" * 40, "--reason", "x"], "--amount"),
        (["--shopify-customer", "1", "--reason", "x"], "--amount"),
        (["--shopify-customer", "1", "--amount", "1"], "--reason"),
        (["--shopify-customer", "1", "--amount", "1", "--reason", ""], "--reason"),
        (["--shopify-customer", "1", "--amount", "1", "--reason", "x" * 101], "--reason"),
        (["--shopify-customer", "1", "--amount", "1", "--reason", "a\udcffb"], "--reason"),
        (["--shopify-customer", "1", "--amount", "1", "--reason", "x", "--external-id", ""], "--external-id"),
        (["--shopify-customer", "1", "--amount", "1", "--reason", "x", "--metadata", "[1]"], "--metadata"),
        (["--shopify-customer", "1", "--amount", "1", "--reason", "x", "--metadata", "{"], "--metadata"),
        (["--shopify-customer", "1", "--amount", "1", "--reason", "x", "--metadata", "[" * 9999], "--metadata"),
        (["--shopify-customer", "1", "--amount", "1", "--reason", "x", "--metadata", '{"a":NaN}'], "--metadata"),
        (["--shopify-customer", "0", "--amount", "1", "--reason", "x"], "--shopify-customer"),
        (["--shopify-customer", "9" * 19, "--amount", "1", "--reason", "x"], "--shopify-customer"),
        (["--shopify-customer", "gid", "--amount", "1", "--reason", "x"], "--shopify-customer"),
        (["--customer", "nobody", "--amount", "1", "--reason", "x"], "--customer"),
        (["--amount", "1", "--reason", "x"], "exactly one of --customer and --shopify-customer"),
        (["--customer", NOBODY, "--shopify-customer", "1", "--amount", "1", "--reason", "x"], "exactly one"),
    ],
)
def test_a_posting_that_makes_no_sense_is_wrong_usage(bare_cli: Cli, arguments: list[str], named: str) -> None:
    refused = bare_cli("post", *arguments)
    assert refused.status == 2
    assert named in refused.complaint


def test_a_sync_pushes_what_is_behind_and_again_nothing(cli: Cli, shop: str, store: Store) -> None:
    for customer in range(1, 6):
        _post(cli, customer, customer)
    synced = cli("sync", "--json")
    assert synced.status == 0
    assert synced.err == ""
    document = synced.document
    assert document["message"] == "Sync complete"
    assert (document["total"], document["synced"], document["errors"], document["failedSyncs"]) == (5, 5, 0, [])
    assert store.shown(shop) == {str(customer): str(customer) for customer in range(1, 6)}
    calls = store.calls("metafieldsSet")
    again = cli("sync")
    assert again.status == 0
    assert "5 customers, 5 synced (0 pushed, 5 unchanged), 0 failed" in again.out
    assert store.calls("metafieldsSet") == calls
    assert cli("sync", "--force", "--json").document["pushed"] == 5
    assert store.calls("metafieldsSet") > calls


def test_a_sync_with_failures_lists_them_and_exits_with_1(cli: Cli, shop: str) -> None:
    _post(cli, 1)
    gone = _post(cli, 999)
    synced = cli("sync", "--shop", shop)
    assert synced.status == 1
    assert "1 failed" in synced.out
    assert gone in synced.out
    document = cli("sync", "--json").document
    assert (document["total"], document["synced"], document["errors"]) == (2, 1, 1)
    assert document["failedSyncs"][0]["shopifyCustomerId"] == "999"


def test_one_customer_is_synced_whatever_is_believed(cli: Cli, shop: str, store: Store) -> None:
    customer = _post(cli, 1, 150)
    document = cli("sync", "--customer", customer, "--json")
    assert document.status == 0
    assert document.document["message"] == "Customer synced"
    assert (document.document["customerId"], document.document["balance"], document.document["synced"]) == (
        customer,
        150,
        True,
    )
    store.control(
        "PUT",
        f"/shops/{shop}/metafields",
        {"customerId": "1", "namespace": "loyalty", "key": "points_balance", "value": "7"},
    )
    assert cli("sync", "--customer", customer).out == f"Customer {customer}: synced, 150 points.\n"
    assert store.shown() == {"1": "150"}


def test_one_customer_who_cannot_be_synced_exits_with_1(cli: Cli, shop: str) -> None:
    customer = _post(cli, 999)
    failed = cli("sync", "--shop", shop, "--customer", customer, "--json")
    assert failed.status == 1
    assert failed.document["message"] == "Customer sync failed"
    assert failed.document["error"]
    assert "not synced" in cli("sync", "--customer", customer).out


def test_without_shop_every_shop_is_synced(cli: Cli, shop: str, store: Store) -> None:
    cli("shops", "add", OTHER, "--access-token", TOKEN)
    _post(cli, 1, 5, "--shop", shop)
    _post(cli, 2, 6, "--shop", OTHER)
    synced = cli("sync", "--json")
    assert synced.status == 0
    assert [one["shop"] for one in synced.document["shops"]] == [DOMAIN, OTHER]
    assert all(one["message"] == "Sync complete" for one in synced.document["shops"])
    assert (store.shown(DOMAIN), store.shown(OTHER)) == ({"1": "5"}, {"1": "0", "2": "6", "3": "0"})
    assert cli("verify").out.count("Balance verification complete") == 2
    assert cli("sync", "--customer", NOBODY).status == 2


def test_verification_repairs_from_the_ledger_and_syncs_what_changed(
    cli: Cli, shop: str, store: Store, owner: psycopg.Connection
) -> None:
    right, wrong = _post(cli, 1, 100), _post(cli, 2, 1050)
    cli("sync")
    _damage(owner, wrong, 1000)
    verified = cli("verify", "--shop", shop, "--json")
    assert verified.status == 0
    assert "Balance corrected" in verified.err
    document = verified.document
    assert (document["total"], document["verified"], document["corrected"]) == (2, 1, 1)
    assert document["discrepancies"] == [
        {"customerId": wrong, "shopifyCustomerId": "2", "stored": 1000, "calculated": 1050, "difference": 50}
    ]
    assert store.shown() == {"1": "100", "2": "1050"}
    clean = cli("verify")
    assert (clean.status, clean.err) == (0, "")
    assert "2 right, 0 corrected" in clean.out
    assert right != wrong


def test_a_dry_run_only_looks(cli: Cli, shop: str, store: Store, owner: psycopg.Connection) -> None:
    customer = _post(cli, 1, 100)
    _post(cli, 2, 100)
    assert cli("verify", "--dry-run").status == 0
    _damage(owner, customer, 90)
    looked = cli("verify", "--dry-run", "--json")
    assert looked.status == 1
    assert (looked.document["dryRun"], looked.document["corrected"]) == (True, 0)
    assert looked.document["discrepancies"][0]["difference"] == 10
    one = cli("verify", "--shop", shop, "--customer", customer, "--dry-run")
    assert one.status == 1
    assert "1 customers, 0 right, 1 wrong" in one.out
    assert customer in one.out
    assert store.shown() == {}
    assert owner.execute("select current_balance from customers where id = %s", (customer,)).fetchone() == (90,)


def test_one_customer_is_verified_and_synced(cli: Cli, shop: str, store: Store, owner: psycopg.Connection) -> None:
    customer = _post(cli, 1, 100)
    _damage(owner, customer, 90)
    verified = cli("verify", "--shop", shop, "--customer", customer, "--json").document
    assert (verified["message"], verified["balance"], verified["corrected"]) == ("Customer synced", 100, 1)
    assert verified["discrepancies"][0]["stored"] == 90
    assert store.shown() == {"1": "100"}


@pytest.mark.parametrize("command", [["sync"], ["verify"], ["verify", "--dry-run"]])
def test_an_unknown_customer_is_one_line(cli: Cli, shop: str, command: list[str]) -> None:
    refused = cli(*command, "--shop", shop, "--customer", str(uuid.uuid4()))
    assert refused.status == 1
    assert "no customer" in refused.complaint


def test_a_run_that_shopify_stops_says_why_for_each_customer(cli: Cli, shop: str, store: Store) -> None:
    _post(cli, 1)
    store.control("PATCH", f"/shops/{shop}", {"state": "frozen"})
    stopped = cli("sync", "--json")
    assert stopped.status == 1
    assert "frozen" in stopped.document["failedSyncs"][0]["error"]
    assert "Traceback" not in stopped.err
    store.control("PATCH", f"/shops/{shop}", {"state": "active"})
    assert cli("sync").status == 0
