"""What bulk operations refuse to run. Messages and codes are recorded (API 2026-04) unless a comment says otherwise."""

import re
from dataclasses import dataclass

from graphql import GraphQLError, GraphQLSchema

from devstore.bulk import OPERATIONS_AT_ONCE_MAX, Bulk, BulkType
from devstore.connections import Survey
from devstore.definitions import UserError
from devstore.depot import Upload
from devstore.documents import Operation, Prepared, prepare
from devstore.staging import MEBIBYTE

DOCUMENT_BYTES_MAX = 65_535
QUERY_CONNECTIONS_MAX = 5
QUERY_NESTING_MAX = 2
MUTATION_CONNECTIONS_MAX = 1
IDENTIFIER_CHARS_MIN = 10
IDENTIFIER_CHARS_MAX = 255

_DISALLOWED = frozenset({"bulkOperationRunMutation", "bulkOperationRunQuery"})
_TOKEN = re.compile(r"#[^\n]*|[A-Za-z_0-9]+|[^\s,]")
_NO_SUCH_FILE = (
    "The JSONL file could not be found. Try uploading the file again, and check that you've entered the URL correctly"
    " for the stagedUploadPath mutation argument."
)


class NotRunError(Exception):
    """An operation is not created; `errors` say why."""

    def __init__(self, *errors: UserError) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Checked:
    """A document that may be run: parsed and validated, its only operation, and its connections."""

    prepared: Prepared
    root: Operation
    survey: Survey


def check_mutation(schema: GraphQLSchema, text: str, identifier: str | None) -> Checked:
    """Check the document and the identifier of `bulkOperationRunMutation`. Raises NotRunError."""
    prepared = prepare(schema, text)
    if prepared.errors:
        said = _told(prepared.errors[0], text, where=True)
        raise NotRunError(UserError(None, f"Failed to parse the mutation - {said}", "INVALID_MUTATION"))
    root = prepared.operation(None)  # which of several would be run is not known
    if root is None or not root.is_mutation:
        message = "Invalid operation type. Only `mutation` operations are supported."
        raise NotRunError(UserError(None, message, "INVALID_MUTATION"))
    if len(root.root_fields) != 1:
        raise NotRunError(UserError(("mutation",), "You must specify a single top level mutation."))
    if root.root_fields[0].name.value in _DISALLOWED:
        raise NotRunError(UserError(("mutation",), "You must use an allowed mutation name."))
    survey = Survey(schema, prepared)
    survey.scan(root)
    if survey.count > MUTATION_CONNECTIONS_MAX:
        message = f"Bulk mutations cannot contain more than {MUTATION_CONNECTIONS_MAX} connection."
        raise NotRunError(UserError(("mutation",), message))
    size = len(text.encode())
    if size > DOCUMENT_BYTES_MAX:
        message = f"is too large ({size} bytes; maximum is {DOCUMENT_BYTES_MAX} bytes)"
        raise NotRunError(UserError(("query",), message, "INVALID_MUTATION"))
    if identifier is not None:
        _check_identifier(identifier)
    return Checked(prepared, root, survey)


def check_query(schema: GraphQLSchema, text: str) -> Checked:
    """Check the document of `bulkOperationRunQuery`. Raises NotRunError."""
    prepared = prepare(schema, text)
    if prepared.errors:
        raise _invalid_query(f"Invalid bulk query: {_told(prepared.errors[0], text, where=False)}")
    root = prepared.operation(None)  # which of several would be run is not known
    if root is None or root.is_mutation:
        raise _invalid_query("Invalid operation type. Only `query` operations are supported.")
    survey = Survey(schema, prepared)
    survey.scan(root)
    broken = _broken_rules(root, survey)
    if broken:
        raise _invalid_query(*broken)
    size = len(text.encode())
    if size > DOCUMENT_BYTES_MAX:
        raise _invalid_query(f"Query is too large ({size} bytes; maximum is {DOCUMENT_BYTES_MAX} bytes)")
    # Shopify exports more than this stand-in does; better a refusal than a result that leaves something out.
    if len(root.root_fields) != 1 or len(survey.shape.connections) != 1 or root.node.variable_definitions:
        raise _invalid_query("The devstore exports one connection at the top of a query without variables.")
    return Checked(prepared, root, survey)


def check_file(bulk: Bulk, upload: Upload | None) -> Upload:
    """Check a mutation's file. Raises NotRunError."""
    if upload is None:
        raise NotRunError(UserError(None, _NO_SUCH_FILE, "NO_SUCH_FILE"))
    if upload.size == 0:
        raise NotRunError(UserError(None, "The input file is empty.", "INVALID_STAGED_UPLOAD_FILE"))
    limit = bulk.settings.upload_bytes_max
    if upload.size > limit:
        message = f"The input file size exceeds the maximum allowed size of {limit / MEBIBYTE:g} MB."
        raise NotRunError(UserError(None, message, "INVALID_STAGED_UPLOAD_FILE"))
    return upload


def check_room(bulk: Bulk, kind: BulkType) -> None:
    """Check that another operation of this type may run. Raises NotRunError.

    Versions before 2026-01 let one run; they are out of support, and 2026-01 is served in their place.
    """
    running = bulk.unfinished(kind)
    if len(running) < OPERATIONS_AT_ONCE_MAX:
        return
    listed = ", ".join(str(one.gid) for one in running)
    message = f"A bulk {kind.lower()} operation for this app and shop is already in progress: {listed}."
    raise NotRunError(UserError(None, message, "OPERATION_IN_PROGRESS"))


def _broken_rules(root: Operation, survey: Survey) -> list[str]:
    broken: list[str] = []
    if survey.with_nodes:
        named = "', '".join(dict.fromkeys(survey.with_nodes))
        broken.append(
            "All connection fields in a bulk query must select their contents using 'edges' > 'node', e.g: "
            f"'{survey.with_nodes[0]} {{ edges {{ node {{'. Selecting via 'nodes' is not supported. "
            f"Invalid connection fields: '{named}'."
        )
    # Only `node` is recorded; that `nodes` is refused alike is documented.
    broken += [
        f"Bulk queries cannot contain a top level `{one.name.value}` field."
        for one in root.root_fields
        if one.name.value in {"node", "nodes"}
    ]
    # Recorded for three connections below the one at the top; two, such as products, variants and their metafields,
    # are in wide use.
    if survey.depth > 1 + QUERY_NESTING_MAX:
        told = f"Bulk queries cannot contain connections with a nesting depth greater than {QUERY_NESTING_MAX}."
        broken.append(told)
    if survey.count > QUERY_CONNECTIONS_MAX:
        broken.append(f"Bulk queries cannot contain more than {QUERY_CONNECTIONS_MAX} connections.")
    if survey.without_parent_id:
        broken.append(
            "The parent 'node' field for a nested connection must select the 'id' field without an alias and must be "
            f"of 'ID' return type. Connection fields without 'id': {', '.join(survey.without_parent_id)}."
        )
    if survey.within_list:
        broken.append("Queries that contain a connection field within a list field are not currently supported.")
    if survey.count == 0:
        broken.append("Bulk queries must contain at least one connection.")
    return broken


def _check_identifier(identifier: str) -> None:
    told = None
    if len(identifier) < IDENTIFIER_CHARS_MIN:
        told = f"is too short (minimum is {IDENTIFIER_CHARS_MIN} characters)"
    if len(identifier) > IDENTIFIER_CHARS_MAX:
        told = f"is too long (maximum is {IDENTIFIER_CHARS_MAX} characters)"
    if told is not None:
        raise NotRunError(UserError(("clientIdentifier",), told, "INVALID_MUTATION"))


def _invalid_query(*messages: str) -> NotRunError:
    return NotRunError(*(UserError(("query",), message, "INVALID") for message in messages))


def _told(error: GraphQLError, text: str, *, where: bool) -> str:
    """A parser's complaint. A document that ends too early is recorded, with the place of its last token.

    Everything else is in graphql-core's words, not Shopify's.
    """
    if "<EOF>" not in error.message:
        return error.message
    tokens = [one for one in _TOKEN.finditer(text) if not one[0].startswith("#")]
    if not where or not tokens:
        return "syntax error, unexpected end of file"
    start = tokens[-1].start()
    line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
    return f"syntax error, unexpected end of file at [{line}, {column}]"
