"""The app comes to a shop, may do other things there, and goes: what each of these leads to."""

from collections.abc import Mapping, Sequence

from devstore.clock import timestamp
from devstore.shops import Shop
from devstore.views import ShopView
from devstore.webhooks import COMPLIANCE_TOPICS

_REQUEST_NUMBER = 9_999


def install(shop: Shop, scopes: Sequence[str] | None = None) -> None:
    """Install the app, as the merchant's click does; it gets the scopes it asks for unless told otherwise."""
    shop.installation.set_scopes(tuple(shop.app.scopes if scopes is None else scopes))


def uninstall(shop: Shop) -> None:
    """Uninstall it: every token is dead at once, its own subscriptions are gone, and it is told."""
    shop.webhooks.emit("app/uninstalled", shop_resource(shop))
    shop.webhooks.own.clear()
    shop.installation.set_scopes(None)
    shop.change(token=None, plan=shop.budget.plan, state=shop.state)


def change_scopes(shop: Shop, scopes: Sequence[str]) -> None:
    """Grant the app other scopes, for every token it has, and tell it."""
    previous = shop.installation.scopes
    shop.installation.set_scopes(tuple(scopes))
    payload = {
        "id": 1,
        "previous": list(previous),
        "current": list(scopes),
        "updated_at": f"{timestamp(shop.now_s())[:-1]}.000Z",
        "shop_id": shop.number,
    }
    shop.webhooks.emit("app/scopes_update", payload)


def has_scope(app_scopes: Sequence[str], scope: str) -> bool:
    """Whether what was granted includes a scope: writing includes reading."""
    return scope in app_scopes or (scope.startswith("read_") and f"write_{scope[5:]}" in app_scopes)


def shop_resource(shop: Shop) -> dict[str, object]:
    """The shop as app/uninstalled and shop/update show it: its REST resource, the part that can be told here."""
    view = ShopView(shop)
    return {
        "id": shop.number,
        "name": shop.name,
        "email": f"owner@{shop.name}.example",
        "domain": shop.domain,
        "created_at": view.created_at,
        "updated_at": timestamp(shop.now_s()),
        "currency": view.currency_code,
        "iana_timezone": view.iana_timezone,
        "plan_name": "partner_test",
        "plan_display_name": "Developer Preview",
        "shop_owner": "Shop Owner",
        "taxes_included": False,
        "myshopify_domain": shop.domain,
    }


def compliance_payload(topic: str, shop: Shop, customer: int | None, orders: Sequence[int]) -> dict[str, object]:
    """What one of the three compliance topics says.

    Args:
        topic: one of `COMPLIANCE_TOPICS`.
        shop: whose shop.
        customer: the customer who asks, by number; shop/redact has none.
        orders: the customer's orders that are asked for, or are to be redacted.

    Raises:
        ValueError: the topic is none of them, or lacks its customer.
    """
    if topic not in COMPLIANCE_TOPICS:
        raise ValueError(f"{topic} is none of {', '.join(COMPLIANCE_TOPICS)}")
    whose: dict[str, object] = {"shop_id": shop.number, "shop_domain": shop.domain}
    if topic == "shop/redact":
        return whose
    if customer is None:
        raise ValueError(f"{topic} is about a customer: give customerId")
    details = shop.customers.details(customer)
    person: Mapping[str, object] = {
        "id": customer,
        "email": details.email or f"customer-{customer}@example.com",
        "phone": "555-625-1199",
    }
    if topic == "customers/redact":
        return {**whose, "customer": person, "orders_to_redact": list(orders)}
    request = {"id": _REQUEST_NUMBER}
    return {**whose, "orders_requested": list(orders), "customer": person, "data_request": request}
