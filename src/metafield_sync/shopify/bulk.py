"""Bulk operations: started, looked up, watched. What goes into them and comes out is in `bulk_lines`.

What Shopify's published schemas (2026-01 to 2026-10, all alike here) and recorded answers (2026-04) say:

* `clientIdentifier` is an argument of `bulkOperationRunMutation` and of nothing else, "an optional identifier which
  may be used for querying". `BulkOperation` has no such field, and the search of `bulkOperations` no such filter
  (`created_at`, `id`, `operation_type` and `status` are all; one it does not know is ignored and everything comes
  back). So nothing can be found by it. It is sent all the same, for Shopify's support.
* `BulkOperation.query` is documented as the document of `bulkOperationRunQuery`; for a mutation it holds the
  mutation's text. Both were recorded unchanged to the letter, operation names and comments included. So an operation
  is found again by a name that is in its document and in no other.
* `bulkOperations` sorted by CREATED_AT comes newest first; with `reverse: true`, oldest first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from metafield_sync.shopify.cost import Cost, add_costs
from metafield_sync.shopify.failures import OutcomeUnknown, ShopifyError
from metafield_sync.shopify.shapes import items, mapping, moment, text, verbatim, whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from metafield_sync.shopify.answers import Answer
    from metafield_sync.shopify.client import AdminClient, ShopAccess

BulkKind = Literal["MUTATION", "QUERY"]

RUN_BULK_COST = 10
"""Points of starting an operation: the base of a mutation, as recorded; what it executes costs none."""
GET_BULK_COST = 1
"""Points of looking at one operation, as recorded."""
FIND_BULK_COST = 60
"""Points to have at hand for one `find_bulk_operation`: a page at a point for each operation, though 9 were recorded.
A second page is needed only where somebody started more than `FIND_BULK_PAGE` operations since."""
FIND_BULK_PAGE = 50
FIND_BULK_PAGES_MAX = 20
CLOCK_SKEW = timedelta(minutes=5)
"""By how much Shopify's clock may be behind the one that `find_bulk_operation` is told a time of."""
FILTER_SLACK = timedelta(days=1)
"""The search takes dates, in a time zone that is not documented."""
CLIENT_IDENTIFIER_CHARS_MIN, CLIENT_IDENTIFIER_CHARS_MAX = 10, 255
"""Recorded: "is too short (minimum is 10 characters)", "is too long (maximum is 255 characters)"."""
URL_CHARS_MAX = 8192
DOCUMENT_CHARS_MAX = 65_535
"""The longest document a bulk operation takes, in bytes (recorded)."""

_FIELDS = """
fragment OperationFields on BulkOperation {
  id
  status
  errorCode
  createdAt
  completedAt
  objectCount
  fileSize
  url
  partialDataUrl
  type
  query
}
"""

BULK_RUN_MUTATION = f"""
mutation RunBulkMutation($mutation: String!, $path: String!, $clientIdentifier: String) {{
  bulkOperationRunMutation(mutation: $mutation, stagedUploadPath: $path, clientIdentifier: $clientIdentifier) {{
    bulkOperation {{
      ...OperationFields
    }}
    userErrors {{
      field
      message
      code
    }}
  }}
}}
{_FIELDS}"""

BULK_RUN_QUERY_MUTATION = f"""
mutation RunBulkQuery($query: String!) {{
  bulkOperationRunQuery(query: $query) {{
    bulkOperation {{
      ...OperationFields
    }}
    userErrors {{
      field
      message
      code
    }}
  }}
}}
{_FIELDS}"""

BULK_OPERATION_QUERY = f"""
query BulkOperation($id: ID!) {{
  bulkOperation(id: $id) {{
    ...OperationFields
  }}
}}
{_FIELDS}"""

BULK_OPERATIONS_QUERY = f"""
query BulkOperations($filter: String!, $first: Int!, $after: String) {{
  bulkOperations(query: $filter, first: $first, after: $after, sortKey: CREATED_AT, reverse: false) {{
    nodes {{
      ...OperationFields
    }}
    pageInfo {{
      hasNextPage
      endCursor
    }}
  }}
}}
{_FIELDS}"""


class BulkStatus(StrEnum):
    """Where an operation is, in Shopify's words. COMPLETED only says it went through; its lines may all have failed."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELING = "CANCELING"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


_ENDED = frozenset({BulkStatus.COMPLETED, BulkStatus.FAILED, BulkStatus.CANCELED, BulkStatus.EXPIRED})


@dataclass(frozen=True, slots=True)
class BulkOperation:
    """One bulk operation as Shopify tells of it. Its addresses are signed, and in no `repr`.

    `error_code` is ACCESS_DENIED, INTERNAL_SERVER_ERROR or TIMEOUT if it failed. `object_count` is how many objects
    (for a mutation: lines) it has been through; `file_size`, in bytes, that of the file at `url`. `url` is None as
    long as there is no result, or if it is empty; `partial_data_url` is what one that failed came to. `query` is its
    document.
    """

    id: str
    status: BulkStatus
    error_code: str | None
    created_at: datetime | None
    completed_at: datetime | None
    object_count: int
    file_size: int | None
    url: str | None = field(repr=False)
    partial_data_url: str | None = field(repr=False)
    kind: BulkKind
    query: str | None = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it, well or not."""
        return self.status in _ENDED

    @property
    def result_url(self) -> str | None:
        """Where its result is, whole or in part; None if there is none. Valid for 7 days."""
        return self.url or self.partial_data_url


class BulkRefusedKind(StrEnum):
    """What to do about an operation that was not started."""

    IN_PROGRESS = "in_progress"
    """As many as Shopify allows at once are running (5 of each kind): wait for one to end."""
    NO_FILE = "no_file"
    """The file is not where it was said to be, or no longer: stage and upload it again."""
    RETRY = "retry"
    """A limit, or trouble of Shopify's, or a code we do not know: try again later."""
    INVALID = "invalid"
    """The same would be refused again: a bug of ours."""


class BulkRefused(ShopifyError):
    """Shopify did not start the operation, or stage its file; `kind` tells what to do.

    `shopify_code` is the code of the error that `kind` follows from, None if it gave none.
    """

    code: ClassVar[str] = "bulk_operation_refused"

    def __init__(self, detail: str, *, kind: BulkRefusedKind, shopify_code: str | None, cost: Cost | None) -> None:
        super().__init__(detail, cost=cost)
        self.kind = kind
        self.shopify_code = shopify_code


_KINDS = {
    "OPERATION_IN_PROGRESS": BulkRefusedKind.IN_PROGRESS,
    "NO_SUCH_FILE": BulkRefusedKind.NO_FILE,
    "LIMIT_REACHED": BulkRefusedKind.RETRY,
    "INTERNAL_FILE_SERVER_ERROR": BulkRefusedKind.RETRY,
    "INVALID_MUTATION": BulkRefusedKind.INVALID,
    "INVALID_STAGED_UPLOAD_FILE": BulkRefusedKind.INVALID,
    "INVALID": BulkRefusedKind.INVALID,
    # "You must use an allowed mutation name." comes without a code, as do the errors of staging.
    None: BulkRefusedKind.INVALID,
}
_CURES = {
    BulkRefusedKind.IN_PROGRESS: "It is started when another one has ended.",
    BulkRefusedKind.NO_FILE: "It is staged and uploaded again.",
    BulkRefusedKind.RETRY: "It is tried again later.",
    BulkRefusedKind.INVALID: "Trying again will not help; please report it.",
}


async def run_bulk_mutation(
    client: AdminClient, access: ShopAccess, mutation: str, staged_path: str, client_identifier: str
) -> tuple[BulkOperation, Cost | None]:
    """Start `mutation` on every line of the file that was uploaded to `staged_path`, and return the new operation.

    `client_identifier` has 10 to 255 characters, else ValueError. Raises BulkRefused, and the failures of
    `AdminClient.call`; after an OutcomeUnknown it may have been started: look with `find_bulk_operation` first.
    """
    if not CLIENT_IDENTIFIER_CHARS_MIN <= len(client_identifier) <= CLIENT_IDENTIFIER_CHARS_MAX:
        raise ValueError(f"a client identifier has 10 to 255 characters, not {len(client_identifier)}")
    variables = {"mutation": mutation, "path": staged_path, "clientIdentifier": client_identifier}
    answer = await client.call(access, BULK_RUN_MUTATION, variables)
    return _started(answer, "bulkOperationRunMutation", access), answer.cost


async def run_bulk_query(client: AdminClient, access: ShopAccess, query: str) -> tuple[BulkOperation, Cost | None]:
    """Start `query`, and return the new operation. Raises as `run_bulk_mutation` does."""
    answer = await client.call(access, BULK_RUN_QUERY_MUTATION, {"query": query})
    return _started(answer, "bulkOperationRunQuery", access), answer.cost


async def find_bulk_operation(
    client: AdminClient, access: ShopAccess, *, kind: BulkKind, marker: str, since: datetime
) -> tuple[BulkOperation | None, Cost | None]:
    """Find the operation whose document contains `marker`, after a lost answer or a crash; and what looking cost.

    It has to be there as a whole name: `Backfill_1` is not in a document that says `Backfill_10`.

    Only one of that kind, created at `since` or later (by our clock, with its time zone), is looked for; None if
    there is none. A call whose answer was lost may still be at it for some seconds: look again before starting
    another. Shopify is asked to search, and not trusted to: what comes back is compared here. Raises the failures of
    `AdminClient.call`, and OutcomeUnknown when the answer cannot be read, or there are too many operations to look
    through.
    """
    earliest = since - CLOCK_SKEW
    day = (earliest - FILTER_SLACK).date().isoformat()
    search = f"operation_type:{kind.lower()} created_at:>={day}"
    cost: Cost | None = None
    after: str | None = None
    for _ in range(FIND_BULK_PAGES_MAX):
        variables = {"filter": search, "first": FIND_BULK_PAGE, "after": after}
        answer = await client.call(access, BULK_OPERATIONS_QUERY, variables)
        cost = add_costs(cost, answer.cost)
        connection = mapping(answer.data.get("bulkOperations")) or {}
        nodes = items(connection.get("nodes"))
        page = [_operation(node) for node in nodes or []]
        operations = [operation for operation in page if operation is not None]
        for operation in operations:
            is_recent = operation.created_at is None or operation.created_at >= earliest
            if operation.kind == kind and is_recent and _names(operation.query, marker):
                return operation, cost
        if nodes is None or len(operations) != len(page):
            raise _unreadable(access, "bulkOperations", cost)
        paging = mapping(connection.get("pageInfo")) or {}
        after = verbatim(paging.get("endCursor"), chars_max=URL_CHARS_MAX)
        if paging.get("hasNextPage") is False or _reaches_before(operations, earliest):
            return None, cost
        if after is None:
            raise _unreadable(access, "bulkOperations", cost)
    raise OutcomeUnknown(f"{access.domain}: there are too many bulk operations to find one among them.", cost=cost)


async def get_bulk_operation(
    client: AdminClient, access: ShopAccess, operation_id: str
) -> tuple[BulkOperation | None, Cost | None]:
    """Look at one operation, by its gid; None if there is none of that id. And what looking cost.

    Raises the failures of `AdminClient.call`, and OutcomeUnknown when the answer cannot be read.
    """
    answer = await client.call(access, BULK_OPERATION_QUERY, {"id": operation_id})
    return _operation_or_none(answer.data, access, answer.cost), answer.cost


def refused(access: ShopAccess, what: str, errors: Sequence[Any], cost: Cost | None) -> BulkRefused:
    """Make an error of the user errors of a mutation about bulk operations; `what` is its name."""
    described = [mapping(error) or {} for error in errors]
    codes = [text(error.get("code")) for error in described]
    kinds = [_KINDS.get(code, BulkRefusedKind.RETRY) for code in codes]
    # Of several, what a person has to see to, then what has to be done before anything else can help.
    order = (BulkRefusedKind.INVALID, BulkRefusedKind.NO_FILE, BulkRefusedKind.IN_PROGRESS, BulkRefusedKind.RETRY)
    kind = min(kinds, key=order.index)
    said = "; ".join(text(error.get("message")) or "no message" for error in described[:3])
    return BulkRefused(
        f"{access.domain}: Shopify refused {what}: {said} {_CURES[kind]}",
        kind=kind,
        shopify_code=codes[kinds.index(kind)],
        cost=cost,
    )


def _started(answer: Answer, name: str, access: ShopAccess) -> BulkOperation:
    payload = mapping(answer.data.get(name)) or {}
    operation = _operation(payload.get("bulkOperation"))
    errors = items(payload.get("userErrors"))
    if errors and payload.get("bulkOperation") is None:
        raise refused(access, name, errors, answer.cost)
    if operation is None or errors is None or errors:
        raise _unreadable(access, name, answer.cost)
    return operation


def _names(document: str | None, marker: str) -> bool:
    return document is not None and re.search(rf"(?<!\w){re.escape(marker)}(?!\w)", document) is not None


def _reaches_before(operations: Sequence[BulkOperation], earliest: datetime) -> bool:
    """Whether the pages after this one hold only older operations: it runs newest first, and ends too early."""
    times = [operation.created_at for operation in operations if operation.created_at is not None]
    return bool(times) and times[0] > times[-1] and times[-1] < earliest


def _operation_or_none(data: dict[str, Any], access: ShopAccess, cost: Cost | None) -> BulkOperation | None:
    if data.get("bulkOperation", "nothing") is None:
        return None
    operation = _operation(data.get("bulkOperation"))
    if operation is None:
        raise _unreadable(access, "bulkOperation", cost)
    return operation


def _operation(value: Any) -> BulkOperation | None:
    """Read a BulkOperation; None if it is none, or of a status or kind that we do not know."""
    told = mapping(value) or {}
    gid, status, kind = text(told.get("id")), text(told.get("status")), text(told.get("type"))
    if gid is None or status not in BulkStatus.__members__ or kind not in {"MUTATION", "QUERY"}:
        return None
    return BulkOperation(
        id=gid,
        status=BulkStatus(status),
        error_code=text(told.get("errorCode")),
        created_at=moment(told.get("createdAt")),
        completed_at=moment(told.get("completedAt")),
        object_count=whole(told.get("objectCount")) or 0,
        file_size=whole(told.get("fileSize")),
        url=verbatim(told.get("url"), chars_max=URL_CHARS_MAX),
        partial_data_url=verbatim(told.get("partialDataUrl"), chars_max=URL_CHARS_MAX),
        kind=cast("BulkKind", kind),
        query=verbatim(told.get("query"), chars_max=DOCUMENT_CHARS_MAX),
    )


def _unreadable(access: ShopAccess, name: str, cost: Cost | None) -> OutcomeUnknown:
    return OutcomeUnknown(f"{access.domain}: Shopify's answer to {name} cannot be read.", cost=cost)
