"""Fixtures of the command line's tests: a database, a devstore, and `cli`, which runs one command in this process."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TYPE_CHECKING

import pytest
import structlog
from cli_support import CUSTOMERS, DOMAIN, KEY, OTHER, TOKEN, Result, Store, clean_environment

from devstore import DevStore, ShopSpec
from metafield_sync.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    import psycopg
    from cli_support import Cli

    class Servers(Protocol):
        """The PostgreSQL servers of the session."""

        def url(self, kind: str) -> str: ...


@pytest.fixture(scope="session")
def running_store() -> Iterator[DevStore]:
    with DevStore([ShopSpec(DOMAIN, TOKEN, customers=CUSTOMERS), ShopSpec(OTHER, TOKEN, customers=3)]) as running:
        yield running


@pytest.fixture
def store(running_store: DevStore) -> Store:
    """The devstore, as new: no metafields, no definitions, everything in order."""
    store = Store(running_store.origin)
    for domain in (DOMAIN, OTHER):
        shop = f"/shops/{domain}"
        store.control("PATCH", shop, {"state": "active", "token": TOKEN})
        store.control("PATCH", f"{shop}/bulk", {"paused": False})
        for definition in store.control("GET", f"{shop}/definitions"):
            slot = definition.get("slot", definition)
            store.control("DELETE", f"{shop}/definitions", {"namespace": slot["namespace"], "key": slot["key"]})
        for customer in store.shown(domain):
            body = {"customerId": customer, "namespace": "loyalty", "key": "points_balance"}
            store.control("DELETE", f"{shop}/metafields", body)
    store.control("DELETE", "/calls")
    store.control("DELETE", "/faults")
    return store


@pytest.fixture
def server_url(servers: Servers) -> str:
    """One PostgreSQL, not each: the commands know nothing of its version."""
    return servers.url("embedded")


@pytest.fixture
def environment(database_url: str, store: Store) -> dict[str, str]:
    """What a command needs to know."""
    return clean_environment(
        DATABASE_URL=database_url, SHOPIFY_ADMIN_ORIGIN=store.admin_origin, ENCRYPTION_KEYS=KEY, PORT="0"
    )


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _runner(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str, stdin: str = "", **changes: str) -> Result:
        with monkeypatch.context() as patch:
            for name in set(os.environ) - set(environment):
                patch.delenv(name)
            for name, value in {**environment, **changes}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            capsys.readouterr()
            status = main(arguments)
            out, err = capsys.readouterr()
        return Result(status, out, err)

    return run


@pytest.fixture
def cli(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run one command: `cli("shops", "list", stdin="…", PORT="1")`."""
    return _runner(environment, monkeypatch, capsys)


@pytest.fixture
def bare_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The same for what must not come as far as a database: there is none."""
    return _runner(clean_environment(DATABASE_URL="postgresql://127.0.0.1:9/none", PORT="0"), monkeypatch, capsys)


@pytest.fixture
def shop(cli: Cli, owner: psycopg.Connection) -> str:
    """The shop, added with its token. Whom that read is forgotten, so that a test's customers are those it names."""
    assert cli("shops", "add", DOMAIN, "--access-token", TOKEN).status == 0
    owner.execute("delete from mirror_states")
    owner.execute("delete from customers")
    return DOMAIN
