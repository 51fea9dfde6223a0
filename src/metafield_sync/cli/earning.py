"""`earning`: by which rule orders earn points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from pydantic import ValidationError
from rich.table import Table

from metafield_sync.cli.output import hint, say, show_json, stdout, warn
from metafield_sync.cli.parts import DONE, POINTS_GROUP, JsonOption, ShopOption, UsageWrong, one_shop, opened
from metafield_sync.rewards.rule import Rounding
from metafield_sync.sync.orders.catch_up_state import get_reading
from metafield_sync.sync.orders.rules import list_rules, rule_in_force, save_rule
from metafield_sync.web.earning_documents import EarningOut, EarningRuleIn, EarningRuleOut, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metafield_sync.runtime import Runtime
    from metafield_sync.shops.registry import Shop

ACTOR = "cli"
"""How a rule says who saved it: the command line, whoever sat at it."""

OPTIONS = {
    "pointsPerUnit": "--points-per-unit",
    "excludedCustomerTags": "--exclude-tag",
    "startsAt": "--starts-at",
}

app = App(
    name="earning",
    help="Show or change the rule by which orders earn points.",
    help_format="plaintext",
    group=POINTS_GROUP,
)


@app.command
async def show(*, shop: ShopOption = None, json: JsonOption = False) -> int:
    """Show the rule in force, with an example, and every version there was."""
    async with opened() as runtime:
        found = await one_shop(runtime, shop)
        earning = await _earning(runtime, found)
    _tell(found, earning, json=json)
    return DONE


@app.command(name="set")
async def set_(
    *,
    shop: ShopOption = None,
    points_per_unit: Annotated[
        str | None, Parameter(metavar="POINTS", help="Points for one unit of the shop's currency, such as 1 or 0.5.")
    ] = None,
    rounding: Annotated[Rounding | None, Parameter(help="Of an order's points, once, at the end.")] = None,
    exclude_tag: Annotated[
        list[str] | None,
        Parameter(metavar="TAG", negative=(), help="Customers with this tag earn nothing. May be given several times."),
    ] = None,
    no_excluded_tags: Annotated[bool, Parameter(negative=(), help="Leave nobody out.")] = False,
    takes_tax_off: Annotated[
        bool | None,
        Parameter(
            negative="--keeps-tax-in", help="Where prices include tax, whether only what is left without it earns."
        ),
    ] = None,
    enabled: Annotated[bool | None, Parameter(negative="--disabled", help="Whether orders earn at all.")] = None,
    starts_at: Annotated[
        str | None,
        Parameter(
            metavar="TIME",
            help="Orders placed from then on earn by it, such as 2026-12-01T00:00:00Z. Default: now. A past time has "
            "orders placed since then worked out anew.",
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Save a new version of the rule. What is not given stays as in the version saved last."""
    if exclude_tag and no_excluded_tags:
        raise UsageWrong("--exclude-tag and --no-excluded-tags: one of the two.")
    given = {
        "pointsPerUnit": points_per_unit,
        "rounding": rounding,
        "excludedCustomerTags": [] if no_excluded_tags else exclude_tag or None,
        "takesTaxOff": takes_tax_off,
        "enabled": enabled,
        "startsAt": starts_at,
    }
    if all(value is None for value in given.values()):
        raise UsageWrong("Nothing to change. Say what, as in: metafield-sync earning set --points-per-unit 2")
    async with opened() as runtime:
        found = await one_shop(runtime, shop)
        async with runtime.db.shop(found.id) as conn:
            latest = EarningRuleOut.of((await list_rules(conn, found.id))[0])
            kept = latest.model_dump(by_alias=True, include=set(EarningRuleIn.model_fields) - {"starts_at"})
            wanted = _checked(kept | {name: value for name, value in given.items() if value is not None})
            await save_rule(conn, found.id, wanted.rule(utc_now()), ACTOR)
        earning = await _earning(runtime, found)
    _tell(found, earning, json=json)
    return DONE


def _checked(given: Mapping[str, Any]) -> EarningRuleIn:
    try:
        return EarningRuleIn.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        option = OPTIONS.get(str(found["loc"][0]), str(found["loc"][0]))
        raise UsageWrong(f"{option}: {found['msg'].removeprefix('Value error, ')}.") from None


async def _earning(runtime: Runtime, shop: Shop) -> EarningOut:
    async with runtime.db.shop(shop.id) as conn:
        versions = await list_rules(conn, shop.id)
        return EarningOut.of(versions, rule_in_force(versions, utc_now()), await get_reading(conn, shop.id))


def _tell(shop: Shop, earning: EarningOut, *, json: bool) -> None:
    if json:
        show_json({"shop": shop.domain, **earning.model_dump(mode="json", by_alias=True)})
        return
    rule = earning.in_force
    if rule.enabled:
        example, rounding = earning.example, rule.rounding.replace("_", " ")
        points = "1 point" if rule.points_per_unit == "1" else f"{rule.points_per_unit} points"
        say(f"{shop.domain}: {points} for each {shop.currency or 'unit of currency'} of goods, rounded {rounding}.")
        say(f"An order with goods of {example.money} earns {example.points:,} points.")
    else:
        say(f"{shop.domain}: earning is switched off.")
    table = Table("Version", "Starts", "Points", "Rounding", "Tax", "Left out", "Saved by", box=None, pad_edge=False)
    for version in earning.versions:
        table.add_row(
            f"{version.version}{' *' if version.version == rule.version else ''}",
            f"{version.starts_at:%Y-%m-%d %H:%M} UTC",
            version.points_per_unit if version.enabled else "off",
            version.rounding.replace("_", " "),
            "taken off" if version.takes_tax_off else "kept in",
            ", ".join(version.excluded_customer_tags),
            version.actor or "default",
        )
    stdout().print(table)
    hint("* in force: an order placed now earns by it. Each order keeps the rule of when it was placed.")
    if earning.orders_trouble is not None:
        warn(earning.orders_trouble)
