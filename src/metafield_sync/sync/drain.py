"""The drain: pushes one shop's stale balances to Shopify, in as few calls as can be, as fast as the budget allows."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import structlog

from metafield_sync.errors import AppError
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
    Throttled,
    Unreachable,
    ensure_definition,
    set_cost,
)
from metafield_sync.shopify.app.tokens import TokenUnreachable
from metafield_sync.shops import registry
from metafield_sync.shops.vault import TokenUnreadable
from metafield_sync.sync.activity import inherit_budget
from metafield_sync.sync.backfill.steps import advance
from metafield_sync.sync.backfill.store import open_backfill
from metafield_sync.sync.claims import claim_checks, claim_stale
from metafield_sync.sync.doubt import adopt_calls_left_behind
from metafield_sync.sync.lease import LeaseLost, shop_lease
from metafield_sync.sync.push import push_batch
from metafield_sync.sync.readback import CHECKS_MAX, look_for_missing_customers, read_back
from metafield_sync.sync.tokens import ShopTokens
from metafield_sync.sync.turn import ShopStops, Turn, paid_call

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Sequence
    from uuid import UUID

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shopify import AdminClient, DefinitionSpec, EnsuredDefinition
    from metafield_sync.shopify.app.tokens import AppTokens
    from metafield_sync.shops.registry import Shop
    from metafield_sync.shops.vault import Vault
    from metafield_sync.sync.backfill.store import Backfill
    from metafield_sync.sync.lease import Lease

DRAIN_TURN_S = 10.0
"""After so long a drain gives the lease back, so that a busy shop starves nobody."""
BUDGET_NAP_S = 0.25
"""How long a wait for the budget goes on before the estimate is looked at again."""
IDLE_BESIDE_BACKFILL_S = 0.1
"""How soon a posting is noticed while a step of a backfill is under way and nothing else is due."""
TROUBLE_CALLS_MAX = 3
"""So many calls in a row without an answer end the turn: the trouble is Shopify's, not a customer's."""

BACKFILL_THRESHOLD = 5_000
LEASE_POLL_S = 0.1
"""How often a short turn looks whether the lease is free."""

log = structlog.get_logger()

End = Literal["idle", "turn_over", "served", "backfilling", "busy", "paused", "trouble"]


class ShopPaused(AppError):
    """Nothing is asked of Shopify for a shop that is paused; the detail says why, and what to do."""

    code = "shop_paused"
    status = 409


class ShopBusy(AppError):
    """Others have held the shop's lease for all the time there was to wait for it."""

    code = "shop_busy"
    status = 503


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a turn ended, and what it did.

    `end`: `idle` nothing left that is due; `backfilling` the same, but a bulk operation is at work; `turn_over` time is
    up; `served` the customer waited for was tried;
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
        backfill_threshold: stale customers of one shop from which they go by bulk operation.
        app: renews the access tokens that lapse; None: there is no app, and only those that never do are of use.
    """

    def __init__(
        self,
        db: Database,
        client: AdminClient,
        vault: Vault,
        definition: DefinitionSpec,
        *,
        backfill_threshold: int = BACKFILL_THRESHOLD,
        app: AppTokens | None = None,
    ) -> None:
        self.db = db
        self.client = client
        self.tokens = ShopTokens(db, vault, app)
        self.definition = definition
        self._backfill_threshold = backfill_threshold
        self._metafield = MetafieldSpec(definition.namespace, definition.key)
        self._budgets: dict[ShopId, Budget] = {}
        self._tokens: dict[ShopId, int] = {}
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
            turn: Turn | None = None
            try:
                turn = await self._turn(shop, lease, serve, turn_s)
                await self.ensure_definition(turn)
                if look_for_missing:
                    await look_for_missing_customers(turn)
                # Whoever waits for one customer is not kept by a backfill; the next turn sees to it.
                backfill = None
                if serve is None:
                    backfill = await open_backfill(self.db, lease, threshold=self._backfill_threshold)
                end = await _push_until_done(turn, backfill)
                if end != "trouble":
                    await turn.resume_shop()
            except ShopStops as stop:
                return await self._after_stop(shop, turn, stop)
            except (Unreachable, OutcomeUnknown, Throttled, TokenUnreadable) as error:
                return DrainReport("trouble", detail=error.detail)
            except LeaseLost as lost:
                log.warning("lease lost", shop=shop.domain)
                return DrainReport("busy", detail=lost.detail)
            return DrainReport(end, turn.pushed, turn.refused, turn.calls, turn.detail)

    @asynccontextmanager
    async def short_turn(
        self, shop_id: ShopId, *, wait_s: float | None = None, even_if_held: bool = False
    ) -> AsyncGenerator[Turn]:
        """Hold the shop's lease for a call or two that are no pushes, waiting for a drain at work to end its turn.

        Args:
            shop_id: whose.
            wait_s: how many seconds to wait for the lease; None: until it is had.
            even_if_held: also for a shop that is paused by staff, or until it is installed.

        Raises:
            ShopPaused: staff paused the shop, or Shopify refuses it.
            ShopBusy: the lease was not to be had in `wait_s` seconds.
        """
        async with self._lease_in_time(shop_id, wait_s) as lease:
            async with self.db.unscoped() as conn:
                shop = await registry.get_shop(conn, shop_id)
            waiting = None if even_if_held and shop.status != "removed" else _why_not(shop, probe=True)
            if waiting is not None:
                raise ShopPaused(waiting)
            turn: Turn | None = None
            try:
                turn = await self._turn(shop, lease, None, DRAIN_TURN_S)
                yield turn
            except ShopStops as stop:
                report = await self._after_stop(shop, turn, stop)
                if report.end == "paused":
                    raise ShopPaused(report.detail or stop.detail) from stop
                raise TokenUnreachable(report.detail or stop.detail) from stop

    @asynccontextmanager
    async def _lease_in_time(self, shop_id: ShopId, wait_s: float | None) -> AsyncGenerator[Lease]:
        give_up_at = None if wait_s is None else time.monotonic() + wait_s
        while True:
            async with shop_lease(self.db, shop_id, self._holder) as lease:
                if lease is not None:
                    yield lease
                    return
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise ShopBusy(f"Others have worked for this shop for {wait_s:g} s without a pause; try again later.")
            await asyncio.sleep(LEASE_POLL_S)

    async def check_shop(self, domain: str, token: str) -> EnsuredDefinition:
        """Before a shop is added: does the token work, and is the metafield's definition as it should be?

        Raises:
            ShopifyError: Shopify refuses, cannot be reached, or has another definition in the way.
        """
        return await ensure_definition(self.client, ShopAccess(domain, token), self.definition)

    @property
    def definition_fingerprint(self) -> str:
        """What a shop's definition is ensured to be; another one means ensuring it again."""
        wanted = self.definition
        return f"{wanted.namespace}.{wanted.key} {wanted.storefront}"

    async def _turn(self, shop: Shop, lease: Lease, serve: UUID | None, turn_s: float) -> Turn:
        # A token we cannot read is this process's trouble, not the shop's: others may hold the right key.
        token = await self.tokens.valid(shop.id)
        access = ShopAccess(shop.domain, token.text)
        if left_behind := await adopt_calls_left_behind(self.db, lease):
            log.warning("calls were left behind; read back", shop=shop.domain, customers=left_behind)
        budget = self._budgets.setdefault(shop.id, Budget())
        if self._tokens.get(shop.id) != lease.token - 1:
            # Somebody else had the lease since we did, and spent from the shop's budget. What a killed process had sent
            # last, it did not get round to recording.
            await inherit_budget(self.db, shop.id, budget, unrecorded_points=left_behind and set_cost(left_behind))
        self._tokens[shop.id] = lease.token
        return Turn(
            db=self.db,
            client=self.client,
            metafield=self._metafield,
            shop=shop,
            access=access,
            lease=lease,
            budget=budget,
            deadline=time.monotonic() + turn_s,
            serve=serve,
            token_version=token.version,
        )

    async def ensure_definition(self, turn: Turn, *, anew: bool = False) -> None:
        """Make sure that the metafield's definition is as it should be; not asked again once it is, unless `anew`.

        Raises:
            ShopStops: something else is in the way, which only a person can put right.
            ShopifyError: Shopify does not answer.
        """
        # A shop that Shopify refused is asked this first: if it answers, the shop goes on.
        ensured = turn.shop.definition_ensured == self.definition_fingerprint and turn.shop.status == "active"
        if ensured and not anew:
            return
        try:
            async with paid_call(turn, ENSURE_COST_MAX) as call:
                ensured = await ensure_definition(self.client, turn.access, self.definition)
                call.cost = ensured.cost
        except (DefinitionConflict, DefinitionRefused, QueryRefused) as error:
            raise ShopStops(error.code, error.detail) from error
        async with self.db.unscoped() as conn:
            await registry.remember_definition(conn, turn.shop.id, self.definition_fingerprint)
        log.info("definition ensured", shop=turn.shop.domain, outcome=ensured.outcome, pinned=ensured.pinned)

    async def _after_stop(self, shop: Shop, turn: Turn | None, stop: ShopStops) -> DrainReport:
        """Pause the shop, unless it was its token that was refused and a new one is to be had."""
        if turn is not None and stop.code == "access_token_refused":
            try:
                if await self.tokens.renew_refused(shop.id, turn.token_version):
                    return DrainReport("turn_over", detail=f"{stop.detail} It has been renewed; try again.")
            except ShopStops as final:
                stop = final
            except (TokenUnreachable, TokenUnreadable) as error:
                return DrainReport("trouble", detail=error.detail)
        await self._pause(shop, stop)
        return DrainReport("paused", detail=stop.detail)

    async def _pause(self, shop: Shop, stop: ShopStops) -> None:
        async with self.db.unscoped() as conn:
            await registry.pause_shop(conn, shop.id, code=stop.code, detail=stop.detail, resumes_by_itself=True)
        log.error("shop paused", shop=shop.domain, reason=stop.code, detail=stop.detail)


async def _push_until_done(turn: Turn, backfill: Backfill | None) -> End:
    """Push until nothing is due or the turn is over, and for as long as a step of a backfill takes beside it."""
    calls: set[asyncio.Task[None]] = set()
    step: asyncio.Task[None] | None = None
    if backfill is not None:
        turn.collecting_since = backfill.started_at if backfill.collected_at is None else None
        step = asyncio.create_task(advance(turn, backfill)) if backfill.is_due else None
    end: End | None = None
    try:
        while end is None:
            end = await _push_next(turn, calls)
            if end is not None and step is not None:
                end = await _go_on_beside(turn, step, end)
    finally:
        if step is not None:
            step.cancel()
        # Calls that have left are waited for whatever happens: their answers say what Shopify holds.
        ended = await asyncio.gather(*calls, *([step] if step else []), return_exceptions=True)
    for result in ended:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
    if turn.troubles >= TROUBLE_CALLS_MAX:
        return "trouble"
    if turn.served:
        return "served"
    return "backfilling" if backfill is not None and end == "idle" else end


async def _go_on_beside(turn: Turn, step: asyncio.Task[None], end: End) -> End | None:
    """None while the step of the backfill is under way: the shop is ours, and postings go on being pushed meanwhile."""
    if step.done():
        # What it has collected, or released, may have to be pushed yet: that is for the next turn.
        await step
        return end
    if turn.troubles >= TROUBLE_CALLS_MAX:
        return end
    turn.deadline = max(turn.deadline, time.monotonic() + 1)
    if end == "idle":
        await asyncio.wait({step}, timeout=IDLE_BESIDE_BACKFILL_S)
    return None


async def _push_next(turn: Turn, calls: set[asyncio.Task[None]]) -> End | None:
    """Send the next calls if there are any to send; None while the turn goes on."""
    for task in [task for task in calls if task.done()]:
        calls.discard(task)
        task.result()
    if turn.served or turn.troubles >= TROUBLE_CALLS_MAX or time.monotonic() >= turn.deadline:
        return "turn_over"
    if len(calls) >= turn.window:
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        return None
    # First the budget for a full call, then the claim: while the bucket is low, batches fill by themselves, and the
    # balances read are those of the moment of sending.
    wait_s = turn.budget.wait_s(set_cost(METAFIELDS_SET_MAX))
    if wait_s > 0:
        await asyncio.sleep(min(wait_s, BUDGET_NAP_S))
        return None
    async with turn.claiming:
        async with turn.db.shop(turn.shop.id) as conn:
            checks = await claim_checks(conn, turn.shop.id, limit=CHECKS_MAX, besides=turn.in_flight)
            batch = await claim_stale(
                conn, turn.lease, limit=METAFIELDS_SET_MAX, besides=turn.in_flight, since=turn.collecting_since
            )
        if checks:
            calls.add(_begin(turn, [check.customer_id for check in checks], read_back(turn, checks)))
        if batch:
            calls.add(_begin(turn, [claim.customer_id for claim in batch.claims], push_batch(turn, batch)))
    if checks or batch:
        return None
    if calls:
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        return None
    return "idle"


def _begin(turn: Turn, customers: Sequence[UUID], call: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
    """Make a call in a task of its own. No other call names these customers until it has ended."""
    turn.in_flight.update(customers)

    async def run() -> None:
        try:
            await call
        finally:
            turn.in_flight.difference_update(customers)

    return asyncio.create_task(run())


def _why_not(shop: Shop, *, probe: bool) -> str | None:
    """Why a shop is not to be pushed to now; None if it may be."""
    if shop.status == "removed":
        return f"{shop.domain} was removed."
    if shop.hold is not None:
        return shop.hold_detail or f"{shop.domain} is being installed."
    if shop.paused_by_staff:
        return f"{shop.domain} is paused. Resume it with: metafield-sync shops resume {shop.domain}"
    if shop.probe_at is not None and not probe and time.time() < shop.probe_at.timestamp():
        return shop.paused_detail
    return None
