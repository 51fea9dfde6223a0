"""Everything a run needs, started and stopped: PostgreSQL, the devstore, the web process, the workers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from cryptography.fernet import Fernet

from chaos.processes import ChaosFailed, Fleet, Leash, Program
from chaos.shops import DOMAINS
from chaos.store import TOKEN, Store, store_program
from metafield_sync.db.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    from chaos.plan import Scope

COMMAND_TIMEOUT_S = 120
LATENCY_MS = (20, 150)
# Several commands by one process: to start is what takes the time.
MANY_COMMANDS = """
import json, sys
from metafield_sync.cli import main
sys.exit(max(main(words) for words in json.loads(sys.argv[1])))
"""
KEPT_OF_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Stage:
    """A run's parts at work."""

    conn: psycopg.AsyncConnection
    http: httpx.AsyncClient
    store: Store
    web: Program
    fleet: Fleet
    address: str
    keys: Sequence[str]
    leash: Leash
    environment: Mapping[str, str]

    async def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of `metafield-sync`, run to its end."""
        return await _python(self.leash, self.environment, "-m", "metafield_sync", *arguments)

    def logs(self) -> list[Path]:
        """The logs of what is ours."""
        return [self.web.log, *(worker.log for worker in self.fleet.workers)]


@asynccontextmanager
async def staged(folder: Path, scope: Scope) -> AsyncGenerator[Stage]:
    """Start all of it, faultless as yet, and stop it when the block ends.

    Raises:
        ChaosFailed: something does not start.
    """
    logs = folder / "logs"
    logs.mkdir()
    async with AsyncExitStack() as stack:
        leash = stack.enter_context(Leash(folder / "data"))
        server = EmbeddedPostgres(folder / "data")
        url = await asyncio.to_thread(server.start)
        stack.push_async_callback(asyncio.to_thread, server.stop)
        # As many connections as there are postings under way: what waits for a dead web process holds up nothing else.
        http = await stack.enter_async_context(
            httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=20))
        )
        bare = {name: os.environ[name] for name in KEPT_OF_ENVIRONMENT if name in os.environ}
        store = Store(store_program(logs, leash, bare), http)
        stack.push_async_callback(store.stop)
        await store.start(customers=scope.customers, seed=scope.seed, latency_ms=LATENCY_MS)
        port = _free_port()
        # Nothing is to happen by itself but the mirroring: a scheduled reconciliation would hide what it has missed.
        environment = {
            **bare,
            "DATA_DIR": str(folder / "data"),
            "SHOPIFY_ADMIN_ORIGIN": store.admin_origin,
            "ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "PORT": str(port),
            "LOG_FORMAT": "json",
            "VERIFY_CRON": "off",
            "RECONCILE_CRON": "off",
        }
        keys = await _add_shops(leash, environment)
        web, *workers = [
            Program("metafield_sync", words, log=logs / f"{name}.log", environment=environment, leash=leash)
            for name, *words in (
                ("web", "serve", "--no-worker"),
                *((f"worker-{slot}", "worker") for slot in range(scope.workers)),
            )
        ]
        stack.push_async_callback(web.stop)
        web.start()
        address = (await web.said("serving"))["address"]
        fleet = Fleet(workers)
        stack.push_async_callback(fleet.stop)
        await fleet.start()
        conn = await stack.enter_async_context(await psycopg.AsyncConnection.connect(url, autocommit=True))
        yield Stage(conn, http, store, web, fleet, address, keys, leash, environment)


def as_document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON document that a command printed.

    Raises:
        ChaosFailed: it printed none.
    """
    try:
        return json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise ChaosFailed(f"{' '.join(done.args[3:])} ended with status {done.returncode}: {said}") from None


async def _add_shops(leash: Leash, environment: Mapping[str, str]) -> list[str]:
    """Add the shops, and make each a key."""
    commands = [
        command
        for domain in DOMAINS
        for command in (
            ["shops", "add", domain, "--access-token", "-", "--json"],
            ["keys", "create", "--shop", domain, "--name", "chaos", "--json"],
        )
    ]
    done = await _python(leash, environment, "-c", MANY_COMMANDS, json.dumps(commands))
    if done.returncode != 0:
        raise ChaosFailed(f"the shops could not be added: {done.stderr.strip()[-500:]}")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    return [document["key"] for document in documents if "key" in document]


async def _python(leash: Leash, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *arguments],
        input=f"{TOKEN}\n" * len(DOMAINS),
        capture_output=True,
        text=True,
        check=False,
        env=dict(environment),
        timeout=COMMAND_TIMEOUT_S,
        process_group=leash.group,
    )


def _free_port() -> int:
    """A port for the web process, the same in every life of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
