"""One call to the Admin API, from the bytes of its body to its answer; HTTP and faults are elsewhere.

The order is Shopify's: read, parse and validate the document, check the variables, refuse what costs
more than one query may, refuse what the bucket does not hold, execute, refund what was not used.
"""

from dataclasses import dataclass
from typing import Any, cast

from graphql import Executor, GraphQLSchema

from devstore.budget import QUERY_COST_MAX
from devstore.costs import Pricing
from devstore.documents import DocumentCache, Operation, Prepared
from devstore.execution import Json, build_executor, execute, read_json
from devstore.schema import load_schema
from devstore.shops import Shop
from devstore.variables import variable_errors

_RATE_LIMITS_PAGE = "https://shopify.dev/api/usage/rate-limits"


@dataclass(frozen=True, slots=True)
class Call:
    """A call whose body was read. `operation` is None if the document names none, or has errors."""

    prepared: Prepared
    operation: Operation | None
    variables: Json
    cost_debug: bool = False

    @property
    def label(self) -> str:
        """Names of its top-level fields, empty if it has none that could run."""
        return self.operation.label if self.operation else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to.

    Attributes:
        body: the JSON document.
        status: the HTTP status.
        requested: points it asked for; None if it was refused before it was priced.
        actual: points it cost; None if it was not executed.
        throttled: refused for an empty bucket.
        owners: ids named by its metafieldsSet, whether it was executed or not.
    """

    body: Json
    status: int = 200
    requested: int | None = None
    actual: int | None = None
    throttled: bool = False
    owners: tuple[str, ...] = ()


THROTTLED_ERROR: Json = {
    "message": "Throttled",
    "extensions": {"code": "THROTTLED", "documentation": _RATE_LIMITS_PAGE},
}


class AdminApi:
    """Runs calls against shops. One for all of them: it holds the schema and the known documents."""

    def __init__(self) -> None:
        self._schema: GraphQLSchema = load_schema()
        self._documents = DocumentCache(self._schema)

    def read(self, body: bytes, *, cost_debug: bool = False) -> Call | Answer:
        """Read a request's JSON body; an `Answer` says what is wrong with it (HTTP 400)."""
        try:
            read = read_json(body)
        except (ValueError, RecursionError):
            return Answer({"errors": "Bad Request"}, status=400)
        request = cast("Json", read) if isinstance(read, dict) else {}
        text, variables = request.get("query"), request.get("variables")
        if not isinstance(text, str) or not (variables is None or isinstance(variables, dict)):
            return Answer({"errors": {"query": "Required parameter missing or invalid"}}, status=400)
        prepared = self._documents.get(text)
        name = request.get("operationName")
        operation = prepared.operation(name if isinstance(name, str) else None)
        return Call(prepared, operation, cast("Json", variables or {}), cost_debug)

    def run(self, shop: Shop, call: Call) -> Answer:
        """Answer one call, changing the shop and its bucket; HTTP status 200 whatever comes of it."""
        document, operation = call.prepared.document, call.operation
        if document is None:
            return Answer({"errors": [error.formatted for error in call.prepared.errors]})
        if operation is None:
            return Answer({"errors": [{"message": "An operation name is required"}]})
        problems = list(variable_errors(self._schema, operation, call.variables))
        if problems:
            return Answer({"errors": problems})
        executor = build_executor(self._schema, call.prepared, operation, call.variables, shop)
        if isinstance(executor, list):
            return Answer({"errors": [error.formatted for error in executor]})
        pricing = Pricing(self._schema, call.prepared, operation, executor.variable_values.coerced)
        return _execute(shop, call, executor, pricing)


def _execute(shop: Shop, call: Call, executor: Executor[Any], pricing: Pricing) -> Answer:
    requested, owners = pricing.requested(), tuple(pricing.owners())
    if requested > QUERY_COST_MAX:
        body = {"errors": [_too_dear(requested)], "extensions": _cost(shop, requested, None)}
        return Answer(body, requested=requested, owners=owners)
    if not shop.budget.take(requested):
        body = {"errors": [THROTTLED_ERROR], "extensions": _cost(shop, requested, None)}
        return Answer(body, requested=requested, throttled=True, owners=owners)
    fields = [field.as_json() for field in pricing.fields] if call.cost_debug else None
    data, errors = execute(executor)
    actual = min(requested, pricing.actual(data) if data is not None else 0)
    shop.budget.give_back(requested - actual)
    body: Json = {"data": data}
    if errors:
        body["errors"] = errors
    body["extensions"] = _cost(shop, requested, actual, fields)
    return Answer(body, requested=requested, actual=actual, owners=owners)


def _cost(shop: Shop, requested: int, actual: int | None, fields: list[Json] | None = None) -> Json:
    cost: Json = {
        "requestedQueryCost": requested,
        "actualQueryCost": actual,
        "throttleStatus": shop.budget.status().as_json(),
    }
    if fields is not None:
        cost["fields"] = fields
    return {"cost": cost}


def _too_dear(requested: int) -> Json:
    message = f"Query cost is {requested}, which exceeds the single query max cost limit ({QUERY_COST_MAX})."
    extensions = {
        "code": "MAX_COST_EXCEEDED",
        "cost": requested,
        "maxCost": QUERY_COST_MAX,
        "documentation": _RATE_LIMITS_PAGE,
    }
    return {"message": message, "extensions": extensions}
