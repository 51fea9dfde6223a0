"""The earning rules of a shop: every version ever saved, and which of them an order earns by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from metafield_sync.rewards.rule import EarningRule, Rounding
from metafield_sync.sync.orders.catch_up_state import read_again_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import ShopId

FIRST_VERSION = 0
"""The rule of a shop that has saved none."""


@dataclass(frozen=True, slots=True)
class SavedRule:
    """A rule as it was saved. Version 0 never was: it is what a shop has from the beginning, and has no `actor`."""

    version: int
    points_per_unit: Decimal
    rounding: Rounding
    excluded_tags: list[str]
    takes_tax_off: bool
    is_enabled: bool
    starts_at: datetime
    saved_at: datetime
    actor: str | None

    @property
    def rule(self) -> EarningRule:
        """As the arithmetic wants it."""
        return EarningRule(
            points_per_unit=self.points_per_unit,
            rounding=self.rounding,
            excluded_tags=frozenset(self.excluded_tags),
            takes_tax_off=self.takes_tax_off,
            starts_at=self.starts_at,
            is_enabled=self.is_enabled,
        )


async def list_rules(conn: AsyncConnection, shop_id: ShopId) -> list[SavedRule]:
    """Every rule of the shop, the latest saved first; the last is version 0."""
    async with conn.cursor(row_factory=class_row(SavedRule)) as cur:
        await cur.execute(LIST_RULES, {"shop": shop_id})
        return await cur.fetchall()


# Rule 0: one point a whole unit, rounded down, from the second in which the shop was added: Shopify tells times
# in whole seconds.
LIST_RULES = """
select
  version, points_per_unit, rounding, excluded_tags, takes_tax_off, is_enabled, starts_at, saved_at, actor
from earning_rules
where shop_id = %(shop)s
union all
select 0, 1, 'down', '{}', true, true, date_trunc('second', added_at), added_at, null
from shops
where id = %(shop)s
order by version desc
"""


def rule_of_order(rules: Sequence[SavedRule], created_at: datetime | None) -> SavedRule:
    """The rule that an order placed at this time earns by.

    It is the last saved of those that had started by then, whenever its webhook comes: so what an order earns does not
    hang on which delivery was late. Before any had started it is version 0, by which nothing is earned so early. An
    order that does not say when it was placed counts as placed now, by the last rule saved.
    """
    started = (saved for saved in rules if created_at is None or saved.starts_at <= created_at)
    return next(started, rules[-1])


def rule_in_force(rules: Sequence[SavedRule], now: datetime) -> SavedRule:
    """The rule that an order placed now would earn by."""
    return rule_of_order(rules, now)


async def save_rule(conn: AsyncConnection, shop_id: ShopId, rule: EarningRule, actor: str) -> SavedRule:
    """Save another version of the shop's rule. Saving what is the latest already, from the same start, changes nothing.

    Orders placed since its start that are known already are read again and come to what they are worth by it, within
    minutes; with a start of now there are none.
    """
    # Two that save at the same moment get two versions: the shop's row is the lock.
    await conn.execute("select from shops where id = %(shop)s for no key update", {"shop": shop_id})
    latest = (await list_rules(conn, shop_id))[0]
    if latest.rule == rule and latest.version != FIRST_VERSION:
        return latest
    async with conn.cursor() as cur:
        await cur.execute(
            SAVE_RULE,
            {
                "shop": shop_id,
                "version": latest.version + 1,
                "points": rule.points_per_unit,
                "rounding": rule.rounding,
                "tags": sorted(rule.excluded_tags),
                "tax": rule.takes_tax_off,
                "enabled": rule.is_enabled,
                "starts_at": rule.starts_at,
                "actor": actor,
            },
        )
    await read_again_from(conn, shop_id, rule.starts_at)
    return (await list_rules(conn, shop_id))[0]


SAVE_RULE = """
insert into earning_rules (
  shop_id, version, points_per_unit, rounding, excluded_tags, takes_tax_off, is_enabled, starts_at, actor
)
values (
  %(shop)s, %(version)s, %(points)s, %(rounding)s, %(tags)s::text[], %(tax)s, %(enabled)s, %(starts_at)s, %(actor)s
)
"""
