"""From a raw HTTP answer to data, or to the one failure that says what to do next. No I/O in here.

A GraphQL call can fail on three layers and each has to be looked at: the HTTP status, then the top-level
`errors`, then the `userErrors` of the mutation. The first two are this module's; the third belongs to whoever
sent the mutation, because only they know its shape.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from metafield_sync.shopify.cost import Cost, read_cost
from metafield_sync.shopify.failures import (
    OutcomeUnknown,
    QueryRefused,
    RefusalReason,
    ShopRefused,
    Throttled,
)
from metafield_sync.shopify.shapes import items, mapping, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RETRY_AFTER_MAX_S = 300.0
"""The longest `Retry-After` we obey: past it a wrong header would stop a shop for longer than finding out
costs."""

ERRORS_SHOWN_MAX = 3
"""How many top-level errors an error text quotes; one bad variable can name every line of a batch."""

_OK_FIRST, _OK_LAST = 200, 299
_REDIRECT_FIRST, _REDIRECT_LAST = 300, 399
_SERVER_ERROR_FIRST = 500
_REQUEST_TIMEOUT = 408
_TOO_MANY_REQUESTS = 429

_REFUSED_BY_STATUS: Mapping[int, tuple[RefusalReason, str]] = {
    401: (
        "access_token_refused",
        "Shopify refused the access token. Give the shop a new one, or reinstall the app",
    ),
    402: (
        "shop_frozen",
        "The shop is frozen for an unpaid balance. Its owner settles that in the Shopify admin",
    ),
    403: ("forbidden", "Shopify forbids the app this shop. Check that it is installed, with write_customers"),
    404: ("shop_not_found", "There is no such shop here. Check its domain and SHOPIFY_ADMIN_ORIGIN"),
    423: (
        "shop_locked",
        "Shopify has locked the shop, as it also does after too many calls. Ask its support",
    ),
    430: ("security_rejection", "Shopify rejected the request as a risk. Check where the service calls from"),
}
"""Why, and what a person does about it; every error text goes on with `_THEN_RESUME`."""
_THEN_RESUME = "then resume the shop."
_INACTIVE = "The shop is not active. Its owner reopens it in the Shopify admin"
# A redirect is not followed: it would take the access token to an address that nobody configured.
_REDIRECTED = "The Admin API redirects elsewhere. Check the shop's domain and SHOPIFY_ADMIN_ORIGIN"

_SCOPE = re.compile(r"`((?:un)?(?:authenticated_)?(?:read|write)_[a-z_]+)`", re.ASCII)


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One HTTP answer as it came, body read whole; `headers` ignore case (httpx.Headers)."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A GraphQL answer without top-level errors: `data` by root field, cost, and the API version served.

    A mutation's `userErrors` are still inside `data` and still to be checked.
    """

    data: dict[str, Any]
    cost: Cost | None
    api_version: str | None


@dataclass(frozen=True, slots=True)
class TopLevelError:
    """One entry of `errors`, its texts made safe to show."""

    message: str
    code: str | None
    required_access: str | None


def read_answer(raw: RawAnswer, *, shop: str, is_mutation: bool, api_version: str | None) -> Answer:
    """Judge an answer by status, then by its top-level errors. Raises a ShopifyError unless it is plain data.

    `shop` goes into error texts. `is_mutation` decides what a partial answer means: `errors` beside data that
    is not null tell that a mutation ran, so its outcome is unknown, whereas a query merely came back
    incomplete.
    """
    document = _document(raw.body)
    if not _OK_FIRST <= raw.status <= _OK_LAST:
        _raise_for_status(raw, shop=shop, document=document or {})
    if document is None:
        raise OutcomeUnknown(f"{shop}: Shopify's answer was not a GraphQL answer.")
    cost = read_cost(document)
    data = mapping(document.get("data"))
    if document.get("errors"):
        _raise_for_errors(top_level_errors(document), shop=shop, data=data, cost=cost, is_mutation=is_mutation)
    if data is None:
        raise OutcomeUnknown(f"{shop}: Shopify's answer held neither data nor errors.", cost=cost)
    return Answer(data=data, cost=cost, api_version=api_version)


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        return mapping(json.loads(body.decode()))
    except (ValueError, RecursionError):
        # RecursionError: a body of nothing but brackets. Neither is a GraphQL answer.
        return None


def _raise_for_status(raw: RawAnswer, *, shop: str, document: dict[str, Any]) -> None:
    status = raw.status
    said = _quote(top_level_errors(document))
    if status in _REFUSED_BY_STATUS:
        reason, cure = _REFUSED_BY_STATUS[status]
        raise ShopRefused(f"{shop}: {cure}; {_THEN_RESUME} (HTTP {status}{said})", reason=reason)
    if status == _TOO_MANY_REQUESTS:
        raise Throttled(
            f"{shop}: Shopify asks to slow down (HTTP {status}{said}); the call is sent again after a pause.",
            cost=read_cost(document),
            retry_after_s=retry_after_s(raw.headers),
        )
    if _REDIRECT_FIRST <= status <= _REDIRECT_LAST:
        raise ShopRefused(f"{shop}: {_REDIRECTED}; {_THEN_RESUME} (HTTP {status})", reason="redirected")
    if status >= _SERVER_ERROR_FIRST or status == _REQUEST_TIMEOUT or status < _OK_FIRST:
        # 504: Shopify gave up waiting for itself after some 10 s; 540: temporarily disabled. All of them may
        # come after the write.
        raise OutcomeUnknown(f"{shop}: Shopify failed to answer (HTTP {status}{said}).")
    raise QueryRefused(
        f"{shop}: Shopify did not accept the request (HTTP {status}{said}). Sending it again will not help; "
        "please report it.",
        shopify_code=f"HTTP_{status}",
    )


def top_level_errors(document: dict[str, Any]) -> list[TopLevelError]:
    """Read `errors`: a list of GraphQL errors, or the bare string that refusals outside GraphQL carry.

    A line of a bulk operation's result carries them in the same form.
    """
    errors = document.get("errors")
    listed = items(errors)
    found: list[TopLevelError] = []
    for error in [errors] if listed is None else listed:
        described = mapping(error) or {"message": error}
        extensions = mapping(described.get("extensions")) or {}
        message = text(described.get("message"))
        if error is not None:
            found.append(
                TopLevelError(
                    message=message or "no message",
                    code=text(extensions.get("code")),
                    required_access=text(extensions.get("requiredAccess")),
                )
            )
    return found


def _raise_for_errors(
    errors: Sequence[TopLevelError],
    *,
    shop: str,
    data: dict[str, Any] | None,
    cost: Cost | None,
    is_mutation: bool,
) -> None:
    codes = {error.code for error in errors}
    said = _quote(errors)
    partial = data if data is not None and any(value is not None for value in data.values()) else None
    if partial is not None and is_mutation:
        raise OutcomeUnknown(
            f"{shop}: Shopify ran the mutation and reported errors beside it{said}.",
            cost=cost,
            partial=partial,
        )
    if "THROTTLED" in codes:
        raise Throttled(f"{shop}: the API budget is used up; the call is sent again after a pause.", cost=cost)
    if "SHOP_INACTIVE" in codes:
        raise ShopRefused(f"{shop}: {_INACTIVE}; {_THEN_RESUME}", reason="shop_inactive", cost=cost)
    if "INTERNAL_SERVER_ERROR" in codes:
        raise OutcomeUnknown(f"{shop}: Shopify had an internal error{said}.", cost=cost, partial=partial)
    # Every other code, known or not: the same document would be refused again.
    scope = _missing_scope(errors) if "ACCESS_DENIED" in codes else None
    cure = "Sending it again will not help; please report it."
    if "ACCESS_DENIED" in codes:
        cure = (
            f"Grant the app the access scope {scope or 'that Shopify names'} and install it again. Missing "
            "approval for protected customer data shows in the same way."
        )
    raise QueryRefused(
        f"{shop}: Shopify refused the call{said}. {cure}",
        shopify_code=next((error.code for error in errors if error.code is not None), None),
        missing_scope=scope,
        cost=cost,
        partial=partial,
    )


def _quote(errors: Sequence[TopLevelError]) -> str:
    if not errors:
        return ""
    said = [f"{error.code}: {error.message}" if error.code else error.message for error in errors]
    shown = "; ".join(said[:ERRORS_SHOWN_MAX])
    more = len(errors) - ERRORS_SHOWN_MAX
    return f": {shown}; and {more} more" if more > 0 else f": {shown}"


def _missing_scope(errors: Sequence[TopLevelError]) -> str | None:
    """Find the scope in "Required access: `write_customers` access scope.", sent apart or in the message."""
    for error in errors:
        found = _SCOPE.search(f"{error.required_access or ''} {error.message}")
        if error.code == "ACCESS_DENIED" and found is not None:
            return found[1]
    return None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long to wait by `Retry-After`, in seconds, 0 to `RETRY_AFTER_MAX_S`; None if absent or unreadable.

    Shopify sends a number, with or without decimals; HTTP also allows a date, and a proxy in between may send
    one. A date is counted from the answer's own `Date`, so that our clock need not agree with theirs.
    """
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until, sent = _http_date(value), _http_date(headers.get("Date", ""))
        if until is None or sent is None:
            return None
        seconds = (until - sent).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S) if math.isfinite(seconds) else None


def _http_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
