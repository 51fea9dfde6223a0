"""Shopify's own command line builds the app from its configuration, and would tell if something in it were wrong."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from loudly import skip_loudly

ROOT = Path(__file__).parents[1]
CONFIGURATION = ("shopify.app.toml", "shopify.web.toml", "extensions")
PACKAGES = ("package.json", "package-lock.json")
INSTALL_TIMEOUT_S = 110
BUILD_TIMEOUT_S = 60


@pytest.fixture(scope="session")
def node_modules(request: pytest.FixtureRequest) -> Path:
    """What package-lock.json names, installed; kept between sessions for as long as the lock is the same."""
    lock = b"".join((ROOT / name).read_bytes() for name in PACKAGES)
    folder: Path = request.config.cache.mkdir(f"shopify-cli-{hashlib.sha256(lock).hexdigest()[:16]}")
    complete = folder / "complete"
    if not complete.exists():
        npm = shutil.which("npm")
        if npm is None:
            skip_loudly(request.config, "the app's configuration against Shopify's CLI: npm is missing")
        for name in PACKAGES:
            shutil.copy(ROOT / name, folder)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            why = f"{error} {error.stderr or ''}"
            skip_loudly(request.config, f"the app's configuration against Shopify's CLI: npm could not get it: {why}")
        complete.touch()
    return folder / "node_modules"


class Checkout:
    """The app's configuration by itself, in a folder of its own that a test may damage."""

    def __init__(self, folder: Path, node_modules: Path) -> None:
        self._folder = folder
        self._node_modules = node_modules
        for name in CONFIGURATION:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        (folder / "node_modules").symlink_to(node_modules)

    def change(self, name: str, old: str, new: str) -> None:
        """Replace a line, or a part of one, wherever it stands in a file; it has to stand there."""
        path = self._folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def build(self) -> tuple[int, str]:
        """The exit status of `shopify app build` and what it printed, its frame of lines taken off."""
        environment = {
            # Node as the lock has it, where the machine's own is too old for the CLI.
            "PATH": f"{self._node_modules / '.bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self._folder),
            "CI": "1",
            "NO_COLOR": "1",
            "SHOPIFY_CLI_NO_ANALYTICS": "1",
        }
        command = [str(self._node_modules / ".bin/shopify"), "app", "build", "--skip-dependencies-installation"]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_TIMEOUT_S,
        )
        return done.returncode, " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stdout).split())


@pytest.fixture
def checkout(tmp_path: Path, node_modules: Path) -> Checkout:
    return Checkout(tmp_path, node_modules)


def test_shopifys_own_cli_builds_the_app(checkout: Checkout) -> None:
    status, said = checkout.build()
    assert status == 0, said
    assert "metafield-sync built!" in said


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("shopify.app.toml", '"shop/redact"', '"shop/forget"', "Invalid enum value"),
        ("shopify.app.toml", "embedded = true", "embedded = 1", "[embedded]: Value must be Boolean"),
        ("shopify.app.toml", "application_url", "application_address", "[application_url]"),
        ("shopify.app.toml", 'uri = "/webhooks"', 'uri = "webhooks"', "URI format isn't correct"),
        ("shopify.app.toml", 'include_fields = ["id"]', 'include_fields = "id"', "Expected array, received string"),
        ("shopify.app.toml", 'url = "/proxy"', 'url = "proxy"', "[app_proxy.url]"),
        ("shopify.web.toml", "dev = ", "start = ", "[commands.dev]: Required"),
        ("extensions/adjust-points/shopify.extension.toml", '"/flow/adjust', '"flow/adjust', "[runtime_url]"),
        (
            "extensions/points-balance-changed/shopify.extension.toml",
            '"Points balance"',
            '"points_balance"',
            "only alphabetic characters and spaces",
        ),
    ],
)
def test_a_mistake_in_the_configuration_does_not_pass(
    checkout: Checkout, name: str, old: str, new: str, complaint: str
) -> None:
    checkout.change(name, old, new)
    status, said = checkout.build()
    assert status != 0
    assert complaint in said
