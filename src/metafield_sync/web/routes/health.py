"""Health: alive, ready, and the fleet's figures. Shopify being down changes none of these."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from metafield_sync.db.migrate import head_revision
from metafield_sync.errors import AppError
from metafield_sync.web.edge import OPEN, Parts, answer
from metafield_sync.web.fields import Document
from metafield_sync.web.metrics import Metrics, read_fleet
from metafield_sync.web.problems import PROBLEM_JSON, PROBLEM_SCHEMA

router = APIRouter(tags=["health"])


class NotReady(AppError):
    """The database is there, but not at the schema this program needs."""

    code = "not_ready"
    status = 503


class HealthOut(Document):
    """All is well."""

    status: Literal["ok", "ready"]


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", operation_id="alive", dependencies=OPEN, responses={200: {"model": HealthOut}})
async def alive() -> Response:
    """This process answers."""
    return answer(HealthOut(status="ok"))


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    operation_id="ready",
    dependencies=OPEN,
    responses={
        200: {"model": HealthOut},
        503: {"description": "Not ready", "content": {PROBLEM_JSON: {"schema": PROBLEM_SCHEMA}}},
    },
)
async def ready(parts: Parts) -> Response:
    """The database answers, at the schema this program needs."""
    async with parts.db.unscoped() as conn, conn.cursor() as cur:
        await cur.execute("select version_num from alembic_version")
        row = await cur.fetchone()
    if row is None or row[0] != head_revision():
        raise NotReady("The database is not at the schema this version needs. Run: metafield-sync migrate")
    return answer(HealthOut(status="ready"))


@router.get("/metrics", operation_id="metrics", dependencies=OPEN, response_class=PlainTextResponse)
async def metrics(request: Request, parts: Parts) -> Response:
    """Figures for Prometheus: of the whole fleet, read from the database, and of this process."""
    shown: Metrics = request.app.state.metrics
    return Response(shown.render(await read_fleet(parts.db)), media_type=CONTENT_TYPE_LATEST)
