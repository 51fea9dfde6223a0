"""What the calls of the control API have in common: reading bodies, answering, and refusing what makes no sense."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from enum import StrEnum
from http import HTTPStatus
from typing import TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response

from devstore.calls import camel
from devstore.gids import Gid, parse_gid
from devstore.shops import Shop

PREFIX = "/_devstore"

_MAY_BE_NULL = frozenset({"url", "oldClientSecret"})

E = TypeVar("E", bound=StrEnum)
Json = dict[str, object]
Handler = Callable[[Request], Awaitable[Response]]


class BadRequestError(Exception):
    """A control call makes no sense; the text says what is wrong with it."""


def guarded(handler: Handler) -> Handler:
    """A call of the control API that answers 400 to what makes no sense."""

    async def call(request: Request) -> Response:
        try:
            return await handler(request)
        except BadRequestError as error:
            return answer({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    return call


def answer(value: object, status: int = HTTPStatus.OK) -> Response:
    """A JSON answer."""
    return Response(json.dumps(value, separators=(",", ":")), status, media_type="application/json")


def named_shop(shops: Mapping[str, Shop], request: Request) -> Shop:
    """The shop in the path of a call. Raises BadRequestError."""
    domain = cast("str", request.path_params["domain"])
    shop = shops.get(domain)
    if shop is None:
        raise BadRequestError(f"there is no shop {domain}")
    return shop


async def read_body(request: Request) -> Json:
    """The JSON object that is the body, empty without one. Raises BadRequestError."""
    text = await request.body()
    try:
        read = cast("object", json.loads(text or b"{}"))
    except ValueError as error:
        raise BadRequestError(f"the body is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise BadRequestError("the body must be a JSON object")
    return cast("Json", read)


def text_of(body: Mapping[str, object], name: str) -> str:
    """A text of a body, not empty. Raises BadRequestError."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequestError(f"{name} must be a text that is not empty")
    return value


def number_of(body: Mapping[str, object], name: str, default: int | None = None) -> int:
    """An integer of a body. Raises BadRequestError, without a default for one that is missing too."""
    value = body.get(name, default)
    try:
        return int(cast("str | int", value))
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"{name} must be an integer, not {value!r}") from error


def member_of(kind: type[E], value: object) -> E | None:
    """A member of an enum, None for None. Raises BadRequestError."""
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError as error:
        raise BadRequestError(f"{value!r} is none of {', '.join(kind)}") from error


def customer_of(value: object) -> Gid:
    """A customer, by number or global id. Raises BadRequestError."""
    text = str(value)
    owner = parse_gid(text) or (Gid("Customer", int(text)) if text.isascii() and text.isdigit() else None)
    if owner is None:
        raise BadRequestError(f"{value!r} is no customer: give a number or a global id")
    return owner


def camel_keys(value: Mapping[str, object]) -> Json:
    """The same with its names as JSON spells them, inside too."""
    return {
        camel(name): camel_keys(cast("Json", inner)) if isinstance(inner, dict) else inner
        for name, inner in value.items()
    }


def changes_of(settings: object, body: Json) -> Json:
    """Changes of a dataclass, by the names of its fields, of values that are of the types it has now.

    Numbers must not be negative, and what is None or a text may be either. Raises BadRequestError.
    """
    known = {camel(one.name): one.name for one in fields(settings)}  # pyright: ignore[reportArgumentType]  # is one
    unknown = body.keys() - known.keys()
    if unknown:
        raise BadRequestError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    for name, value in body.items():
        _check_type(name, value, getattr(settings, known[name]))
    lists = {name: tuple(cast("list[object]", value)) for name, value in body.items() if isinstance(value, list)}
    return {known[name]: lists.get(name, value) for name, value in body.items()}


def _check_type(name: str, value: object, present: object) -> None:
    is_flag = isinstance(value, bool)
    if isinstance(present, bool):
        wanted, is_right = "true or false", is_flag
    elif isinstance(present, int | float):
        wanted = "a number that is not negative"
        is_right = isinstance(value, int | float) and not is_flag and value >= 0
    elif isinstance(present, tuple):
        wanted, is_right = "a list", isinstance(value, list)
    elif isinstance(present, dict):
        wanted, is_right = "an object", isinstance(value, dict)
    else:
        wanted, is_right = "a text", isinstance(value, str) or (value is None and name in _MAY_BE_NULL)
    if not is_right:
        raise BadRequestError(f"{name} must be {wanted}, not {value!r}")
