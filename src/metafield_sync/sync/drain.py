"""The drain: pushes one shop's stale balances to Shopify, in as few calls as can be, as fast as the budget allows."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from metafield_sync.shopify import (
    ENSURE_COST_MAX,
    METAFIELDS_SET_MAX,
    Budget,
    DefinitionConflict,
    DefinitionRefused,
    MetafieldSpec,
    OutcomeUnknown,
    QueryRefused,
    ShopAccess,
    ShopRefused,
    Throttled,
    Unreachable,
    ensure_definition,
    set_cost,
)
from metafield_sync.shops import registry
from metafield_sync.shops.vault import TokenUnreadable
from metafield_sync.sync import rows
from metafield_sync.sync.lease import LeaseLost, shop_lease
from metafield_sync.sync.missing import look_for_missing_customers
from metafield_sync.sync.push import ShopStops, Turn, charged, push_batch

if TYPE_CHECKING:
    from uuid import UUID

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shopify import AdminClient, Cost, DefinitionSpec, EnsuredDefinition
    from metafield_sync.shops.registry import Shop
    from metafield_sync.shops.vault import Vault
    from metafield_sync.sync.lease import Lease

DRAIN_TURN_S = 10.0
"""After so long a drain gives the lease back, so that a busy shop starves nobody."""
CALLS_IN_FLIGHT_MAX = 4
BUDGET_NAP_S = 0.25
"""How long a wait for the budget goes on before the estimate is looked at again."""
TROUBLE_CALLS_MAX = 3
"""So many calls in a row without an answer end the turn: the trouble is Shopify's, not a customer's."""

log = structlog.get_logger()

End = Literal["idle", "turn_over", "served", "busy", "paused", "trouble"]


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a turn ended, and what it did.

    `end`: `idle` nothing left that is due; `turn_over` time is up; `served` the customer waited for was tried;
    `busy` another drain holds the lease; `paused` the shop is paused; `trouble` Shopify does not answer.
    `detail` explains the last two.
    """

    end: End
    pushed: int = 0
    refused: int = 0
    calls: int = 0
    detail: str | None = None


class Mirror:
    """Everything it takes to push: one a process, shared by whoever needs a sync.

    Args:
        db: the ledger and the mirror's state.
        client: Shopify's Admin API.
        vault: opens the shops' access tokens.
        definition: which metafield shows the balance, and who may read it.
    """

    def __init__(self, db: Database, client: AdminClient, vault: Vault, definition: DefinitionSpec) -> None:
        self.db = db
        self._client = client
        self._vault = vault
        self._definition = definition
        self._metafield = MetafieldSpec(definition.namespace, definition.key)
        self._budgets: dict[ShopId, Budget] = {}
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._begun: set[asyncio.Task[DrainReport]] = set()

    async def close(self) -> None:
        """End the drains begun in tasks of their own, once the calls they have sent are answered."""
        drains = list(self._begun)
        for drain in drains:
            drain.cancel()
        await asyncio.gather(*drains, return_exceptions=True)

    def begin_drain(self, shop_id: ShopId, *, serve: UUID) -> asyncio.Task[DrainReport]:
        """Drain in a task of its own, for somebody who waits for one customer and may stop waiting; see `drain`."""
        drain = asyncio.create_task(self.drain(shop_id, serve=serve, probe=True), name=f"drain of shop {shop_id}")
        self._begun.add(drain)
        drain.add_done_callback(self._ended)
        return drain

    def _ended(self, drain: asyncio.Task[DrainReport]) -> None:
        self._begun.discard(drain)
        if not drain.cancelled() and (error := drain.exception()) is not None:
            log.warning("drain failed", drain=drain.get_name(), error=str(error))

    async def drain(
        self,
        shop_id: ShopId,
        *,
        serve: UUID | None = None,
        probe: bool = False,
        look_for_missing: bool = False,
        turn_s: float = DRAIN_TURN_S,
    ) -> DrainReport:
        """Push the shop's stale customers until none is due or the turn is over. Returns at once if another does.

        Args:
            shop_id: whose.
            serve: end as soon as this customer has been tried.
            probe: push to a shop that Shopify refused earlier, whatever its back-off (somebody asked).
            look_for_missing: first ask Shopify whether customers believed gone are there after all.
            turn_s: seconds until the lease is given back.
        """
        async with shop_lease(self.db, shop_id, self._holder) as lease:
            if lease is None:
                return DrainReport("busy")
            async with self.db.unscoped() as conn:
                shop = await registry.get_shop(conn, shop_id)
            waiting = _why_not(shop, probe=probe)
            if waiting is not None:
                return DrainReport("paused", detail=waiting)
            try:
                turn = self._turn(shop, lease, serve, turn_s)
                await self._ensure_definition(turn)
                if look_for_missing:
                    await look_for_missing_customers(turn)
                end = await _push_until_done(turn)
            except ShopStops as stop:
                await self._pause(shop, stop)
                return DrainReport("paused", detail=stop.detail)
            except (Unreachable, OutcomeUnknown, Throttled, TokenUnreadable) as error:
                return DrainReport("trouble", detail=error.detail)
            except LeaseLost as lost:
                log.warning("lease lost", shop=shop.domain)
                return DrainReport("busy", detail=lost.detail)
            return DrainReport(end, turn.pushed, turn.refused, turn.calls, turn.detail)

    async def check_shop(self, domain: str, token: str) -> EnsuredDefinition:
        """Before a shop is added: does the token work, and is the metafield's definition as it should be?

        Raises:
            ShopifyError: Shopify refuses, cannot be reached, or has another definition in the way.
        """
        return await ensure_definition(self._client, ShopAccess(domain, token), self._definition)

    @property
    def definition_fingerprint(self) -> str:
        """What a shop's definition is ensured to be; another one means ensuring it again."""
        wanted = self._definition
        return f"{wanted.namespace}.{wanted.key} {wanted.storefront}"

    def _turn(self, shop: Shop, lease: Lease, serve: UUID | None, turn_s: float) -> Turn:
        if shop.access_token is None:
            raise ShopStops(
                "no_access_token",
                f"No access token is stored for {shop.domain}. Give one: "
                f"metafield-sync shops add {shop.domain} --access-token …",
            )
        # A token we cannot read is this process's trouble, not the shop's: others may hold the right key.
        access = ShopAccess(shop.domain, self._vault.open(shop.access_token))
        return Turn(
            db=self.db,
            client=self._client,
            metafield=self._metafield,
            shop=shop,
            access=access,
            lease=lease,
            budget=self._budgets.setdefault(shop.id, Budget()),
            deadline=time.monotonic() + turn_s,
            serve=serve,
        )

    async def _ensure_definition(self, turn: Turn) -> None:
        if turn.shop.definition_ensured == self.definition_fingerprint:
            return
        reservation = await turn.budget.acquire(ENSURE_COST_MAX)
        turn.lease.require_time()
        cost: Cost | None = None
        spent = rows.Spent()
        try:
            ensured = await ensure_definition(self._client, turn.access, self._definition)
            cost = ensured.cost
        except (DefinitionConflict, DefinitionRefused, QueryRefused) as error:
            cost = error.cost
            raise ShopStops(error.code, error.detail) from error
        except ShopRefused as error:
            raise ShopStops(error.reason, error.detail) from error
        except Throttled as error:
            turn.budget.throttled(error.cost, error.retry_after_s, reservation=reservation)
            spent = rows.Spent(throttled=1)
            raise
        finally:
            turn.budget.settle(reservation, cost)
            await rows.record_spent(self.db, turn.shop.id, spent, charged(cost, 0.0), turn.budget.snapshot())
        async with self.db.unscoped() as conn:
            await registry.remember_definition(conn, turn.shop.id, self.definition_fingerprint)
        log.info("definition ensured", shop=turn.shop.domain, outcome=ensured.outcome, pinned=ensured.pinned)

    async def _pause(self, shop: Shop, stop: ShopStops) -> None:
        async with self.db.unscoped() as conn:
            await registry.pause_shop(conn, shop.id, code=stop.code, detail=stop.detail, resumes_by_itself=True)
        log.error("shop paused", shop=shop.domain, reason=stop.code, detail=stop.detail)


async def _push_until_done(turn: Turn) -> End:
    calls: set[asyncio.Task[None]] = set()
    end: End | None = None
    try:
        while end is None:
            end = await _push_next(turn, calls)
    finally:
        # Calls that have left are waited for whatever happens: their answers say what Shopify holds.
        ended = await asyncio.gather(*calls, return_exceptions=True)
    for result in ended:
        if isinstance(result, BaseException):
            raise result
    if turn.troubles >= TROUBLE_CALLS_MAX:
        return "trouble"
    return "served" if turn.served else end


async def _push_next(turn: Turn, calls: set[asyncio.Task[None]]) -> End | None:
    """Send one more batch if there is one; None while the turn goes on."""
    for task in [task for task in calls if task.done()]:
        calls.discard(task)
        task.result()
    if turn.served or turn.troubles >= TROUBLE_CALLS_MAX or time.monotonic() >= turn.deadline:
        return "turn_over"
    if len(calls) >= CALLS_IN_FLIGHT_MAX:
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        return None
    # First the budget for a full call, then the claim: while the bucket is low, batches fill by themselves, and the
    # balances read are those of the moment of sending.
    wait_s = turn.budget.wait_s(set_cost(METAFIELDS_SET_MAX))
    if wait_s > 0:
        await asyncio.sleep(min(wait_s, BUDGET_NAP_S))
        return None
    async with turn.db.shop(turn.shop.id) as conn:
        claims = await rows.claim_stale(conn, turn.shop.id, limit=METAFIELDS_SET_MAX, besides=turn.in_flight)
    if claims:
        turn.in_flight.update(claim.customer_id for claim in claims)
        calls.add(asyncio.create_task(_push_claimed(turn, claims)))
        return None
    if calls:
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        return None
    return "idle"


async def _push_claimed(turn: Turn, claims: list[rows.Claim]) -> None:
    try:
        await push_batch(turn, claims)
    finally:
        turn.in_flight.difference_update(claim.customer_id for claim in claims)


def _why_not(shop: Shop, *, probe: bool) -> str | None:
    """Why a shop is not to be pushed to now; None if it may be."""
    if shop.status == "removed":
        return f"{shop.domain} was removed."
    if shop.paused_by_staff:
        return f"{shop.domain} is paused. Resume it with: metafield-sync shops resume {shop.domain}"
    if shop.probe_at is not None and not probe and time.time() < shop.probe_at.timestamp():
        return shop.paused_detail
    return None
