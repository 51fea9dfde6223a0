"""Which shops there are, and whose customer is whose."""

from __future__ import annotations

SHOPS = 6
"""The first is busy and has half of the customers; the others are calm, with a tenth each. A call that names few
customers is where a late write can win: Shopify refuses it whole if it has come too late for one of them."""
DOMAINS = tuple(f"chaos-{shop}.myshopify.com" for shop in range(SHOPS))


def shop_of(customer: int) -> int:
    """Whose customer it is, by Shopify's id; numbers of the shops are 0 to SHOPS - 1."""
    place = customer % (2 * (SHOPS - 1))
    return place + 1 if place < SHOPS - 1 else 0


def customers_of(shop: int, customers: int) -> list[int]:
    """The customers of a shop, when there are so many in all."""
    return [customer for customer in range(1, customers + 1) if shop_of(customer) == shop]
