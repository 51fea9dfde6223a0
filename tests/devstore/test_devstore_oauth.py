"""OAuth: how the app gets tokens for a shop, how long they are good, and what ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from app_support import CLIENT_ID, SECRET, Receiver
from devstore_support import CUSTOMERS, DOMAIN, TOKEN, Remote

from devstore import DevStore, ManualClock, ShopSpec
from devstore.oauth import ID_TOKEN, OFFLINE_TOKEN, TOKEN_EXCHANGE

if TYPE_CHECKING:
    from pathlib import Path

SHOP = "{ shop { myshopifyDomain } currentAppInstallation { accessScopes { handle } } }"
CREDENTIALS = {"client_id": CLIENT_ID, "client_secret": SECRET}
JSON = {"Accept": "application/json"}
DAY_S = 24 * 60 * 60

pytestmark = pytest.mark.usefixtures("app")


async def ask(remote: Remote, status: int = 200, domain: str = DOMAIN, **parameters: str) -> dict[str, Any]:
    """One request to the token endpoint."""
    url = f"{remote.origin}/{domain}/admin/oauth/access_token"
    answer = await remote.http.post(url, json={**CREDENTIALS, **parameters}, headers=JSON)
    assert answer.status_code == status, answer.text
    return answer.json()


async def exchange(remote: Remote, status: int = 200, token: str | None = None, **parameters: str) -> dict[str, Any]:
    """Token exchange, with a good ID token unless another one is given."""
    good = token or str((await remote.control("POST", f"/shops/{DOMAIN}/id-token"))["idToken"])
    given = {"subject_token": good, "subject_token_type": ID_TOKEN, "requested_token_type": OFFLINE_TOKEN}
    return await ask(remote, status, **{"grant_type": TOKEN_EXCHANGE, "expiring": "1", **given, **parameters})


async def refresh(remote: Remote, token: str, status: int = 200) -> dict[str, Any]:
    return await ask(remote, status, grant_type="refresh_token", refresh_token=token)


async def opens(remote: Remote, token: str) -> bool:
    answer = await remote.post(SHOP, token=token)
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


# --------------------------------------------------------------------------------------------------------- exchange


async def test_an_id_token_is_exchanged_for_a_pair_that_expires(remote: Remote, clock: ManualClock) -> None:
    given = await exchange(remote)
    assert given.keys() == {"access_token", "scope", "expires_in", "refresh_token", "refresh_token_expires_in"}
    assert (given["expires_in"], given["refresh_token_expires_in"]) == (3_600, 7_776_000)
    assert "write_customers" in given["scope"].split(",")
    clock.advance(3_599)
    assert await opens(remote, given["access_token"])
    clock.advance(1)
    assert not await opens(remote, given["access_token"])


async def test_without_expiring_the_token_stays(remote: Remote, clock: ManualClock) -> None:
    given = await exchange(remote, expiring="0")
    assert given.keys() == {"access_token", "scope"}
    clock.advance(1_000 * DAY_S)
    assert await opens(remote, given["access_token"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"claims": {"aud": "another"}},
        {"claims": {"dest": "https://other.myshopify.com"}},
        {"claims": {"exp": None}},
        {"ageS": 71},
        {"secret": "other" * 12},
        {"algorithm": "none"},
    ],
)
async def test_an_id_token_that_is_wrong_gives_none(remote: Remote, wrong: dict[str, Any]) -> None:
    token = (await remote.control("POST", f"/shops/{DOMAIN}/id-token", **wrong))["idToken"]
    refused = await exchange(remote, 400, token)
    assert refused["error"] == "invalid_subject_token"
    assert refused["error_description"]


async def test_an_id_token_of_one_shop_gives_none_for_another(remote: Remote) -> None:
    token = (await remote.control("POST", "/shops/other.myshopify.com/id-token"))["idToken"]
    assert (await exchange(remote, 400, token))["error"] == "invalid_subject_token"


@pytest.mark.parametrize("wrong", [{"client_secret": "x"}, {"client_id": "x"}, {"client_secret": ""}])
async def test_wrong_credentials_give_none(remote: Remote, wrong: dict[str, str]) -> None:
    for kind in ({"grant_type": "client_credentials"}, {"grant_type": "refresh_token", "refresh_token": "x"}):
        assert (await ask(remote, 401, **{**kind, **wrong}))["error"] == "invalid_client"
    assert (await exchange(remote, 401, **wrong))["error"] == "invalid_client"


async def test_the_old_secret_is_good_while_it_is_being_rotated(remote: Remote, store: DevStore) -> None:
    store.world.app.change({"client_secret": "newer" * 8, "old_client_secret": SECRET})
    assert await opens(remote, (await exchange(remote))["access_token"])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"subject_token_type": "x"}, "invalid_request"),
        ({"requested_token_type": "urn:shopify:params:oauth:token-type:online-access-token"}, "invalid_request"),
    ],
)
async def test_what_is_not_offered_is_refused(remote: Remote, changes: dict[str, str], error: str) -> None:
    assert (await exchange(remote, 400, **changes))["error"] == error


async def test_a_form_will_do_and_so_will_the_host_header(remote: Remote) -> None:
    form = {**CREDENTIALS, "grant_type": "client_credentials"}
    answer = await remote.http.post(
        f"{remote.origin}/admin/oauth/access_token", data=form, headers={"Host": "other.myshopify.com"}
    )
    token = answer.json()["access_token"]
    assert not await opens(remote, token)
    path = "/other.myshopify.com/admin/api/2026-10/graphql.json"
    assert (await remote.post(SHOP, path=path, token=token)).status_code == 200


async def test_a_refusal_is_a_page_for_whoever_does_not_ask_for_json(remote: Remote) -> None:
    answer = await remote.http.post(f"{remote.origin}/{DOMAIN}/admin/oauth/access_token", data={"client_id": "x"})
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("body", [b"{", b"[]", b"7"])
async def test_json_that_is_no_object_is_refused(remote: Remote, body: bytes) -> None:
    headers = {**JSON, "Content-Type": "application/json"}
    url = f"{remote.origin}/{DOMAIN}/admin/oauth/access_token"
    answer = await remote.http.post(url, content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_a_shop_that_does_not_answer_gives_none(remote: Remote) -> None:
    await remote.control("PATCH", f"/shops/{DOMAIN}", state="frozen")
    await ask(remote, 402, grant_type="client_credentials")
    url = f"{remote.origin}/nobody.myshopify.com/admin/oauth/access_token"
    assert (await remote.http.post(url)).status_code == 404


# ---------------------------------------------------------------------------------------------------------- refresh


async def test_a_refresh_gives_a_new_pair_even_after_the_access_token_expired(
    remote: Remote, clock: ManualClock
) -> None:
    first = await exchange(remote)
    clock.advance(30 * DAY_S)
    second = await refresh(remote, first["refresh_token"])
    assert second["access_token"] != first["access_token"]
    assert second["refresh_token"] != first["refresh_token"]
    assert (second["expires_in"], second["refresh_token_expires_in"]) == (3_600, 7_776_000)
    assert await opens(remote, second["access_token"])


async def test_a_refresh_token_may_be_used_again_until_its_replacement_is(remote: Remote) -> None:
    first = await exchange(remote)
    await refresh(remote, first["refresh_token"])
    # As if that answer had been lost.
    second = await refresh(remote, first["refresh_token"])
    await refresh(remote, second["refresh_token"])
    assert (await refresh(remote, first["refresh_token"], 400))["error"] == "invalid_grant"


async def test_a_refresh_token_may_be_used_again_for_30_days(remote: Remote, clock: ManualClock) -> None:
    first = await exchange(remote)
    await refresh(remote, first["refresh_token"])
    clock.advance(30 * DAY_S)
    await refresh(remote, first["refresh_token"])
    clock.advance(1)
    assert (await refresh(remote, first["refresh_token"], 400))["error"] == "invalid_grant"


async def test_a_refresh_token_ends_after_90_days(remote: Remote, clock: ManualClock) -> None:
    first = await exchange(remote)
    clock.advance(90 * DAY_S)
    assert (await refresh(remote, first["refresh_token"], 400))["error"] == "invalid_grant"


async def test_a_refresh_token_nobody_was_given_is_refused(remote: Remote) -> None:
    assert (await refresh(remote, "shprt_made_up", 400))["error"] == "invalid_grant"


async def test_tokens_can_be_made_to_expire(remote: Remote) -> None:
    given = await exchange(remote)
    await remote.control("POST", f"/shops/{DOMAIN}/app/expire")
    assert not await opens(remote, given["access_token"])
    again = await refresh(remote, given["refresh_token"])
    await remote.control("POST", f"/shops/{DOMAIN}/app/expire", refreshTokens=True)
    await refresh(remote, again["refresh_token"], 400)
    assert await opens(remote, TOKEN)


# ----------------------------------------------------------------------------------------------- client credentials


async def test_client_credentials_give_a_token_for_a_day(remote: Remote, clock: ManualClock) -> None:
    given = await ask(remote, grant_type="client_credentials")
    assert given.keys() == {"access_token", "scope", "expires_in"}
    assert given["expires_in"] == 86_399
    clock.advance(86_398)
    assert await opens(remote, given["access_token"])
    clock.advance(1)
    assert not await opens(remote, given["access_token"])


async def test_client_credentials_are_for_the_own_organization(remote: Remote) -> None:
    await remote.control("PATCH", "/app", sameOrganization=False)
    assert (await ask(remote, 400, grant_type="client_credentials"))["error"] == "shop_not_permitted"


# ----------------------------------------------------------------------------------------------------- installation


async def test_several_tokens_are_good_at_once_beside_the_one_it_was_set_up_with(remote: Remote) -> None:
    given = [(await exchange(remote))["access_token"] for _ in range(2)]
    assert [await opens(remote, token) for token in (*given, TOKEN)] == [True, True, True]


async def test_uninstalling_kills_every_token_and_tells_the_app(remote: Remote, store: DevStore, app: Receiver) -> None:
    given = await exchange(remote)
    store.shop(DOMAIN).webhooks.subscribe("app/uninstalled", "/own")
    shown = await remote.control("POST", f"/shops/{DOMAIN}/app/uninstall")
    assert (shown["installed"], shown["scopes"], shown["grants"]) == (False, [], [])
    assert not await opens(remote, given["access_token"])
    assert not await opens(remote, TOKEN)
    assert (await refresh(remote, given["refresh_token"], 401))["error"] == "invalid_client"
    assert (await exchange(remote, 401))["error"] == "invalid_client"
    await store.shop(DOMAIN).webhooks.settle()
    assert sorted(came.path for came in app.received) == ["/own", "/webhooks"]
    assert app.received[0].headers["X-Shopify-Topic"] == "app/uninstalled"
    assert app.received[0].json["myshopify_domain"] == DOMAIN


async def test_a_shop_without_the_app_tells_it_nothing_but_farewells(store: DevStore, remote: Remote) -> None:
    await remote.control("POST", f"/shops/{DOMAIN}/app/uninstall")
    webhooks = store.shop(DOMAIN).webhooks
    assert webhooks.emit("shop/update", {"id": 1}) == []
    assert len(webhooks.emit("shop/redact", {"shop_id": 1})) == 1
    await remote.control("POST", f"/shops/{DOMAIN}/app/install")
    assert len(webhooks.emit("shop/update", {"id": 1})) == 1


async def test_other_scopes_are_told_and_count_for_every_token(remote: Remote, store: DevStore, app: Receiver) -> None:
    given = await exchange(remote)
    previous = given["scope"].split(",")
    await remote.control("PUT", f"/shops/{DOMAIN}/app/scopes", scopes=["read_orders"])
    answer = await remote.post(SHOP, token=given["access_token"])
    handles = [one["handle"] for one in answer.json()["data"]["currentAppInstallation"]["accessScopes"]]
    assert handles == ["read_orders"]
    await store.shop(DOMAIN).webhooks.settle()
    told = app.received[0].json
    assert (told["previous"], told["current"]) == (previous, ["read_orders"])
    assert told["updated_at"] == "2026-01-01T00:00:00.000Z"


async def test_a_field_whose_scope_is_missing_is_denied(remote: Remote) -> None:
    await remote.control("PUT", f"/shops/{DOMAIN}/app/scopes", scopes=["read_orders"])
    body = (await remote.post(CUSTOMERS, {"first": 1})).json()
    assert body["data"] is None
    (error,) = body["errors"]
    assert error["message"] == ("Access denied for customers field. Required access: `read_customers` access scope.")
    assert error["extensions"]["code"] == "ACCESS_DENIED"
    assert error["path"] == ["customers"]
    node = (await remote.post('{ node(id: "gid://shopify/Customer/1") { id } }')).json()
    assert node["errors"][0]["extensions"]["code"] == "ACCESS_DENIED"


async def test_writing_includes_reading(remote: Remote) -> None:
    await remote.control("PUT", f"/shops/{DOMAIN}/app/scopes", scopes=["write_customers"])
    assert "errors" not in (await remote.post(CUSTOMERS, {"first": 1})).json()


async def test_a_state_file_keeps_installation_and_tokens(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "state.db"
    specs = [ShopSpec(DOMAIN), ShopSpec("other.myshopify.com", "shpat_other")]
    async with DevStore(specs, state=path, clock=clock.clock) as store:
        assert not store.shop(DOMAIN).installation.is_installed
        store.shop(DOMAIN).installation.set_scopes(("read_orders",))
        given = store.shop(DOMAIN).installation.issue(3_600, refreshable=True)
        store.shop("other.myshopify.com").installation.set_scopes(None)
    async with DevStore(specs, state=path, clock=clock.clock) as store:
        assert store.shop(DOMAIN).installation.scopes == ("read_orders",)
        assert store.shop(DOMAIN).installation.grants() == [given]
        assert store.shop(DOMAIN).opens(given.access_token)
        assert not store.shop("other.myshopify.com").installation.is_installed


async def test_a_token_that_is_set_comes_with_the_app(remote: Remote, store: DevStore) -> None:
    await remote.control("POST", f"/shops/{DOMAIN}/app/uninstall")
    await remote.control("PATCH", f"/shops/{DOMAIN}", token=TOKEN)
    assert await opens(remote, TOKEN)
    assert store.shop(DOMAIN).installation.scopes == store.world.app.scopes


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/app/scopes", {"scopes": "read_orders"}),
        ("POST", "/id-token", {"algorithm": "RS256"}),
        ("POST", "/id-token", {"claims": {"name": "x"}}),
    ],
)
async def test_a_call_without_sense_is_told_so(remote: Remote, method: str, path: str, body: dict[str, Any]) -> None:
    url = f"{remote.origin}/_devstore/shops/{DOMAIN}{path}"
    answer = await remote.http.request(method, url, json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


async def test_the_control_api_shows_and_changes_the_app_but_not_its_secrets(remote: Remote) -> None:
    given = [{"topic": "orders/paid", "uri": "/hooks", "includeFields": ["id"]}]
    shown = await remote.control("PATCH", "/app", url="http://app.test", subscriptions=given, scopes=["read_orders"])
    assert (shown["url"], shown["clientId"], shown["scopes"]) == ("http://app.test", CLIENT_ID, ["read_orders"])
    assert shown["subscriptions"] == [
        {"number": None, "topic": "orders/paid", "uri": "/hooks", "includeFields": ["id"], "name": None}
    ]
    assert SECRET not in str(shown)
    answer = await remote.http.patch(f"{remote.origin}/_devstore/app", json={"url": 7})
    assert answer.status_code == 400
