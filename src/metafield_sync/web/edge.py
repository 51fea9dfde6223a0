"""What the routes share: who calls, with what parts to work, how pages go on, and how answers are put."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Query, Request, Security
from fastapi.responses import Response
from fastapi.security import HTTPBearer

from metafield_sync.errors import AppError
from metafield_sync.runtime import Runtime
from metafield_sync.shops.api_keys import Caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi.dependencies.models import Dependant
    from fastapi.routing import APIRoute
    from pydantic import BaseModel

PAGE_ROWS_MAX = 250
PAGE_ROWS_DEFAULT = 50

Limit = Annotated[int, Query(ge=1, le=PAGE_ROWS_MAX, description="How many rows the page may have.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`nextCursor` of the page before.")]


class ParameterInvalid(AppError):
    """A query parameter that is unknown, given twice, or malformed."""

    code = "invalid_parameter"
    status = 400


class ParameterUnknown(ParameterInvalid):
    """A query parameter this call does not have."""

    code = "unknown_parameter"


def refuse_unknown_parameters(request: Request) -> None:
    """Refuse a query that names what this call does not have: a typo must not silently mean "everybody"."""
    known = _names(cast("APIRoute", request.scope["route"]).dependant)
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            choices = f"It has {', '.join(sorted(known))}." if known else "It has none."
            raise ParameterUnknown(f"This call has no query parameter {name!r}. {choices}")
        if given.count(name) > 1:
            raise ParameterInvalid(f"The query parameter {name!r} is given more than once.")


def _names(dependant: Dependant) -> set[str]:
    own = {str(parameter.alias) for parameter in dependant.query_params}
    return own.union(*(_names(inner) for inner in dependant.dependencies))


def _caller(request: Request) -> Caller:
    return request.state.caller


def _runtime(request: Request) -> Runtime:
    return request.app.state.runtime


# The gate has checked the key before any route runs; this only tells OpenAPI that there is one.
BEARER = HTTPBearer(auto_error=False, description="An API key, from `metafield-sync keys create`. It decides the shop.")

CallerIs = Annotated[Caller, Depends(_caller)]
Parts = Annotated[Runtime, Depends(_runtime)]

API = [Security(BEARER), Depends(refuse_unknown_parameters)]
OPEN = [Depends(refuse_unknown_parameters)]


def answer(document: BaseModel, status: int = 200) -> Response:
    """A document as the response; what was not set is left out, what was set to nothing is null."""
    return Response(document.model_dump_json(by_alias=True, exclude_unset=True), status, media_type="application/json")


def to_cursor(*parts: object) -> str:
    """Where the next page begins, in a form that nobody takes for anything else."""
    return base64.urlsafe_b64encode("|".join(str(part) for part in parts).encode()).decode().rstrip("=")


def from_cursor(cursor: str | None, parts: int) -> Sequence[str] | None:
    """The parts of a cursor; None if there is none.

    Raises:
        ParameterInvalid: it is not one of ours.
    """
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raise bad_cursor() from None
    found = text.split("|")
    if len(found) != parts:
        raise bad_cursor()
    return found


def bad_cursor() -> ParameterInvalid:
    """What a cursor that is not ours is told."""
    return ParameterInvalid("cursor: not a cursor of this list. Use the nextCursor of the page before, or none.")
