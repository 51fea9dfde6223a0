"""What is deployed runs as it says: every command in the files and pages about it exists, every address is served."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from metafield_sync.cli.app import app
from metafield_sync.settings import Settings
from metafield_sync.web.routes import health

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[1]
FLY = tomllib.loads((ROOT / "fly.toml").read_text())
APP = tomllib.loads((ROOT / "shopify.app.toml").read_text())
WEB = tomllib.loads((ROOT / "shopify.web.toml").read_text())
START_TIMEOUT_S = 30
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def understood(arguments: str) -> bool:
    """Whether the command line takes these arguments; it does not run them."""
    app.parse_args(shlex.split(arguments), exit_on_error=False, print_error=False)
    return True


def commands(page: Path) -> Iterable[str]:
    """What follows `metafield-sync` in a page's indented and fenced blocks, to the end of the command."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for found in re.findall(r"(?:^|[\s/])metafield-sync ((?:[a-z-]|$)[^|#>;&]*)", line):
                yield found.strip().rstrip('"')
            # The image's entry point is the program.
            yield from re.findall(r"fly machine run \S+ (\S+)", line)


def every_command() -> list[tuple[str, str]]:
    """Each command that somebody is told to run, with where."""
    fly = [("fly.toml", command) for command in (*FLY["processes"].values(), FLY["deploy"]["release_command"])]
    return fly + [(page.name, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("where", "command"), every_command())
def test_a_command_that_people_are_told_to_run_exists(where: str, command: str) -> None:
    assert understood(command), where


def test_the_pages_about_deploying_tell_of_commands() -> None:
    told = {page.name for page in PAGES if list(commands(page))}
    assert {"README.md", "install.md", "schedule.md"} <= told


def test_fly_asks_the_port_that_is_served_at_and_stops_as_the_program_wants_it() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    port = FLY["http_service"]["internal_port"]
    assert re.search(rf"^\s*PORT={port}\b", dockerfile, re.MULTILINE)
    assert {one["port"] for one in FLY["metrics"]} == {port}
    assert FLY["http_service"]["processes"] == ["web"]
    assert set(FLY["processes"]) == set(FLY["vm"][0]["processes"])
    assert FLY["kill_signal"] == "SIGTERM"
    assert FLY["http_service"]["auto_stop_machines"] == "off"


def test_flys_settings_are_ours_and_none_of_them_is_a_secret() -> None:
    known = {name.upper() for name in Settings.model_fields}
    secret = {"DATABASE_URL", "DATABASE_OWNER_URL", "ENCRYPTION_KEYS"} | {f"SHOPIFY_API_{name}" for name in SECRETS}
    assert set(FLY["env"]) <= known - secret
    named = set(re.findall(r"^#   ([A-Z_]+)", (ROOT / "fly.toml").read_text(), re.MULTILINE))
    assert named == secret


SECRETS = ("KEY", "SECRET", "SECRET_OLD")


@pytest.mark.parametrize("path", ["/readyz", "/healthz", "/metrics"])
def test_what_is_asked_for_health_is_served(path: str) -> None:
    asked = {check["path"] for check in FLY["http_service"]["checks"]} | {one["path"] for one in FLY["metrics"]}
    asked |= set(re.findall(r"/healthz", (ROOT / "Dockerfile").read_text()))
    assert path in asked
    routes: list[Any] = list(health.router.routes)
    assert path in {route.path for route in routes}


@pytest.fixture
def developing(database_url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The app as `shopify app dev` starts it, with what that puts into the environment; and where it should be."""
    program, *arguments = shlex.split(WEB["commands"]["dev"])
    assert program == ".venv/bin/metafield-sync"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    tunnel = "https://example.trycloudflare.com"
    environment = {
        "PATH": os.defpath,
        "DATABASE_URL": database_url,
        # Source: packages/app/src/cli/services/dev/processes/web.ts of Shopify's CLI.
        "SHOPIFY_API_KEY": "key",
        "SHOPIFY_API_SECRET": "secret",
        "HOST": tunnel,
        "APP_URL": tunnel,
        "SCOPES": APP["access_scopes"]["scopes"],
        "NODE_ENV": "development",
        "APP_ENV": "development",
        "PORT": port,
        "SERVER_PORT": port,
        "BACKEND_PORT": port,
        "FRONTEND_PORT": port,
    }
    command = [str(Path(sys.executable).with_name("metafield-sync")), *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        yield process, f"http://127.0.0.1:{port}"
        process.kill()


def test_shopify_app_dev_runs_the_app_where_the_tunnel_ends(developing: tuple[subprocess.Popen[str], str]) -> None:
    process, origin = developing
    deadline = time.monotonic() + START_TIMEOUT_S
    with httpx.Client() as http:
        while True:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.ConnectError):
                if http.get(f"{origin}/readyz").status_code == 200:
                    break
        # What is not signed by Shopify's secret is refused, so the secret is in use.
        assert http.post(f"{origin}/webhooks", content=b"{}").status_code == 401


def test_every_link_within_the_repository_leads_somewhere() -> None:
    pages = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/decisions").glob("*.md"))]
    lost = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert lost == []
