"""The GitHub workflow that verifies: its step is run as GitHub would run it, against a real server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import psycopg

    from conftest import Api

WORKFLOW: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / ".github/workflows/verify.yml").read_text(encoding="utf-8")
)
STEP: dict[str, Any] = WORKFLOW["jobs"]["verify"]["steps"][0]
STEP_TIMEOUT_S = 60


async def run_step(api: Api, key: str) -> tuple[int | None, str]:
    """The step's exit status and what its log shows."""
    given = {
        "${{ vars.METAFIELD_SYNC_URL }}": str(api.http.base_url),
        "${{ secrets.METAFIELD_SYNC_KEY }}": key,
    }
    assert STEP["shell"] == "python"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        STEP["run"],
        env={name: given[value] for name, value in STEP["env"].items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), STEP_TIMEOUT_S)
    return process.returncode, out.decode()


def key_of(api: Api) -> str:
    return api.http.headers["Authorization"].removeprefix("Bearer ")


async def test_the_step_passes_when_every_balance_is_right(api: Api) -> None:
    for customer in range(1, 4):
        await api.post_points(customer, 10 * customer)
    status, log = await run_step(api, key_of(api))
    assert status == 0, log
    assert "3 customers, 0 corrected, 0 not synced." in log
    assert api.metafields() == {1: 10, 2: 20, 3: 30}


async def test_the_step_fails_when_a_balance_was_wrong(api: Api, owner: psycopg.Connection) -> None:
    posted = await api.post_points(1, 10)
    owner.execute("update customers set current_balance = 999 where id = %s", [posted["entry"]["customerId"]])
    status, log = await run_step(api, key_of(api))
    assert status == 1
    assert "1 customers, 1 corrected, 0 not synced." in log
    run = log.rsplit("/api/sync-runs/", 1)[1].split("/", maxsplit=1)[0]
    corrections = (await api.http.get(f"/api/sync-runs/{run}/corrections")).json()["corrections"]
    assert [(found["stored"], found["calculated"]) for found in corrections] == [(999, 10)]


async def test_the_step_fails_when_somebody_cannot_be_synced(api: Api) -> None:
    await api.post_points(4711, 10)
    status, log = await run_step(api, key_of(api))
    assert status == 1
    assert "1 customers, 0 corrected, 1 not synced." in log


async def test_the_step_says_why_it_was_refused_and_keeps_the_key_to_itself(api: Api) -> None:
    status, log = await run_step(api, "no-such-key")
    assert status == 1
    assert ": 401 " in log
    assert "no-such-key" not in log
