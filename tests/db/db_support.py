"""What stands between a client and PostgreSQL in these tests: a relay that counts, and a real PgBouncer."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE_S = 20
START = "import sys; from metafield_sync.db.migrate import migrate; migrate(sys.argv[1], sys.argv[1])"
START_S = 60


def start_at_once(urls: Sequence[str]) -> None:
    """Start the program's migration in a process for each, all at the same time; each has to succeed."""
    starts = [subprocess.Popen([sys.executable, "-c", START, url], stderr=subprocess.PIPE, text=True) for url in urls]
    for start in starts:
        _, errors = start.communicate(timeout=START_S)
        assert start.returncode == 0, errors


class Relay:
    """Stands between a client and PostgreSQL, and counts how often the conversation turns round."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._stack = AsyncExitStack()
        self.turnarounds = 0
        self.port = 0
        self._client_spoke_last = False

        self._conversations: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._stack.push_async_callback(self._hang_up)
        self._stack.callback(server.close)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _hang_up(self) -> None:
        conversations = list(self._conversations)
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.create_task(self._converse(reader, writer))
        self._conversations.add(conversation)
        conversation.add_done_callback(self._conversations.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(self._socket_path)
        try:
            with suppress(ConnectionError):
                await asyncio.gather(
                    self._pass_on(reader, there_writer, is_client=True),
                    self._pass_on(there_reader, writer, is_client=False),
                )
        finally:
            for end in (writer, there_writer):
                end.close()
                with suppress(ConnectionError):
                    await end.wait_closed()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_client: bool) -> None:
        while heard := await source.read(65_536):
            if self._client_spoke_last and not is_client:
                self.turnarounds += 1
            self._client_spoke_last = is_client
            target.write(heard)
            await target.drain()
        target.close()


def pgbouncer_program() -> str:
    """Where PgBouncer is. Without it the test is skipped with one line that says so; in CI it fails."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if found is None:
        lacking = "NOT TESTED behind PgBouncer: it is missing (Debian: apt-get install pgbouncer)"
        if os.environ.get("CI") == "true":
            pytest.fail(lacking)
        pytest.skip(lacking)
    return found


class PgBouncer:
    """A PgBouncer of a test's own, in transaction mode, before the server of `database_url`."""

    def __init__(self, database_url: str, *, server_connections: int) -> None:
        self._server = conninfo_to_dict(database_url)
        self._server_connections = server_connections
        self._stack = AsyncExitStack()
        self._program = pgbouncer_program()
        self._log = Path(os.devnull)
        self.url = ""
        """The same database and login, by way of PgBouncer."""

    async def __aenter__(self) -> Self:
        # By a relay, because the server's socket lies in a folder of mode 700.
        relay = await self._stack.enter_async_context(Relay(f"{self._server['host']}/.s.PGSQL.{self._server['port']}"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process, self._log = self._start(relay.port, port)
        self.url = make_conninfo(
            host="127.0.0.1", port=port, user=str(self._server["user"]), dbname=str(self._server["dbname"])
        )
        deadline = time.monotonic() + PATIENCE_S
        while not await self._answers():
            assert process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    async def _answers(self) -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(self.url):
                return True
        except psycopg.OperationalError:
            return False

    def _start(self, relay_port: int, port: int) -> tuple[subprocess.Popen[bytes], Path]:
        folder = Path(tempfile.mkdtemp(prefix="mfs-pgbouncer-", dir="/tmp"))
        self._stack.callback(shutil.rmtree, folder)
        (folder / "users.txt").write_text(f'"{self._server["user"]}" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"""
[databases]
* = host=127.0.0.1 port={relay_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder / "users.txt"}
pool_mode = transaction
default_pool_size = {self._server_connections}
max_client_conn = 200
"""
        )
        # It refuses to run as root.
        nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if nobody is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [self._program, folder / "pgbouncer.ini"],
                stdout=log,
                stderr=log,
                user=None if nobody is None else nobody.pw_uid,
                group=None if nobody is None else nobody.pw_gid,
                extra_groups=None if nobody is None else [],
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process, folder / "log"
