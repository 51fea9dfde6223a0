"""Which webhook is handled by what. Each part of the program that handles any adds its own here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.sync.inbox.bulk_finished import handle_bulk_finish
from metafield_sync.sync.install.webhooks import (
    handle_scopes_update,
    handle_shop_redact,
    handle_shop_update,
    handle_uninstalled,
)
from metafield_sync.sync.orders.handlers import handle_order, handle_refund
from metafield_sync.sync.people.handlers import (
    handle_customer_created,
    handle_customer_deleted,
    handle_customer_redacted,
    handle_customers_merged,
    handle_data_request,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metafield_sync.sync.inbox.handling import Handler

HANDLERS: Mapping[str, Handler] = {
    # One line a topic, in the order of their names.
    "app/scopes_update": handle_scopes_update,
    "app/uninstalled": handle_uninstalled,
    "bulk_operations/finish": handle_bulk_finish,
    "customers/create": handle_customer_created,
    "customers/data_request": handle_data_request,
    "customers/delete": handle_customer_deleted,
    "customers/merge": handle_customers_merged,
    "customers/redact": handle_customer_redacted,
    "orders/cancelled": handle_order,
    "orders/paid": handle_order,
    "orders/updated": handle_order,
    "refunds/create": handle_refund,
    "shop/redact": handle_shop_redact,
    "shop/update": handle_shop_update,
}
