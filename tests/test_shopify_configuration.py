"""The app as Shopify is told of it, held against the code: what it sends, where to, and what we make of it."""

from __future__ import annotations

import pkgutil
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import APIRouter

from metafield_sync.settings import Settings
from metafield_sync.shopify.app import FlowRequest
from metafield_sync.shopify.flow import TRIGGER_HANDLE, BalanceChange
from metafield_sync.sync.inbox.fields import COMPLIANCE_TOPICS, FIELDS, include_fields
from metafield_sync.sync.inbox.handlers import HANDLERS
from metafield_sync.sync.install.scopes import WANTED_SCOPES
from metafield_sync.web import routes
from metafield_sync.web.routes.flow import read_adjustment
from metafield_sync.web.routes.webhooks import WEBHOOKS

if TYPE_CHECKING:
    from graphql import GraphQLSchema

ROOT = Path(__file__).parents[1]
APP = tomllib.loads((ROOT / "shopify.app.toml").read_text())
WEB = tomllib.loads((ROOT / "shopify.web.toml").read_text())
EXTENSIONS = {path.parent.name: tomllib.loads(path.read_text()) for path in ROOT.glob("extensions/*/*.extension.toml")}
DECLARED: list[dict[str, Any]] = [one for extension in EXTENSIONS.values() for one in extension["extensions"]]
SUBSCRIPTIONS: list[dict[str, Any]] = APP["webhooks"]["subscriptions"]
PERSONAL = re.compile(r"name$|title|address|e_?mail|phone|note|tags|browser|ip$|token|url|birth|card_number")
"""What identifies a person, or tells of one, in the payloads of orders, refunds and customers."""
FIELD_TYPES_OF_TRIGGERS = {"customer_reference", "boolean", "email", "single_line_text_field", "url", "number_decimal"}
"""What Shopify's CLI 4.8.2 can deploy of what we might use. `app build` does not look; `app deploy` does."""


def subscribed() -> dict[str, tuple[str, ...] | None]:
    """Each topic's `include_fields`."""
    return {
        topic: tuple(subscription["include_fields"]) if "include_fields" in subscription else None
        for subscription in SUBSCRIPTIONS
        for topic in [*subscription.get("topics", []), *subscription.get("compliance_topics", [])]
    }


NONE = APIRouter()


def served() -> set[tuple[str, str]]:
    """Each address under /, with the method it answers to."""
    modules = [import_module(f"{routes.__name__}.{module.name}") for module in pkgutil.iter_modules(routes.__path__)]
    found: list[Any] = [WEBHOOKS, *(route for module in modules for route in getattr(module, "router", NONE).routes)]
    return {(method, route.path) for route in found for method in route.methods}


def test_shopify_sends_exactly_the_topics_and_fields_that_are_handled() -> None:
    assert subscribed() == {topic: include_fields(topic) for topic in FIELDS}
    assert set(subscribed()) == set(HANDLERS)


def test_no_topic_is_subscribed_twice() -> None:
    topics = [topic for one in SUBSCRIPTIONS for topic in one.get("topics", []) + one.get("compliance_topics", [])]
    assert len(topics) == len(set(topics))


def test_the_compliance_topics_are_where_shopify_looks_for_them() -> None:
    assert {topic for one in SUBSCRIPTIONS for topic in one.get("compliance_topics", [])} == COMPLIANCE_TOPICS


def test_nothing_that_identifies_a_person_is_asked_for() -> None:
    asked = {field for fields in subscribed().values() for field in fields or ()}
    personal = {field for field in asked if PERSONAL.search(field.rsplit(".", 1)[-1])}
    # The shop's plan is no person's.
    assert personal == {"plan_name"}


@pytest.mark.parametrize("version", ["2026-07", "2026-10"])
def test_shopify_knows_the_topics(published_schemas: dict[str, GraphQLSchema], version: str) -> None:
    topics: Any = published_schemas[version].type_map["WebhookSubscriptionTopic"]
    wanted = {topic.upper().replace("/", "_") for topic in FIELDS if topic not in COMPLIANCE_TOPICS}
    assert wanted <= set(topics.values)


def test_webhooks_come_in_the_version_that_the_api_is_asked_in() -> None:
    assert APP["webhooks"]["api_version"] == Settings.model_fields["shopify_api_version"].default


def test_the_scopes_are_those_the_code_looks_for_and_each_has_its_reason() -> None:
    text = (ROOT / "shopify.app.toml").read_text()
    asked = APP["access_scopes"]["scopes"].split(",")
    implied = {scope.replace("write_", "read_", 1) for scope in asked if scope.startswith("write_")}
    assert set(asked) <= set(WANTED_SCOPES) <= set(asked) | implied
    for scope in asked:
        assert re.search(rf"^# {scope} +\w+", text, re.MULTILINE), f"{scope} has no reason"


def test_shopify_is_sent_to_addresses_that_exist() -> None:
    assert {one["uri"] for one in SUBSCRIPTIONS} == {"/webhooks"}
    assert ("POST", "/webhooks") in served()
    assert WEB["webhooks_path"] == "/webhooks"
    assert ("GET", f"{APP['app_proxy']['url']}/balance") in served()
    called = {one.get("runtime_url", one.get("url")) for one in DECLARED}
    assert {("POST", path) for path in called if path is not None} <= served()
    assert "/flow/adjust-points" in called
    # Shopify opens the app at its address itself; the command line puts what begins with a slash behind that address.
    assert not APP["application_url"].removeprefix("https://").count("/")
    assert {("GET", "/"), ("GET", "/app")} <= served()
    assert [url.removeprefix(APP["application_url"]) for url in APP["auth"]["redirect_urls"]] == ["/app"]


def test_the_extensions_are_of_kinds_that_shopify_has() -> None:
    # Of a kind it does not know, `app build` says nothing: some are known to Shopify's servers alone.
    kinds = sorted(one["type"] for one in DECLARED)
    assert kinds == ["flow_action", "flow_trigger", "flow_trigger_lifecycle_callback"]
    assert {one["handle"] for one in DECLARED} == set(EXTENSIONS)
    assert len({one["uid"] for one in DECLARED}) == len(DECLARED)


def test_flow_is_told_what_its_trigger_declares() -> None:
    extension = EXTENSIONS["points-balance-changed"]
    assert extension["extensions"][0]["handle"] == TRIGGER_HANDLE
    fields = extension["settings"]["fields"]
    assert {field["type"] for field in fields} <= FIELD_TYPES_OF_TRIGGERS
    keys = {"customer_id" if field["type"] == "customer_reference" else field["key"] for field in fields}
    assert set(BalanceChange(1, 2, 3).payload()) == keys


def test_flow_may_send_everything_that_its_action_declares() -> None:
    samples = {
        "customer_reference": "123",
        "number_integer": "-10",
        "single_line_text_field": "sorry",
        "boolean": "true",
    }
    sent = {
        "customer_id" if field["type"] == "customer_reference" else field["key"]: samples[field["type"]]
        for field in EXTENSIONS["adjust-points"]["settings"]["fields"]
    }
    handle = EXTENSIONS["adjust-points"]["extensions"][0]["handle"]
    posting = read_adjustment(FlowRequest("demo.myshopify.com", "run-1", handle, sent))
    assert (posting.shopify_customer_id, posting.amount, posting.allow_negative) == (123, -10, True)
    assert posting.metadata == {"note": "sorry"}
