"""The app that is installed in the shops: one for all of them, as far as Shopify knows it."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urljoin, urlsplit

CLIENT_ID = "devstore-client-id"
# As long as a real one: libraries warn of a key that is shorter than the 32 bytes of its hash.
CLIENT_SECRET = "devstore-client-secret-for-this-stand-in"  # noqa: S105  # opens nothing else

ACCESS_SCOPES: dict[str, str] = {
    "read_customers": "Read customer details and customer groups",
    "write_customers": "Modify customer details and customer groups",
    "read_customer_merge": "Read customer merge requests",
    "write_customer_merge": "Merge customers",
    "read_orders": "Read orders, transactions, and fulfillments",
    "write_orders": "Modify orders, transactions, and fulfillments",
    "read_all_orders": "Read all orders",
    "write_app_proxy": "Modify the app proxy",
}


@dataclass(frozen=True, slots=True)
class AppSubscription:
    """A webhook subscription of the app's configuration: every shop that has the app has it.

    Attributes:
        topic: `orders/paid`.
        uri: where to, absolute or below the app's address.
        include_fields: the only fields its payloads have, `customer.id` for a nested one; None is all of them.
        name: what the deliveries' `X-Shopify-Name` says; none is sent without one.
    """

    topic: str
    uri: str
    include_fields: tuple[str, ...] | None = None
    name: str | None = None


@dataclass(slots=True)
class App:
    """What Shopify knows of the app. Change it at any time.

    Attributes:
        client_id: of its credentials.
        client_secret: what everything is signed with.
        old_client_secret: the one before, while it is being rotated: ID tokens and grants with it are still good.
        url: where it is, `http://127.0.0.1:8000`; nothing reaches an app that is nowhere.
        handle: its name in addresses.
        title: its name for people.
        home: the page that the admin's frame opens, below `url`.
        scopes: what it asks for, and is granted, when it is installed.
        api_version: of its webhooks.
        subscriptions: webhooks of every shop that has it installed.
        proxy_prefix: first part of its storefront addresses.
        proxy_subpath: second part of them: `/apps/points/…`.
        proxy_path: what they lead to, below `url`.
        flow_actions: path of each of its Flow actions below `url`, by handle.
        flow_lifecycle: path of its lifecycle callback for Flow triggers below `url`; None if it has none.
        same_organization: it belongs to the shops' owner, who may then use client credentials.
    """

    client_id: str = CLIENT_ID
    client_secret: str = field(default=CLIENT_SECRET, repr=False)
    old_client_secret: str | None = field(default=None, repr=False)
    url: str | None = None
    handle: str = "points"
    title: str = "Points"
    home: str = "/app"
    scopes: tuple[str, ...] = tuple(ACCESS_SCOPES)
    api_version: str = "2026-10"
    subscriptions: tuple[AppSubscription, ...] = ()
    proxy_prefix: str = "apps"
    proxy_subpath: str = "points"
    proxy_path: str = "/proxy"
    flow_lifecycle: str | None = "/flow/lifecycle"
    flow_actions: dict[str, str] = field(default_factory=lambda: {"adjust-points": "/flow/adjust-points"})
    same_organization: bool = True

    @property
    def accepted_secrets(self) -> tuple[str, ...]:
        """The secrets that are good at this moment, the newest first."""
        return (self.client_secret,) if self.old_client_secret is None else (self.client_secret, self.old_client_secret)

    def address(self, path: str) -> str | None:
        """Where something of the app is: an absolute address stays; None if the app is nowhere."""
        if urlsplit(path).scheme:
            return path
        return None if self.url is None else urljoin(f"{self.url.rstrip('/')}/", path.lstrip("/"))

    def change(self, changes: Mapping[str, object]) -> None:
        """Set some of it by name."""
        for name, value in changes.items():
            setattr(self, name, value)

    def configure(self, path: Path) -> None:
        """Take over what a `shopify.app.toml` says: scopes, webhooks, app proxy, names and client id.

        Its addresses count by their paths alone, below `url`, as in `shopify app dev`, which puts its own in front.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no TOML, or a subscription in it has no address.
        """
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        self.client_id = str(read.get("client_id") or self.client_id)
        self.title = str(read.get("name") or self.title)
        self.handle = str(read.get("handle") or self.handle)
        scopes = str(_table(read, "access_scopes").get("scopes", ""))
        self.scopes = tuple(one.strip() for one in scopes.split(",") if one.strip())
        webhooks, proxy = _table(read, "webhooks"), _table(read, "app_proxy")
        self.api_version = str(webhooks.get("api_version", self.api_version))
        self.subscriptions = tuple(_subscriptions(webhooks))
        if proxy:
            self.proxy_prefix = str(proxy.get("prefix", self.proxy_prefix))
            self.proxy_subpath = str(proxy.get("subpath", self.proxy_subpath))
            self.proxy_path = urlsplit(str(proxy.get("url", self.proxy_path))).path or "/"


def subscribe(topics: Sequence[str], uri: str = "/webhooks") -> tuple[AppSubscription, ...]:
    """A subscription for each topic, to one address."""
    return tuple(AppSubscription(topic, uri) for topic in topics)


def _table(read: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = read.get(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"{name} is no table")  # noqa: TRY004  # all that is wrong with a file is one error
    return cast("Mapping[str, object]", found)


def _subscriptions(webhooks: Mapping[str, object]) -> list[AppSubscription]:
    found: list[AppSubscription] = []
    for one in cast("Sequence[Mapping[str, object]]", webhooks.get("subscriptions", ())):
        if "uri" not in one:
            raise ValueError("a webhook subscription has no uri")
        fields = cast("Sequence[str] | None", one.get("include_fields"))
        topics = (
            *cast("Sequence[str]", one.get("topics", ())),
            *cast("Sequence[str]", one.get("compliance_topics", ())),
        )
        for topic in topics:
            kept = None if fields is None else tuple(fields)
            found.append(AppSubscription(topic, str(one["uri"]), kept, cast("str | None", one.get("name"))))
    return found
