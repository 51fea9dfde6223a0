"""A burst of webhooks: how soon each is answered, and how soon all are handled, each once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from cryptography.fernet import Fernet

from benchmarks.sync import Store, add_shops
from metafield_sync.db.database import Database
from metafield_sync.shops.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

SECRET = "secret of the benchmark"  # noqa: S105 - signs what we send ourselves
WEBHOOKS_PER_S = 500
CUSTOMERS = 2_000
CONNECTIONS = 100
HANDLED_TIMEOUT_S = 300
ADDRESS = re.compile(r'"address": ?"(http://[^"]+)"')
PERSON = {
    "first_name": "A",
    "last_name": "Shopper",
    "address1": "1 Street of Some Length",
    "address2": None,
    "city": "Town",
    "zip": "12345",
    "province": None,
    "country": "Country",
    "company": None,
    "phone": "+1 555 0100",
    "name": "A Shopper",
    "country_code": "CC",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook as bytes on the wire, ready before the clock starts."""

    request: bytes


@dataclass(slots=True)
class Burst:
    """What came of a burst: seconds from when each was due to be sent until it was answered."""

    waits_s: list[float] = field(default_factory=list[float])
    refused: int = 0


def measure(url: str, *, seconds: int) -> None:
    """Send `WEBHOOKS_PER_S` for so many seconds to one process that serves and works, then to two; print a table."""
    print(f"\nA burst of {WEBHOOKS_PER_S} webhooks a second for {seconds} s, each a paid order of another number")
    print(f"{'':34}{'p50':>9}{'p99':>9}{'longest':>10}{'refused':>9}{'handled after':>15}")
    for what, commands in (
        ("serve (web and worker in one)", [["serve", "--port", "0"]]),
        ("serve --no-worker, and worker", [["serve", "--port", "0", "--no-worker"], ["worker"]]),
    ):
        asyncio.run(_measure(url, what, commands, seconds))


async def _measure(url: str, what: str, commands: Sequence[Sequence[str]], seconds: int) -> None:
    shop = f"burst-{len(commands)}.myshopify.com"
    store = Store("plus", {shop: CUSTOMERS})
    keys = Fernet.generate_key().decode()
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "ENCRYPTION_KEYS": keys,
        "SHOPIFY_ADMIN_ORIGIN": store.origin,
        "SHOPIFY_API_SECRET": SECRET,
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "info",
    }
    try:
        async with Database(url) as db:
            (shop_id,) = (await add_shops(db, Vault([keys]), [shop])).values()
        with _running(commands, environment) as address:
            deliveries = [_delivery(shop, address, number) for number in range(WEBHOOKS_PER_S * seconds)]
            began = time.monotonic()
            burst = await _send(deliveries, address)
            handled_s = _until_handled(url, shop_id, len(deliveries)) - began - seconds
        _require_each_once(url, shop_id, len(deliveries))
        _forget_tokens(url, shop_id)
    finally:
        store.close()
    percentiles = statistics.quantiles(burst.waits_s, n=100)
    figures = [f"{1_000 * wait_s:.0f} ms" for wait_s in (percentiles[49], percentiles[98], max(burst.waits_s))]
    print(f"{what:34}{figures[0]:>9}{figures[1]:>9}{figures[2]:>10}{burst.refused:>9}{handled_s:>13.0f} s")


@contextlib.contextmanager
def _running(commands: Sequence[Sequence[str]], environment: dict[str, str]) -> Generator[str]:
    """Our programs at work; the address of the one that serves."""
    processes: list[subprocess.Popen[str]] = []
    try:
        address = ""
        for command in commands:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "metafield_sync", *command], env=environment, stderr=subprocess.PIPE, text=True
            )
            processes.append(process)
            if command[0] == "serve":
                address = _address_of(process)
            # Nobody else reads what it logs; a full pipe would stop it.
            asyncio.get_running_loop().run_in_executor(None, _drain, process)
        yield address
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _address_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := ADDRESS.search(line):
            return found[1]
    raise AssertionError("it did not start to serve")


def _drain(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for _ in process.stderr:
        pass


def _delivery(shop: str, address: str, number: int) -> Delivery:
    order = 4_000_000_000_000 + number
    customer = 1 + number % CUSTOMERS
    money = {"amount": "12.50", "currency_code": "EUR"}
    prices = {"shop_money": money, "presentment_money": money}
    line = {"id": order * 10, "gift_card": False, "quantity": 1, "current_quantity": 1, "price": "12.50"}
    body = json.dumps(
        {
            "id": order,
            "admin_graphql_api_id": f"gid://shopify/Order/{order}",
            "test": False,
            "currency": "EUR",
            "financial_status": "paid",
            "confirmed": True,
            "cancelled_at": None,
            "created_at": "2099-01-01T00:00:00Z",
            "updated_at": "2099-01-01T00:00:01Z",
            "current_subtotal_price": "12.50",
            "current_subtotal_price_set": prices,
            "total_outstanding": "0.00",
            "taxes_included": False,
            "customer": {"id": customer, "email": "shopper@example.com", **PERSON},
            "billing_address": PERSON,
            "shipping_address": PERSON,
            "line_items": [line | {"price_set": prices, "discount_allocations": [], "tax_lines": []}],
            "refunds": [],
        },
        separators=(",", ":"),
    ).encode()
    signature = base64.b64encode(hmac.new(SECRET.encode(), body, hashlib.sha256).digest()).decode()
    head = (
        "POST /webhooks HTTP/1.1\r\n"
        f"Host: {urlsplit(address).netloc}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "X-Shopify-Topic: orders/paid\r\n"
        f"X-Shopify-Shop-Domain: {shop}\r\n"
        f"X-Shopify-Hmac-Sha256: {signature}\r\n"
        f"X-Shopify-Webhook-Id: burst-{number}\r\n"
        f"X-Shopify-Event-Id: burst-{number}\r\n"
        "X-Shopify-API-Version: 2026-10\r\n"
        "X-Shopify-Triggered-At: 2099-01-01T00:00:02Z\r\n\r\n"
    )
    return Delivery(head.encode() + body)


async def _send(deliveries: Sequence[Delivery], address: str) -> Burst:
    """Send each at its time, over connections that stay open; who waits for a free one has waited all the same."""
    burst = Burst()
    where = urlsplit(address)
    due: asyncio.Queue[tuple[float, Delivery]] = asyncio.Queue()

    async def carry() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        try:
            while True:
                due_at, delivery = await due.get()
                writer.write(delivery.request)
                status = await _read_answer(reader)
                burst.waits_s.append(time.monotonic() - due_at)
                burst.refused += status != 200  # noqa: PLR2004 - the one answer that means taken
                due.task_done()
        finally:
            writer.close()

    carriers = [asyncio.create_task(carry()) for _ in range(CONNECTIONS)]
    began = time.monotonic()
    for number, delivery in enumerate(deliveries):
        due_at = began + number / WEBHOOKS_PER_S
        if (early_s := due_at - time.monotonic()) > 0:
            await asyncio.sleep(early_s)
        due.put_nowait((due_at, delivery))
    await due.join()
    for carrier in carriers:
        carrier.cancel()
    await asyncio.gather(*carriers, return_exceptions=True)
    return burst


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(head.split(b" ", 2)[1])


def _until_handled(url: str, shop_id: int, count: int) -> float:
    """When all were handled, on the monotonic clock."""
    give_up_at = time.monotonic() + HANDLED_TIMEOUT_S
    with psycopg.connect(url, autocommit=True) as conn:
        while True:
            row = conn.execute(COUNT_HANDLED, {"shop": shop_id}).fetchone()
            if row == (count,):
                return time.monotonic()
            assert time.monotonic() < give_up_at, f"only {row} of {count} were handled"
            time.sleep(0.2)


COUNT_HANDLED = "select count(*) from inbox where shop_id = %(shop)s and handled_at is not null"


def _require_each_once(url: str, shop_id: int, count: int) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(COUNT_EARNED, {"shop": shop_id}).fetchone()
    assert row == (count, 12 * count), f"{row}: an order was lost or doubled"


COUNT_EARNED = "select count(*), sum(amount) from ledger_entries where shop_id = %(shop)s"


def _forget_tokens(url: str, shop_id: int) -> None:
    """The next program has other keys, and would not start with a token it cannot read."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("update shops set status = 'removed', access_token = null where id = %(shop)s", {"shop": shop_id})
