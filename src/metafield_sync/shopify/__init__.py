"""A shop's Admin API: one client, one budget a shop, and the few calls the mirror needs.

The package knows HTTP and nothing else.

How the pieces fit:

* `AdminClient.call` sends one GraphQL document for one shop (`ShopAccess`), once, and returns an `Answer`, or
  raises one of five failures, told apart by what to do next: `ShopRefused` (pause the shop), `Throttled`
  (nothing ran; wait, send again), `Unreachable` (nothing was sent), `OutcomeUnknown` (a write may have been
  applied), `QueryRefused` (the same again fails the same). All are `ShopifyError`, each with
  a stable `code`, a `detail` that says what to do, and the `cost` if the answer told it. Nothing in here
  retries.
* `Budget` is one shop's bucket of API points. `acquire` before each call waits until it will not be
  throttled, `settle` after it, however it ended, hands over what the answer said, `throttled` takes a
  `Throttled`:

      reservation = await budget.acquire(set_cost(len(writes)))
      cost = None
      try:
          result = await set_metafields(client, access, spec, writes)
          cost = result.cost
      except Throttled as error:
          budget.throttled(error.cost, error.retry_after_s, reservation=reservation)
          raise
      except ShopifyError as error:
          cost = error.cost
          raise
      finally:
          budget.settle(reservation, cost)

* `set_metafields` writes up to 25 balances in one atomic call. What Shopify refuses by its rules comes back
  as `Refusal`s that name the entry; what it acknowledged is what was sent.
* `ensure_definition` creates or fits the metafield's definition; `DefinitionConflict` and `DefinitionRefused`
  are for a person to resolve.
* `find_customers` reads which customers exist.
* `customer_gid` and `customer_id_of` turn numeric ids into Shopify's and back.
"""

from metafield_sync.shopify.answers import Answer
from metafield_sync.shopify.budget import Budget, BudgetSnapshot, Reservation
from metafield_sync.shopify.client import AdminClient, ShopAccess
from metafield_sync.shopify.cost import Cost
from metafield_sync.shopify.customers import find_customers, find_customers_cost
from metafield_sync.shopify.definition import (
    ENSURE_COST_MAX,
    DefinitionConflict,
    DefinitionRefused,
    DefinitionSpec,
    EnsuredDefinition,
    StorefrontAccess,
    ensure_definition,
)
from metafield_sync.shopify.failures import (
    OutcomeUnknown,
    QueryRefused,
    RefusalReason,
    ShopifyError,
    ShopRefused,
    Throttled,
    Unreachable,
)
from metafield_sync.shopify.ids import customer_gid, customer_id_of
from metafield_sync.shopify.metafields import (
    METAFIELD_TYPE,
    METAFIELDS_SET_MAX,
    MetafieldSpec,
    MetafieldWrite,
    Refusal,
    RefusalKind,
    SetResult,
    set_cost,
    set_metafields,
)

__all__ = [
    "ENSURE_COST_MAX",
    "METAFIELDS_SET_MAX",
    "METAFIELD_TYPE",
    "AdminClient",
    "Answer",
    "Budget",
    "BudgetSnapshot",
    "Cost",
    "DefinitionConflict",
    "DefinitionRefused",
    "DefinitionSpec",
    "EnsuredDefinition",
    "MetafieldSpec",
    "MetafieldWrite",
    "OutcomeUnknown",
    "QueryRefused",
    "Refusal",
    "RefusalKind",
    "RefusalReason",
    "Reservation",
    "SetResult",
    "ShopAccess",
    "ShopRefused",
    "ShopifyError",
    "StorefrontAccess",
    "Throttled",
    "Unreachable",
    "customer_gid",
    "customer_id_of",
    "ensure_definition",
    "find_customers",
    "find_customers_cost",
    "set_cost",
    "set_metafields",
]
