"""What the routes share: who calls, with what parts to work, and how answers are put."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.responses import Response
from fastapi.security import HTTPBearer

from metafield_sync.errors import AppError
from metafield_sync.runtime import AppParts, Runtime
from metafield_sync.shopify.app import AppNotConfigured
from metafield_sync.shops.api_keys import Caller
from metafield_sync.shops.registry import ShopNotFound, list_shops

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant
    from fastapi.routing import APIRoute
    from pydantic import BaseModel

    from metafield_sync.db.database import Database, ShopId


class ParameterInvalid(AppError):
    """A query parameter that is unknown, given twice, or malformed."""

    code = "invalid_parameter"
    status = 400


class ParameterUnknown(ParameterInvalid):
    """A query parameter this call does not have."""

    code = "unknown_parameter"


async def refuse_unknown_parameters(request: Request) -> None:
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


# Async, though they await nothing: FastAPI would send a plain function to a thread, which costs more than the rest.
async def _caller(request: Request) -> Caller:
    return request.state.caller


async def _runtime(request: Request) -> Runtime:
    return request.app.state.runtime


async def app_parts(request: Request) -> AppParts:
    """What only an app with a secret has.

    Raises:
        AppNotConfigured: it has none.
    """
    app = request.app.state.runtime.app
    if app is None:
        raise AppNotConfigured(
            "SHOPIFY_API_SECRET is not set, so nothing that claims to come from Shopify can be checked. "
            "Set it to the client secret in the app's settings, and start again."
        )
    return app


async def installed_shop(db: Database, domain: str) -> ShopId:
    """The shop that a request of Shopify's is about.

    Raises:
        ShopNotFound: it never had this app, or has removed it.
    """
    async with db.unscoped() as conn:
        try:
            (shop,) = await list_shops(conn, domain)
        except ShopNotFound:
            raise ShopNotFound(f"{domain} has not installed this app, or has removed it.") from None
    return shop.id


# The gate has checked the key before any route runs; this only tells OpenAPI that there is one.
BEARER = HTTPBearer(auto_error=False, description="An API key, from `metafield-sync keys create`. It decides the shop.")

CallerIs = Annotated[Caller, Depends(_caller)]
Parts = Annotated[Runtime, Depends(_runtime)]
AppIs = Annotated[AppParts, Depends(app_parts)]

API = [Security(BEARER), Depends(refuse_unknown_parameters)]
OPEN = [Depends(refuse_unknown_parameters)]


def answer(document: BaseModel, status: int = 200) -> Response:
    """A document as the response; what was not set is left out, what was set to nothing is null."""
    return Response(document.model_dump_json(by_alias=True, exclude_unset=True), status, media_type="application/json")
