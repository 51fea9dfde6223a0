"""What a bulk mutation does: one execution for each line of its file, in an order of its own."""

import os
import random
from array import array
from dataclasses import dataclass
from typing import BinaryIO, cast

from graphql import GraphQLSchema

from devstore.bulk import BulkOperation, BulkSettings, Json, ResultFile, Steps, WorkFailedError
from devstore.depot import Depot, Upload
from devstore.documents import Operation, Prepared
from devstore.execution import build_executor, execute, read_json
from devstore.variables import variable_errors

# So many lines are counted in about a millisecond.
_COUNTED_AT_ONCE = 5_000


@dataclass(slots=True)
class MutationWork:
    """Executes a mutation with the variables of each line.

    A line is an ordinary execution: the limits of the mutation hold for it, and so does its atomicity. It costs no
    points and there is no limit to what it may cost.

    Attributes:
        shop: whose storage the file is in, by domain.
        context: what the resolvers get: the shop.
        upload: the file when the operation was created.
        path: where in the storage it was.
    """

    schema: GraphQLSchema
    prepared: Prepared
    root: Operation
    shop: str
    context: object
    depot: Depot
    settings: BulkSettings
    upload: Upload
    path: str

    def steps(self, operation: BulkOperation, out: ResultFile) -> Steps:
        """Count the lines, then execute them. Raises WorkFailedError if the file is not what it was."""
        # A file that was changed after its upload fails with this code, says the documentation.
        if self.depot.upload(self.shop, self.path) is not self.upload:
            raise WorkFailedError("INTERNAL_SERVER_ERROR")
        with self.upload.path.open("rb") as file:
            lines = _Lines()
            for _ in lines.read(file):
                operation.lines = len(lines)
                yield 0
            operation.lines = len(lines)
            lost = _random(self.settings.seed, operation.ordinal, "lost")
            for line in lines.shuffled(_random(self.settings.seed, operation.ordinal, "order")):
                answer = self._execute(lines.text(file, line))
                operation.executed += 1
                operation.objects = operation.roots = operation.executed
                # A draw for every line, so that the rate decides nothing but which are lost.
                if lost.random() < self.settings.drop_line_rate:
                    operation.dropped += 1
                else:
                    out.write(answer | {"__lineNumber": lines.numbers[line]})
                yield 1

    def _execute(self, text: bytes) -> Json:
        """The line's answer, without what it would have cost.

        No failing line is recorded. These have the errors that an ordinary call would have, and no `data` if they
        are not executed; that a line which is no JSON object does not end the operation is a guess.
        """
        try:
            variables = read_json(text)
        except (ValueError, RecursionError):
            return {"errors": [{"message": "The line is not valid JSON."}]}
        if not isinstance(variables, dict):
            return {"errors": [{"message": "The line is not a JSON object."}]}
        given = cast("Json", variables)
        problems = list(variable_errors(self.schema, self.root, given))
        if problems:
            return {"errors": problems}
        executor = build_executor(self.schema, self.prepared, self.root, given, self.context)
        if isinstance(executor, list):
            return {"errors": [error.formatted for error in executor]}
        data, errors = execute(executor)
        return {"data": data, "errors": errors} if errors else {"data": data}


class _Lines:
    """Where the lines of a file are, at 16 bytes each. Blank ones are none, and are counted in the numbers."""

    def __init__(self) -> None:
        self.numbers = array("I")
        self._starts = array("Q")
        self._sizes = array("I")

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, file: BinaryIO) -> Steps:
        """Find them, in small steps."""
        at = 0
        for number, text in enumerate(file):
            if text.strip():
                self.numbers.append(number)
                self._starts.append(at)
                self._sizes.append(len(text))
            at += len(text)
            if number % _COUNTED_AT_ONCE == 0:
                yield 0

    def shuffled(self, source: random.Random) -> "Steps":
        """Indexes of all lines, in an order drawn from `source` as they are asked for."""
        order = array("I", range(len(self)))
        for at in range(len(order)):
            other = source.randrange(at, len(order))
            order[at], order[other] = order[other], order[at]
            yield order[at]

    def text(self, file: BinaryIO, line: int) -> bytes:
        """One line."""
        return os.pread(file.fileno(), self._sizes[line], self._starts[line])


def _random(seed: int, ordinal: int, use: str) -> random.Random:
    return random.Random(f"{seed} {ordinal} {use}")  # noqa: S311  # repeatable on purpose
