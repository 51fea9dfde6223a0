"""The harness of `make chaos`: it passes in short, and it can tell when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chaos.faults import FaultRule
from chaos.judge import differences, drift_kind, reconciled
from chaos.model import LedgerRow, Model
from chaos.plan import Batch, Entry, Freeze, Kill, KillWeb, Overwrite, Post, Scope, make_plan
from chaos.shops import SHOPS, shop_of
from chaos.store import ForeignAct

ROOT = Path(__file__).parents[2]
SHORT = ("--seed", "7", "--seconds", "14", "--customers", "30", "--workers", "2", "--hurry", "--json")
SHORT_TIMEOUT_S = 115
OVERWRITTEN = ForeignAct(1, "overwrite", "7000000001", 100.0, 100.1)
SILENT = FaultRule("write: dropped, executed", {}, is_silent=True)
TOLD = FaultRule("write: throttled", {}, is_silent=False)


def test_in_short_nothing_stays_wrong() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *SHORT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SHORT_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report = json.loads(done.stdout)
    assert report["verdict"] == "PASS"
    assert report["hurried"]
    assert sum(report["faults"].values()) >= 5, report["faults"]
    assert report["kills"] >= 2
    assert (report["freezes"], report["web_kills"]) == (1, 1)
    assert report["postings"]["acknowledged"] >= 100
    assert report["repairs"]["outcomes_unknown"] > 0
    assert report["reconciliation"]["byKind"]["foreign_write"] >= 1
    assert report["reconciliation"]["byKind"]["customer_gone"] >= 1


def test_a_plan_comes_from_its_seed_alone() -> None:
    words = "from chaos.plan import Scope, make_plan; print(make_plan(Scope(3, 60, 200, 3)).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert digests == {make_plan(Scope(3, 60, 200, 3)).digest}
    assert digests != {make_plan(Scope(4, 60, 200, 3)).digest}


@pytest.mark.parametrize("scope", [Scope(1, 60, 200, 3), Scope(2, 14, 30, 2), Scope(3, 5, 10, 1)])
def test_a_plan_keeps_within_its_scope(scope: Scope) -> None:
    plan = make_plan(scope)
    kinds = {type(action) for action in plan.actions}
    assert {Post, Batch, Overwrite, Kill, KillWeb} <= kinds
    assert all(0 <= action.at_s <= scope.seconds for action in plan.actions)
    for action in plan.actions:
        if isinstance(action, Batch):
            assert {shop_of(entry.customer) for entry in action.entries} == {action.shop}
        if isinstance(action, Freeze):
            assert 10 < action.for_s <= scope.seconds - action.at_s + 0.001
    keys = [(post.entry.customer, post.entry.external_id) for post in plan.actions if isinstance(post, Post)]
    assert len(set(keys)) == len(keys)
    assert {shop_of(customer) for customer in range(1, scope.customers + 1)} == set(range(SHOPS))


def _call(number: int, at_s: float, *, fault: int | None = None, late_of: int | None = None) -> dict[str, Any]:
    owners = ["gid://shopify/Customer/1"]
    return {"number": number, "wallS": at_s, "fault": fault, "lateOf": late_of, "owners": owners, "status": 200}


def _differs(shown: dict[int, str], *calls: dict[str, Any], acts: tuple[ForeignAct, ...] = (OVERWRITTEN,)) -> str:
    """How customer 1, whose balance is 5, is judged."""
    found = differences({1: 5}, shown, acts, calls, {8: SILENT, 9: TOLD})
    if not found:
        return "in step"
    return "wrong" if found[0].why is None else "explained"


def test_who_differs_is_wrong_unless_somebody_else_had_the_last_word() -> None:
    assert _differs({1: "5"}) == "in step"
    assert _differs({1: "4"}, acts=()) == "wrong"
    assert _differs({}, acts=()) == "wrong"
    assert _differs({1: "7000000001"}) == "explained"
    assert _differs({1: "7000000001"}, _call(1, 99.0)) == "explained"
    assert _differs({1: "4"}) == "wrong"
    assert _differs({}) == "wrong"
    assert _differs({}, acts=(ForeignAct(1, "erase", None, 100.0, 100.1),)) == "explained"
    assert _differs({}, acts=(ForeignAct(1, "delete", None, 100.0, 100.1),)) == "in step"


def test_somebody_elses_word_is_no_excuse_where_we_looked_or_had_to_look() -> None:
    assert _differs({1: "7000000001"}, _call(1, 101.0)) == "wrong"
    assert _differs({1: "7000000001"}, _call(1, 99.0, fault=8)) == "wrong"
    assert _differs({1: "7000000001"}, _call(1, 99.0, fault=9)) == "explained"
    dropped: dict[str, Any] = {**_call(1, 99.0, fault=8), "owners": []}
    assert _differs({1: "7000000001"}, dropped, _call(2, 103.0, late_of=1)) == "wrong"


def test_a_reconciliation_is_held_to_what_it_had_to_find() -> None:
    document = {"drifted": 1, "byKind": {"foreign_write": 1, "missing": 0}}
    assert drift_kind(OVERWRITTEN) == "foreign_write"
    assert reconciled({1: "foreign_write"}, document, {1: ("foreign_write", "7000000001")}) == []
    assert reconciled({1: "missing"}, document, {1: ("foreign_write", None)}) != []
    assert reconciled({}, document, {1: ("foreign_write", None)}) != []
    assert reconciled({1: "foreign_write", 2: "missing"}, document, {1: ("foreign_write", None)}) != []
    assert reconciled({1: "foreign_write"}, {**document, "drifted": 2}, {1: ("foreign_write", None)}) != []


def _model(*entries: Entry) -> Model:
    model = Model()
    for entry in entries:
        document = {"id": entry.external_id, "amount": entry.amount, "externalId": entry.external_id}
        assert model.accept(entry, document, is_new=True) is None
    return model


TEN, FIVE = Entry("a", 1, 10, allow_negative=True), Entry("b", 1, -5, allow_negative=True)
ROWS = [LedgerRow(1, 1, 10, 10, "a"), LedgerRow(1, 2, -5, 5, "b")]


def test_the_ledger_is_held_against_what_was_acknowledged() -> None:
    model = _model(TEN, FIVE)
    assert model.against(ROWS, {1: 5}) == []
    assert model.against(ROWS[:1], {1: 10}) != []
    assert model.against([*ROWS, LedgerRow(1, 3, 7, 12, "c")], {1: 12}) != []
    assert model.against([*ROWS, LedgerRow(1, 3, 10, 15, "a")], {1: 15}) != []
    assert model.against(ROWS, {1: 6}) != []
    assert model.against([ROWS[0], LedgerRow(1, 3, -5, 5, "b")], {1: 5}) != []


def test_an_acknowledgement_that_contradicts_another_is_noticed() -> None:
    model = _model(TEN)
    document = {"id": "a", "amount": 10, "externalId": "a"}
    assert model.accept(TEN, document, is_new=False) is None
    assert model.accept(TEN, document, is_new=True) is not None
    assert model.accept(TEN, {**document, "id": "other"}, is_new=False) is not None
    assert model.accept(TEN, {**document, "amount": 11}, is_new=False) is not None
