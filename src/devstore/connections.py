"""Where the connections are in a document: what bulk operations have rules about, and flatten."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from graphql import (
    FieldNode,
    FragmentSpreadNode,
    GraphQLCompositeType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    SelectionSetNode,
    get_named_type,
)

from devstore.documents import Operation, Prepared

_CONNECTION = "Connection"


@dataclass(slots=True)
class Shape:
    """Where the connections are below a connection's nodes, or below an object, by response key.

    Attributes:
        name: the field's name.
        connections: response keys of connections, and the shape of their nodes.
        objects: response keys of objects that have connections somewhere, and their shape.
        edges: response key of `edges`, for a connection.
        node: response key of `node`, for a connection.
        has_id: `id` is selected under its own name.
    """

    name: str = ""
    connections: dict[str, "Shape"] = field(default_factory=dict[str, "Shape"])
    objects: dict[str, "Shape"] = field(default_factory=dict[str, "Shape"])
    edges: str = "edges"
    node: str = "node"
    has_id: bool = False


@dataclass(slots=True)
class Survey:
    """All connections of one operation, and what the rules ask about them.

    Attributes:
        shape: where they are, from the root down.
        count: how many there are.
        depth: how many are within each other at most; 1 for connections without any inside.
        with_nodes: names of those whose contents are selected by `nodes`.
        without_parent_id: names of those that have others inside, and nodes without an `id`.
        within_list: one is below a list that is none.
    """

    schema: GraphQLSchema
    prepared: Prepared
    shape: Shape = field(default_factory=Shape)
    count: int = 0
    depth: int = 0
    with_nodes: list[str] = field(default_factory=list[str])
    without_parent_id: list[str] = field(default_factory=list[str])
    within_list: bool = False

    def scan(self, root: Operation) -> None:
        """Find them."""
        schema = self.schema
        kind = schema.mutation_type if root.is_mutation else schema.query_type
        self._scan(self.shape, [root.node.selection_set], cast("GraphQLCompositeType", kind), 0, None, in_list=False)

    def _scan(
        self,
        shape: Shape,
        sets: Iterable[SelectionSetNode],
        kind: GraphQLCompositeType,
        depth: int,
        parent: Shape | None,
        *,
        in_list: bool,
    ) -> None:
        fields = [one for selections in sets for one in self._fields(selections, kind)]
        shape.has_id = any(node.name.value == "id" and node.alias is None for _, node in fields)
        for owner, node in fields:
            if node.selection_set is None or node.name.value.startswith("__"):
                continue
            key = node.alias.value if node.alias else node.name.value
            returned = cast("GraphQLObjectType", owner).fields[node.name.value].type
            inner = cast("GraphQLCompositeType", get_named_type(returned))
            if inner.name.endswith(_CONNECTION):
                below = shape.connections.setdefault(key, Shape(node.name.value))
                self._connection(below, node.selection_set, inner, depth + 1, parent, in_list=in_list)
                continue
            below = Shape(node.name.value)
            listed = in_list or _is_list(returned)
            # An object that holds a connection is no parent: the node around it is.
            self._scan(below, [node.selection_set], inner, depth, parent, in_list=listed)
            if below.connections or below.objects:
                shape.objects[key] = below

    def _connection(
        self,
        shape: Shape,
        selections: SelectionSetNode,
        kind: GraphQLCompositeType,
        depth: int,
        parent: Shape | None,
        *,
        in_list: bool,
    ) -> None:
        self.count += 1
        self.depth = max(self.depth, depth)
        self.within_list = self.within_list or in_list
        if parent is not None and not parent.has_id and parent.name not in self.without_parent_id:
            self.without_parent_id.append(parent.name)
        edge = cast("GraphQLObjectType", get_named_type(cast("GraphQLObjectType", kind).fields["edges"].type))
        node = cast("GraphQLCompositeType", get_named_type(edge.fields["node"].type))
        sets: list[SelectionSetNode] = []
        for _, item in self._fields(selections, kind):
            if item.selection_set is None:
                continue
            if item.name.value == "nodes":
                self.with_nodes.append(shape.name)
                sets.append(item.selection_set)
            if item.name.value == "edges":
                shape.edges = item.alias.value if item.alias else "edges"
                sets += self._nodes_of(shape, item.selection_set, edge)
        self._scan(shape, sets, node, depth, shape, in_list=False)

    def _nodes_of(self, shape: Shape, edges: SelectionSetNode, edge: GraphQLObjectType) -> Iterable[SelectionSetNode]:
        for _, part in self._fields(edges, edge):
            if part.name.value == "node" and part.selection_set is not None:
                shape.node = part.alias.value if part.alias else "node"
                yield part.selection_set

    def _fields(
        self, selections: SelectionSetNode, kind: GraphQLCompositeType
    ) -> Iterable[tuple[GraphQLCompositeType, FieldNode]]:
        """Fields with the type they are selected on, fragments spread out."""
        for node in selections.selections:
            if isinstance(node, FieldNode):
                yield kind, node
                continue
            spread = isinstance(node, FragmentSpreadNode)
            fragment = self.prepared.fragments[node.name.value] if spread else cast("InlineFragmentNode", node)
            condition = fragment.type_condition
            inner = self.schema.type_map[condition.name.value] if condition else kind
            yield from self._fields(fragment.selection_set, cast("GraphQLCompositeType", inner))


def _is_list(kind: object) -> bool:
    inner = cast("object", kind.of_type) if isinstance(kind, GraphQLNonNull) else kind
    return isinstance(inner, GraphQLList)
