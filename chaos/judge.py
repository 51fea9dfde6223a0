"""Who is wrong at the end, and whether somebody else's last word explains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.store import ForeignAct

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.faults import FaultRule
    from chaos.journal import Event

READ_BACK_S = 300
"""So long after a write without a known outcome its customers are read back for the last time."""
EVENTS_TOLD_MAX = 16


@dataclass(frozen=True, slots=True)
class Difference:
    """A live customer whose metafield is not the balance. `why`: what else than a fault of ours explains it, if any."""

    customer: int
    balance: int
    shown: str | None
    why: str | None


def differences(
    balances: Mapping[int, int],
    shown: Mapping[int, str],
    acts: Sequence[ForeignAct],
    calls: Sequence[Mapping[str, Any]],
    rules: Mapping[int, FaultRule],
) -> list[Difference]:
    """Every live customer who is not shown their balance: `balances` by the model, `shown` by Shopify."""
    deleted = {act.customer for act in acts if act.kind == "delete"}
    wrong = [
        customer
        for customer, balance in sorted(balances.items())
        if customer not in deleted and shown.get(customer) != str(balance)
    ]
    writes = _writes(calls)
    return [
        Difference(
            customer,
            balances[customer],
            shown.get(customer),
            _explanation(
                shown.get(customer), [act for act in acts if act.customer == customer], writes.get(customer, []), rules
            ),
        )
        for customer in wrong
    ]


def _writes(calls: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """Executed `metafieldsSet` calls by the customers they name. One executed late counts from when it was sent."""
    by_number = {call["number"]: call for call in calls}
    found: dict[int, list[Mapping[str, Any]]] = {}
    for call in by_number.values():
        origin = by_number.get(call["lateOf"], call)
        told = {**call, "fault": origin["fault"], "sentS": origin["wallS"]}
        for owner in call["owners"]:
            found.setdefault(int(owner.rpartition("/")[2]), []).append(told)
    return found


def _explanation(
    shown: str | None,
    acts: Sequence[ForeignAct],
    writes: Sequence[Mapping[str, Any]],
    rules: Mapping[int, FaultRule],
) -> str | None:
    """Why we could not know, or None if we could.

    The metafield is as somebody else left it; after that none of our writes named the customer, which would have told
    us; and no write without a known outcome was so recent that they were still to be read back.
    """
    if not acts or acts[-1].value != shown:
        return None
    act = acts[-1]
    if any(write["wallS"] > act.ended_s and write["lateOf"] is None for write in writes):
        return None
    doubts = [write["sentS"] for write in writes if write["fault"] in rules and rules[write["fault"]].is_silent]
    if any(doubt_s + READ_BACK_S > act.ended_s for doubt_s in doubts):
        return None
    what = "removed" if act.kind == "erase" else "overwritten"
    return f"{what} by somebody else after our last write"


def reconciled(
    expected: Mapping[int, str], document: Mapping[str, Any], drifts: Mapping[int, tuple[str, str | None]]
) -> list[str]:
    """Hold what a reconciliation found against what it had to find, kinds by customer; what is wrong, in words."""
    wrongs: list[str] = []
    found = {customer: kind for customer, (kind, _) in drifts.items()}
    for customer in sorted(expected.keys() | found.keys()):
        wanted, got = expected.get(customer), found.get(customer)
        if wanted != got:
            wrongs.append(
                f"the reconciliation found customer {customer} {got or 'in order'}, not {wanted or 'in order'}"
            )
    counted = {kind: count for kind, count in document["byKind"].items() if count}
    listed = {kind: list(found.values()).count(kind) for kind in found.values()}
    if counted != listed or document["drifted"] != len(found):
        wrongs.append(f"the reconciliation counted {counted}, {document['drifted']} in all, and recorded {listed}")
    return wrongs


def drift_kind(act: ForeignAct) -> str:
    """What a reconciliation has to call what somebody else did."""
    if act.kind == "delete":
        return "customer_gone"
    if act.kind == "erase":
        return "missing"
    return "foreign_write" if act.value is not None and act.value.isdigit() else "wrong_type"


def history(
    customer: int,
    events: Sequence[Event],
    calls: Sequence[Mapping[str, Any]],
    rules: Mapping[int, FaultRule],
    zero_s: float,
) -> list[str]:
    """The last that happened to a customer, as lines with seconds since the start."""
    lines = [(event.at_s, event.text) for event in events if event.customer == customer]
    lines += [
        (event.at_s, event.text)
        for event in events
        if event.customer is None and event.text.startswith(("worker", "web"))
    ]
    for write in _writes(calls).get(customer, []):
        fault = rules.get(write["fault"]) if write["fault"] else None
        late = f", late: sent at {write['sentS'] - zero_s:.3f}" if write["lateOf"] else ""
        told = f" [{fault.kind}]" if fault is not None else ""
        lines.append((write["wallS"], f"Shopify executed metafieldsSet, HTTP {write['status']}{told}{late}"))
    return [f"{at_s - zero_s:8.3f} {text}" for at_s, text in sorted(lines)][-EVENTS_TOLD_MAX:]
