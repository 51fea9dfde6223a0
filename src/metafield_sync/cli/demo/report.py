"""What the demo shows: the comparison, and how to go on from there."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from metafield_sync import __version__
from metafield_sync.cli.demo.store import SHOP_DOMAIN
from metafield_sync.cli.output import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from metafield_sync.cli.demo.comparison import Row
    from metafield_sync.cli.demo.store import DevStore, Spent
    from metafield_sync.settings import Settings

SAMPLE_ROWS = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo came to. `spent` is the devstore's own count up to the end of the push."""

    rows: Sequence[Row]
    spent: Spent
    seconds: float
    push_seconds: float

    @property
    def agreeing(self) -> int:
        """Customers whose four figures are the same."""
        return sum(row.agrees for row in self.rows)

    @property
    def all_agree(self) -> bool:
        """Whether that is everybody, and there is somebody."""
        return 0 < len(self.rows) == self.agreeing


def document(outcome: Outcome) -> dict[str, Any]:
    """The outcome for `--json`."""
    rows = outcome.rows
    return {
        "message": "Demo complete",
        "customers": len(rows),
        "agreeing": outcome.agreeing,
        "entries": sum(row.entries for row in rows),
        "points": {
            "earned": sum(row.earned or 0 for row in rows),
            "ledger": sum(row.ledger or 0 for row in rows),
            "balances": sum(row.balance or 0 for row in rows),
            "shopify": sum(row.shopify for row in rows if isinstance(row.shopify, int)),
        },
        "disagreeing": [
            {
                "shopifyCustomerId": str(r.customer),
                "earned": r.earned,
                "ledger": r.ledger,
                "balance": r.balance,
                "shopify": r.shopify,
            }
            for r in rows
            if not r.agrees
        ],
        "calls": outcome.spent.calls,
        "throttled": outcome.spent.throttled,
        "pointsSpent": outcome.spent.points,
        "durationMs": round(outcome.seconds * 1000),
    }


def show(console: Console, outcome: Outcome) -> None:
    """The comparison as tables, and its sum in one line."""
    figures = document(outcome)
    console.print()
    console.print(_sample(outcome.rows))
    console.print(_totals(figures))
    verdict = f"{outcome.agreeing:,} of {len(outcome.rows):,} customers agree."
    if outcome.all_agree:
        console.print(
            f"✓ {verdict} Every metafield equals its balance, every balance the sum of its entries.", style="green"
        )
    else:
        console.print(f"✗ {verdict} The table shows who does not.", style="bold red")
    spent = outcome.spent
    console.print(
        f"Pushed in {outcome.push_seconds:.1f} s with {spent.calls:,} calls and {spent.points:,} API points, "
        f"{spent.throttled} throttled; {outcome.seconds:.1f} s in all.",
        soft_wrap=True,
    )


def _sample(rows: Sequence[Row]) -> Table:
    """A few customers: those who disagree first, else some from everywhere, the richest and one at 0 among them."""
    table = Table(title="Database against Shopify, customer by customer", title_justify="left")
    table.add_column("Customer")
    for name in ("Entries", "Earned", "Ledger sum", "Balance", "Metafield"):
        table.add_column(name, justify="right")
    table.add_column("Agree", justify="center")
    chosen = [row for row in rows if not row.agrees][:SAMPLE_ROWS]
    if not chosen and rows:
        spread = [rows[i * (len(rows) - 1) // (SAMPLE_ROWS - 3)] for i in range(SAMPLE_ROWS - 2)]
        richest = max(rows, key=lambda row: row.earned or 0)
        poorest = min(rows, key=lambda row: row.earned or 0)
        chosen = sorted({row.customer: row for row in (*spread, richest, poorest)}.values(), key=lambda r: r.customer)
    for row in chosen:
        cells = [_cell(value) for value in (row.entries, row.earned, row.ledger, row.balance, row.shopify)]
        table.add_row(str(row.customer), *cells, "✓" if row.agrees else "✗")
    left = len(rows) - len(chosen)
    if left > 0:
        table.caption, table.caption_justify = f"… and {left:,} more", "left"
    return table


def _cell(value: int | str | None) -> str:
    return "missing" if value is None else f"{value:,}" if isinstance(value, int) else value


def _totals(figures: dict[str, Any]) -> Table:
    points = figures["points"]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        ("Customers", figures["customers"]),
        ("Ledger entries", figures["entries"]),
        ("Points earned by purchases", points["earned"]),
        ("Points in the ledger", points["ledger"]),
        ("Points in Shopify", points["shopify"]),
    ):
        table.add_row(name, f"{value:,}")
    return table


def _program() -> str:
    """The command as it was called, such as `.venv/bin/metafield-sync`."""
    return sys.argv[0] if sys.argv[0].endswith(PROGRAM) else PROGRAM


def show_addresses(
    console: Console,
    *,
    address: str,
    store: DevStore,
    settings: Settings,
    key: str,
    customer: Row,
    customer_id: str,
    environment: str,
) -> None:
    """Where everything is, and a few things to try. Lines to copy are never broken."""
    name = f"{settings.metafield_namespace}.{settings.metafield_key}"
    version = settings.shopify_api_version
    query = (
        '{"query":"{ customer(id: \\"gid://shopify/Customer/'
        f'{customer.customer}\\") {{ metafield(namespace: \\"{settings.metafield_namespace}\\", key: '
        f'\\"{settings.metafield_key}\\") {{ value updatedAt }} }} }}"}}'
    )
    token = f"-H 'X-Shopify-Access-Token: {store.token}'"
    bearer = '-H "Authorization: Bearer $KEY"'
    body = f'{{"shopifyCustomerId":"{customer.customer}","amount":50,"reason":"goodwill","syncToShopify":true}}'
    lines = (
        "",
        f"metafield-sync {__version__} is serving {SHOP_DOMAIN}. Ctrl-C stops it.",
        f"  API       {address}  (reference: {address}/openapi.json)",
        f"  devstore  {store.origin}  (stands in for Shopify; metafield {name})",
        "",
        "Look at it in a browser:",
        f"  {store.admin_url}/customers/{customer.customer}",
        "     the customer in the shop's admin: place an order for them, refund some of it, and see the points follow",
        f"  {store.admin_url}/apps/points",
        "     the app in the shop's admin",
        f"  {store.storefront_url}/account/login",
        f"     the storefront: log in as customer {customer.customer}, who reads their points there",
        "",
        "Try it in another terminal:",
        f"  KEY={key}",
        "  # Sync one customer now",
        f"  curl -s {bearer} '{address}/api/sync-balances?customerId={customer_id}'",
        "  # Give them 50 points, and wait until Shopify shows them",
        f"  curl -s {bearer} -H 'Content-Type: application/json' {address}/api/ledger -d '{body}'",
        "  # Hold every balance against its ledger, repair, push what changed",
        f"  curl -s {bearer} '{address}/api/sync-balances?verify=true'",
        "  # Look at the customer in Shopify, as checkout would",
        f"  curl -s {token} -H 'Content-Type: application/json' {store.graphql_url(version)} -d '{query}'",
        "  # The command line, on the demo",
        f"  set -a; . '{environment}'; set +a; {_program()} shops list",
        "",
    )
    for line in lines:
        console.print(line, soft_wrap=True, style="dim" if line.startswith("  #") else None)
