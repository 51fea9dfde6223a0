"""Whatever a stranger sends, the answer is yes or `NotAuthentic`; nothing else comes out."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import jwt
import pytest
from app_requests import CLIENT_ID, SECRET, SHOP, VERIFIER, now, proxy_query, signed, webhook_headers
from hypothesis import given, settings
from hypothesis import strategies as st

from devstore.signing import body_signature
from metafield_sync.shopify.app import NotAuthentic
from metafield_sync.shopify.app.verification import HEADERS_READ, PROXY_PARAMETERS

EXAMPLES = 400
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
HEADER_TEXT = st.binary(max_size=60).map(lambda value: value.decode("latin-1"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
BODIES = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())
HEADERS = st.dictionaries(st.sampled_from(sorted(HEADERS_READ)) | ANY_TEXT, HEADER_TEXT | ANY_TEXT, max_size=8)


@given(headers=HEADERS, body=BODIES)
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_webhook_or_flow_action_of_a_strangers_gets_through(headers: dict[str, str], body: bytes) -> None:
    for verify in (VERIFIER.webhook, VERIFIER.flow_action):
        with pytest.raises(NotAuthentic):
            verify(headers, body)


@given(body=BODIES, changes=HEADERS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_signed_body_with_any_headers_raises_nothing_else(body: bytes, changes: dict[str, str]) -> None:
    for verify in (VERIFIER.webhook, VERIFIER.flow_action):
        with contextlib.suppress(NotAuthentic):
            verify(webhook_headers(body) | changes, body)
        with contextlib.suppress(NotAuthentic):
            verify({"x-shopify-hmac-sha256": body_signature(SECRET, body)}, body)


@given(
    envelope=st.fixed_dictionaries(
        {},
        optional={
            name: JSON | st.just(SHOP) for name in ("shopify_domain", "action_run_id", "properties", "handle", "x")
        },
    )
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_signed_flow_action_of_any_shape_raises_nothing_else(envelope: dict[str, Any]) -> None:
    body = json.dumps(envelope).encode()
    with contextlib.suppress(NotAuthentic):
        VERIFIER.flow_action({"x-shopify-hmac-sha256": body_signature(SECRET, body)}, body)


@given(query=st.lists(st.tuples(st.sampled_from(sorted(PROXY_PARAMETERS)) | ANY_TEXT, ANY_TEXT), max_size=8))
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_proxied_request_of_a_strangers_gets_through(query: list[tuple[str, str]]) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.proxy(query, now())


@given(changes=st.dictionaries(st.sampled_from(["shop", "timestamp", "logged_in_customer_id", "format"]), ANY_TEXT))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_signed_request_with_any_values_raises_nothing_else(changes: dict[str, str]) -> None:
    pairs = [(name, changes.get(name, value)) for name, value in proxy_query(format="json") if name != "signature"]
    with contextlib.suppress(NotAuthentic, UnicodeEncodeError):  # half a surrogate pair cannot even be signed
        pairs = signed(pairs)
    with contextlib.suppress(NotAuthentic):
        VERIFIER.proxy(pairs, now())


@given(token=ANY_TEXT | st.lists(st.from_regex(r"[A-Za-z0-9_-]*", fullmatch=True), max_size=4).map(".".join))
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_token_of_a_strangers_gets_through(token: str) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.id_token(token)


@given(claims=st.dictionaries(st.sampled_from(["exp", "iat", "nbf", "iss", "dest", "sub", "jti", "aud"]), JSON))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_signed_token_with_any_claims_raises_nothing_else(claims: dict[str, Any]) -> None:
    seconds = int(time.time())
    usual = {
        "iss": f"https://{SHOP}/admin",
        "dest": f"https://{SHOP}",
        "aud": CLIENT_ID,
        "sub": "42",
        "exp": seconds + 60,
        "nbf": seconds,
        "iat": seconds,
    }
    with contextlib.suppress(UnicodeEncodeError):
        # As the library encodes them, but for its own checks of what it is given.
        body = json.dumps(usual | claims).encode()
        token = jwt.PyJWS().encode(body, SECRET, "HS256")
        with contextlib.suppress(NotAuthentic):
            VERIFIER.id_token(token)
