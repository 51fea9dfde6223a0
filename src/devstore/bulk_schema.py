"""Resolvers of bulk operations and staged uploads."""

from collections.abc import Callable, Sequence
from typing import ClassVar, cast

from graphql import GraphQLError

from devstore.arguments import Info, Input, read_gid_of, read_page
from devstore.bulk import AlreadyEndedError, BulkOperation, BulkStatus, BulkType
from devstore.bulk_checks import NotRunError, check_file, check_mutation, check_query, check_room
from devstore.bulk_export import ExportWork
from devstore.bulk_lines import MutationWork
from devstore.bulk_search import page, search
from devstore.clock import timestamp
from devstore.shops import Shop
from devstore.staging import UploadMethod, post_target, put_target

Json = dict[str, object]


class BulkOperationView:
    """Type `BulkOperation`."""

    graphql_type: ClassVar[str] = "BulkOperation"
    __slots__ = ("operation",)

    def __init__(self, operation: BulkOperation) -> None:
        self.operation = operation

    @property
    def id(self) -> str:
        """Its global id."""
        return str(self.operation.gid)

    @property
    def status(self) -> BulkStatus:
        """Where it is."""
        return self.operation.status

    @property
    def type(self) -> BulkType:
        """What it executes."""
        return self.operation.type

    @property
    def error_code(self) -> str | None:
        """Why it failed."""
        return self.operation.error_code

    @property
    def created_at(self) -> str:
        """When it was created."""
        return timestamp(self.operation.created_s)

    @property
    def completed_at(self) -> str | None:
        """When it was completed."""
        return None if self.operation.completed_s is None else timestamp(self.operation.completed_s)

    @property
    def object_count(self) -> int:
        """Objects, or lines, it went through."""
        return self.operation.objects

    @property
    def root_object_count(self) -> int:
        """Those without a parent."""
        return self.operation.roots

    @property
    def file_size(self) -> int | None:
        """Bytes of its result."""
        return self.operation.file_size

    @property
    def url(self) -> str | None:
        """Where its result is."""
        return self.operation.url

    @property
    def partial_data_url(self) -> str | None:
        """Where what it came to is, if it failed."""
        return self.operation.partial_data_url

    @property
    def query(self) -> str:
        """Its document."""
        return self.operation.query


def find_operation(shop: Shop, number: int) -> BulkOperationView | None:
    """An operation by number."""
    return _view(shop.bulk.find(number))


def _view(operation: BulkOperation | None) -> BulkOperationView | None:
    return BulkOperationView(operation) if operation else None


def _query_operation(_root: object, info: Info, id: str) -> BulkOperationView | None:  # noqa: A002  # the schema's name
    return find_operation(info.context, read_gid_of(id, "BulkOperation").number)


def _query_current(_root: object, info: Info, type: str | None = None) -> BulkOperationView | None:  # noqa: A002  # the schema's name
    wanted = BulkType.QUERY if type is None else BulkType(type)
    return _view(next((one for one in reversed(info.context.bulk.operations) if one.type is wanted), None))


def _query_operations(
    _root: object, info: Info, *, query: str | None = None, sort_key: str | None = "CREATED_AT", **arguments: object
) -> Json:
    found, operations = page(
        search(info.context.bulk.operations, query), read_page(arguments), sort_key or "CREATED_AT"
    )
    return found.as_connection([BulkOperationView(one) for one in operations])


def _run_mutation(
    _root: object,
    info: Info,
    *,
    mutation: str,
    staged_upload_path: str,
    client_identifier: str | None = None,
    **_unused: object,
) -> Json:
    shop = info.context
    try:
        checked = check_mutation(info.schema, mutation, client_identifier)
        # The file before the others that run: recorded for one that is missing, assumed for one that is unusable.
        upload = check_file(shop.bulk, shop.bulk.depot.upload(shop.domain, staged_upload_path))
        check_room(shop.bulk, BulkType.MUTATION)
    except NotRunError as refused:
        return {"bulkOperation": None, "userErrors": refused.errors}
    work = MutationWork(
        info.schema,
        checked.prepared,
        checked.root,
        shop.domain,
        shop,
        shop.bulk.depot,
        shop.bulk.settings,
        upload,
        staged_upload_path,
    )
    operation = shop.bulk.start(BulkType.MUTATION, mutation, work)
    operation.upload, operation.staged_upload_path = upload, staged_upload_path
    operation.client_identifier = client_identifier
    return {"bulkOperation": _view(operation), "userErrors": ()}


def _run_query(_root: object, info: Info, *, query: str, **_unused: object) -> Json:
    shop = info.context
    try:
        checked = check_query(info.schema, query)
        check_room(shop.bulk, BulkType.QUERY)
    except NotRunError as refused:
        return {"bulkOperation": None, "userErrors": refused.errors}
    operation = shop.bulk.start(BulkType.QUERY, query, ExportWork(info.schema, checked, shop))
    return {"bulkOperation": _view(operation), "userErrors": ()}


def _cancel(_root: object, info: Info, id: str) -> Json:  # noqa: A002  # the schema's name
    bulk = info.context.bulk
    operation = bulk.find(read_gid_of(id, "BulkOperation").number)
    if operation is None:
        error: Json = {"field": ["id"], "message": "Bulk operation does not exist"}
        return {"bulkOperation": None, "userErrors": [error]}
    try:
        bulk.cancel(operation)
    except AlreadyEndedError:
        message = f"A bulk operation cannot be canceled when it is {operation.status.lower()}"
        return {"bulkOperation": _view(operation), "userErrors": [{"field": None, "message": message}]}
    return {"bulkOperation": _view(operation), "userErrors": ()}


def _stage(_root: object, info: Info, input: Sequence[Input]) -> Json:  # noqa: A002  # the schema's name
    shop, targets = info.context, list[Json]()
    depot, limit = shop.bulk.depot, shop.bulk.settings.upload_bytes_max
    for one in input:
        filename, mime_type = cast("str", one["filename"]), cast("str", one["mimeType"])
        if not filename:
            raise GraphQLError("The devstore stages only files that have a name.")
        make = post_target if one.get("httpMethod") == UploadMethod.POST else put_target
        target = make(depot.origin, (shop.domain, shop.number), filename, mime_type, shop.now_s(), limit)
        depot.add_target(target)
        parameters = [{"name": name, "value": value} for name, value in target.parameters]
        # Recorded: the same address twice. What it would be good for, `originalSource`, is not for such files.
        targets.append({"url": target.url, "resourceUrl": target.url, "parameters": parameters})
    return {"stagedTargets": targets, "userErrors": ()}


BULK_RESOLVERS: dict[str, Callable[..., object]] = {
    "QueryRoot.bulkOperation": _query_operation,
    "QueryRoot.bulkOperations": _query_operations,
    "QueryRoot.currentBulkOperation": _query_current,
    "Mutation.bulkOperationCancel": _cancel,
    "Mutation.bulkOperationRunMutation": _run_mutation,
    "Mutation.bulkOperationRunQuery": _run_query,
    "Mutation.stagedUploadsCreate": _stage,
}
