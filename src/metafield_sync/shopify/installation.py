"""What the app may do in a shop, and the few things it has to know about the shop itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metafield_sync.shopify.failures import OutcomeUnknown
from metafield_sync.shopify.shapes import items, mapping, text, whole

if TYPE_CHECKING:
    from metafield_sync.shopify.client import AdminClient, ShopAccess
    from metafield_sync.shopify.cost import Cost

READ_INSTALLATION_COST = 10
"""Points to have at hand for one `read_installation`: objects for the installation and the shop, and one a scope."""
SCOPES_MAX = 500

_SHOP_GID = re.compile(r"gid://shopify/Shop/([1-9][0-9]{0,18})", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)

INSTALLATION_QUERY = """
query Installation {
  currentAppInstallation {
    accessScopes {
      handle
    }
  }
  shop {
    id
    currencyCode
  }
}
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """The app in one shop. `scopes` in Shopify's words; `shop_id` is Shopify's number, `currency` ISO 4217."""

    scopes: tuple[str, ...]
    shop_id: int | None
    currency: str | None


async def read_installation(client: AdminClient, access: ShopAccess) -> tuple[Installation, Cost | None]:
    """Ask what the app may do there, and what the asking cost.

    Raises the failures of `AdminClient.call`, and OutcomeUnknown when the answer cannot be read.
    """
    answer = await client.call(access, INSTALLATION_QUERY, {})
    scopes = _scopes(answer.data)
    if scopes is None:
        raise OutcomeUnknown(f"{access.domain}: Shopify did not say what the app may do.", cost=answer.cost)
    shop = mapping(answer.data.get("shop")) or {}
    gid = _SHOP_GID.fullmatch(text(shop.get("id")) or "")
    currency = text(shop.get("currencyCode")) or ""
    return (
        Installation(
            scopes=scopes,
            shop_id=whole(gid[1]) if gid else None,
            currency=currency if _CURRENCY.fullmatch(currency) else None,
        ),
        answer.cost,
    )


def _scopes(data: dict[str, Any]) -> tuple[str, ...] | None:
    listed = items((mapping(data.get("currentAppInstallation")) or {}).get("accessScopes"))
    if listed is None or len(listed) > SCOPES_MAX:
        return None
    handles = [text((mapping(scope) or {}).get("handle")) for scope in listed]
    return tuple(handle for handle in handles if handle)
