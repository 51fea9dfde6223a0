"""The control API's part about the app: where it is, what it may, what it is told (the package documents each call)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from http import HTTPStatus
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devstore.app import App, AppSubscription
from devstore.control_calls import (
    PREFIX,
    BadRequestError,
    Handler,
    Json,
    answer,
    camel_keys,
    changes_of,
    customer_of,
    guarded,
    named_shop,
    number_of,
    read_body,
    text_of,
)
from devstore.courier import Outcome
from devstore.flow import ActionRun, NoSuchActionError
from devstore.frame import STAFF_USER
from devstore.installing import change_scopes, compliance_payload, install, shop_resource, uninstall
from devstore.shops import Shop
from devstore.signing import ID_TOKEN_ALGORITHM, id_token_claims, sign_id_token
from devstore.web import World
from devstore.webhooks import COMPLIANCE_TOPICS, ApiSubscription, Delivery, Subscription

_SECRETS = ("client_secret", "old_client_secret")
_ALGORITHMS = ("HS256", "HS384", "HS512", "none")


@dataclass(frozen=True, slots=True)
class AppControl:
    """The calls about the app, each a method that takes the request and gives its response."""

    world: World

    async def app(self, _request: Request) -> Response:
        """Show what Shopify knows of the app, its secrets left out."""
        return answer(_app_json(self.world.app))

    async def change_app(self, request: Request) -> Response:
        """Change it."""
        body = await read_body(request)
        changes = changes_of(self.world.app, body)
        if "subscriptions" in changes:
            given = cast("Sequence[object]", changes["subscriptions"])
            changes["subscriptions"] = tuple(_subscription(one) for one in given)
        self.world.app.change(changes)
        return answer(_app_json(self.world.app))

    async def installation(self, request: Request) -> Response:
        """Show what the app has of a shop, its tokens included."""
        return answer(_installation_json(self._shop(request)))

    async def install(self, request: Request) -> Response:
        """Install the app."""
        shop, body = self._shop(request), await read_body(request)
        install(shop, _texts(body, "scopes") if "scopes" in body else None)
        return answer(_installation_json(shop), HTTPStatus.CREATED)

    async def uninstall(self, request: Request) -> Response:
        """Uninstall it."""
        shop = self._shop(request)
        if not shop.installation.is_installed:
            raise BadRequestError("the app is not installed")
        uninstall(shop)
        return answer(_installation_json(shop))

    async def set_scopes(self, request: Request) -> Response:
        """Grant it other scopes."""
        shop, scopes = self._shop(request), _texts(await read_body(request), "scopes")
        if not shop.installation.is_installed:
            raise BadRequestError("the app is not installed")
        change_scopes(shop, scopes)
        return answer(_installation_json(shop))

    async def expire(self, request: Request) -> Response:
        """End the time of the access tokens that were given out, and of the refresh tokens if asked."""
        shop, body = self._shop(request), await read_body(request)
        shop.installation.expire(refresh_tokens=bool(body.get("refreshTokens", False)))
        return answer(_installation_json(shop))

    async def id_token(self, request: Request) -> Response:
        """Mint an ID token, a wrong one if asked."""
        shop, body, app = self._shop(request), await read_body(request), self.world.app
        algorithm = body.get("algorithm", ID_TOKEN_ALGORITHM)
        if algorithm not in _ALGORITHMS:
            raise BadRequestError(f"algorithm must be one of {', '.join(_ALGORITHMS)}, not {algorithm!r}")
        user = number_of(body, "userId", STAFF_USER)
        issued_s = shop.now_s() - number_of(body, "ageS", 0)
        claims = id_token_claims(shop.domain, app.client_id, user, issued_s)
        try:
            claims = claims.changed(cast("dict[str, object]", body.get("claims", {})))
        except TypeError as error:
            raise BadRequestError(f"claims are {', '.join(one.name for one in fields(claims))}") from error
        secret = str(body.get("secret", app.client_secret))
        return answer({"idToken": sign_id_token(claims, secret, str(algorithm))}, HTTPStatus.CREATED)

    async def deliveries(self, request: Request) -> Response:
        """List a shop's webhook deliveries, of one topic or later than a number if asked."""
        shop, asked = self._shop(request), request.query_params
        after, topic = number_of(dict(asked), "after", 0), asked.get("topic")
        kept = [one for one in shop.webhooks.deliveries if one.number > after and topic in {None, one.topic}]
        return answer([_delivery_json(one) for one in kept])

    async def forget_deliveries(self, request: Request) -> Response:
        """Empty the log; what is under way goes on."""
        self._shop(request).webhooks.deliveries.clear()
        return answer({})

    async def set_webhooks(self, request: Request) -> Response:
        """Change how a shop's webhooks are delivered, and show it."""
        webhooks, body = self._shop(request).webhooks, await read_body(request)
        webhooks.change(changes_of(webhooks.settings, body))
        return answer(camel_keys(asdict(webhooks.settings)))

    async def subscriptions(self, request: Request) -> Response:
        """List a shop's subscriptions."""
        return answer([_subscription_json(one) for one in self._shop(request).webhooks.subscriptions])

    async def subscribe(self, request: Request) -> Response:
        """Subscribe as the API does."""
        new = _subscription(await read_body(request))
        made = self._shop(request).webhooks.subscribe(new.topic, new.uri, new.include_fields, new.name)
        return answer(_subscription_json(made), HTTPStatus.CREATED)

    async def unsubscribe(self, request: Request) -> Response:
        """Remove a subscription that the API made."""
        number = cast("int", request.path_params["number"])
        return answer({"removed": self._shop(request).webhooks.unsubscribe(number)})

    async def emit(self, request: Request) -> Response:
        """Have something happen, as far as webhooks go."""
        shop, body = self._shop(request), await read_body(request)
        made = shop.webhooks.emit(text_of(body, "topic"), _payload(shop, body), triggered_at=_moment(body))
        return answer([_delivery_json(one) for one in made], HTTPStatus.CREATED)

    async def retry(self, request: Request) -> Response:
        """Try what failed again now."""
        return answer({"retried": self._shop(request).webhooks.retry_now()})

    async def settle(self, request: Request) -> Response:
        """Wait until no webhook is on its way."""
        webhooks = self._shop(request).webhooks
        if webhooks.settings.paused:
            raise BadRequestError("webhooks are paused, so they will not settle")
        await webhooks.settle()
        return answer({"waiting": webhooks.waiting})

    async def runs(self, request: Request) -> Response:
        """List a shop's runs of Flow actions."""
        return answer([_run_json(one) for one in self._shop(request).flow.runs])

    async def run(self, request: Request) -> Response:
        """Start one, and wait for its first outcome."""
        shop, body = self._shop(request), await read_body(request)
        properties = body.get("properties", {})
        if not isinstance(properties, dict):
            raise BadRequestError("properties must be an object")
        run_id = text_of(body, "actionRunId") if "actionRunId" in body else None
        try:
            started = shop.flow.run(text_of(body, "handle"), cast("Json", properties), run_id)
        except NoSuchActionError as error:
            raise BadRequestError(str(error)) from error
        await shop.flow.settle()
        return answer(_run_json(started), HTTPStatus.CREATED)

    async def retry_runs(self, request: Request) -> Response:
        """Send the runs that wait again now, and wait for their outcome."""
        flow = self._shop(request).flow
        retried = flow.retry_now()
        await flow.settle()
        return answer({"retried": retried})

    async def announce(self, request: Request) -> Response:
        """Turn the workflows with the app's trigger on or off, and tell the app."""
        enabled = (await read_body(request)).get("enabled")
        if not isinstance(enabled, bool):
            raise BadRequestError("enabled must be true or false")
        try:
            outcome = await self._shop(request).flow.announce(has_enabled_flow=enabled)
        except NoSuchActionError as error:
            raise BadRequestError(str(error)) from error
        return answer({"status": outcome.status, "error": outcome.error})

    async def triggers(self, request: Request) -> Response:
        """List the triggers the app fired."""
        fired = self._shop(request).flow.triggers
        return answer([{"handle": one.handle, "payload": one.payload, "wallS": one.wall_s} for one in fired])

    def _shop(self, request: Request) -> Shop:
        return named_shop(self.world.shops, request)


def app_control_routes(world: World) -> list[Route]:
    """Every route of it."""
    control = AppControl(world)
    shop = "/shops/{domain}"
    webhooks, flow = f"{shop}/webhooks", f"{shop}/flow"
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/app", control.app),
        ("PATCH", "/app", control.change_app),
        ("GET", f"{shop}/app", control.installation),
        ("POST", f"{shop}/app/install", control.install),
        ("POST", f"{shop}/app/uninstall", control.uninstall),
        ("PUT", f"{shop}/app/scopes", control.set_scopes),
        ("POST", f"{shop}/app/expire", control.expire),
        ("POST", f"{shop}/id-token", control.id_token),
        ("GET", webhooks, control.deliveries),
        ("DELETE", webhooks, control.forget_deliveries),
        ("PATCH", webhooks, control.set_webhooks),
        ("POST", f"{webhooks}/events", control.emit),
        ("POST", f"{webhooks}/retry", control.retry),
        ("POST", f"{webhooks}/settle", control.settle),
        ("GET", f"{webhooks}/subscriptions", control.subscriptions),
        ("POST", f"{webhooks}/subscriptions", control.subscribe),
        ("DELETE", f"{webhooks}/subscriptions/{{number:int}}", control.unsubscribe),
        ("GET", f"{flow}/runs", control.runs),
        ("POST", f"{flow}/runs", control.run),
        ("POST", f"{flow}/runs/retry", control.retry_runs),
        ("GET", f"{flow}/triggers", control.triggers),
        ("PUT", f"{flow}/workflow", control.announce),
    ]
    return [Route(f"{PREFIX}{path}", guarded(handler), methods=[method]) for method, path, handler in table]


def _texts(body: Json, name: str) -> list[str]:
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in cast("list[object]", value)):
        raise BadRequestError(f"{name} must be a list of texts")
    return cast("list[str]", value)


def _subscription(given: object) -> AppSubscription:
    if not isinstance(given, dict):
        raise BadRequestError("a subscription must be an object")
    body = cast("Json", given)
    fields_kept = None if body.get("includeFields") is None else tuple(_texts(body, "includeFields"))
    name = None if body.get("name") is None else text_of(body, "name")
    return AppSubscription(text_of(body, "topic"), text_of(body, "uri"), fields_kept, name)


def _payload(shop: Shop, body: Json) -> Json:
    topic, payload = text_of(body, "topic"), body.get("payload")
    if isinstance(payload, dict):
        return cast("Json", payload)
    if topic == "shop/update":
        return shop_resource(shop)
    if topic not in COMPLIANCE_TOPICS:
        raise BadRequestError(f"{topic} needs a payload")
    customer = customer_of(body["customerId"]).number if "customerId" in body else None
    orders = [number_of({"orderIds": one}, "orderIds") for one in cast("list[object]", body.get("orderIds", []))]
    try:
        return compliance_payload(topic, shop, customer, orders)
    except ValueError as error:
        raise BadRequestError(str(error)) from error


def _moment(body: Json) -> datetime | None:
    if body.get("triggeredAt") is None:
        return None
    try:
        moment = datetime.fromisoformat(text_of(body, "triggeredAt"))
    except ValueError as error:
        raise BadRequestError("triggeredAt must be a time as 2026-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        raise BadRequestError("triggeredAt needs its offset: 2026-01-31T12:00:00Z")
    return moment


def _app_json(app: App) -> Json:
    shown = {one.name: getattr(app, one.name) for one in fields(app) if one.name not in _SECRETS}
    subscriptions = [_subscription_json(one) for one in app.subscriptions]
    return {**camel_keys(shown), "flowActions": app.flow_actions, "subscriptions": subscriptions}


def _installation_json(shop: Shop) -> Json:
    installation = shop.installation
    grants = [camel_keys(asdict(one)) for one in installation.grants()]
    return {"installed": installation.is_installed, "scopes": installation.scopes, "grants": grants}


def _subscription_json(one: Subscription) -> Json:
    return {"number": one.number if isinstance(one, ApiSubscription) else None, **camel_keys(asdict(one))}


def _delivery_json(one: Delivery) -> Json:
    return {
        "number": one.number,
        "webhookId": one.webhook_id,
        "eventId": one.event_id,
        "topic": one.topic,
        "url": one.url,
        "triggeredAt": one.triggered_at,
        "status": one.status,
        "tries": [_outcome_json(outcome) for outcome in one.tries],
        "error": one.error,
        "body": one.body.decode(),
    }


def _run_json(one: ActionRun) -> Json:
    return {
        "actionRunId": one.action_run_id,
        "handle": one.handle,
        "url": one.url,
        "status": one.status,
        "tries": [_outcome_json(outcome) for outcome in one.tries],
        "body": one.body.decode(),
    }


def _outcome_json(one: Outcome) -> Mapping[str, object]:
    return {"startedS": one.started_s, "endedS": one.ended_s, "status": one.status, "error": one.error}
