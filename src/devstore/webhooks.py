"""Webhooks of one shop: who is told of what, and every delivery from its first try to its last.

Shopify's rules: the app has 1 s to take the connection and 5 s to answer, and anything but a status of the 200s is a
failure, a redirect too. A failed delivery is tried 8 more times over 4 hours with its original payload, at the address
its subscription had then. Neither delivery nor order is guaranteed, and some come twice: ask for that by
`WebhookSettings`.

Subscriptions are of two kinds: those of the app's configuration are every shop's (`App.subscriptions`), and those
made by the API are a shop's own. Only the latter are removed when all 8 retries of a delivery failed and nothing else
got through meanwhile ("after 8 consecutive failures": that these are counted so is our reading).

Subscriptions and deliveries are forgotten when the server stops.
"""

import json
import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import cast
from uuid import uuid4

from devstore.app import App, AppSubscription
from devstore.clock import Clock
from devstore.courier import Courier, Outcome
from devstore.gids import Gid
from devstore.installation import Installation
from devstore.outbox import Outbox
from devstore.signing import body_signature

# Number and span are Shopify's; that the steps grow is too, by how much is not published.
RETRY_AFTER_S = (60, 120, 300, 600, 1_200, 2_400, 3_600, 6_120)
DELIVERIES_KEPT_MAX = 100_000
AT_ONCE_MAX = 32
COMPLIANCE_TOPICS = ("customers/data_request", "customers/redact", "shop/redact")
# What an app hears of a shop that it is no longer installed in.
FAREWELL_TOPICS = frozenset({"app/uninstalled", *COMPLIANCE_TOPICS})

_USER_AGENT = "Shopify-Captain-Hook"
_NO_URL = "the app has no address yet: set its url"

Json = Mapping[str, object]


class DeliveryStatus(StrEnum):
    """Where a delivery is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    # Never sent, on request, or because its subscription is gone.
    DROPPED = "dropped"


@dataclass(slots=True)
class WebhookSettings:
    """How a shop's webhooks are delivered. Change it by `Webhooks.change`; what was emitted before is not affected.

    Attributes:
        paused: while it is true nothing is sent.
        shuffle: draw the next delivery at random from those that are due; pause first, to have many due.
        delay_ms: how long each is held back before its first try, at the least.
        delay_max_ms: the same at the most; the delay is drawn between the two, which changes their order too.
        drop_rate: the share, 0 to 1, that is never sent.
        double_rate: the share that is sent twice, with the same ids.
        bad_signature: sign with a secret that is not the app's.
        old_secret: sign with the app's old secret, as for up to an hour after a rotation.
        retry_speed: how many times faster than in reality a failed one is tried again.
        seed: what is drawn at random is drawn from this.
    """

    paused: bool = False
    shuffle: bool = False
    delay_ms: float = 0
    delay_max_ms: float = 0
    drop_rate: float = 0
    double_rate: float = 0
    bad_signature: bool = False
    old_secret: bool = False
    retry_speed: float = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ApiSubscription:
    """A subscription that was made by the API; `number` is that of its global id."""

    number: int
    topic: str
    uri: str
    include_fields: tuple[str, ...] | None = None
    name: str | None = None

    @property
    def gid(self) -> Gid:
        """Its global id."""
        return Gid("WebhookSubscription", self.number)


Subscription = AppSubscription | ApiSubscription


@dataclass(slots=True)
class Delivery:
    """One event on its way to one subscription.

    Attributes:
        number: 1 for the first of the shop.
        webhook_id: of this delivery, the same each time it is tried, and for its double.
        event_id: of the event, the same for every subscription.
        topic: `orders/paid`.
        subscription: what it is for.
        url: where it goes; None is nowhere.
        triggered_at: when it happened, as the header says it.
        body: the payload, to the byte.
        status: where it is.
        tries: what came of each try, the first one first.
        error: why it was dropped, if nobody asked for it.
    """

    number: int
    webhook_id: str
    event_id: str
    topic: str
    subscription: Subscription
    url: str | None
    triggered_at: str
    body: bytes = field(repr=False)
    status: DeliveryStatus = DeliveryStatus.WAITING
    tries: list[Outcome] = field(default_factory=list[Outcome])
    error: str | None = None


class Webhooks:
    """The webhooks of one shop, used from the server's loop.

    Attributes:
        settings: how they are delivered.
        deliveries: the last `DELIVERIES_KEPT_MAX`, oldest first.
        own: the shop's own subscriptions.
    """

    def __init__(self, domain: str, clock: Clock, app: App, courier: Courier, installation: Installation) -> None:
        self.settings = WebhookSettings()
        self.deliveries: deque[Delivery] = deque(maxlen=DELIVERIES_KEPT_MAX)
        self.own: list[ApiSubscription] = []
        self._installation = installation
        self._domain = domain
        self._clock = clock
        self._app = app
        self._courier = courier
        self._random = random.Random(0)  # noqa: S311  # mischief that can be repeated, no secret
        self._outbox = Outbox[Delivery](clock, self._send, AT_ONCE_MAX)
        self._last_number = 0
        self._last_subscription = 0
        self._got_through: dict[Subscription, float] = {}

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Everybody's and the shop's own."""
        return (*self._app.subscriptions, *self.own)

    def subscribe(
        self, topic: str, uri: str, include_fields: Iterable[str] | None = None, name: str | None = None
    ) -> ApiSubscription:
        """Subscribe as the API does: for this shop only."""
        self._last_subscription += 1
        fields = None if include_fields is None else tuple(include_fields)
        made = ApiSubscription(self._last_subscription, topic, uri, fields, name)
        self.own.append(made)
        return made

    def unsubscribe(self, number: int) -> bool:
        """Remove one of the shop's own subscriptions; False if there is none."""
        kept = [one for one in self.own if one.number != number]
        found, self.own = len(kept) < len(self.own), kept
        return found

    def emit(self, topic: str, payload: Json, *, triggered_at: datetime | None = None) -> list[Delivery]:
        """Tell every subscriber of a topic that something happened, in the background.

        Args:
            topic: `orders/paid`.
            payload: the REST resource as JSON; each subscription gets the fields it asked for.
            triggered_at: when it happened; now, if it is not given.

        Returns:
            The deliveries this leads to, their doubles included. None if nobody asked, or the app is not installed.
        """
        if not (self._installation.is_installed or topic in FAREWELL_TOPICS):
            return []
        moment = triggered_at or datetime.fromtimestamp(self._clock.wall(), UTC)
        stamp, event_id = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), str(uuid4())
        made: list[Delivery] = []
        for one in self.subscriptions:
            if one.topic == topic:
                shown = payload if one.include_fields is None else keep_fields(payload, one.include_fields)
                made += self._deliver(one, event_id, stamp, compact(shown))
        return made

    def change(self, changes: Mapping[str, object]) -> None:
        """Set some of the settings by name."""
        for name, value in changes.items():
            setattr(self.settings, name, value)
        if "seed" in changes:
            self._random.seed(self.settings.seed)
        self._outbox.paused = self.settings.paused
        self._outbox.shuffle = self._random if self.settings.shuffle else None
        self._outbox.look()

    def retry_now(self) -> int:
        """Send everything that waits to be tried again now; how many that were."""
        return self._outbox.retry_now()

    @property
    def waiting(self) -> int:
        """How many deliveries failed and wait to be tried again."""
        return self._outbox.waiting

    @property
    def pending(self) -> int:
        """How many are on their way, or could be."""
        return self._outbox.pending

    async def settle(self) -> None:
        """Wait until nothing is on its way; for ever if it is paused. What waits to be tried again does not count."""
        await self._outbox.settle()

    async def close(self) -> None:
        """Stop everything where it stands."""
        await self._outbox.close()

    def _deliver(self, subscription: Subscription, event_id: str, stamp: str, body: bytes) -> list[Delivery]:
        webhook_id, url = str(uuid4()), self._app.address(subscription.uri)
        is_dropped = self._random.random() < self.settings.drop_rate
        is_doubled = self._random.random() < self.settings.double_rate
        made: list[Delivery] = []
        for _ in range(2 if is_doubled and not is_dropped else 1):
            self._last_number += 1
            topic = subscription.topic
            one = Delivery(self._last_number, webhook_id, event_id, topic, subscription, url, stamp, body)
            self.deliveries.append(one)
            made.append(one)
            if is_dropped or url is None:
                one.status = DeliveryStatus.DROPPED
                one.error = None if is_dropped else _NO_URL
                continue
            low = self.settings.delay_ms
            hold_ms = self._random.uniform(low, max(low, self.settings.delay_max_ms))
            self._outbox.put(one, hold_s=hold_ms / 1_000)
        return made

    async def _send(self, one: Delivery) -> float | None:
        # A farewell goes out when the shop's own subscriptions are gone already.
        if one.subscription not in self.subscriptions and one.topic not in FAREWELL_TOPICS:
            one.status, one.error = DeliveryStatus.DROPPED, "its subscription is gone"
            return None
        outcome = await self._courier.carry("POST", cast("str", one.url), headers=self._headers(one), body=one.body)
        one.tries.append(outcome)
        if outcome.is_success:
            one.status = DeliveryStatus.DELIVERED
            self._got_through[one.subscription] = outcome.ended_s
            return None
        if len(one.tries) <= len(RETRY_AFTER_S):
            return RETRY_AFTER_S[len(one.tries) - 1] / self.settings.retry_speed
        one.status = DeliveryStatus.FAILED
        nothing_else = self._got_through.get(one.subscription, float("-inf")) < one.tries[0].started_s
        if nothing_else and isinstance(one.subscription, ApiSubscription):
            self.unsubscribe(one.subscription.number)
        return None

    def _headers(self, one: Delivery) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "X-Shopify-Topic": one.topic,
            "X-Shopify-Hmac-Sha256": body_signature(self._secret(), one.body),
            "X-Shopify-Shop-Domain": self._domain,
            "X-Shopify-API-Version": self._app.api_version,
            "X-Shopify-Webhook-Id": one.webhook_id,
            "X-Shopify-Event-Id": one.event_id,
            "X-Shopify-Triggered-At": one.triggered_at,
        }
        if one.subscription.name is not None:
            headers["X-Shopify-Name"] = one.subscription.name
        return headers

    def _secret(self) -> str:
        if self.settings.bad_signature:
            return f"not {self._app.client_secret}"
        if self.settings.old_secret and self._app.old_client_secret is not None:
            return self._app.old_client_secret
        return self._app.client_secret


def compact(payload: object) -> bytes:
    """A payload as it is sent: no spaces, slashes escaped, as Shopify's JSON has them."""
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    return text.replace("/", "\\/").encode()


def keep_fields(payload: Json, fields: Iterable[str]) -> dict[str, object]:
    """The named fields of a payload and nothing else; `customer.id` is a field of an object, or of each in a list."""
    wanted: dict[str, list[str]] = {}
    for one in fields:
        name, _, inner = one.partition(".")
        wanted.setdefault(name, []).append(inner)
    return {name: _kept(payload[name], inner) for name, inner in wanted.items() if name in payload}


def _kept(value: object, fields: list[str]) -> object:
    if "" in fields:
        return value
    if isinstance(value, list):
        return [_kept(one, fields) for one in cast("list[object]", value)]
    return keep_fields(cast("Json", value), fields) if isinstance(value, dict) else value
