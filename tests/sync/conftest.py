"""Fixtures of the mirror's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sync_support import Stage, open_mirror, open_stage

from metafield_sync.sync.runs import Runs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psycopg

    from metafield_sync.db.database import Database


@pytest.fixture
async def stage(db: Database, owner: psycopg.Connection) -> AsyncIterator[Stage]:
    """A shop with nobody in our ledger and customers 1 to 30 in Shopify."""
    async with open_stage(db, owner) as stage:
        yield stage
        await stage.runs.close()
        assert stage.calls_on_record() == [], "what came of every call is recorded"


@pytest.fixture
def short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who fails is tried again after 50 ms, 100 ms … instead of 2 s, 4 s …"""
    monkeypatch.setattr("metafield_sync.sync.outcomes.RETRY_FIRST_S", 0.05)


@pytest.fixture
async def other_runs(stage: Stage) -> AsyncIterator[Runs]:
    """The runs of another process that works for the same shop."""
    async with open_mirror(stage.db, stage.store) as mirror:
        runs = Runs(mirror)
        yield runs
        await runs.close()
