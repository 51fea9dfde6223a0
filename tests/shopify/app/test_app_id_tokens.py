"""ID tokens: who opened the embedded app, for a minute, and for nothing else."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from app_requests import (
    CLIENT_ID,
    FOREIGN_SECRET,
    OLD_SECRET,
    OTHER_SHOP,
    ROTATING,
    SECRET,
    SHOP,
    USER,
    VERIFIER,
    id_token,
)

from metafield_sync.shopify.app import AppCredentials, AppNotConfigured, NotAuthentic, Verifier
from metafield_sync.shopify.app.verification import CLOCK_LEEWAY_S, ID_TOKEN_AGE_MAX_S

MARGIN_S = 5
"""Tokens tell whole seconds, and a test takes some time."""


def test_it_says_which_member_of_staff_of_which_shop() -> None:
    token = id_token()
    said = VERIFIER.id_token(token)
    assert (said.shop_domain, said.user_id, said.token) == (SHOP, USER, token)
    assert 0 < said.expires_at.timestamp() - time.time() <= 60
    assert token not in repr(said)


def test_the_secret_before_the_rotation_is_good_only_where_it_is_set() -> None:
    assert ROTATING.id_token(id_token(OLD_SECRET)).shop_domain == SHOP
    for secret in (OLD_SECRET, FOREIGN_SECRET):
        with pytest.raises(NotAuthentic):
            VERIFIER.id_token(id_token(secret))


def test_clocks_may_differ_a_little() -> None:
    assert VERIFIER.id_token(id_token(age_s=60 + CLOCK_LEEWAY_S - MARGIN_S))
    assert VERIFIER.id_token(id_token(age_s=MARGIN_S - CLOCK_LEEWAY_S))


@pytest.mark.parametrize("age_s", [60 + CLOCK_LEEWAY_S + MARGIN_S, 3600, -CLOCK_LEEWAY_S - MARGIN_S, -3600])
def test_an_expired_token_and_one_of_the_future_are_refused(age_s: float) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.id_token(id_token(age_s=age_s))


def test_a_token_is_refused_past_its_age_however_late_it_expires() -> None:
    late = int(time.time()) + 10**6
    young = VERIFIER.id_token(id_token(age_s=ID_TOKEN_AGE_MAX_S - MARGIN_S, exp=late))
    assert young.expires_at.timestamp() - time.time() <= MARGIN_S
    with pytest.raises(NotAuthentic, match="old"):
        VERIFIER.id_token(id_token(age_s=ID_TOKEN_AGE_MAX_S + CLOCK_LEEWAY_S + MARGIN_S, exp=late))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another-app"},
        {"aud": None},
        {"aud": [CLIENT_ID, "another-app"]},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 10**400},
        {"exp": 1e300},
        {"iat": None},
        {"iat": 0},
        {"iat": -1},
        {"nbf": 2**40},
        {"nbf": "now"},
        {"iss": None},
        {"iss": f"https://{OTHER_SHOP}/admin"},
        {"iss": f"https://{SHOP}"},
        {"iss": f"https://{SHOP}/admin/x"},
        {"iss": f"http://{SHOP}/admin"},
        {"dest": None},
        {"dest": f"https://{OTHER_SHOP}"},
        {"dest": "https://evil.example.com", "iss": "https://evil.example.com/admin"},
        {"dest": f"https://{SHOP}.evil.example", "iss": f"https://{SHOP}.evil.example/admin"},
        {"dest": f"https://https://{SHOP}", "iss": f"https://https://{SHOP}/admin"},
        {"dest": f"https://{SHOP}/", "iss": f"https://{SHOP}//admin"},
        {"dest": [f"https://{SHOP}"]},
        {"sub": None},
        {"sub": ""},
        {"sub": "0"},
        {"sub": "٤٢"},
        {"sub": "gid://shopify/Customer/42"},
        {"jti": 7},
    ],
    ids=lambda claims: str(claims)[:60],
)
def test_a_signed_token_with_another_claim_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.id_token(id_token(**claims))


def test_a_shoppers_token_of_a_checkout_extension_opens_nothing() -> None:
    """It has the same secret and the same audience; it names no issuer, and a customer where staff are named."""
    seconds = int(time.time())
    claims = {"dest": SHOP, "aud": CLIENT_ID, "exp": seconds + 300, "nbf": seconds, "iat": seconds, "jti": "1"}
    for sub in ({}, {"sub": "gid://shopify/Customer/6940095564"}):
        with pytest.raises(NotAuthentic):
            VERIFIER.id_token(jwt.encode(claims | sub, SECRET, "HS256"))


@pytest.mark.parametrize("algorithm", ["none", "HS384", "HS512"])
def test_only_the_one_algorithm_is_taken(algorithm: str) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.id_token(id_token(algorithm=algorithm))


def test_a_signature_cannot_be_taken_off_nor_the_claims_exchanged() -> None:
    header, claims, signature = id_token().split(".")
    other = id_token(dest=f"https://{OTHER_SHOP}", iss=f"https://{OTHER_SHOP}/admin").split(".")[1]
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).decode().rstrip("=")
    for forged in (
        f"{header}.{claims}.",
        f"{none}.{claims}.",
        f"{none}.{claims}.{signature}",
        f"{header}.{other}.{signature}",
        f"{header}.{claims}.{signature[:-2]}",
        f"{header}.{claims}",
        f" {header}.{claims}.{signature}",
        f"{header}.{claims}.{signature}\n",
        "",
        "é.é.é",
        "a" * 5000,
    ):
        with pytest.raises(NotAuthentic):
            VERIFIER.id_token(forged)


def test_a_token_nested_too_deep_to_read_is_refused() -> None:
    deep = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 2500).decode().rstrip("=")
    with pytest.raises(NotAuthentic):
        VERIFIER.id_token(f"{deep}.e30.AAAA")


def test_without_the_apps_client_id_no_token_is_taken() -> None:
    with pytest.raises(AppNotConfigured, match="SHOPIFY_API_KEY"):
        Verifier(AppCredentials(None, SECRET)).id_token(id_token(aud="unset"))
