"""Data requests: what shoppers have asked the merchant for, and the document to hand over."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response

from metafield_sync.customers.identity import SHOPIFY_ID_MAX
from metafield_sync.sync.people.data_requests import (
    DataRequest,
    complete_data_request,
    data_document,
    data_request_page,
    get_data_request,
)
from metafield_sync.web.edge import API, CallerIs, Parts, answer
from metafield_sync.web.fields import Document, Moment
from metafield_sync.web.paging import PAGE_ROWS_DEFAULT, Cursor, Limit, number, one_page, read_cursor
from metafield_sync.web.problems import error_responses

router = APIRouter(tags=["data requests"], dependencies=API)

RequestNumber = Annotated[int, Path(ge=1, le=SHOPIFY_ID_MAX, description="Shopify's number of the request.")]


class DataRequestOut(Document):
    """A request that Shopify passed on; the customer is null if they were redacted since."""

    data_request_id: str
    shopify_customer_id: str | None
    received_at: Moment
    completed_at: Moment | None

    @classmethod
    def of(cls, request: DataRequest) -> DataRequestOut:
        """The document of a request."""
        return cls(
            data_request_id=str(request.id),
            shopify_customer_id=None if request.shopify_customer_id is None else str(request.shopify_customer_id),
            received_at=request.received_at,
            completed_at=request.completed_at,
        )


class DataRequestsOut(Document):
    """A page of requests."""

    data_requests: list[DataRequestOut]
    next_cursor: str | None


@router.get(
    "/api/data-requests",
    operation_id="listDataRequests",
    responses={200: {"model": DataRequestsOut}, **error_responses()},
)
async def list_data_requests(
    caller: CallerIs, parts: Parts, cursor: Cursor = None, limit: Limit = PAGE_ROWS_DEFAULT
) -> Response:
    """What shoppers have asked for, the latest first."""
    (before,) = read_cursor(cursor, number) or (None,)
    async with parts.db.shop(caller.shop_id) as conn:
        found = await data_request_page(conn, caller.shop_id, before=before, limit=limit + 1)
    page, next_cursor = one_page(found, limit, lambda request: (request.id,))
    return answer(DataRequestsOut(data_requests=[DataRequestOut.of(one) for one in page], next_cursor=next_cursor))


@router.get(
    "/api/data-requests/{dataRequestId}",
    operation_id="getDataRequest",
    responses={200: {"description": "The document to hand over"}, **error_responses(404)},
)
async def get_document(
    caller: CallerIs,
    parts: Parts,
    dataRequestId: RequestNumber,  # noqa: N803 - the name in the path, which OpenAPI shows
) -> Response:
    """Everything that is stored about the customer who asked, as it is now."""
    async with parts.db.shop(caller.shop_id) as conn:
        request = await get_data_request(conn, caller.shop_id, dataRequestId)
        return JSONResponse(await data_document(conn, caller.shop_id, request))


@router.post(
    "/api/data-requests/{dataRequestId}/complete",
    operation_id="completeDataRequest",
    responses={200: {"model": DataRequestOut}, **error_responses(404)},
)
async def complete(
    caller: CallerIs,
    parts: Parts,
    dataRequestId: RequestNumber,  # noqa: N803 - the name in the path, which OpenAPI shows
) -> Response:
    """Note that the document was handed over."""
    async with parts.db.shop(caller.shop_id) as conn:
        return answer(DataRequestOut.of(await complete_data_request(conn, caller.shop_id, dataRequestId)))
