"""Every way in which a call to Shopify fails, told apart by what the caller has to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from metafield_sync.shopify.cost import Cost

RefusalReason = Literal[
    "access_token_refused",
    "shop_frozen",
    "forbidden",
    "shop_not_found",
    "shop_locked",
    "security_rejection",
    "redirected",
    "shop_inactive",
]
"""Why Shopify answers nothing for this shop: HTTP 401, 402, 403, 404, 423, 430, 3xx, and the code
SHOP_INACTIVE."""

_MAYBE_APPLIED = "A write may have been applied or not; the balance is written again."


class ShopifyError(AppError):
    """The base of all failures of a call. `cost` is what the answer said it cost, None if it said nothing."""

    code: ClassVar[str] = "shopify_error"
    status: ClassVar[int] = 502

    def __init__(self, detail: str, *, cost: Cost | None = None) -> None:
        super().__init__(detail)
        self.cost = cost


class ShopRefused(ShopifyError):
    """Shopify serves this shop, or this token, nothing at all. Nothing was executed.

    Trying again changes nothing and can make it worse (a locked shop stays locked longer): pause the shop
    until somebody has done what `detail` says.
    """

    code: ClassVar[str] = "shop_refused"

    def __init__(self, detail: str, *, reason: RefusalReason, cost: Cost | None = None) -> None:
        super().__init__(detail, cost=cost)
        self.reason: RefusalReason = reason


class Throttled(ShopifyError):
    """The bucket did not hold enough, or another limit was hit (HTTP 429).

    Nothing was executed: wait, send again.

    `cost` is None where the answer left it out; `retry_after_s` is what Shopify asked for, in seconds, else
    None. Give both to `Budget.throttled`, which knows how long to wait.
    """

    code: ClassVar[str] = "shopify_throttled"

    def __init__(self, detail: str, *, cost: Cost | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail, cost=cost)
        self.retry_after_s = retry_after_s


class Unreachable(ShopifyError):
    """No connection came about (refused, DNS, TLS, timeout): nothing was sent, so nothing was executed."""

    code: ClassVar[str] = "shopify_unreachable"


class OutcomeUnknown(ShopifyError):
    """It was sent and no proper answer came back.

    A write may have been applied, or may yet be, even seconds later. `what`
    says what happened instead, as one sentence; the rest of the text is the same for all. `partial` is the
    answer's `data` where errors came beside it, else None.
    """

    code: ClassVar[str] = "shopify_outcome_unknown"

    def __init__(self, what: str, *, cost: Cost | None = None, partial: dict[str, Any] | None = None) -> None:
        super().__init__(f"{what} {_MAYBE_APPLIED}", cost=cost)
        self.what = what
        self.partial = partial


class QueryRefused(ShopifyError):
    """Shopify refuses this very document, or these variables, and would again. Nothing was written.

    `shopify_code` is the first error's `extensions.code` (`ACCESS_DENIED`, `MAX_COST_EXCEEDED`,
    `INVALID_VARIABLE` …), None if it had none; `missing_scope` the access scope that an ACCESS_DENIED names.
    `partial` is the `data` of a *query* that answered in part; a mutation that did is an `OutcomeUnknown`.
    """

    code: ClassVar[str] = "shopify_query_refused"

    def __init__(
        self,
        detail: str,
        *,
        shopify_code: str | None,
        missing_scope: str | None = None,
        cost: Cost | None = None,
        partial: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail, cost=cost)
        self.shopify_code = shopify_code
        self.missing_scope = missing_scope
        self.partial = partial
