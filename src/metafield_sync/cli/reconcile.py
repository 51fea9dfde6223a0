"""`reconcile`: every metafield read back from Shopify and held against its balance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Group
from rich.table import Table

from metafield_sync.cli.output import hint, rows_table, show_json, stdout, warn
from metafield_sync.cli.parts import DONE, FAILURES, JsonOption, ShopOption, one_document, opened, these_shops
from metafield_sync.cli.running import reconcile_all, result_of
from metafield_sync.runtime import require_readable_tokens
from metafield_sync.sync.reconcile.drift import DRIFT_KINDS
from metafield_sync.sync.reconcile.reading import DEFINITION_MISSING, DEFINITION_RIGHT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.shops.registry import Shop
    from metafield_sync.sync.runs import Run


async def reconcile(
    *,
    shop: ShopOption = None,
    repair: Annotated[
        bool, Parameter(negative=(), help="Write what is found wrong, the metafield's definition included.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Read every metafield back from Shopify and tell which do not show their balance, by kind.

    Without --repair nothing is written. Exit status 0 if nothing drifted or everything was repaired (nothing is to be
    written to customers who are gone), 1 if something is left or a shop could not be read back.
    """
    async with opened() as runtime:
        await require_readable_tokens(runtime)
        shops = await these_shops(runtime, shop)
        runs = await reconcile_all(runtime, shops, repair=repair)
    found = list(zip(shops, runs, strict=True))
    if len(found) == 1:
        result_of(*found[0])
    _tell(found, json=json)
    return DONE if all(run.result is not None and not _left(run.result, repair=repair) for run in runs) else FAILURES


def _tell(found: Sequence[tuple[Shop, Run]], *, json: bool) -> None:
    if json:
        show_json(one_document([(one, run.result or _failed(run)) for one, run in found]))
        return
    for one, run in found:
        if run.result is None:
            warn(f"{one.domain}: not reconciled: {str(run.error).removeprefix(f'{one.domain}: ')}")
        else:
            stdout().print(_summary(one, run.result, repair=run.repair))
            if not run.repair and _left(run.result, repair=False):
                hint(f"Repair it with: metafield-sync reconcile --shop {one.domain} --repair")


def _failed(run: Run) -> dict[str, Any]:
    return {"message": "Reconciliation failed", "runId": str(run.id), "error": run.error}


def _left(document: dict[str, Any], *, repair: bool) -> int:
    """How much is still not as it should be. To repair a customer who is gone is to stop pushing to them."""
    settled = document["repaired"] + (document["byKind"]["customer_gone"] if repair else 0)
    return (
        document["drifted"]
        - settled
        + (document["definition"] != DEFINITION_RIGHT and not document["definitionRepaired"])
    )


def _summary(shop: Shop, document: dict[str, Any], *, repair: bool) -> Group:
    aside = f", {document['notCompared']:,} not compared" if document["notCompared"] else ""
    repaired = f" ({document['repaired']:,} repaired)" if repair and document["drifted"] else ""
    counts = (
        f"{document['total']:,} customers, {document['agreeing']:,} agree, {document['drifted']:,} drifted{repaired}"
        f"{aside}; {document['pointsSpent']:,} API points, {document['durationMs'] / 1000:.1f} s"
    )
    parts: list[Any] = [
        f"{shop.domain}: {document['message']}",
        f"  {counts}",
        f"  Metafield definition: {_definition(document)}",
    ]
    if document["drifted"]:
        parts.append(_kinds(document))
        columns = ("Customer", "Shopify id", "Kind", "Ledger", "Shopify")
        names = ("customerId", "shopifyCustomerId", "kind", "expected", "found")
        parts += rows_table(columns, names, document["drifts"], document["drifted"])
    return Group(*parts)


def _definition(document: dict[str, Any]) -> str:
    if document["definition"] == DEFINITION_RIGHT:
        return "as it should be"
    what = "was missing" if document["definition"] == DEFINITION_MISSING else document["definition"]
    return f"{what}; {'put right' if document['definitionRepaired'] else 'not put right'}"


def _kinds(document: dict[str, Any]) -> Table:
    """How many drifted in which way, in plain words."""
    table = Table("Kind", "Customers", "What it means", box=None, padding=(0, 2))
    table.columns[1].justify = "right"
    for kind, about in DRIFT_KINDS.items():
        if document["byKind"][kind]:
            table.add_row(kind, f"{document['byKind'][kind]:,}", about)
    return table
