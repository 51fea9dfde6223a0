"""The Flow action "Adjust points": a workflow of the shop's gives a customer points, or takes some away."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from metafield_sync.customers.identity import SHOPIFY_ID_MAX
from metafield_sync.errors import AppError
from metafield_sync.ledger.posting import POINTS_MAX, Posting, post
from metafield_sync.shopify.ids import customer_id_of
from metafield_sync.shopify.shapes import text
from metafield_sync.web.edge import AppIs, Parts, installed_shop
from metafield_sync.web.fields import SHOPIFY_ID
from metafield_sync.web.problems import problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metafield_sync.shopify.app import FlowRequest
    from metafield_sync.web.gate import Rates

router = APIRouter()

ACTOR = "flow"
REASON = "flow_adjustment"
"""What staff typed may name a person, so it goes beside the entry, where redaction can empty it."""
NOTES = ("reason", "note")
AMOUNTS = ("points", "amount")
WHOLE_POINTS = re.compile(r"([+-]?[0-9]{1,16})(?:\.0+)?", re.ASCII)
TRUTHS = {"true": True, "false": False, "": False}


class FlowInputInvalid(AppError):
    """The workflow's step asks for what cannot be done. Flow shows it failed, and does not try again."""

    code = "flow_input_invalid"
    status = 422


@router.post("/flow/adjust-points")
async def adjust_points(request: Request, parts: Parts, app: AppIs) -> Response:
    """Post what one run of the action asks for, once, however often Flow sends it.

    Flow tries again after 429 and 5xx, and gives up after any other status than 200.
    """
    run = app.verifier.flow_action(request.headers, await request.body())
    shop_id = await installed_shop(parts.db, run.shop_domain)
    if not cast("Rates", request.app.state.flow_rates).allow(shop_id):
        return problem(429, "rate_limited", "Too many runs at once; try again in a second.", {"Retry-After": "1"})
    posted = await post(parts.db, shop_id, ACTOR, read_adjustment(run))
    message = "Points adjusted" if posted.is_new else "Points were adjusted before"
    return JSONResponse({"message": message, "balance": posted.balance})


def read_adjustment(run: FlowRequest) -> Posting:
    """The posting that a run asks for. Flow may send any value as text.

    Raises:
        FlowInputInvalid: a property is missing or not of its kind; the detail names it.
    """
    given = run.properties
    notes = {name: note for name in NOTES if (note := text(given.get(name)))}
    return Posting(
        amount=_points(given),
        reason=REASON,
        shopify_customer_id=_customer(given.get("customer_id")),
        external_id=f"flow/{run.action_run_id}",
        metadata=notes or None,
        allow_negative=_truth(given.get("allow_negative")),
    )


def _points(given: Mapping[str, Any]) -> int:
    named = [name for name in AMOUNTS if given.get(name) is not None]
    if len(named) != 1:
        raise FlowInputInvalid("Give the number of points in the property points (or amount), and in one only.")
    found = WHOLE_POINTS.fullmatch(_plain(given[named[0]]))
    if found is None:
        raise FlowInputInvalid(f"{named[0]} must be a whole number such as 10 or -10. Points have no fractions.")
    amount = int(found[1])
    if amount == 0:
        raise FlowInputInvalid(f"{named[0]} is 0, which changes nothing. Give how many to add, or to take away.")
    if abs(amount) > POINTS_MAX:
        raise FlowInputInvalid(f"{named[0]} must be within ±{POINTS_MAX}, as Shopify can show no more.")
    return amount


def _customer(value: Any) -> int:
    digits = _plain(value)
    try:
        customer = int(digits) if SHOPIFY_ID.fullmatch(digits) else customer_id_of(digits)
    except ValueError:
        customer = 0
    if not 0 < customer <= SHOPIFY_ID_MAX:
        raise FlowInputInvalid("customer_id must be the id of a customer. Start the workflow with one that has one.")
    return customer


def _truth(value: Any) -> bool:
    known = TRUTHS.get(str(value).strip().lower()) if isinstance(value, str | bool) else None
    if known is None and value is not None:
        raise FlowInputInvalid("allow_negative must be true or false.")
    return known or False


def _plain(value: Any) -> str:
    """A number as it was written, or text without the space around it; nothing else is a value here."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return ""
    return str(value).strip()
