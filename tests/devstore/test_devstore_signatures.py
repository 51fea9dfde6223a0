"""What the devstore signs is what Shopify would have signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import string

import jwt
import pytest
from app_support import SECRET
from hypothesis import given
from hypothesis import strategies as st

from devstore.signing import (
    body_signature,
    frame_signature,
    id_token_claims,
    id_token_trouble,
    proxy_signature,
    sign_id_token,
)

NOW_S = 1_790_000_000
DOMAIN = "demo.myshopify.com"
NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("customer", "signature"),
    [
        ("1", "4c68c8624d737112c91818c11017d24d334b524cb5c2b8ba08daa056f7395ddb"),
        ("", "e072b6d7e6622d85912a5214b860d3100dc1e73d9bc29f43796ac8c9ff8093cb"),
    ],
)
def test_the_proxys_signature_agrees_with_shopifys_example(customer: str, signature: str) -> None:
    query = [
        ("extra", "1"),
        ("extra", "2"),
        ("shop", "shop-name.myshopify.com"),
        ("logged_in_customer_id", customer),
        ("path_prefix", "/apps/awesome_reviews"),
        ("timestamp", "1317327555"),
    ]
    assert proxy_signature("hush", query) == signature


def test_the_proxys_signature_sorts_by_name_and_not_by_pair() -> None:
    # "page2=a" sorts before "page=b", but "page" before "page2".
    expected = hmac.new(b"hush", b"page=bpage2=a", hashlib.sha256).hexdigest()
    assert proxy_signature("hush", [("page2", "a"), ("page", "b")]) == expected


@given(st.lists(st.tuples(NAMES, NAMES), max_size=6, unique_by=lambda pair: pair[0]))
def test_the_proxys_signature_does_not_depend_on_the_order_of_names(query: list[tuple[str, str]]) -> None:
    assert proxy_signature("hush", query) == proxy_signature("hush", query[::-1])


def test_the_frames_signature_has_an_ampersand_between_the_pairs() -> None:
    expected = hmac.new(b"hush", b"host=YQ&shop=demo.myshopify.com", hashlib.sha256).hexdigest()
    assert frame_signature("hush", [("shop", DOMAIN), ("host", "YQ")]) == expected


def test_a_body_is_signed_to_the_byte_and_in_base64() -> None:
    body = '{"name":"Zoë"}'.encode()
    assert body_signature("hush", body) == base64.b64encode(hmac.new(b"hush", body, hashlib.sha256).digest()).decode()
    assert body_signature("hush", body) != body_signature("hush", body + b" ")


def test_an_id_token_says_what_app_bridges_says() -> None:
    token = sign_id_token(id_token_claims(DOMAIN, "client", 7, NOW_S), SECRET)
    said = jwt.decode(token, SECRET, ["HS256"], audience="client", options={"verify_exp": False, "verify_nbf": False})
    assert said.keys() == {"iss", "dest", "aud", "sub", "exp", "nbf", "iat", "jti", "sid"}
    assert (said["iss"], said["dest"]) == (f"https://{DOMAIN}/admin", f"https://{DOMAIN}")
    assert (said["aud"], said["sub"]) == ("client", "7")
    assert (said["iat"], said["nbf"], said["exp"]) == (NOW_S, NOW_S, NOW_S + 60)
    assert jwt.get_unverified_header(token)["alg"] == "HS256"


def test_a_good_id_token_is_accepted_and_one_with_the_old_secret_too() -> None:
    token = sign_id_token(id_token_claims(DOMAIN, "client", 1, NOW_S), SECRET)
    assert id_token_trouble(token, DOMAIN, "client", ["newer" * 8, SECRET], NOW_S + 69) is None


@pytest.mark.parametrize(
    ("changes", "secret", "algorithm", "later_s"),
    [
        ({}, "other" * 16, "HS256", 0),
        ({}, SECRET, "HS384", 0),
        ({}, SECRET, "none", 0),
        ({}, SECRET, "HS256", 71),
        ({"exp": None}, SECRET, "HS256", 0),
        ({"nbf": NOW_S + 60}, SECRET, "HS256", 0),
        ({"aud": "another"}, SECRET, "HS256", 0),
        ({"dest": "https://other.myshopify.com"}, SECRET, "HS256", 0),
    ],
)
def test_a_wrong_id_token_is_refused(changes: dict[str, object], secret: str, algorithm: str, later_s: int) -> None:
    claims = id_token_claims(DOMAIN, "client", 1, NOW_S).changed(changes)
    token = sign_id_token(claims, secret, algorithm)
    assert id_token_trouble(token, DOMAIN, "client", [SECRET], NOW_S + later_s) is not None
