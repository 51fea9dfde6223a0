"""Ours beside Shopify's own library for Node: each verifies what the other's side signed, and both refuse the same.

Ours is `Verifier` for verifying and the devstore for signing. Where ours is the stricter one, the test says so.
"""

# ruff: noqa: S311 - cases are drawn, nothing is kept secret

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import pytest

from devstore.signing import body_signature, id_token_claims, proxy_signature, sign_id_token
from loudly import skip_loudly
from metafield_sync.shopify.app import AppCredentials, NotAuthentic, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FOLDER = Path(__file__).parent / "shopify/node"
PROGRAM = "shopify.mjs"
LOCKED = ("package.json", "package-lock.json")
INSTALL_TIMEOUT_S = 100
RUN_TIMEOUT_S = 60

CLIENT_ID = "client-id-of-the-tests"
SECRET = "shpss_" + "0123456789abcdef" * 4
FOREIGN_SECRET = "shpss_" + "another apps    " * 4
SHOP = "demo.myshopify.com"
VERIFIER = Verifier(AppCredentials(CLIENT_ID, SECRET))
RANDOM_CASES = 100


@dataclass(frozen=True)
class Node:
    """Shopify's library, asked for many things at once: starting it takes longer than all of them."""

    folder: Path

    def ask(self, tasks: Sequence[dict[str, Any]]) -> list[Any]:
        """One answer a task, in order."""
        done = subprocess.run(
            ["node", PROGRAM],  # noqa: S607 - whichever Node there is
            cwd=self.folder,
            input=json.dumps(tasks),
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Node:
    """The library as the lock names it; kept between sessions for as long as the lock is the same."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        skip_loudly(request.config, f"our verification against Shopify's Node library: no {' and '.join(missing)}")
    lock = hashlib.sha256(b"".join((FOLDER / name).read_bytes() for name in LOCKED)).hexdigest()
    folder: Path = request.config.cache.mkdir(f"shopify-node-{lock[:16]}")
    complete = folder / "complete"
    if not complete.exists():
        for name in LOCKED:
            shutil.copy(FOLDER / name, folder)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            why = f"{error} {error.stderr or ''}"
            skip_loudly(request.config, f"our verification against Shopify's Node library: npm could not get it: {why}")
        complete.touch()
    shutil.copy(FOLDER / PROGRAM, folder)
    return Node(folder)


def accepted(verify: Callable[[], object]) -> bool:
    try:
        verify()
    except NotAuthentic:
        return False
    return True


def bodies() -> list[str]:
    """Texts of every kind of character, some of them JSON."""
    kinds = ("ascii \"'\\/", "äöüß", "€漢字", "🎈", "\r\n\t\x00\x7f", "\ufeff\u2028")
    texts = ["".join(random.choices("".join(kinds), k=random.randint(1, 80))) for _ in range(RANDOM_CASES)]
    return [*texts, *(json.dumps({"id": 820982911946154508, "note": text}) for text in texts), " ", "{}"]


def webhook_headers(signature: str) -> dict[str, str]:
    return {
        "X-Shopify-Hmac-Sha256": signature,
        "X-Shopify-Topic": "orders/paid",
        "X-Shopify-Shop-Domain": SHOP,
        "X-Shopify-API-Version": "2026-10",
        "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    }


def test_what_shopifys_library_signs_as_a_webhook_is_ours(node: Node) -> None:
    texts = bodies()
    signatures = node.ask([{"do": "signBody", "body": text, "secret": SECRET} for text in texts])
    for text, signature in zip(texts, signatures, strict=True):
        assert signature == body_signature(SECRET, text.encode())
        assert VERIFIER.webhook(webhook_headers(signature), text.encode()).shop_domain == SHOP
        assert not accepted(lambda: VERIFIER.webhook(webhook_headers(signature), text.encode() + b"."))  # noqa: B023
    forged = node.ask([{"do": "signBody", "body": text, "secret": FOREIGN_SECRET} for text in texts])
    for text, signature in zip(texts, forged, strict=True):
        assert not accepted(lambda: VERIFIER.webhook(webhook_headers(signature), text.encode()))  # noqa: B023


def test_shopifys_library_and_ours_take_and_refuse_the_same_bodies(node: Node) -> None:
    cases: list[tuple[str, dict[str, str]]] = []
    for text in bodies():
        good = webhook_headers(body_signature(SECRET, text.encode()))
        other = webhook_headers(body_signature(SECRET, text.encode() + b" "))
        foreign = webhook_headers(body_signature(FOREIGN_SECRET, text.encode()))
        shouted = {name.upper(): value for name, value in good.items()}
        cases += [(text, headers) for headers in (good, other, foreign, shouted)]
        less = random.choice(["X-Shopify-Hmac-Sha256", "X-Shopify-Topic", "X-Shopify-Shop-Domain"])
        cases.append((text, {name: value for name, value in good.items() if name != less}))
    for task, verify in (("verifyWebhook", VERIFIER.webhook), ("verifyFlow", _flow)):
        tasks = [{"do": task, "body": text, "headers": headers, "secret": SECRET} for text, headers in cases]
        theirs = [answer["valid"] for answer in node.ask(tasks)]
        ours = [accepted(lambda: verify(headers, text.encode())) for text, headers in cases]  # noqa: B023
        assert ours == theirs
        assert 0 < sum(theirs) < len(theirs)


def _flow(headers: dict[str, str], body: bytes) -> None:
    """Ours, as far as Shopify's library goes: it looks at the signature alone."""
    try:
        VERIFIER.flow_message(headers, body)
    except NotAuthentic as error:
        if not error.detail.startswith("The body is signed, but"):
            raise


def queries(*, at: float) -> list[dict[str, str]]:
    """Proxied requests of all kinds that Shopify makes."""
    prefixes = ["/apps/points", "/a/b_c", "/community/x-1", "/tools/t~.t"]
    return [
        {
            "shop": f"shop-{random.randint(1, 10**6)}.myshopify.com",
            "logged_in_customer_id": random.choice(["", str(random.randint(1, 2**63 - 1))]),
            "path_prefix": random.choice(prefixes),
            "timestamp": str(int(at) + random.randint(-60, 60)),
            **random.choice([{}, {"format": "json"}, {"format": "liquid"}]),
        }
        for _ in range(RANDOM_CASES)
    ]


def test_what_shopifys_library_signs_for_the_proxy_is_ours(node: Node) -> None:
    given = queries(at=time.time())
    signatures = node.ask([{"do": "signProxy", "query": query, "secret": SECRET} for query in given])
    for query, signature in zip(given, signatures, strict=True):
        assert signature == proxy_signature(SECRET, query.items())
        said = VERIFIER.proxy([*query.items(), ("signature", signature)], datetime.now(UTC))
        assert said.shop_domain == query["shop"]
        assert str(said.customer_id or "") == query["logged_in_customer_id"]


def test_shopifys_library_and_ours_take_and_refuse_the_same_queries(node: Node) -> None:
    cases: list[list[tuple[str, str]]] = []
    for query in queries(at=time.time()):
        signature = proxy_signature(SECRET, query.items())
        good = [*query.items(), ("signature", signature)]
        shuffled = random.sample(good, len(good))
        swapped = [("shop", "other.myshopify.com") if pair[0] == "shop" else pair for pair in good]
        foreign = [*query.items(), ("signature", proxy_signature(FOREIGN_SECRET, query.items()))]
        old = {**query, "timestamp": str(int(time.time()) - random.randint(200, 10**6))}
        late = {**query, "timestamp": str(int(time.time()) + random.randint(200, 10**6))}
        cases += [good, shuffled, swapped, foreign, good[:-1], [*good, ("shop", query["shop"])]]
        cases += [[*other.items(), ("signature", proxy_signature(SECRET, other.items()))] for other in (old, late)]
    tasks = [{"do": "verifyProxy", "query": query, "secret": SECRET} for query in cases]
    theirs = [answer is True for answer in node.ask(tasks)]
    ours = [accepted(lambda: VERIFIER.proxy(_on_the_wire(query), datetime.now(UTC))) for query in cases]  # noqa: B023
    assert ours == theirs
    assert sum(theirs) == 2 * RANDOM_CASES


def _on_the_wire(query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """As a server reads it from the address."""
    return parse_qsl(urlencode(query), keep_blank_values=True)


def test_only_ours_refuses_parameters_that_let_boundaries_be_moved(node: Node) -> None:
    query = {"shop": SHOP, "path_prefix": "/apps/points", "timestamp": str(int(time.time())), "extra": "1"}
    signed = [*query.items(), ("signature", proxy_signature(SECRET, query.items()))]
    assert node.ask([{"do": "verifyProxy", "query": signed, "secret": SECRET}]) == [True]
    with pytest.raises(NotAuthentic, match="extra"):
        VERIFIER.proxy(signed, datetime.now(UTC))


def test_what_shopifys_library_signs_as_an_id_token_is_ours(node: Node) -> None:
    seconds = int(time.time())
    claims = {
        "iss": f"https://{SHOP}/admin",
        "dest": f"https://{SHOP}",
        "sub": "42",
        "exp": seconds + 60.5,
        "nbf": seconds,
        "iat": seconds + 0.25,
    }
    task = {"do": "signIdToken", "shop": "demo", "clientId": CLIENT_ID, "claims": claims}
    token, forged = node.ask([{**task, "secret": SECRET}, {**task, "secret": FOREIGN_SECRET}])
    said = VERIFIER.id_token(token)
    assert (said.shop_domain, said.user_id) == (SHOP, 42)
    assert not accepted(lambda: VERIFIER.id_token(forged))


@pytest.mark.parametrize(
    ("changes", "verdicts"),
    [
        ({}, (True, True)),
        ({"aud": "another-app"}, (False, False)),
        ({"exp": -60}, (False, False)),
        ({"exp": -3}, (True, True)),
        ({"nbf": 60}, (False, False)),
        ({"nbf": 7}, (True, True)),
        # What theirs leaves to the caller.
        ({"exp": None}, (True, False)),
        ({"iss": "https://other.myshopify.com/admin"}, (True, False)),
        ({"dest": "https://evil.example.com"}, (True, False)),
        ({"iat": -320, "exp": 3600}, (True, False)),
        ({"sub": "gid://shopify/Customer/42"}, (True, False)),
    ],
    ids=str,
)
def test_shopifys_library_and_ours_judge_id_tokens(
    node: Node, changes: dict[str, Any], verdicts: tuple[bool, bool]
) -> None:
    """`changes` of times are seconds from now; `verdicts` are theirs, then ours, on the one that is signed well."""
    seconds = int(time.time())
    moved: dict[str, object] = {
        name: seconds + value if isinstance(value, int) else value for name, value in changes.items()
    }
    claims = id_token_claims(SHOP, CLIENT_ID, 42, seconds).changed(moved)
    good, foreign = sign_id_token(claims, SECRET), sign_id_token(claims, FOREIGN_SECRET)
    unsigned = sign_id_token(claims, SECRET, "none")
    other_algorithm = sign_id_token(claims, SECRET, "HS512")
    tokens = [good, foreign, unsigned, other_algorithm]
    tasks = [{"do": "verifyIdToken", "token": token, "clientId": CLIENT_ID, "secret": SECRET} for token in tokens]
    theirs = ["refused" not in answer for answer in node.ask(tasks)]
    ours = [accepted(lambda: VERIFIER.id_token(token)) for token in tokens]  # noqa: B023
    assert theirs == [verdicts[0], False, False, False]
    assert ours == [verdicts[1], False, False, False]
