"""Shopify Flow, as far as an app has to do with it: runs of its actions, and triggers it fires.

An action run is a signed POST to the app. 200 is done; 202 is accepted, and the same request comes again later; 429 is
tried again when its Retry-After says; any other status of the 400s is a failure for good; the rest, and no answer, is
tried again for a day, with growing pauses. The run keeps its `action_run_id` through all of it. How long Flow waits
for an answer and how soon it tries again is not confirmed; the figures are those of its older documentation and ours.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from uuid import uuid4

from devstore.app import App
from devstore.clock import Clock, timestamp
from devstore.courier import Courier, Outcome
from devstore.outbox import Outbox
from devstore.signing import body_signature
from devstore.webhooks import compact

ANSWER_S = 10
GIVE_UP_S = 24 * 3_600
# The pauses double from the first to the last.
RETRY_FIRST_S = 15
RETRY_LAST_S = 3_600
AT_ONCE_MAX = 8

_SERVER = HTTPStatus.INTERNAL_SERVER_ERROR


class RunStatus(StrEnum):
    """Where an action run is."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class NoSuchActionError(Exception):
    """The app has no Flow action of this handle, or no address."""


@dataclass(slots=True)
class ActionRun:
    """One run of an action.

    Attributes:
        action_run_id: what the app knows it by, the same each time it is sent.
        handle: the action's.
        url: where it goes.
        body: what is sent, to the byte.
        started_s: when it was started, on the shop's monotonic clock.
        status: where it is.
        tries: what came of each time it was sent, the first one first.
    """

    action_run_id: str
    handle: str
    url: str
    body: bytes = field(repr=False)
    started_s: float
    status: RunStatus = RunStatus.WAITING
    tries: list[Outcome] = field(default_factory=list[Outcome])


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that the app fired by `flowTriggerReceive`; `wall_s` is when, in seconds since 1970."""

    handle: str
    payload: object
    wall_s: float


class Flow:
    """Flow in one shop.

    Attributes:
        runs: every action run, oldest first.
        triggers: every trigger the app fired, oldest first.
    """

    def __init__(self, domain: str, number: int, clock: Clock, app: App, courier: Courier) -> None:
        self.runs: list[ActionRun] = []
        self.triggers: list[Trigger] = []
        self._domain = domain
        self._number = number
        self._clock = clock
        self._app = app
        self._courier = courier
        self._outbox = Outbox[ActionRun](clock, self._send, AT_ONCE_MAX)

    def run(self, handle: str, properties: Mapping[str, object], action_run_id: str | None = None) -> ActionRun:
        """Start an action run in the background.

        Args:
            handle: which action.
            properties: what the merchant filled in; they are sent as they are, and Flow sends texts.
            action_run_id: what the run is known by; a new id unless told otherwise.

        Raises:
            NoSuchActionError: the app has no such action, or no address.
        """
        path = self._app.flow_actions.get(handle)
        url = None if path is None else self._app.address(path)
        if url is None:
            raise NoSuchActionError(f"the app has no Flow action {handle!r}, or no url")
        run_id = action_run_id or str(uuid4())
        body = {
            "shop_id": str(self._number),
            "shopify_domain": self._domain,
            "action_run_id": run_id,
            "action_definition_id": handle,
            "handle": handle,
            "properties": properties,
            "step_reference": secrets.token_hex(16),
        }
        started = ActionRun(run_id, handle, url, compact(body), self._clock.monotonic())
        self.runs.append(started)
        self._outbox.put(started)
        return started

    async def announce(self, *, has_enabled_flow: bool) -> Outcome:
        """A workflow with the app's trigger is turned on, or the last one off: the app is told, and has to agree.

        Raises:
            NoSuchActionError: the app is nowhere, or wants no lifecycle callbacks.
        """
        url = None if self._app.flow_lifecycle is None else self._app.address(self._app.flow_lifecycle)
        if url is None:
            raise NoSuchActionError("the app has no url, or no lifecycle callback for Flow")
        body = compact(
            {
                "flow_trigger_definition_id": "points-balance-changed",
                "has_enabled_flow": has_enabled_flow,
                "shop_id": self._number,
                "shopify_domain": self._domain,
                "timestamp": timestamp(int(self._clock.wall())),
            }
        )
        return await self._courier.carry("POST", url, headers=self._headers(body), body=body, total_s=ANSWER_S)

    def receive(self, handle: str, payload: object) -> None:
        """Take a trigger that the app fires."""
        self.triggers.append(Trigger(handle, payload, self._clock.wall()))

    def retry_now(self) -> int:
        """Send every run that waits now; how many that were."""
        return self._outbox.retry_now()

    async def settle(self) -> None:
        """Wait until no run is on its way; those that wait to be sent again do not count."""
        await self._outbox.settle()

    async def close(self) -> None:
        """Stop everything where it stands."""
        await self._outbox.close()

    def _headers(self, body: bytes) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "X-Shopify-Hmac-Sha256": body_signature(self._app.client_secret, body),
            "X-Shopify-Shop-Domain": self._domain,
        }

    async def _send(self, run: ActionRun) -> float | None:
        headers = self._headers(run.body)
        outcome = await self._courier.carry("POST", run.url, headers=headers, body=run.body, total_s=ANSWER_S)
        run.tries.append(outcome)
        status = outcome.status
        again = status is None or status in {HTTPStatus.ACCEPTED, HTTPStatus.TOO_MANY_REQUESTS} or status >= _SERVER
        if status == HTTPStatus.OK:
            run.status = RunStatus.DONE
        elif not again or outcome.ended_s - run.started_s >= GIVE_UP_S:
            run.status = RunStatus.FAILED
        else:
            return _pause_s(run, outcome)
        return None


def _pause_s(run: ActionRun, outcome: Outcome) -> float:
    asked = outcome.headers.get("Retry-After", "")
    if outcome.status == HTTPStatus.TOO_MANY_REQUESTS and asked.isascii() and asked.isdigit():
        return max(1.0, float(asked))
    return min(RETRY_LAST_S, RETRY_FIRST_S * 2.0 ** (len(run.tries) - 1))
