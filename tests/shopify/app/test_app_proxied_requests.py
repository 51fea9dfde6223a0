"""Requests through the app proxy: signed as a whole, by a scheme that says nothing of where one value ends."""

from __future__ import annotations

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import shopify_app.verify.app_proxy
from app_requests import (
    CLIENT_ID,
    CUSTOMER,
    FOREIGN_SECRET,
    OLD_SECRET,
    ROTATING,
    SHOP,
    VERIFIER,
    Pairs,
    now,
    proxy_query,
    signed,
)
from shopify_app import RequestInput, ShopifyApp

from metafield_sync.shopify.app import NotAuthentic, ProxyRequest
from metafield_sync.shopify.app.verification import PROXY_AGE_MAX_S

VECTORS_SECRET = "hush"  # noqa: S105 - the documentation's
VECTORS_TIME = 1_317_327_555
VECTORS = {
    "1": "4c68c8624d737112c91818c11017d24d334b524cb5c2b8ba08daa056f7395ddb",
    "": "e072b6d7e6622d85912a5214b860d3100dc1e73d9bc29f43796ac8c9ff8093cb",
}
"""Of Shopify's documentation: who is logged in, and the signature."""


def vector(customer: str) -> Pairs:
    return [
        ("extra", "1"),
        ("extra", "2"),
        ("shop", "shop-name.myshopify.com"),
        ("logged_in_customer_id", customer),
        ("path_prefix", "/apps/awesome_reviews"),
        ("timestamp", str(VECTORS_TIME)),
    ]


@pytest.mark.parametrize("customer", VECTORS)
def test_we_sign_and_shopifys_package_verifies_as_the_documentation_has_it(
    customer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = signed(vector(customer), VECTORS_SECRET)
    assert dict(pairs)["signature"] == VECTORS[customer]
    monkeypatch.setattr(shopify_app.verify.app_proxy, "time", SimpleNamespace(time=lambda: VECTORS_TIME))
    url = "/?" + "&".join(f"{name}={value}" for name, value in pairs)
    request = RequestInput(method="GET", headers={}, url=url, body="")
    assert ShopifyApp(CLIENT_ID, VECTORS_SECRET).verify_app_proxy_req(request).ok
    assert not ShopifyApp(CLIENT_ID, FOREIGN_SECRET).verify_app_proxy_req(request).ok


def test_it_says_who_is_logged_in_where() -> None:
    assert VERIFIER.proxy(proxy_query(), now()) == ProxyRequest(SHOP, CUSTOMER, None)
    assert VERIFIER.proxy(proxy_query(format="liquid"), now()) == ProxyRequest(SHOP, CUSTOMER, "liquid")


def test_a_blank_customer_is_nobody() -> None:
    assert VERIFIER.proxy(proxy_query(customer=None), now()).customer_id is None


def test_the_secret_before_the_rotation_is_good_only_where_it_is_set() -> None:
    assert ROTATING.proxy(proxy_query(OLD_SECRET), now()).customer_id == CUSTOMER
    for secret in (OLD_SECRET, FOREIGN_SECRET):
        with pytest.raises(NotAuthentic, match="signature"):
            VERIFIER.proxy(proxy_query(secret), now())


def test_it_is_good_for_90_seconds_before_and_after_our_clock() -> None:
    query = proxy_query()
    at = now()
    for seconds in (PROXY_AGE_MAX_S - 2, 2 - PROXY_AGE_MAX_S):
        assert VERIFIER.proxy(query, at + timedelta(seconds=seconds)).customer_id == CUSTOMER
    for seconds in (PROXY_AGE_MAX_S + 2, -PROXY_AGE_MAX_S - 2):
        with pytest.raises(NotAuthentic, match="timestamp"):
            VERIFIER.proxy(query, at + timedelta(seconds=seconds))


@pytest.mark.parametrize("at_s", [-PROXY_AGE_MAX_S - 2, PROXY_AGE_MAX_S + 20, -3600, 3600])
def test_a_replay_and_a_request_of_the_future_are_refused(at_s: float) -> None:
    with pytest.raises(NotAuthentic, match="timestamp"):
        VERIFIER.proxy(proxy_query(at=time.time() + at_s), now())


@pytest.mark.parametrize("name", ["shop", "timestamp", "logged_in_customer_id", "path_prefix", "format"])
def test_a_doubled_parameter_is_refused_though_both_are_signed(name: str) -> None:
    pairs = [(key, value) for key, value in proxy_query(format="json") if key != "signature"]
    with pytest.raises(NotAuthentic, match=f"{name} is given more than once"):
        VERIFIER.proxy(signed([*pairs, (name, dict(pairs)[name])]), now())


@pytest.mark.parametrize("name", ["logged_in_customer_id", "signature"])
def test_a_parameter_doubled_on_the_way_is_refused(name: str) -> None:
    query = proxy_query()
    for doubled in ([*query, (name, dict(query)[name])], [(name, "1"), *query]):
        with pytest.raises(NotAuthentic, match=name):
            VERIFIER.proxy(doubled, now())


@pytest.mark.parametrize("name", ["shop", "timestamp", "signature"])
def test_without_shop_time_or_signature_it_is_refused(name: str) -> None:
    less = [(key, value) for key, value in proxy_query() if key not in {name, "signature"}]
    query = less if name == "signature" else signed(less)
    with pytest.raises(NotAuthentic, match=f"{name} is missing"):
        VERIFIER.proxy(query, now())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shop", "evil.example.com"),
        ("shop", "demo.myshopify.com.evil.example"),
        ("shop", "Demo.myshopify.com"),
        ("shop", ""),
        ("logged_in_customer_id", "1,2"),
        ("logged_in_customer_id", "-1"),
        ("logged_in_customer_id", "0"),
        ("logged_in_customer_id", "٣"),
        ("logged_in_customer_id", str(2**63)),
        ("logged_in_customer_id", "6940095564 "),
        ("timestamp", "-1"),
        ("timestamp", "٣"),
        ("timestamp", "1e9"),
        ("path_prefix", "/apps/x=1"),
        ("path_prefix", "/apps/pöints"),
        ("format", "html"),
    ],
)
def test_a_value_that_cannot_be_is_refused_though_it_is_signed(name: str, value: str) -> None:
    pairs = [(key, value if key == name else old) for key, old in proxy_query(format="json") if key != "signature"]
    with pytest.raises(NotAuthentic, match=name):
        VERIFIER.proxy(signed(pairs), now())


@pytest.mark.parametrize("name", ["page", "extra", "Shop", "hmac", "", "shop\x00"])
def test_an_unknown_parameter_is_refused_though_it_is_signed(name: str) -> None:
    pairs = [(key, value) for key, value in proxy_query() if key != "signature"]
    with pytest.raises(NotAuthentic, match="not taken here"):
        VERIFIER.proxy(signed([*pairs, (name, "1")]), now())


def test_boundaries_cannot_be_moved() -> None:
    """What a shopper may have signed as one parameter of their own choice, read as who is logged in."""
    at = str(int(time.time()))
    honest: Pairs = [
        ("a", f"1format=jsonlogged_in_customer_id=2path_prefix=/apps/pointsshop={SHOP}"),
        ("timestamp", at),
    ]
    signature = dict(signed(honest))["signature"]
    victim = [
        ("a", "1"),
        ("format", "json"),
        ("logged_in_customer_id", "2"),
        ("path_prefix", "/apps/points"),
        ("shop", SHOP),
        ("timestamp", at),
    ]
    assert dict(signed(victim))["signature"] == signature, "the scheme itself cannot tell them apart"
    with pytest.raises(NotAuthentic):
        VERIFIER.proxy([*victim, ("signature", signature)], now())
    with pytest.raises(NotAuthentic):
        VERIFIER.proxy([*victim[1:], ("signature", signature)], now())


def test_another_shop_or_customer_in_a_signed_request_is_refused() -> None:
    for name, value in (("shop", "other.myshopify.com"), ("logged_in_customer_id", "7"), ("timestamp", "")):
        query = [(key, value if key == name else old) for key, old in proxy_query()]
        with pytest.raises(NotAuthentic):
            VERIFIER.proxy(query, now())
