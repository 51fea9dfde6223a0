"""The embedded page: installs by exchange, says how things stand, takes a choice, and shows itself to nobody else."""

from __future__ import annotations

import html
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from structlog.testing import capture_logs
from web_support import served

from devstore import DevStore, ShopSpec
from devstore.app import CLIENT_ID, CLIENT_SECRET
from devstore.frame import frame_address
from devstore.gids import Gid
from devstore.installing import change_scopes, install
from metafield_sync.runtime import Runtime, open_runtime
from metafield_sync.settings import Settings
from metafield_sync.sync.errand_kinds import ERRAND_KINDS
from metafield_sync.sync.errand_rounds import go_on_errands

pytestmark = pytest.mark.anyio
DOMAIN = "demo.myshopify.com"
OTHER = "other.myshopify.com"


@dataclass
class Staff:
    """Somebody with a browser, in a shop's admin or out of it."""

    http: httpx.AsyncClient
    runtime: Runtime
    store: DevStore
    origin: str

    def address(self, domain: str = DOMAIN) -> str:
        return frame_address(self.store.shop(domain), f"{self.origin}/app")

    async def open(self, domain: str = DOMAIN) -> httpx.Response:
        return await self.http.get(self.address(domain))

    async def choose(self, page: httpx.Response, choice: str) -> httpx.Response:
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
        return await self.http.post(
            "/app/choice", data={"ticket": fields["ticket"], "page": html.unescape(fields["page"]), "choice": choice}
        )

    async def work(self) -> None:
        """As a worker does beside it, until nothing is left to do but wait."""
        for _ in range(100):
            if not await self.sql("select 1 from errands where kind = 'install'"):
                return
            await self.sql(
                "update errands set due_at = least(due_at, clock_timestamp()) where kind <> 'token' returning 1"
            )
            for (shop_id,) in await self.sql("select id from shops"):
                await go_on_errands(self.runtime.mirror, shop_id, ERRAND_KINDS)
        raise AssertionError("the installation does not come to an end")

    async def sql(self, statement: Any) -> list[Any]:
        async with self.runtime.db.connection() as conn, conn.cursor() as cur:
            await cur.execute(statement)
            return await cur.fetchall()


@pytest.fixture
async def staff(database_url: str) -> AsyncIterator[Staff]:
    async with DevStore([ShopSpec(DOMAIN, customers=5), ShopSpec(OTHER, customers=1)]) as store:
        settings = Settings.load(
            database_url=database_url,
            shopify_admin_origin=store.admin_origin,
            encryption_keys=(Fernet.generate_key().decode(),),
            shopify_api_key=CLIENT_ID,
            shopify_api_secret=SecretStr(CLIENT_SECRET),
        )
        async with open_runtime(settings) as runtime, served(runtime) as origin:
            install(store.shop(DOMAIN))
            async with httpx.AsyncClient(base_url=origin, trust_env=False) as http:
                yield Staff(http, runtime, store, origin)


async def test_opening_the_app_installs_it(staff: Staff) -> None:
    page = await staff.open()
    assert page.status_code == 200
    assert "Setting up" in page.text
    assert 'http-equiv="refresh"' in page.text
    assert "id_token" not in page.text, "an ID token is in no page that may be kept"
    (shop,) = await staff.sql("select domain, token_source, hold from shops")
    assert shop == (DOMAIN, "exchanged", "installing")
    await staff.work()
    page = await staff.open()
    assert "Every balance is kept in step" in page.text
    assert "<dd>5</dd>" in page.text
    assert "http-equiv" not in page.text


async def test_the_page_may_be_framed_by_its_shop_and_the_admin_alone(staff: Staff) -> None:
    page = await staff.open()
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("frame-ancestors ")
    assert {f"https://{DOMAIN}", "https://admin.shopify.com;"} <= set(policy.split())
    assert "*" not in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in page.headers


async def test_a_second_visit_asks_nothing_of_shopify_before_the_page_is_there(staff: Staff) -> None:
    await staff.open()
    await staff.work()
    staff.store.world.calls.clear()
    grants = len(staff.store.shop(DOMAIN).installation.grants())
    await staff.open()
    assert list(staff.store.world.calls.select(shop=DOMAIN)) == []
    assert len(staff.store.shop(DOMAIN).installation.grants()) == grants
    assert await staff.sql("select kind from errands where kind = 'definition'") == [("definition",)]


@pytest.mark.parametrize("choice", ["adopt", "overwrite"])
async def test_the_choice_is_two_buttons(staff: Staff, choice: str) -> None:
    staff.store.shop(DOMAIN).put_metafield(Gid("Customer", 1), "loyalty", "points_balance", "120", "number_integer")
    await staff.open()
    await staff.work()
    page = await staff.open()
    assert "Your customers show points already" in page.text
    assert "1 of 5 customers show 120 points in all" in page.text
    chosen = await staff.choose(page, choice)
    assert chosen.status_code == 200
    assert "frame-ancestors" in chosen.headers["Content-Security-Policy"]
    await staff.work()
    page = await staff.open()
    assert "Every balance is kept in step" in page.text
    assert f"<dd>{120 if choice == 'adopt' else 0}</dd>" in page.text
    pressed_late = await staff.http.post("/app/choice", data={"ticket": "x", "choice": choice})
    assert pressed_late.status_code == 403


@pytest.mark.parametrize("fields", [{}, {"ticket": "gAAAAAx"}, {"ticket": "ключ"}, {"ticket": "x" * 5000}])
async def test_a_form_that_we_did_not_show_does_nothing(staff: Staff, fields: dict[str, str]) -> None:
    answer = await staff.http.post("/app/choice", data={"choice": "adopt", **fields})
    assert answer.status_code == 403
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


async def test_one_shops_form_chooses_for_no_other(staff: Staff) -> None:
    for domain in (DOMAIN, OTHER):
        shop = staff.store.shop(domain)
        if domain == OTHER:
            install(shop)
        shop.put_metafield(Gid("Customer", 1), "loyalty", "points_balance", "120", "number_integer")
        await staff.open(domain)
    await staff.work()
    page = await staff.open()
    await staff.choose(page, "adopt")
    await staff.work()
    assert await staff.sql("select domain, hold from shops order by domain") == [
        (DOMAIN, None),
        (OTHER, "values_found"),
    ]


async def test_without_a_token_the_frame_is_sent_to_fetch_one(staff: Staff) -> None:
    query = {"shop": DOMAIN, "host": "YWRtaW4", "embedded": "1"}
    sent = await staff.http.get(f"/app?{urlencode(query)}")
    assert sent.status_code == 302
    assert "/app/id-token?" in sent.headers["Location"]
    fetching = await staff.http.get(httpx.URL(sent.headers["Location"]).raw_path.decode())
    assert fetching.status_code == 200
    assert f'data-api-key="{CLIENT_ID}"' in fetching.text


@pytest.mark.parametrize("path", ["/app", "/app?shop=demo.myshopify.com", "/app?host=x", "/app?shop[]=1&host=2"])
async def test_outside_the_admin_it_says_where_to_open_it(staff: Staff, path: str) -> None:
    page = await staff.http.get(path)
    assert page.status_code == 200
    assert "Open this app from the Shopify admin" in page.text
    assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert await staff.sql("select count(*) from shops") == [(0,)]


def signed(
    changes: dict[str, Any] | None = None, *, without: str = "", secret: str = CLIENT_SECRET, algorithm: str = "HS256"
) -> str:
    """An ID token that is good now, but for the changes."""
    now = int(time.time())
    claims = {
        "iss": f"https://{DOMAIN}/admin",
        "dest": f"https://{DOMAIN}",
        "aud": CLIENT_ID,
        "sub": "42",
        "exp": now + 60,
        "nbf": now,
        "iat": now,
        "jti": "1",
        "sid": "1",
    }
    claims |= changes or {}
    claims.pop(without, None)
    return jwt.encode(claims, None if algorithm == "none" else secret, algorithm=algorithm)  # pyright: ignore[reportArgumentType]


def in_s(seconds: int) -> int:
    return int(time.time()) + seconds


FORGERIES: dict[str, Callable[[], str]] = {
    "expired": lambda: signed({"exp": in_s(-60), "nbf": in_s(-120), "iat": in_s(-120)}),
    "not yet good": lambda: signed({"nbf": in_s(120)}),
    "issued in the future": lambda: signed({"iat": in_s(500)}),
    "unsigned": lambda: signed(algorithm="none"),
    "signed with another secret": lambda: signed(secret=CLIENT_SECRET[::-1]),
    "signed in another way": lambda: signed(algorithm="HS512"),
    "for another app": lambda: signed({"aud": "other"}),
    "of another issuer": lambda: signed({"iss": f"https://{OTHER}/admin"}),
    "without an end": lambda: signed(without="exp"),
    "not ASCII": lambda: f"{signed()}é",
    "of another shop": lambda: signed({"iss": f"https://{OTHER}/admin", "dest": f"https://{OTHER}"}),
    "malformed": lambda: "eyJhbGciOiJub25lIn0.e30.",
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("how", FORGERIES)
async def test_a_token_that_is_no_good_is_refused_and_writes_nothing(staff: Staff, how: str) -> None:
    query = {"shop": DOMAIN, "host": "YWRtaW4", "embedded": "1"}
    install(staff.store.shop(OTHER))
    answer = await staff.http.get("/app", params=query | {"id_token": FORGERIES[how]()})
    assert answer.status_code == 401
    assert await staff.sql("select count(*) from shops") == [(0,)]
    assert await staff.sql("select count(*) from errands") == [(0,)]
    assert staff.store.shop(OTHER).installation.grants() == []
    good = await staff.http.get("/app", params=query | {"id_token": signed()})
    assert good.status_code == 200, "but for that it is a good one"


async def test_a_tab_left_open_fetches_another_token_from_the_page_that_refuses_the_old_one(staff: Staff) -> None:
    query = {"shop": DOMAIN, "host": "YWRtaW4", "embedded": "1"}
    answer = await staff.http.get("/app", params=query | {"id_token": FORGERIES["expired"]()})
    assert f"https://{DOMAIN}" in answer.headers["Content-Security-Policy"]
    assert "Location" not in answer.headers
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
    assert found is not None
    address = html.unescape(found[1])
    assert "id_token=" not in address
    fetching = await staff.http.get(httpx.URL(address).raw_path.decode())
    assert fetching.status_code == 200
    assert f'data-api-key="{CLIENT_ID}"' in fetching.text


async def test_a_token_that_is_no_better_the_second_time_is_not_fetched_for_ever(staff: Staff) -> None:
    query = {"shop": DOMAIN, "host": "YWRtaW4", "embedded": "1", "id_token": FORGERIES["signed with another secret"]()}
    refused = await staff.http.get("/app", params=query)
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', refused.text)
    assert found is not None
    back = httpx.URL(html.unescape(found[1])).params["shopify-reload"]
    with capture_logs() as logs:
        answer = await staff.http.get(f"{back}&{urlencode({'id_token': query['id_token']})}")
    assert answer.status_code == 401
    assert "http-equiv" not in answer.text
    assert "look at its settings" in answer.text
    assert f"https://{DOMAIN}" in answer.headers["Content-Security-Policy"], "staff see it in the frame"
    assert any("SHOPIFY_API_SECRET" in line.get("hint", "") for line in logs)


async def test_a_refusal_lets_no_stranger_frame_it(staff: Staff) -> None:
    query = {"shop": "evil.example.com", "host": "YWRtaW4", "id_token": FORGERIES["expired"]()}
    answer = await staff.http.get("/app", params=query)
    assert answer.status_code == 401
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert "evil" not in answer.text


async def test_a_shopify_that_does_not_answer_is_said_in_the_page(staff: Staff) -> None:
    address = staff.address()
    await staff.store.__aexit__(None, None, None)
    page = await staff.http.get(address)
    assert page.status_code == 502
    assert "Shopify does not answer" in page.text
    assert f"https://{DOMAIN}" in page.headers["Content-Security-Policy"]


async def test_missing_scopes_stand_in_the_page_by_name(staff: Staff) -> None:
    change_scopes(staff.store.shop(DOMAIN), ["write_customers", "read_orders"])
    await staff.open()
    await staff.work()
    page = await staff.open()
    assert "<code>read_customer_merge</code>" in page.text
    assert "<code>write_app_proxy</code>" in page.text
    assert "<code>read_customers</code>" not in page.text, "who may write may read"
    assert "Every balance is kept in step" in page.text, "the mirror goes on without them"


async def test_a_paused_shop_says_why(staff: Staff) -> None:
    await staff.open()
    await staff.work()
    await staff.sql(
        "update shops set status = 'paused', paused_code = 'shop_frozen', paused_detail = 'Unpaid.' returning 1"
    )
    page = await staff.open()
    assert "Paused" in page.text
    assert "Unpaid." in page.text
