"""Amounts of money: exact, and rounded to what their currency has coins for."""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

ZERO = Decimal(0)
AMOUNT_MAX = Decimal(10) ** 12

# Currencies a shop of this stand-in may sell in, and how many decimals each has.
DECIMALS: Mapping[str, int] = {
    "AUD": 2,
    "BHD": 3,
    "CAD": 2,
    "CHF": 2,
    "EUR": 2,
    "GBP": 2,
    "INR": 2,
    "JPY": 0,
    "KRW": 0,
    "KWD": 3,
    "NOK": 2,
    "PLN": 2,
    "SEK": 2,
    "USD": 2,
}


class AmountError(ValueError):
    """Something is no amount of money of its currency; the text says why."""


def rounded(amount: Decimal, currency: str) -> Decimal:
    """The nearest amount that `currency` has coins for, halves away from zero."""
    return amount.quantize(Decimal(1).scaleb(-DECIMALS[currency]), ROUND_HALF_UP)


def share(amount: Decimal, part: int, whole: int, currency: str) -> Decimal:
    """What `part` of `whole` units have of an amount; all of them have all of it."""
    return rounded(amount * part / whole, currency)


def read_amount(given: object, currency: str, name: str = "the amount") -> Decimal:
    """Read a number or its text.

    Raises:
        AmountError: it is no number, negative, too large, or finer than the currency.
    """
    try:
        amount = Decimal(str(given))
    except InvalidOperation as error:
        raise AmountError(f"{name} must be a number, not {given!r}") from error
    if not amount.is_finite() or not 0 <= amount <= AMOUNT_MAX:
        raise AmountError(f"{name} must be from 0 to {AMOUNT_MAX}, not {given!r}")
    if rounded(amount, currency) != amount:
        raise AmountError(f"{name} has more than {DECIMALS[currency]} decimals, and {currency} has no such coins")
    return rounded(amount, currency)


def rest_text(amount: Decimal, currency: str) -> str:
    """As the REST API prints it: with all decimals of its currency."""
    return f"{rounded(amount, currency):f}"


def graphql_text(amount: Decimal) -> str:
    """As GraphQL's `Decimal` prints money: without needless zeros, but with one decimal at least."""
    whole, _, decimals = f"{amount:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0') or '0'}"
