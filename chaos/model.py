"""What the ledger must say: kept by the harness alone, from the answers it was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.plan import Entry


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One entry as the database has it."""

    customer: int
    sequence: int
    amount: int
    balance_after: int
    external_id: str | None


@dataclass(slots=True)
class Model:
    """What was acknowledged, by customer and key: the amount, and the id of the entry."""

    accepted: dict[int, dict[str, tuple[int, str]]] = field(default_factory=dict[int, dict[str, tuple[int, str]]])
    refused: dict[tuple[int, str], Entry] = field(default_factory=dict[tuple[int, str], "Entry"])
    created: set[tuple[int, str]] = field(default_factory=set[tuple[int, str]])

    def accept(self, entry: Entry, document: dict[str, Any], *, is_new: bool) -> str | None:
        """Take note of an acknowledgement; what is wrong with it, if anything is."""
        key, entry_id = (entry.customer, entry.external_id), str(document["id"])
        if (document["amount"], document["externalId"]) != (entry.amount, entry.external_id):
            return f"{key}: {entry.amount} was posted, {document['amount']} acknowledged for {document['externalId']}"
        if is_new and key in self.created:
            return f"{key}: recorded as new twice"
        if is_new:
            self.created.add(key)
        known = self.accepted.setdefault(entry.customer, {}).setdefault(entry.external_id, (entry.amount, entry_id))
        if known[1] != entry_id:
            return f"{key}: acknowledged as entry {known[1]}, then as entry {entry_id}"
        return None

    def refuse(self, entry: Entry) -> None:
        """Take note of a refusal."""
        self.refused[entry.customer, entry.external_id] = entry

    @property
    def refused_for_good(self) -> list[Entry]:
        """What was refused and not accepted later."""
        return [entry for entry in self.refused.values() if not self.is_accepted(entry)]

    def is_accepted(self, entry: Entry) -> bool:
        """Whether it was acknowledged."""
        return entry.external_id in self.accepted.get(entry.customer, {})

    @property
    def acknowledged(self) -> int:
        """How many postings were."""
        return sum(len(entries) for entries in self.accepted.values())

    def balance(self, customer: int) -> int:
        """The sum of what was acknowledged."""
        return sum(amount for amount, _ in self.accepted.get(customer, {}).values())

    def against(self, rows: Sequence[LedgerRow], balances: dict[int, int]) -> list[str]:
        """Hold the ledger, and the stored balances, against the model; what is wrong, in words."""
        wrongs: list[str] = []
        found: dict[int, list[LedgerRow]] = {customer: [] for customer in self.accepted}
        for row in rows:
            found.setdefault(row.customer, []).append(row)
        for customer, entries in sorted(found.items()):
            wrongs += self._customer_against(customer, entries, balances.get(customer))
        return wrongs

    def _customer_against(self, customer: int, rows: list[LedgerRow], stored: int | None) -> list[str]:
        wrongs: list[str] = []
        wanted = {key: amount for key, (amount, _) in self.accepted.get(customer, {}).items()}
        keys = [row.external_id for row in rows]
        if lost := sorted(wanted.keys() - set(keys)):
            wrongs.append(f"customer {customer}: acknowledged and not in the ledger: {', '.join(lost)}")
        extra = sorted(str(key) for key in keys if key not in wanted)
        if extra:
            wrongs.append(f"customer {customer}: in the ledger and never acknowledged: {', '.join(extra)}")
        if len(set(keys)) < len(keys):
            wrongs.append(f"customer {customer}: a key stands in the ledger twice")
        running = 0
        for place, row in enumerate(sorted(rows, key=lambda row: row.sequence), start=1):
            running += row.amount
            if (row.sequence, row.balance_after) != (place, running):
                wrongs.append(
                    f"customer {customer}: entry {place} has sequence {row.sequence} and balance {row.balance_after}, "
                    f"not {place} and {running}"
                )
                break
        model = self.balance(customer)
        if not model == running == stored:
            wrongs.append(f"customer {customer}: acknowledged {model}, in the ledger {running}, stored {stored}")
        return wrongs
