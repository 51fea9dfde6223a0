"""`reconcile`: what it prints, what it changes, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_support import DOMAIN, OTHER, TOKEN, Store

from metafield_sync.sync.reconcile.drift import DRIFT_KINDS

if TYPE_CHECKING:
    from cli_support import Cli


@pytest.fixture
def synced(cli: Cli, shop: str) -> str:
    """Customers 1 to 3 have 101 to 103 points, and Shopify shows them."""
    for customer in (1, 2, 3):
        _post(cli, customer, 100 + customer)
    assert cli("sync").status == 0
    return shop


def _post(cli: Cli, customer: int, amount: int, shop: str = DOMAIN) -> None:
    posted = cli(
        *("post", "--shop", shop, "--shopify-customer", str(customer), "--amount", str(amount), "--reason", "gift")
    )
    assert posted.status == 0, posted.err


def _overwrite(store: Store, customer: int, value: str, domain: str = DOMAIN) -> None:
    body = {"customerId": str(customer), "namespace": "loyalty", "key": "points_balance", "value": value}
    store.control("PUT", f"/shops/{domain}/metafields", body)


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def test_nothing_drifted(cli: Cli, synced: str) -> None:
    told = cli("reconcile")
    assert (told.status, told.err) == (0, "")
    assert told.out.startswith(f"{synced}: Reconciliation complete\n  3 customers, 3 agree, 0 drifted; ")
    assert "Metafield definition: as it should be" in told.out


def test_drift_is_told_in_plain_words_and_only_repaired_when_asked(cli: Cli, synced: str, store: Store) -> None:
    _overwrite(store, 1, "4711")
    body = {"customerId": "2", "namespace": "loyalty", "key": "points_balance"}
    store.control("DELETE", f"/shops/{synced}/metafields", body)
    told = cli("reconcile")
    assert told.status == 1
    assert "3 customers, 1 agree, 2 drifted; " in told.out
    for kind in ("foreign_write", "missing"):
        assert f"{kind} 1 {DRIFT_KINDS[kind]}" in _in_one_line(told.out)
    assert "1 foreign_write 101 4711" in _in_one_line(told.out)
    assert told.err == f"Repair it with: metafield-sync reconcile --shop {synced} --repair\n"
    assert store.shown() == {"1": "4711", "3": "103"}

    repaired = cli("reconcile", "--shop", synced, "--repair")
    assert (repaired.status, repaired.err) == (0, "")
    assert "1 agree, 2 drifted (2 repaired); " in repaired.out
    assert store.shown() == {"1": "101", "2": "102", "3": "103"}
    assert cli("reconcile").status == 0


def test_the_document_is_the_apis(cli: Cli, synced: str, store: Store) -> None:
    _overwrite(store, 1, "4711")
    told = cli("reconcile", "--shop", synced, "--json")
    assert (told.status, told.err) == (1, "")
    document = told.document
    assert document["message"] == "Reconciliation complete"
    assert (document["total"], document["agreeing"], document["drifted"], document["repaired"]) == (3, 2, 1, 0)
    (drift,) = document["drifts"]
    assert (drift["kind"], drift["expected"], drift["found"]) == ("foreign_write", 101, "4711")


def test_who_is_gone_has_nothing_left_to_repair(cli: Cli, synced: str, store: Store) -> None:
    store.control("DELETE", f"/shops/{synced}/customers", {"ids": [3]})
    try:
        assert cli("reconcile").status == 1
        repaired = cli("reconcile", "--repair", "--json")
        assert repaired.status == 0
        assert (repaired.document["drifted"], repaired.document["repaired"]) == (1, 0)
        assert repaired.document["byKind"]["customer_gone"] == 1
        again = cli("reconcile")
        assert again.status == 0
        assert "3 customers, 2 agree, 0 drifted, 1 not compared; " in again.out
    finally:
        store.control("POST", f"/shops/{synced}/customers", {"ids": [3]})


def test_a_definition_that_is_missing_is_drift_too(cli: Cli, synced: str, store: Store) -> None:
    body = {"namespace": "loyalty", "key": "points_balance"}
    assert store.control("DELETE", f"/shops/{synced}/definitions", body) == {"deleted": True}
    told = cli("reconcile")
    assert told.status == 1
    assert "Metafield definition: was missing; not put right" in told.out
    repaired = cli("reconcile", "--repair")
    assert repaired.status == 0
    assert "Metafield definition: was missing; put right" in repaired.out
    assert cli("reconcile").status == 0


def test_many_rows_are_cut_and_json_has_more(cli: Cli, shop: str, store: Store) -> None:
    for customer in range(1, 26):
        _post(cli, customer, 100)
    assert cli("sync").status == 0
    for customer in range(1, 26):
        _overwrite(store, customer, "4711")
    told = cli("reconcile", "--shop", shop)
    assert told.out.count(" 4711") == 20
    assert "… and 5 more" in told.out
    assert len(cli("reconcile", "--json").document["drifts"]) == 25


def test_without_shop_every_shop_is_reconciled(cli: Cli, synced: str, store: Store) -> None:
    cli("shops", "add", OTHER, "--access-token", TOKEN)
    _post(cli, 1, 5, OTHER)
    assert cli("sync").status == 0
    _overwrite(store, 1, "4711", OTHER)
    told = cli("reconcile", "--json")
    assert told.status == 1
    assert [(one["shop"], one["drifted"]) for one in told.document["shops"]] == [(synced, 0), (OTHER, 1)]
    assert cli("reconcile", "--repair").out.count("Reconciliation complete") == 2
    assert store.shown(OTHER) == {"1": "5", "2": "0", "3": "0"}


def test_a_shop_that_cannot_be_read_hides_nothing_of_the_others(cli: Cli, synced: str) -> None:
    cli("shops", "add", OTHER, "--access-token", TOKEN)
    cli("shops", "pause", OTHER)
    told = cli("reconcile")
    assert told.status == 1
    assert f"{synced}: Reconciliation complete" in told.out
    assert f"metafield-sync: {OTHER}: not reconciled: {OTHER} is paused." in told.err
    document = cli("reconcile", "--json").document
    assert document["shops"][0]["agreeing"] == 3
    assert document["shops"][1]["message"] == "Reconciliation failed"
    assert "is paused" in document["shops"][1]["error"]


def test_the_one_shop_that_cannot_be_read_is_one_line(cli: Cli, shop: str, store: Store) -> None:
    store.control("PATCH", f"/shops/{shop}", {"state": "frozen"})
    for more in ([], ["--json"]):
        failed = cli("reconcile", *more)
        assert (failed.status, failed.out) == (1, "")
        (line,) = [line for line in failed.err.splitlines() if line.startswith("metafield-sync: ")]
        assert "frozen" in line
        assert "Traceback" not in failed.err


def test_without_a_readable_token_nothing_is_begun(cli: Cli, synced: str) -> None:
    stopped = cli("reconcile", "--shop", synced, ENCRYPTION_KEYS="")
    assert stopped.status == 2
    assert stopped.complaint.startswith("metafield-sync: ENCRYPTION_KEYS")
    assert cli("reconcile", "--shop", "nobody.myshopify.com").status == 2
