"""What the searches of this stand-in understand: terms `field:value`, all of which must apply.

Shopify ignores a term of a field it does not know: everything comes back, and only a warning in `extensions.search`,
which is not here, tells. So it does here, and also with a word without a field, which is not documented.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from graphql import GraphQLError

_TERM = re.compile(r"""(-?)([A-Za-z_]+):(>=|<=|>|<)?("[^"]*"|'[^']*'|[^\s()]+)|(\S+)""")


@dataclass(frozen=True, slots=True)
class Term:
    """One term; `operator` is empty or one of >=, <=, > and <."""

    name: str
    operator: str
    value: str

    @property
    def moment_s(self) -> float:
        """The value as a moment, in seconds since 1970. Raises GraphQLError if it is none."""
        try:
            read = datetime.fromisoformat(self.value)
        except ValueError as error:
            raise _bad_request(f"Invalid timestamp for query filter `{self.name}`.") from error
        # The time zone of a bare date is not documented.
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def terms(query: str | None) -> Iterator[Term]:
    """The terms of a search.

    Raises:
        GraphQLError: it says more than is understood here. Leaving that out in silence would be another answer.
    """
    for negated, name, operator, quoted, word in _TERM.findall(query or ""):
        if negated or word in {"OR", "NOT"} or set("()") & set(word) or "," in quoted:
            raise _bad_request("The devstore's search knows terms and AND, not OR, NOT, lists or parentheses.")
        if name:
            yield Term(name, operator, quoted.strip("\"'"))


def _bad_request(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "BAD_REQUEST"})
