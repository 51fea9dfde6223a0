"""What the token endpoint answers, good and bad, each asked once: no retries of the package's, no false token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from scripted_server import DOMAIN, Reply, ScriptedServer

from metafield_sync.logs import strike_out
from metafield_sync.shopify.app import AppCredentials, AppNotConfigured, IdToken
from metafield_sync.shopify.app.tokens import AppTokens, TokenRefused, TokenUnreachable

pytestmark = pytest.mark.anyio
PAIR = {
    "access_token": "shpua_the_access_token",
    "expires_in": 3600,
    "refresh_token": "shprt_the_refresh_token",
    "refresh_token_expires_in": 7776000,
    "scope": "write_customers,read_orders",
}
ID_TOKEN = IdToken(DOMAIN, 1, datetime.now(UTC) + timedelta(minutes=1), "a.signed.token")


def answer(document: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode())


@pytest.fixture
async def tokens(server: ScriptedServer) -> AsyncIterator[AppTokens]:
    async with httpx.AsyncClient(trust_env=False) as http:
        yield AppTokens(AppCredentials("an-app", "its secret"), f"{server.origin}/{{shop}}", http)


async def test_an_exchange_asks_for_an_expiring_offline_token(server: ScriptedServer, tokens: AppTokens) -> None:
    server.reply(answer(PAIR))
    pair = await tokens.exchange(ID_TOKEN)
    (asked,) = server.received
    assert asked.path == f"/{DOMAIN}/admin/oauth/access_token"
    assert json.loads(asked.body) == {
        "client_id": "an-app",
        "client_secret": "its secret",
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "a.signed.token",
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "requested_token_type": "urn:shopify:params:oauth:token-type:offline-access-token",
        "expiring": 1,
    }
    assert (pair.access_token, pair.refresh_token) == ("shpua_the_access_token", "shprt_the_refresh_token")
    assert pair.scopes == ("write_customers", "read_orders")
    assert pair.expires_at is not None
    assert 3590 < (pair.expires_at - datetime.now(UTC)).total_seconds() <= 3600
    assert "the_access" not in repr(pair)
    assert "the_refresh" not in repr(pair)


async def test_a_refresh_sends_the_refresh_token_whatever_the_package_thinks_of_the_time(
    server: ScriptedServer, tokens: AppTokens
) -> None:
    server.reply(answer(PAIR))
    await tokens.refresh(DOMAIN, "shprt_before")
    sent = json.loads(server.received[0].body)
    assert (sent["grant_type"], sent["refresh_token"]) == ("refresh_token", "shprt_before")


async def test_client_credentials_come_without_a_refresh_token(server: ScriptedServer, tokens: AppTokens) -> None:
    server.reply(answer({"access_token": "shpat_x", "scope": "write_customers", "expires_in": 86399}))
    pair = await tokens.client_credentials(DOMAIN)
    assert (pair.refresh_token, pair.refresh_expires_at) == (None, None)
    assert json.loads(server.received[0].body)["grant_type"] == "client_credentials"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("invalid_grant", "Open the app in the Shopify admin once"),
        ("invalid_client", "SHOPIFY_API_KEY and SHOPIFY_API_SECRET"),
        ("shop_not_permitted", "own organisation"),
        ("invalid_subject_token", "Reload the page"),
    ],
)
async def test_a_refusal_says_what_to_do(server: ScriptedServer, tokens: AppTokens, error: str, said: str) -> None:
    server.reply(answer({"error": error}, 400))
    with pytest.raises(TokenRefused, match=said) as refused:
        await tokens.refresh(DOMAIN, "shprt_before")
    assert refused.value.reason == error
    assert "shprt_before" not in refused.value.detail


async def test_an_unknown_refusal_is_one_too(server: ScriptedServer, tokens: AppTokens) -> None:
    server.reply(answer({"error": "app_uninstalled"}, 403))
    with pytest.raises(TokenRefused, match="app_uninstalled") as refused:
        await tokens.refresh(DOMAIN, "shprt_before")
    assert refused.value.reason == "other"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(429, b"{}", {"Retry-After": "2.0"}),
        Reply(500, b"oops"),
        Reply(503, b"{}"),
        Reply(302, b"", {"Location": "https://elsewhere.example/"}),
        Reply(200, b"<html>"),
        Reply(200, b"{}"),
        Reply(200, b'{"access_token": 5}'),
        Reply(200, b'{"access_token": "two words"}'),
        Reply(200, b'{"access_token": "shpat_x", "expires_in": "soon"}'),
        Reply(200, b"x" * 100_000),
        Reply(400, b"<html>Oauth error</html>"),
        Reply(drop=True),
    ],
)
@pytest.mark.parametrize("way", ["exchange", "refresh", "client_credentials"])
async def test_what_is_no_answer_is_told_at_once_and_asked_once(
    server: ScriptedServer, tokens: AppTokens, reply: Reply, way: str
) -> None:
    server.reply(reply)
    asked = {
        "exchange": lambda: tokens.exchange(ID_TOKEN),
        "refresh": lambda: tokens.refresh(DOMAIN, "shprt_before"),
        "client_credentials": lambda: tokens.client_credentials(DOMAIN),
    }[way]
    with pytest.raises(TokenUnreachable) as failed:
        await asked()
    assert len(server.received) == 1
    assert "shpat_x" not in failed.value.detail


async def test_nobody_there_is_no_refusal() -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        tokens = AppTokens(AppCredentials("an-app", "its secret"), "http://127.0.0.1:9/{shop}", http)
        with pytest.raises(TokenUnreachable):
            await tokens.refresh(DOMAIN, "shprt_before")


async def test_without_a_client_id_it_says_so() -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        tokens = AppTokens(AppCredentials(None, "its secret"), "http://127.0.0.1:9/{shop}", http)
        with pytest.raises(AppNotConfigured, match="SHOPIFY_API_KEY"):
            await tokens.client_credentials(DOMAIN)


@pytest.mark.parametrize(
    "secret",
    [
        "shpua_0123456789abcdef",
        "shprt_0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2EifQ.c2lnbmF0dXJl",
        "gAAAAABmX" + "x" * 80 + "==",
    ],
)
def test_tokens_are_struck_out_of_logs(secret: str) -> None:
    assert secret not in strike_out(f"GET /app?id_token={secret}&shop=a said {secret}.")
