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

* `set_metafields` writes up to 25 balances in one atomic call, each only over the value it names by its digest.
  What Shopify refuses by its rules comes back as `Refusal`s that name the entry, a digest that is not that of what is
  there as a `CONFLICT`; what it acknowledged is what was sent, and comes with the digests for the next write.
* `read_metafields` reads what up to 250 customers show (`ShownMetafield`), and so who of them is gone;
  `read_customers_page` who is there at all, page by page.
* `ensure_definition` creates or fits the metafield's definition; `DefinitionConflict` and `DefinitionRefused`
  are for a person to resolve. `read_definition` only looks.
* A bulk operation writes or reads any number of customers, in Shopify's time and at no cost in points. To write:

      target, _ = await stage_upload(client, access, "balances.jsonl")
      await upload(client, target, file)  # each line: {"metafields": [metafield_input(spec, write)]}
      operation, _ = await run_bulk_mutation(client, access, bulk_set_mutation(marker), target.path, marker)
      ...  # get_bulk_operation, from time to time, until operation.ended
      async with aclosing(download_lines(client, operation.result_url)) as lines:
          async for line in lines:
              read_bulk_line(line)  # its number in the file, and what became of it

  To read: `run_bulk_query` with a `customer_values_query(spec, marker)`, and `read_queried_customer` for each line.
  The `marker` is a name no other operation has: by it `find_bulk_operation` finds the one whose start got no answer, or
  whose answer got lost in a crash. `BulkRefused` says what to do instead of waiting for it; after an
  `UploadFailed`, stage anew; after a `DownloadFailed`, download again, from a new address if it `expired`.
* `customer_gid` and `customer_id_of` turn numeric ids into Shopify's and back.
"""

from metafield_sync.shopify.answers import Answer
from metafield_sync.shopify.budget import Budget, BudgetSnapshot, Reservation
from metafield_sync.shopify.bulk import (
    FIND_BULK_COST,
    GET_BULK_COST,
    RUN_BULK_COST,
    BulkKind,
    BulkOperation,
    BulkRefused,
    BulkRefusedKind,
    BulkStatus,
    find_bulk_operation,
    get_bulk_operation,
    run_bulk_mutation,
    run_bulk_query,
)
from metafield_sync.shopify.bulk_files import (
    STAGE_UPLOAD_COST,
    DownloadFailed,
    StagedTarget,
    UploadFailed,
    download_lines,
    stage_upload,
    upload,
)
from metafield_sync.shopify.bulk_lines import (
    NO_LINE,
    BulkLine,
    UnknownOutcome,
    bulk_set_mutation,
    customer_values_query,
    read_bulk_line,
    read_queried_customer,
)
from metafield_sync.shopify.client import AdminClient, ShopAccess
from metafield_sync.shopify.cost import Cost
from metafield_sync.shopify.customers import (
    CUSTOMERS_PAGE_COST,
    READ_METAFIELDS_MAX,
    CustomersPage,
    ShownMetafield,
    read_customers_page,
    read_metafields,
    read_metafields_cost,
)
from metafield_sync.shopify.definition import (
    ENSURE_COST_MAX,
    READ_DEFINITION_COST,
    DefinitionConflict,
    DefinitionRefused,
    DefinitionSpec,
    DefinitionState,
    EnsuredDefinition,
    StorefrontAccess,
    ensure_definition,
    read_definition,
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
    METAFIELDS_SET_MUTATION,
    MetafieldSpec,
    MetafieldWrite,
    Refusal,
    RefusalKind,
    SetPayload,
    SetResult,
    WrittenMetafield,
    metafield_input,
    read_set_payload,
    set_cost,
    set_metafields,
)

__all__ = [
    "CUSTOMERS_PAGE_COST",
    "ENSURE_COST_MAX",
    "FIND_BULK_COST",
    "GET_BULK_COST",
    "METAFIELDS_SET_MAX",
    "METAFIELDS_SET_MUTATION",
    "METAFIELD_TYPE",
    "NO_LINE",
    "READ_DEFINITION_COST",
    "READ_METAFIELDS_MAX",
    "RUN_BULK_COST",
    "STAGE_UPLOAD_COST",
    "AdminClient",
    "Answer",
    "Budget",
    "BudgetSnapshot",
    "BulkKind",
    "BulkLine",
    "BulkOperation",
    "BulkRefused",
    "BulkRefusedKind",
    "BulkStatus",
    "Cost",
    "CustomersPage",
    "DefinitionConflict",
    "DefinitionRefused",
    "DefinitionSpec",
    "DefinitionState",
    "DownloadFailed",
    "EnsuredDefinition",
    "MetafieldSpec",
    "MetafieldWrite",
    "OutcomeUnknown",
    "QueryRefused",
    "Refusal",
    "RefusalKind",
    "RefusalReason",
    "Reservation",
    "SetPayload",
    "SetResult",
    "ShopAccess",
    "ShopRefused",
    "ShopifyError",
    "ShownMetafield",
    "StagedTarget",
    "StorefrontAccess",
    "Throttled",
    "UnknownOutcome",
    "Unreachable",
    "UploadFailed",
    "WrittenMetafield",
    "bulk_set_mutation",
    "customer_gid",
    "customer_id_of",
    "customer_values_query",
    "download_lines",
    "ensure_definition",
    "find_bulk_operation",
    "get_bulk_operation",
    "metafield_input",
    "read_bulk_line",
    "read_customers_page",
    "read_definition",
    "read_metafields",
    "read_metafields_cost",
    "read_queried_customer",
    "read_set_payload",
    "run_bulk_mutation",
    "run_bulk_query",
    "set_cost",
    "set_metafields",
    "stage_upload",
    "upload",
]
