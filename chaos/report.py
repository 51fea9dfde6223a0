"""What a run came to: one document, for people or for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

CUSTOMERS_TOLD_MAX = 10
WRONGS_TOLD_MAX = 30
REPAIRS = {
    "conflicts_ours": "refused digests, a late write of ours between",
    "conflicts_foreign": "found that somebody else had written",
    "late_writes": "late writes found by reading back",
    "outcomes_unknown": "calls without a known outcome",
    "customers_read": "customers read back",
    "customers_pushed": "customers pushed",
    "customers_refused": "customers refused",
    "throttled": "throttled answers",
    "calls": "calls",
    "points_spent": "points spent",
    "drifts": "drifts found by the reconciliation",
}


@dataclass(slots=True)
class WrongCustomer:
    """A customer that came out wrong, with what there is to know."""

    customer: int
    ledger_sum: int
    metafield: str | None
    when: str
    mirror: dict[str, str]
    events: list[str]


@dataclass(slots=True)
class Report:
    """Everything a run came to. `wrongs`: what must not be, in words; none, and nobody wrong, is a pass."""

    seed: int
    plan: str
    seconds: int
    customers: int
    workers: int
    hurried: bool = False
    plan_late_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict[str, int])
    late_executions: int = 0
    kills: int = 0
    freezes: int = 0
    freezes_of_the_lease_holder: int = 0
    web_kills: int = 0
    ambushes: int = 0
    foreign: dict[str, int] = field(default_factory=dict[str, int])
    postings: dict[str, int] = field(default_factory=dict[str, int])
    slowest_posting_s: float = 0.0
    at_rest_after_s: float | None = None
    not_at_rest: dict[str, int] = field(default_factory=dict[str, int])
    explained: list[str] = field(default_factory=list[str])
    repairs: dict[str, int] = field(default_factory=dict[str, int])
    reconciliation: dict[str, Any] = field(default_factory=dict[str, Any])
    logged: dict[str, int] = field(default_factory=dict[str, int])
    wrongs: list[str] = field(default_factory=list[str])
    wrong_customers: list[WrongCustomer] = field(default_factory=list[WrongCustomer])
    folder: str | None = None

    @property
    def has_passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrongs and not self.wrong_customers

    def as_json(self) -> str:
        """One JSON document."""
        return json.dumps({"verdict": "PASS" if self.has_passed else "FAIL", **asdict(self)})

    def as_text(self) -> str:
        """For people."""
        lines = [
            f"Seed {self.seed}, plan {self.plan}: {self.customers} customers, {self.workers} workers, {self.seconds} s",
            f"The machine carried it out up to {self.plan_late_s:.1f} s late",
            "",
            "What was done to it",
            *_table(self.faults | {"executed after their client went": self.late_executions}),
            *_table(
                {
                    "workers killed": self.kills,
                    "workers frozen beyond the lease": self.freezes,
                    "… while they held it": self.freezes_of_the_lease_holder,
                    "web process killed": self.web_kills,
                    "killed while a swallowed write was waited for": self.ambushes,
                }
                | self.foreign
            ),
            "Postings",
            *_table(self.postings),
            f"  slowest answer, all repeats included: {self.slowest_posting_s:.1f} s",
            "What it took to put right",
            *_table({text: self.repairs.get(name, 0) for name, text in REPAIRS.items()}),
            *self._logged_lines(),
            "The end",
            f"  {self._rest()}",
            f"  differing then, by somebody else's last word: {len(self.explained)}",
            *(f"    {line}" for line in self.explained),
            f"  reconciliation: {json.dumps(self.reconciliation)}",
            *self._verdict_lines(),
        ]
        return "\n".join(lines)

    def _rest(self) -> str:
        if self.at_rest_after_s is None:
            left = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.not_at_rest.items() if count)
            return f"NOT at rest: {left}"
        hurried = " (in a hurry: doubts were aged, not waited for)" if self.hurried else ""
        return f"at rest {self.at_rest_after_s:.1f} s after the last posting{hurried}"

    def _logged_lines(self) -> list[str]:
        return (
            ["Warnings and errors in the logs", *_table(dict(list(self.logged.items())[:WRONGS_TOLD_MAX]))]
            if self.logged
            else []
        )

    def _verdict_lines(self) -> list[str]:
        lines: list[str] = []
        for wrong in self.wrong_customers[:CUSTOMERS_TOLD_MAX]:
            mirror = ", ".join(f"{name}={value}" for name, value in wrong.mirror.items())
            shown = f"ledger {wrong.ledger_sum}, metafield {wrong.metafield}"
            lines += [
                f"  WRONG {wrong.when}: customer {wrong.customer}, {shown}",
                f"    mirror: {mirror}",
                *(f"    {event}" for event in wrong.events),
            ]
        lines += [f"  WRONG: {wrong}" for wrong in self.wrongs[:WRONGS_TOLD_MAX]]
        if len(self.wrong_customers) > CUSTOMERS_TOLD_MAX or len(self.wrongs) > WRONGS_TOLD_MAX:
            lines.append("  … and more: --json tells all of them")
        if self.folder is not None:
            lines.append(f"  The logs are kept in {self.folder}")
        if self.has_passed:
            lines.append(f"PASS: seed {self.seed}; every live customer's metafield equals their ledger.")
        else:
            lines.append(
                f"FAIL: seed {self.seed}; {len(self.wrong_customers)} customers wrong, {len(self.wrongs)} other wrongs."
            )
        return lines


def _table(rows: dict[str, int]) -> list[str]:
    return [f"  {count:>8,}  {name}" for name, count in rows.items()]
