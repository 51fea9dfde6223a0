"""Reading back what Shopify holds: after a write without a known outcome, after a refused digest, of who is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from metafield_sync.shopify import (
    READ_METAFIELDS_MAX,
    QueryRefused,
    ShopifyError,
    Throttled,
    read_metafields,
    read_metafields_cost,
)
from metafield_sync.sync import claims, outcomes
from metafield_sync.sync.activity import Spent
from metafield_sync.sync.outcomes import Reading
from metafield_sync.sync.turn import paid_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metafield_sync.shopify import ShownMetafield
    from metafield_sync.sync.claims import Check
    from metafield_sync.sync.turn import Turn

CHECKS_MAX = 50
"""Read back in one call: 101 points, so that a small bucket is not blocked for long."""
LOOKED_FOR_MAX = 100
"""Missing customers looked for by one run: one call, whatever the number that is gone."""

log = structlog.get_logger()


async def read_back(turn: Turn, checks: Sequence[Check]) -> list[Reading]:
    """Read what Shopify holds for these, and record it. Nothing is read if Shopify does not answer.

    Raises:
        ShopStops: Shopify refuses the shop.
        LeaseLost: another process has taken over.
    """
    assert len(checks) <= READ_METAFIELDS_MAX, "one call reads no more"  # noqa: S101 - the limits above see to it
    try:
        shown = await read_shown(turn, [check.shopify_customer_id for check in checks])
    except Throttled:
        return []
    except ShopifyError as error:
        await outcomes.record_not_read(turn.db, turn.lease, checks, code=error.code, error=error.detail)
        turn.tried(check.customer_id for check in checks if check.in_doubt and check.attempts)
        return []
    readings = [_reading(check, shown) for check in checks]
    await outcomes.record_readings(turn.db, turn.lease, readings)
    for reading in readings:
        _tell(turn, reading)
    turn.tried(r.check.customer_id for r in readings if r.agrees or r.gone)
    return readings


async def read_shown(turn: Turn, shopify_customer_ids: Sequence[int]) -> dict[int, ShownMetafield | None]:
    """What Shopify shows for these customers, by its id: None for no metafield, nothing at all for who is gone.

    Raises:
        ShopStops: Shopify refuses the shop.
        LeaseLost: there is no time left on the lease.
        ShopifyError: it does not answer.
    """
    async with paid_call(turn, read_metafields_cost(len(shopify_customer_ids))) as call:
        shown, call.cost = await read_metafields(turn.client, turn.access, turn.metafield, shopify_customer_ids)
        call.spent = Spent(read=len(shopify_customer_ids))
    return shown


async def look_for_missing_customers(turn: Turn) -> None:
    """Ask Shopify which of the missing customers exist; who does is due again.

    A customer can be posted to before Shopify knows them (an import that runs ahead), and is then not gone for good.

    Raises:
        ShopStops: Shopify refuses the shop.
        ShopifyError: it does not answer.
    """
    async with turn.db.shop(turn.shop.id) as conn:
        missing = await claims.claim_missing(conn, turn.shop.id, limit=LOOKED_FOR_MAX)
    if not missing:
        return
    try:
        shown = await read_shown(turn, [check.shopify_customer_id for check in missing])
    except QueryRefused:
        await outcomes.find_out_by_writing(turn.db, turn.lease, missing)
    else:
        await outcomes.record_readings(turn.db, turn.lease, [_reading(check, shown) for check in missing])


def _reading(check: Check, shown: Mapping[int, ShownMetafield | None]) -> Reading:
    if check.shopify_customer_id not in shown:
        return Reading(check, None, None, gone=True)
    metafield = shown[check.shopify_customer_id]
    if metafield is None:
        return Reading(check, None, None)
    return Reading(check, metafield.as_balance(), metafield.digest)


def _tell(turn: Turn, reading: Reading) -> None:
    """Say what was found where it was not what we believed."""
    what = {"shop": turn.shop.domain, "customer_id": str(reading.check.customer_id), "found": reading.value}
    if outcomes.is_foreign(reading):
        log.warning("somebody else wrote the metafield; it is written again", **what)
    elif not reading.check.stale and not reading.agrees and not reading.gone:
        log.warning("a late write of ours had won; it is written again", **what)
