"""The documents of earning: the rule, and how an order stands."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, Field, StrictBool, StrictStr, WithJsonSchema

from metafield_sync.rewards.rule import EarningRule, Rounding
from metafield_sync.sync.orders.standing import OrderStanding, OrderState, money_text
from metafield_sync.web.documents import EntryOut
from metafield_sync.web.fields import Document, Moment, Text

if TYPE_CHECKING:
    from metafield_sync.sync.orders.catch_up_state import Reading
    from metafield_sync.sync.orders.rules import SavedRule

TAGS_MAX = 50
TAG_CHARS_MAX = 40
"""Shopify's own limit for a customer's tag is 40 characters."""
RATE_PATTERN = r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?$"
EXAMPLE_MONEY = Decimal("41.90")


def _tag(tag: str) -> str:
    if not tag.strip():
        raise ValueError("is empty")
    return tag.strip()


Rate = Annotated[StrictStr, Field(pattern=RATE_PATTERN, examples=["1"])]
Tag = Annotated[Text, Field(max_length=TAG_CHARS_MAX), AfterValidator(_tag)]


class EarningRuleIn(Document):
    """A new version of the rule, whole: what is left out is as in the default rule, not as it was before."""

    points_per_unit: Rate = Field(
        "1", description='Points for one unit of the shop\'s currency, as text: "1", "0.5". Up to 6 decimals.'
    )
    rounding: Rounding = Field("down", description="Of an order's points, once, at the end.")
    excluded_customer_tags: list[Tag] = Field(
        default_factory=list[Tag], max_length=TAGS_MAX, description="Customers with any of these earn nothing."
    )
    takes_tax_off: StrictBool = Field(
        default=True, description="Where prices include tax, only what is left without it earns."
    )
    enabled: StrictBool = Field(default=True, description="False: orders placed from the start on earn nothing.")
    starts_at: Moment | None = Field(
        default=None,
        description="Orders placed from then on earn by it; default now. A past time has known orders worked out anew.",
    )

    def rule(self, now: datetime) -> EarningRule:
        """As the arithmetic wants it."""
        return EarningRule(
            points_per_unit=Decimal(self.points_per_unit),
            rounding=self.rounding,
            excluded_tags=frozenset(self.excluded_customer_tags),
            takes_tax_off=self.takes_tax_off,
            starts_at=self.starts_at or now,
            is_enabled=self.enabled,
        )


class EarningRuleOut(Document):
    """One version of the rule."""

    version: int = Field(description="0: the default, which was never saved.")
    points_per_unit: str
    rounding: Rounding
    excluded_customer_tags: list[str]
    takes_tax_off: bool
    enabled: bool
    starts_at: Moment
    saved_at: Moment
    actor: str | None

    @classmethod
    def of(cls, saved: SavedRule) -> Self:
        """The document of a saved rule."""
        return cls(
            version=saved.version,
            points_per_unit=f"{saved.points_per_unit.normalize() + 0:f}",
            rounding=saved.rounding,
            excluded_customer_tags=saved.excluded_tags,
            takes_tax_off=saved.takes_tax_off,
            enabled=saved.is_enabled,
            starts_at=saved.starts_at,
            saved_at=saved.saved_at,
            actor=saved.actor,
        )


class WorkedExample(Document):
    """What an order would earn by the rule in force."""

    money: str = Field(description="Goods after discounts, without tax if that is taken off.")
    points: int


class EarningOut(Document):
    """How orders earn in this shop."""

    in_force: EarningRuleOut = Field(description="By which an order placed now earns.")
    example: WorkedExample
    versions: Annotated[list[EarningRuleOut], Field(description="All of them, the latest saved first.")]
    orders_read_until: Moment | None = Field(
        description="Every change before is known, whatever became of its webhook; null: catching up has not begun."
    )
    orders_trouble: str | None = Field(description="Why orders cannot be read, such as a scope that is missing.")

    @classmethod
    def of(cls, versions: list[SavedRule], in_force: SavedRule, reading: Reading | None) -> Self:
        """The document of a shop's rules and of how far its orders were read."""
        points = in_force.rule.points(EXAMPLE_MONEY) if in_force.is_enabled else 0
        return cls(
            in_force=EarningRuleOut.of(in_force),
            example=WorkedExample(money=str(EXAMPLE_MONEY), points=points),
            versions=[EarningRuleOut.of(saved) for saved in versions],
            orders_read_until=None if reading is None else reading.read_until,
            orders_trouble=None if reading is None else reading.trouble,
        )


class OrderOut(Document):
    """Why an order has the points it has."""

    shopify_order_id: Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,18}$"})]
    state: OrderState
    explanation: str
    shopify_customer_id: str | None = Field(description="Whose it is, as Shopify says.")
    financial_status: str | None
    updated_at: Moment | None = Field(description="Shopify's time of the state that is known.")
    earning_money: str | None = Field(description="What of its price earns.")
    currency: str | None
    rule_version: int | None
    points: int | None = Field(description="What it is worth as it is.")
    posted: int = Field(description="What it gave so far, all in all.")
    entries: list[EntryOut] = Field(description="The entries it made, newest first.")

    @classmethod
    def of(cls, standing: OrderStanding) -> Self:
        """The document of an order."""
        customer = standing.shopify_customer_id
        return cls(
            shopify_order_id=str(standing.order_id),
            state=standing.state,
            explanation=standing.explanation,
            shopify_customer_id=None if customer is None else str(customer),
            financial_status=standing.financial_status,
            updated_at=standing.updated_at,
            earning_money=None if standing.money is None else money_text(standing.money),
            currency=standing.currency,
            rule_version=standing.rule_version,
            points=standing.points,
            posted=standing.posted,
            entries=[EntryOut.of(entry) for entry in standing.entries],
        )


def utc_now() -> datetime:
    """This moment, in whole seconds as Shopify tells times."""
    return datetime.now(UTC).replace(microsecond=0)
