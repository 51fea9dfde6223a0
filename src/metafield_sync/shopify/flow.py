"""Shopify Flow's trigger "Points balance changed": telling workflows that a customer's balance has changed.

What is told has to fit `extensions/points-balance-changed/shopify.extension.toml`: the handle, the customer by number,
and the two fields under the keys they have there.
Source: https://shopify.dev/docs/apps/build/flow/triggers/reference, and the published schemas 2026-01 to 2026-10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metafield_sync.shopify.shapes import items, mapping, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.shopify.client import AdminClient, ShopAccess
    from metafield_sync.shopify.cost import Cost

TRIGGER_HANDLE = "points-balance-changed"
BALANCE_FIELD = "Points balance"
CHANGE_FIELD = "Points change"
CHANGES_A_CALL_MAX = 10
"""So many are told in one request, each a mutation of its own: saves round trips, not points."""
CHANGE_COST = 10
"""Points for each: the base of a mutation."""


@dataclass(frozen=True, slots=True)
class BalanceChange:
    """What a workflow is told: whose balance, what it is now, and by how many points that differs from before."""

    shopify_customer_id: int
    balance: int
    change: int

    def payload(self) -> dict[str, Any]:
        """As the trigger's extension declares it."""
        return {
            "customer_id": self.shopify_customer_id,
            BALANCE_FIELD: self.balance,
            CHANGE_FIELD: self.change,
        }


def flow_trigger_mutation(count: int) -> str:
    """The document that tells `count` changes, `$change0` and so on."""
    variables = "".join(f", $change{number}: JSON" for number in range(count))
    calls = "\n".join(
        f"  told{number}: flowTriggerReceive(handle: $handle, payload: $change{number}) {{\n"
        "    userErrors {\n      field\n      message\n    }\n  }"
        for number in range(count)
    )
    return f"mutation TellFlow($handle: String{variables}) {{\n{calls}\n}}\n"


async def tell_flow(
    client: AdminClient, access: ShopAccess, changes: Sequence[BalanceChange]
) -> tuple[tuple[str, ...], Cost | None]:
    """Tell Flow of up to `CHANGES_A_CALL_MAX` changes; returns what it had against them, one text each, and the cost.

    Raises ValueError for more, or none, and the failures of `AdminClient.call`.
    """
    if not 1 <= len(changes) <= CHANGES_A_CALL_MAX:
        raise ValueError(f"one call tells 1 to {CHANGES_A_CALL_MAX} changes, not {len(changes)}")
    variables: dict[str, Any] = {"handle": TRIGGER_HANDLE}
    variables |= {f"change{number}": change.payload() for number, change in enumerate(changes)}
    answer = await client.call(access, flow_trigger_mutation(len(changes)), variables)
    errors = [
        text((mapping(error) or {}).get("message")) or "no message"
        for number in range(len(changes))
        for error in items((mapping(answer.data.get(f"told{number}")) or {}).get("userErrors")) or []
    ]
    return tuple(errors), answer.cost
