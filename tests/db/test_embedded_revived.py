"""A program that runs on the embedded PostgreSQL survives the death of the server under it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from metafield_sync.db.embedded import EmbeddedPostgres
from metafield_sync.db.embedded.folder import SOCKET_PATH_BYTES_MAX, Folder
from metafield_sync.errors import AppError
from metafield_sync.runtime import Runtime, open_runtime
from metafield_sync.settings import Settings
from metafield_sync.shops.registry import add_shop, list_shops

if TYPE_CHECKING:
    from pathlib import Path

DOMAIN = "first.myshopify.com"
PATIENCE_S = 60


async def postmaster_killed(data_dir: Path) -> int:
    """Kill it, and return who it was."""
    pid = Folder(data_dir).pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


async def answers(runtime: Runtime) -> bool:
    try:
        async with runtime.db.unscoped() as conn:
            return [shop.domain for shop in await list_shops(conn)] == [DOMAIN]
    except AppError:
        return False


@pytest.mark.parametrize("deep", [False, True])
async def test_a_killed_server_is_started_again_beneath_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, deep: bool
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    # Below a deep folder the socket's own lies in /tmp, another each time; the program must follow it there.
    data_dir = tmp_path / ("d" * SOCKET_PATH_BYTES_MAX if deep else "data")
    settings = Settings.load(data_dir=data_dir)
    async with open_runtime(settings) as runtime:
        async with runtime.db.unscoped() as conn:
            await add_shop(conn, DOMAIN, None)
        for _ in range(2):
            killed = await postmaster_killed(data_dir)
            deadline = time.monotonic() + PATIENCE_S
            while Folder(data_dir).pid() in {None, killed} or not await answers(runtime):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
    assert Folder(data_dir).pid() is None, "and it is stopped by its last user all the same"


def test_a_server_is_known_to_have_died_only_when_it_has(tmp_path: Path) -> None:
    first, second = EmbeddedPostgres(tmp_path), EmbeddedPostgres(tmp_path)
    first.start()
    assert not first.has_died()
    second.start()
    first.stop()
    assert not second.has_died()
    second.stop()
    assert second.has_died()
