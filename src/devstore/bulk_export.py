"""What a bulk query does: it goes through a connection page by page, and writes a line for each node."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from graphql import (
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    MiddlewareManager,
    get_named_type,
)

from devstore.bulk import BulkOperation, Json, ResultFile, Steps, WorkFailedError
from devstore.bulk_checks import Checked
from devstore.connections import Shape
from devstore.execution import build_executor, execute
from devstore.pages import PAGE_SIZE_MAX

# A page takes about as long as a slice of `Bulk`; it cannot be cut off in the middle.
_PAGE = 50
_PAGING = ("first", "last", "after", "before")

_Resolver = Callable[..., Any]


@dataclass(slots=True)
class ExportWork:
    """Executes a query whose only top-level field is a connection; what the document says of pages is ignored.

    Attributes:
        context: what the resolvers get: the shop.
    """

    schema: GraphQLSchema
    checked: Checked
    context: object

    def steps(self, operation: BulkOperation, out: ResultFile) -> Steps:
        """Write every node, in the connection's order. Raises WorkFailedError if a page cannot be had.

        Children follow their parent. Shopify promises that only with `groupObjects`; recorded without, it was so.
        """
        ((key, shape),) = self.checked.survey.shape.connections.items()
        pages = _Pages(self.schema)
        while not pages.ended:
            executor = build_executor(
                self.schema, self.checked.prepared, self.checked.root, {}, self.context, middleware=pages
            )
            if isinstance(executor, list):
                raise WorkFailedError("INTERNAL_SERVER_ERROR")
            data, errors = execute(executor)
            if data is None or errors:
                raise WorkFailedError("INTERNAL_SERVER_ERROR")
            before = operation.roots
            for line, is_root in _lines(cast("Json", data[key]), shape, None):
                operation.objects += 1
                operation.roots += is_root
                out.write(line)
            yield operation.roots - before


class _Pages(MiddlewareManager):
    """Puts its own pages in the place of those the document asks for.

    Of the connection at the top, one after another at each execution; of those below, everything at once.
    """

    def __init__(self, schema: GraphQLSchema) -> None:
        super().__init__()
        self.ended = False
        self._after: str | None = None
        self._connections = frozenset(
            field.resolve
            for kind in schema.type_map.values()
            if isinstance(kind, GraphQLObjectType)
            for field in kind.fields.values()
            if cast("GraphQLNamedType", get_named_type(field.type)).name.endswith("Connection")
        )
        self._wrapped: dict[_Resolver, _Resolver] = {}

    def get_field_resolver(self, field_resolver: _Resolver) -> _Resolver:
        """Wrap the resolvers of connections, and nobody else's."""
        if field_resolver not in self._connections:
            return field_resolver
        if field_resolver not in self._wrapped:
            self._wrapped[field_resolver] = self._paged(field_resolver)
        return self._wrapped[field_resolver]

    def _paged(self, resolve: _Resolver) -> _Resolver:
        def paged(source: object, info: GraphQLResolveInfo[Any], **arguments: object) -> Json:
            kept = {name: value for name, value in arguments.items() if name not in _PAGING}
            is_top = info.path.prev is None
            first, after = (_PAGE, self._after) if is_top else (PAGE_SIZE_MAX, None)
            found = cast("Json", resolve(source, info, **kept, first=first, after=after))
            page = cast("Json", found["pageInfo"])
            if is_top:
                self.ended, self._after = not page["hasNextPage"], cast("str | None", page["endCursor"])
            elif page["hasNextPage"]:
                raise ValueError(f"the devstore exports at most {PAGE_SIZE_MAX} children of a node")
            return found

        return paged


def _lines(connection: Json, shape: Shape, parent_id: object) -> Iterator[tuple[Json, bool]]:
    """The nodes of a connection as lines, each followed by what is connected to it; and whether it is a root."""
    for edge in cast("list[Json]", connection.get(shape.edges) or []):
        node = cast("Json | None", edge.get(shape.node))
        if node is None:
            continue
        below = list(_cut_out(node, shape))
        yield (node, True) if parent_id is None else (node | {"__parentId": parent_id}, False)
        for inner, inner_shape in below:
            yield from _lines(inner, inner_shape, node["id"])


def _cut_out(node: Json, shape: Shape) -> Iterator[tuple[Json, Shape]]:
    """Take the connections out of a node, or of an object in it: their nodes are lines of their own."""
    for key, below in shape.connections.items():
        if node.get(key) is not None:
            yield cast("Json", node.pop(key)), below
    for key, below in shape.objects.items():
        inner = node.get(key)
        if isinstance(inner, dict):
            yield from _cut_out(cast("Json", inner), below)
