"""`migrate`: the schema brought up to date by itself, before a deployment for one."""

from __future__ import annotations

import asyncio

from metafield_sync import logs
from metafield_sync.cli.output import say, show_json
from metafield_sync.cli.parts import DONE, JsonOption, quiet_level
from metafield_sync.db.embedded import EmbeddedPostgres
from metafield_sync.db.migrate import head_revision
from metafield_sync.db.migrate import migrate as apply_steps
from metafield_sync.settings import Settings


async def migrate(*, json: JsonOption = False) -> int:
    """Bring the database's schema up to date.

    Every other command does so by itself; this is for doing it beforehand, with DATABASE_OWNER_URL for one. Safe to
    run at any time and any number at once.
    """
    settings = Settings.load()
    logs.configure(settings, level=quiet_level(settings))
    applied = await asyncio.to_thread(_migrate, settings)
    if json:
        show_json({"applied": applied, "schema": head_revision()})
    elif applied:
        say(f"Applied: {', '.join(applied)}.")
    else:
        say(f"The database is up to date (schema {head_revision()}).")
    return DONE


def _migrate(settings: Settings) -> list[str]:
    if settings.database_url is not None:
        return apply_steps(settings.database_owner_url or settings.database_url, settings.database_url)
    with EmbeddedPostgres(settings.data_dir) as server:
        url = server.start()
        return apply_steps(url, url)
