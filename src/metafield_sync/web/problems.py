"""Errors as RFC 9457 problem documents: a stable `code`, and a `detail` that says what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROBLEM_JSON = "application/problem+json"
DETAIL_CHARS_MAX = 2_000

POSTING_CODES = {"malformed_id": 400, "amount_zero": 422, "balance_out_of_range": 422}
"""Codes that validation itself finds and that callers are promised by name, with their statuses."""

log = structlog.get_logger()


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Always `about:blank`: `code` is what tells problems apart.")
    title: str = Field(description="The HTTP status in words.")
    status: int
    code: str = Field(description="Stable, for programs.")
    detail: str = Field(description="What happened and what to do, for people.")


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """One problem document as a response."""
    # A caller's text may stand in the detail; half a surrogate pair in it must not turn an answer into a crash.
    clean = detail[:DETAIL_CHARS_MAX].encode("utf-8", "replace").decode()
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": clean,
    }
    return JSONResponse(content, status, headers=headers, media_type=PROBLEM_JSON)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the errors a call may answer with, beside those that every call may."""
    everywhere = (400, 401, 403, 422, 429, 500, 503)
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": PROBLEM_SCHEMA}},
        }
        for status in sorted({*everywhere, *statuses})
    }


PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}


def handle_problems(app: FastAPI) -> None:
    """Make every error of the application a problem document."""
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def _app_error(_: Request, error: Exception) -> JSONResponse:
    known = cast("AppError", error)
    return problem(known.status, known.code, known.detail)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    errors: Sequence[dict[str, Any]] = cast("RequestValidationError", error).errors()
    where = errors[0]["loc"][0] if errors[0]["loc"] else "body"
    if errors[0]["type"] == "json_invalid":
        return problem(400, "malformed_json", f"The body is not JSON: {errors[0]['ctx']['error']}.")
    if where == "body" and errors[0]["loc"] == ("body",) and not _is_json(request):
        return problem(415, "unsupported_media_type", "Send JSON, with the header Content-Type: application/json.")
    if where != "body":
        return problem(400, "invalid_parameter", describe(errors))
    status, code = posting_code(errors)
    return problem(status, code, describe(errors))


def posting_code(errors: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """The status and code of a body that cannot be taken: the promised ones, when one of the errors has them."""
    code = next((error["type"] for error in errors if error["type"] in POSTING_CODES), "invalid_request")
    return POSTING_CODES.get(code, 422), code


def describe(errors: Sequence[Mapping[str, Any]]) -> str:
    """Pydantic's errors as one line: where, and what is wrong there. What was sent is not repeated."""
    parts: list[str] = []
    for error in errors:
        path = ".".join(str(part) for part in error["loc"] if part not in {"body", "query", "path"})
        message = str(error["msg"]).removeprefix("Value error, ")
        parts.append(f"{path}: {message}" if path else message)
    return "; ".join(parts) + "."


def _is_json(request: Request) -> bool:
    return "json" in request.headers.get("content-type", "")


def _http_error(request: Request, error: Exception) -> JSONResponse:
    known = cast("HTTPException", error)
    match known.status_code:
        case 404:
            return problem(
                404,
                "not_found",
                f"There is nothing at {request.url.path}. See /openapi.json for what there is.",
            )
        case 405:
            return problem(405, "method_not_allowed", f"{request.method} is not possible here.", known.headers)
        case 400:
            return problem(
                400,
                "malformed_json",
                "The body cannot be read as JSON. Check its syntax, size and encoding (UTF-8).",
            )
        case status:
            return problem(status, HTTPStatus(status).name.lower(), str(known.detail), known.headers)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error", path=request.url.path, method=request.method, exc_info=error)
    # uvicorn closes the connection of a request that failed so; a client that keeps it would meet a reset.
    return problem(
        500,
        "internal_error",
        "Something unexpected went wrong; it is in the server's log.",
        {"Connection": "close"},
    )
