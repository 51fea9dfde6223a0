"""What a request costs in points, before and after it is executed.

Scalars and enums 0, objects 1, an abstract type its most expensive branch, a connection its `first` or `last`
times one item, `nodes(ids:)` one item for each id, a list with `first` as many (assumed), a mutation 10.
`metafieldsSet` is 10 and the weight of each distinct owner; each alias pays for itself. What a mutation's payload
shows is free, as recorded (`bulkOperationRunMutation` with its `bulkOperation` selected cost 10), unless it is a
connection; but `stagedUploadsCreate` is 11 with its `stagedTargets` selected, be it one or two, and 10 without
(recorded).

Recorded answers show that Shopify prices large connections below this linear rule; how exactly is not
published.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import cast

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLAbstractType,
    GraphQLCompositeType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    InlineFragmentNode,
    SelectionSetNode,
    get_named_type,
    is_leaf_type,
    value_from_ast_untyped,
)

from devstore.documents import Operation, Prepared
from devstore.gids import parse_gid

MUTATION_BASE_POINTS = 10
OBJECT_POINTS = 1
# Per distinct owner of one metafieldsSet; owners not named here weigh nothing.
OWNER_WEIGHT_POINTS: dict[str, int] = {
    "Order": 10,
    "Product": 4,
    "ProductVariant": 2,
    "Collection": 1,
    "Customer": 1,
    "Shop": 1,
}

_CONNECTION = "Connection"
# Stands in for a value while a request is priced before it has one.
_ASKED = object()

# Where a field was selected: the type whose selection set it stands in, and its node.
_Selected = tuple[GraphQLCompositeType, FieldNode]


@dataclass(frozen=True, slots=True)
class FieldCost:
    """One entry of `extensions.cost.fields`; `children` is None for a field without a selection."""

    path: tuple[str, ...]
    own: int
    total: int
    children: int | None

    def as_json(self) -> dict[str, object]:
        """The entry, spelled as Shopify spells it."""
        return {
            "path": list(self.path),
            "definedCost": self.own,
            "requestedTotalCost": self.total,
            "requestedChildrenCost": self.children,
        }


@dataclass(slots=True)
class Pricing:
    """Prices one operation with its variables: `requested`, then `actual` with its data.

    Attributes:
        variables: coerced variable values.
        fields: filled by `requested`: the cost of every field, children before parents.
    """

    schema: GraphQLSchema
    prepared: Prepared
    operation: Operation
    variables: Mapping[str, object]
    fields: list[FieldCost] = field(default_factory=list[FieldCost])

    def requested(self) -> int:
        """Points the operation may cost at most, from its text and variables alone."""
        return self._selection([self.operation.node.selection_set], self._root(), _ASKED, 1, ())

    def actual(self, data: object) -> int:
        """Points it did cost: objects that are null or absent are free; a mutation costs what it asked."""
        if self.operation.is_mutation:
            return self.requested()
        return self._selection([self.operation.node.selection_set], self._root(), data, 1, ())

    def owners(self) -> list[str]:
        """Owner ids of every `metafieldsSet` in the operation, as sent, each alias's distinct ones."""
        return [
            owner
            for node in self.operation.root_fields
            if node.name.value == "metafieldsSet"
            for owner in self._owners_of(node)
        ]

    def _root(self) -> GraphQLObjectType:
        root = self.schema.mutation_type if self.operation.is_mutation else self.schema.query_type
        return cast("GraphQLObjectType", root)

    def _selection(
        self,
        sets: Sequence[SelectionSetNode],
        parent: GraphQLCompositeType,
        value: object,
        unit: int,
        path: tuple[str, ...],
    ) -> int:
        if value is _ASKED and isinstance(parent, GraphQLInterfaceType | GraphQLUnionType):
            return self._dearest(sets, parent, unit, path)
        asked = value is _ASKED
        total = 0
        for key, selected in self._collect(sets, parent, every_branch=not asked).items():
            found = _ASKED if asked else cast("Mapping[str, object]", value).get(key)
            if found is not None:
                total += self._field(selected, found, unit, (*path, key))
        return total

    def _dearest(
        self, sets: Sequence[SelectionSetNode], parent: GraphQLAbstractType, unit: int, path: tuple[str, ...]
    ) -> int:
        before, best, chosen = self.fields, 0, list[FieldCost]()
        for concrete in self.schema.get_possible_types(parent):
            self.fields = []
            points = self._selection(sets, concrete, _ASKED, unit, path)
            if points >= best:
                best, chosen = points, self.fields
        self.fields = before + chosen
        return best

    def _field(self, selected: Sequence[_Selected], value: object, unit: int, path: tuple[str, ...]) -> int:
        parent, node = selected[0]
        name = node.name.value
        if name.startswith("__"):
            return 0
        returned = cast("GraphQLObjectType", parent).fields[name].type
        kind = cast("GraphQLCompositeType", get_named_type(returned))
        if is_leaf_type(kind):
            self._note(value, path, 0, None)
            return 0
        sets = [one.selection_set for _, one in selected if one.selection_set is not None]
        if self.operation.is_mutation and len(path) == 1:
            own = self._mutation(node, sets)
            children = self._selection(sets, kind, value, 0, path)
        elif kind.name.endswith(_CONNECTION):
            own = unit
            children = self._connection(node, sets, kind, value, path) - own
        elif value is _ASKED:
            size = self._list_size(node)
            own = unit
            children = size * (unit + self._selection(sets, kind, value, unit, path)) - own
        else:
            items = cast("list[object]", value) if _is_list(value) else [value]
            present = [item for item in items if item is not None]
            own = unit * len(present)
            children = sum(self._selection(sets, kind, item, unit, path) for item in present)
        self._note(value, path, own, children)
        return own + children

    def _connection(
        self,
        node: FieldNode,
        sets: Sequence[SelectionSetNode],
        kind: GraphQLCompositeType,
        value: object,
        path: tuple[str, ...],
    ) -> int:
        """Price of a connection: its items, whether they are selected as `nodes`, as `edges`, or as both."""
        dearest = 0
        size = self._page_size(node) if value is _ASKED else 0
        for key, selected in self._collect(sets, kind, every_branch=False).items():
            parent, item = selected[0]
            if item.name.value not in {"nodes", "edges"} or item.selection_set is None:
                continue
            # An edge itself is free: it only carries the item.
            unit = OBJECT_POINTS if item.name.value == "nodes" else 0
            inner = cast(
                "GraphQLCompositeType",
                get_named_type(cast("GraphQLObjectType", parent).fields[item.name.value].type),
            )
            if value is _ASKED:
                each = unit + self._selection([item.selection_set], inner, _ASKED, OBJECT_POINTS, (*path, key))
                points = size * each
            else:
                found = cast("list[object]", cast("Mapping[str, object]", value).get(key) or [])
                points = sum(
                    unit + self._selection([item.selection_set], inner, one, OBJECT_POINTS, (*path, key))
                    for one in found
                )
            dearest = max(dearest, points)
        # Nobody can look at the items of a page that selects only pageInfo, but it is fetched all the same.
        return max(dearest, size)

    def _mutation(self, node: FieldNode, sets: Sequence[SelectionSetNode]) -> int:
        if node.name.value == "stagedUploadsCreate":
            payload = cast("GraphQLCompositeType", self.schema.type_map["StagedUploadsCreatePayload"])
            shown = [one.name.value for _, one in chain(*self._collect(sets, payload, every_branch=True).values())]
            return MUTATION_BASE_POINTS + (OBJECT_POINTS if "stagedTargets" in shown else 0)
        if node.name.value != "metafieldsSet":
            return MUTATION_BASE_POINTS
        owners = (parse_gid(owner) for owner in self._owners_of(node))
        weights = (OWNER_WEIGHT_POINTS.get(owner.kind, 0) for owner in owners if owner is not None)
        return MUTATION_BASE_POINTS + sum(weights)

    def _owners_of(self, node: FieldNode) -> list[str]:
        entries = self._argument(node, "metafields")
        # A single object stands for a list of one.
        listed = cast("list[object]", entries) if isinstance(entries, list) else [entries]
        owners = (cast("Mapping[str, object]", entry).get("ownerId") for entry in listed if isinstance(entry, dict))
        return list(dict.fromkeys(owner for owner in owners if isinstance(owner, str)))

    def _page_size(self, node: FieldNode) -> int:
        for name in ("first", "last"):
            size = self._argument(node, name)
            if isinstance(size, int):
                return max(0, size)
        return 0

    def _list_size(self, node: FieldNode) -> int:
        ids = self._argument(node, "ids")
        return len(cast("list[object]", ids)) if isinstance(ids, list) else self._page_size(node) or 1

    def _argument(self, node: FieldNode, name: str) -> object:
        for argument in node.arguments or ():
            if argument.name.value == name:
                return cast("object", value_from_ast_untyped(argument.value, dict(self.variables)))
        return None

    def _note(self, value: object, path: tuple[str, ...], own: int, children: int | None) -> None:
        if value is _ASKED:
            self.fields.append(FieldCost(path, own, own + (children or 0), children))

    def _collect(
        self, sets: Iterable[SelectionSetNode], parent: GraphQLCompositeType, *, every_branch: bool
    ) -> dict[str, list[_Selected]]:
        """Fields by response key. `every_branch` ignores type conditions: an answer has what applied."""
        found: dict[str, list[_Selected]] = {}
        for selections in sets:
            self._collect_into(found, selections, parent, parent, every_branch=every_branch)
        return found

    def _collect_into(
        self,
        found: dict[str, list[_Selected]],
        selections: SelectionSetNode,
        parent: GraphQLCompositeType,
        concrete: GraphQLCompositeType,
        *,
        every_branch: bool,
    ) -> None:
        for node in selections.selections:
            if isinstance(node, FieldNode):
                key = node.alias.value if node.alias else node.name.value
                found.setdefault(key, []).append((parent, node))
                continue
            fragment = self._fragment(node)
            condition = fragment.type_condition.name.value if fragment.type_condition else parent.name
            inner = cast("GraphQLCompositeType", self.schema.type_map[condition])
            if every_branch or self._applies(inner, concrete):
                self._collect_into(found, fragment.selection_set, inner, concrete, every_branch=every_branch)

    def _fragment(self, node: object) -> InlineFragmentNode | FragmentDefinitionNode:
        if isinstance(node, FragmentSpreadNode):
            return self.prepared.fragments[node.name.value]
        return cast("InlineFragmentNode", node)

    def _applies(self, condition: GraphQLCompositeType, concrete: GraphQLCompositeType) -> bool:
        if condition is concrete:
            return True
        if not isinstance(condition, GraphQLInterfaceType | GraphQLUnionType):
            return False
        return isinstance(concrete, GraphQLObjectType | GraphQLInterfaceType) and self.schema.is_sub_type(
            condition, concrete
        )


def _is_list(value: object) -> bool:
    return isinstance(value, list)
