"""The application: the one place where routes, gate and error handling are put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from metafield_sync import __version__
from metafield_sync.sync.inbox.store import Intake
from metafield_sync.web.documents import EntryIn
from metafield_sync.web.gate import BodyLimit, KeyGate, Rates
from metafield_sync.web.metrics import Measure, Metrics
from metafield_sync.web.problems import Problem, handle_problems
from metafield_sync.web.routes import (
    app as app_home,
)
from metafield_sync.web.routes import (
    customers,
    data_requests,
    earning,
    failures,
    flow,
    flow_lifecycle,
    front_door,
    health,
    inbox,
    ledger,
    proxy,
    reconcile,
    runs,
    status,
    sync_balances,
    webhooks,
)

if TYPE_CHECKING:
    from metafield_sync.runtime import Runtime

DESCRIPTION = """\
Keeps one Shopify customer metafield equal to a points ledger: exactly, within seconds.

Every call under `/api` needs an API key (`Authorization: Bearer KEY`); the key decides the shop. Names are camelCase,
times RFC 3339 in UTC, points integers, Shopify ids strings of digits. Errors are `application/problem+json` (RFC 9457)
with a stable `code` and a `detail` that says what to do.
"""


def create_app(runtime: Runtime) -> FastAPI:
    """Put the application together.

    Args:
        runtime: the open parts; whoever opened them closes them, after the application has stopped.
    """
    app = FastAPI(
        title="metafield-sync",
        version=__version__,
        description=DESCRIPTION,
        # Their pages load scripts from third parties; /openapi.json is for any viewer.
        redirect_slashes=False,
        servers=None if runtime.settings.app_url is None else [{"url": runtime.settings.app_url}],
        docs_url=None,
        redoc_url=None,
    )
    metrics = Metrics()
    app.state.runtime = runtime
    app.state.metrics = metrics
    app.state.flow_rates = Rates(runtime.settings.rate_limit_per_s)
    app.state.intake = Intake(runtime.db)
    # A request is held against one route after another, so what comes in bursts stands first.
    app.router.routes.insert(0, webhooks.WEBHOOKS)
    for module in (proxy, flow, flow_lifecycle, front_door, app_home):
        # Shopify calls these, by its own rules; nobody makes a client for them.
        app.include_router(module.router, include_in_schema=False)
    for module in (
        sync_balances,
        reconcile,
        customers,
        ledger,
        earning,
        runs,
        failures,
        data_requests,
        inbox,
        status,
        health,
    ):
        app.include_router(module.router)
    handle_problems(app)
    _complete_openapi(app)
    # The last added stands outermost: everything is measured, then held to its key, then to its size.
    app.add_middleware(BodyLimit)
    app.add_middleware(KeyGate, db=runtime.db, rate_limit_per_s=runtime.settings.rate_limit_per_s)
    app.add_middleware(Measure, metrics=metrics)
    return app


def _complete_openapi(app: FastAPI) -> None:
    """Add what FastAPI cannot know: the error document, and the entries of a batch, which are checked one by one."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            schemas = document["components"]["schemas"]
            template = "#/components/schemas/{model}"
            schemas["Problem"] = Problem.model_json_schema(ref_template=template)
            schemas["EntryIn"] = EntryIn.model_json_schema(ref_template=template)
            # FastAPI's own error documents, which no call answers with.
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = complete
