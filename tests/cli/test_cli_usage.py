"""The program as a whole: its help, its version, wrong usage, wrong settings, a database that is of no use."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from cli_support import Program, clean_environment

from metafield_sync import __version__

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from cli_support import Cli

COMMANDS = (
    "demo", "serve", "worker", "migrate", "doctor", "shops", "keys", "sync", "verify", "reconcile", "post"
)  # fmt: skip
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


def test_the_version_is_the_packages(bare_cli: Cli) -> None:
    assert bare_cli("--version").out == f"{__version__}\n"


def test_the_help_names_every_command_and_no_other(bare_cli: Cli) -> None:
    shown = bare_cli("--help")
    assert shown.status == 0
    assert shown.out == bare_cli().out
    for command in COMMANDS:
        assert f"│ {command} " in shown.out
    for later in ("import", "export"):
        assert f"│ {later} " not in shown.out


@pytest.mark.parametrize(
    "command",
    [
        *([command] for command in COMMANDS),
        *(["shops", action] for action in ("add", "list", "pause", "resume", "remove")),
        *(["keys", action] for action in ("create", "list", "revoke")),
    ],
)
def test_every_command_and_option_explains_itself(bare_cli: Cli, command: list[str]) -> None:
    shown = bare_cli(*command, "--help")
    assert shown.status == 0
    lines = shown.out.splitlines()
    assert lines[0].startswith(f"Usage: metafield-sync {' '.join(command)}")
    assert lines[2]
    for number, line in enumerate(lines):
        option = line.strip("│* ").split("  ")[0]
        if line.startswith("│") and option.startswith("--"):
            words = line.split(option)[1].strip("│ ")
            assert words or lines[number + 1].strip("│ "), f"{option} says nothing"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sink"], "sync"),
        (["shops", "ad"], "add"),
        (["sync", "--shopp", "x"], "--shopp"),
        (["sync", "extra"], "extra"),
        (["keys", "revoke", "first"], "first"),
        (["keys", "create", "--name", "a", "--scope", "admin"], '"read", "write"'),
        (["verify", "--customer", "1"], "UUID"),
        (["shops", "add"], "DOMAIN"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(bare_cli: Cli, arguments: list[str], said: str) -> None:
    refused = bare_cli(*arguments)
    assert refused.status == 2
    assert said in refused.complaint
    assert "--help" in refused.complaint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://nowhere"),
        ("SHOPIFY_ADMIN_ORIGIN", "http://shop.example"),
        ("ENCRYPTION_KEYS", "no-key"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(bare_cli: Cli, name: str, value: str) -> None:
    for command in (["shops", "list"], ["serve"], ["worker"], ["migrate"], ["demo"]):
        refused = bare_cli(*command, **{name: value})
        assert refused.status == 2
        assert refused.complaint.startswith(f"metafield-sync: {name}: ")


def test_a_token_that_cannot_be_read_names_the_setting(cli: Cli, shop: str) -> None:
    cli("post", "--shopify-customer", "1", "--amount", "1", "--reason", "gift")
    stopped = cli("sync", "--shop", shop, "--json", ENCRYPTION_KEYS="")
    assert stopped.status == 2
    assert stopped.complaint.startswith("metafield-sync: ENCRYPTION_KEYS")


def test_an_unreachable_postgresql_is_one_line(bare_cli: Cli) -> None:
    for command in (["shops", "list"], ["sync", "--json"], ["migrate"], ["serve"], ["worker"]):
        refused = bare_cli(*command, DATABASE_URL="postgresql://me:secret@127.0.0.1:9/nowhere")
        assert refused.status == 2
        assert "DATABASE_URL" in refused.complaint
        assert "secret" not in refused.complaint


@contextmanager
def _old_postgresql() -> Generator[int]:
    """As much of PostgreSQL 14 as it takes to be recognised; yields its port."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!I", len(body) + 4) + body

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while struct.unpack("!II", client.recv(8))[1] in {SSL_REQUEST, GSS_REQUEST}:
                    client.sendall(b"N")
                client.recv(4096)
                parameters = b"".join(
                    message(b"S", name + b"\0" + value + b"\0")
                    for name, value in ((b"server_version", b"14.9"), (b"client_encoding", b"UTF8"))
                )
                client.sendall(message(b"R", struct.pack("!I", 0)) + parameters + message(b"Z", b"I"))
                client.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_postgresql_that_is_too_old_is_one_line(bare_cli: Cli) -> None:
    with _old_postgresql() as port:
        refused = bare_cli("shops", "list", DATABASE_URL=f"postgresql://me@127.0.0.1:{port}/points")
    assert refused.status == 2
    assert "PostgreSQL 14 is too old" in refused.complaint


def test_migrating_tells_what_it_applied_and_then_that_all_is_current(cli: Cli, empty_database_url: str) -> None:
    first = cli("migrate", "--json", DATABASE_URL=empty_database_url)
    assert first.status == 0
    applied = first.document["applied"]
    assert applied
    assert first.document["schema"] == applied[-1]
    again = cli("migrate", DATABASE_URL=empty_database_url)
    assert (again.status, again.err) == (0, "")
    assert "up to date" in again.out
    assert cli("migrate", "--json", DATABASE_URL=empty_database_url).document["applied"] == []


def test_any_command_migrates_by_itself(cli: Cli, empty_database_url: str) -> None:
    listed = cli("shops", "list", "--json", DATABASE_URL=empty_database_url)
    assert listed.document == {"shops": []}
    with psycopg.connect(empty_database_url) as conn:
        assert conn.execute("select count(*) from ledger_entries").fetchone() == (0,)


def test_without_a_database_url_it_brings_its_own(tmp_path: Path) -> None:
    for said in ("Applied: ", "up to date"):
        with Program("migrate", environment=clean_environment(DATA_DIR=str(tmp_path))) as program:
            ended = program.result()
        assert (ended.status, ended.err) == (0, "")
        assert said in ended.out


@pytest.mark.parametrize("arguments", [["--help"], ["shops", "list", "--json"]])
def test_a_reader_who_has_had_enough_gets_no_traceback(environment: dict[str, str], arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "metafield_sync", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")
