"""Parsed and validated GraphQL documents, remembered by their text.

Parsing and validating a document costs several times what executing it does, and a client sends the same few
texts over and over, so they are kept: at most `DOCUMENTS_MAX`, the least recently used goes first.
"""

from collections import OrderedDict
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
    validate,
)

DOCUMENTS_MAX = 256
DOCUMENT_TOKENS_MAX = 20_000
DOCUMENT_KEPT_CHARS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a document. `root_fields` are its top-level fields, fragments spread out, in order."""

    name: str | None
    node: OperationDefinitionNode
    root_fields: tuple[FieldNode, ...]

    @property
    def is_mutation(self) -> bool:
        """Whether it changes anything."""
        return self.node.operation.value == "mutation"

    @property
    def label(self) -> str:
        """Names of the top-level fields, as the call log shows them: `metafieldsSet`, `customer,shop`."""
        return ",".join(dict.fromkeys(field.name.value for field in self.root_fields))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that was parsed and validated; with `errors` it cannot be executed and the rest is empty."""

    document: DocumentNode | None
    operations: tuple[Operation, ...]
    fragments: dict[str, FragmentDefinitionNode]
    errors: tuple[GraphQLError, ...] = ()

    def operation(self, name: str | None) -> Operation | None:
        """The operation called `name`, or the only one; None if that does not single one out."""
        if name:
            return next((one for one in self.operations if one.name == name), None)
        return self.operations[0] if len(self.operations) == 1 else None


class DocumentCache:
    """Prepared documents for one schema."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._known: OrderedDict[str, Prepared] = OrderedDict()

    def get(self, text: str) -> Prepared:
        """Parse and validate `text`, or take it from the cache; faults are in `Prepared.errors`."""
        known = self._known.get(text)
        if known is not None:
            self._known.move_to_end(text)
            return known
        prepared = prepare(self._schema, text)
        if len(text) > DOCUMENT_KEPT_CHARS_MAX:
            return prepared
        self._known[text] = prepared
        if len(self._known) > DOCUMENTS_MAX:
            self._known.popitem(last=False)
        return prepared


def prepare(schema: GraphQLSchema, text: str) -> Prepared:
    """Parse and validate `text`; faults are in `Prepared.errors`."""
    try:
        document = parse(text, max_tokens=DOCUMENT_TOKENS_MAX)
    except GraphQLError as error:
        return Prepared(None, (), {}, (error,))
    except RecursionError:
        return Prepared(None, (), {}, (GraphQLError("The document is nested too deeply."),))
    errors = validate(schema, document)
    if errors:
        return Prepared(None, (), {}, tuple(errors))
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    operations = tuple(
        Operation(node.name.value if node.name else None, node, tuple(_fields(node.selection_set, fragments)))
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    )
    return Prepared(document, operations, fragments)


def _fields(selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode]) -> list[FieldNode]:
    fields: list[FieldNode] = []
    for node in selections.selections:
        if isinstance(node, FieldNode):
            fields.append(node)
        elif isinstance(node, InlineFragmentNode):
            fields += _fields(node.selection_set, fragments)
        elif isinstance(node, FragmentSpreadNode):
            fields += _fields(fragments[node.name.value].selection_set, fragments)
    return fields
