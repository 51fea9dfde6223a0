"""What resolvers share: reading the arguments of a field."""

from collections.abc import Mapping
from typing import cast

from graphql import GraphQLError, GraphQLResolveInfo

from devstore.gids import Gid, parse_gid
from devstore.pages import PageRequest
from devstore.shops import Shop

Input = Mapping[str, object]
# The context of every execution is the shop that is called.
Info = GraphQLResolveInfo[Shop]


def invalid_gid(text: str) -> GraphQLError:
    """The error for something that is no global id, written into the document itself."""
    extensions = {"code": "argumentLiteralsIncompatible", "typeName": "CoercionError"}
    return GraphQLError(f"Invalid global id '{text}'", extensions=extensions)


def read_gid(text: str) -> Gid:
    """Read a global id. Raises GraphQLError if it is none."""
    gid = parse_gid(text)
    if gid is None:
        raise invalid_gid(text)
    return gid


def read_gid_of(text: str, kind: str) -> Gid:
    """Read a global id of one type. Raises GraphQLError if it is none, or another type's."""
    gid = read_gid(text)
    if gid.kind != kind:
        raise GraphQLError(f"Invalid id: {text}", extensions={"code": "RESOURCE_NOT_FOUND"})
    return gid


def read_page(page: Mapping[str, object]) -> PageRequest:
    """The arguments every connection takes."""
    return PageRequest(
        first=cast("int | None", page.get("first")),
        last=cast("int | None", page.get("last")),
        after=cast("str | None", page.get("after")),
        before=cast("str | None", page.get("before")),
        reverse=bool(page.get("reverse")),
    )
