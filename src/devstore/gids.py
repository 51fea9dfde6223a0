"""Global ids, `gid://shopify/Customer/123`: how the Admin API names every object."""

import re
from dataclasses import dataclass

# The number is bounded by the 64 bits it is stored in; real ids already exceed 2^53.
_GID = re.compile(r"gid://shopify/([A-Z][A-Za-z]*)/([0-9]{1,19})\Z")
# Jobs have no numbers.
_JOB_GID = re.compile(r"gid://shopify/Job/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
NUMBER_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Gid:
    """One parsed global id: a type name of the schema and its number, 0 to 2^63-1."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"gid://shopify/{self.kind}/{self.number}"


def parse_gid(text: str) -> Gid | None:
    """Read a global id; None when the text is not one (the caller knows which error that is)."""
    match = _GID.match(text)
    if match is None:
        return None
    number = int(match[2])
    return Gid(match[1], number) if number <= NUMBER_MAX else None


def is_gid(text: str) -> bool:
    """Whether a text is a global id, be it a job's, which no `Gid` can be."""
    return parse_gid(text) is not None or _JOB_GID.match(text) is not None


def customer_gid(number: int) -> str:
    """Global id of customer `number`."""
    return f"gid://shopify/Customer/{number}"
