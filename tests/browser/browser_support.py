"""A store and our program beside it, as a browser's tests look at them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    from devstore import App, DevStore

DOMAIN = "browsed.myshopify.com"
WAIT_S = 30


@dataclass(frozen=True, slots=True)
class Seen:
    """A store and our program beside it, as a test looks at them."""

    store: DevStore
    app: App
    address: str
    database_url: str

    def control(self, method: str, path: str, body: object = None) -> Any:
        """Arrange the store, or look at it."""
        answer = httpx.request(method, f"{self.store.origin}/_devstore{path}", json=body, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def in_database(self, customer: int) -> int | None:
        """The balance in our database."""
        with psycopg.connect(self.database_url, autocommit=True) as conn:
            row = conn.execute(
                "select current_balance from customers where shopify_customer_id = %s", (customer,)
            ).fetchone()
        return None if row is None else row[0]

    def in_metafield(self, customer: int) -> int | None:
        """The balance that Shopify shows."""
        shown = self.control("GET", f"/shops/{DOMAIN}/metafields?namespace=loyalty&key=points_balance")
        return None if str(customer) not in shown else int(shown[str(customer)])

    def in_storefront(self, customer: int) -> int | None:
        """The balance that the app proxy answers."""
        url = f"{self.store.origin}/{DOMAIN}/apps/points/balance?customer={customer}"
        answer = httpx.get(url, trust_env=False)
        return answer.json()["balance"] if answer.is_success else None

    def shows_everywhere(self, customer: int, balance: int) -> None:
        """Wait until database, metafield and app proxy show this balance."""

        def found() -> tuple[int | None, ...]:
            return self.in_database(customer), self.in_metafield(customer), self.in_storefront(customer)

        eventually(lambda: found() == (balance, balance, max(balance, 0)), lambda: f"{found()}, not {balance}")


def eventually(happened: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    """Look again and again until it has happened."""
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)
