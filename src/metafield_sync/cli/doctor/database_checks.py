"""Checks of the database: there, new enough, at the right schema, and not run with too many rights."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from alembic.script import ScriptDirectory

from metafield_sync.cli.doctor.findings import Finding
from metafield_sync.db.embedded import EmbeddedPostgres, EmbeddedPostgresError
from metafield_sync.db.embedded.folder import Folder
from metafield_sync.db.migrate import (
    DatabaseUnusable,
    check_role,
    connect,
    current_revision,
    head_revision,
    migration_config,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from metafield_sync.settings import Settings

NOT_THERE = "There is no database yet"
CLOCK_DIFFERENCE_MAX_S = 5.0


@contextmanager
def database_url(settings: Settings) -> Generator[str | Finding]:
    """Where the database is; or why there is none. An embedded one is started if it is there and stands still.

    Blocks: call it from a thread.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    if Folder(settings.data_dir).major() is None:
        yield Finding(
            "database",
            "wrong",
            f"{NOT_THERE}: DATABASE_URL is not set, and nothing is below {settings.data_dir}.",
            "Set DATABASE_URL, or let metafield-sync migrate make an embedded database there.",
        )
        return
    server = EmbeddedPostgres(settings.data_dir)
    try:
        url = server.start()
    except EmbeddedPostgresError as error:
        yield Finding("database", "wrong", error.detail, "See to that, or set DATABASE_URL.", by_setting=True)
        return
    try:
        yield url
    finally:
        server.stop()


def check_database(settings: Settings, url: str) -> list[Finding]:
    """Look at the database itself, as far as it lets itself be looked at. Blocks: call it from a thread."""
    try:
        with connect(url) as conn:
            version = str(conn.info.parameter_status("server_version"))
    except DatabaseUnusable as error:
        return [_unusable("database", error)]
    which = "the embedded one" if settings.database_url is None else "of DATABASE_URL"
    findings = [Finding("database", "ok", f"PostgreSQL {version}, {which}, answers.")]
    owner_url = settings.database_owner_url
    if owner_url is not None:
        findings.append(_check_owner(owner_url))
    looks_as = url if owner_url is None or findings[-1].level == "wrong" else owner_url
    findings.append(_look_at_schema(looks_as))
    if findings[-1].level == "ok":
        findings.append(_check_role(url))
    return findings


def _check_owner(owner_url: str) -> Finding:
    try:
        connect(owner_url).close()
    except DatabaseUnusable as error:
        return _unusable("owner", error, "Put DATABASE_OWNER_URL right: every start looks whether to migrate with it.")
    return Finding("owner", "ok", "The login of DATABASE_OWNER_URL, which migrates, gets in.")


def _check_role(url: str) -> Finding:
    try:
        check_role(url)
    except DatabaseUnusable as error:
        return _unusable("role", error)
    return Finding("role", "ok", "Transactions run in a role that may do no more than it must.")


def _look_at_schema(url: str) -> Finding:
    try:
        with connect(url) as conn:
            return _check_schema(current_revision(conn))
    except psycopg.Error as error:
        reason = str(error).splitlines()[0]
        return Finding(
            "schema",
            "wrong",
            f"The login may not see which schema the database is at: {reason}.",
            "Set DATABASE_OWNER_URL to the login that made the tables, and that migrates.",
            by_setting=True,
        )


def _check_schema(revision: str | None) -> Finding:
    head = head_revision()
    if revision == head:
        return Finding("schema", "ok", f"The schema is up to date ({head}).")
    cure = "Run: metafield-sync migrate"
    if revision is None:
        return Finding("schema", "wrong", "The database is empty.", cure)
    known = {step.revision for step in ScriptDirectory.from_config(migration_config()).walk_revisions()}
    if revision in known:
        return Finding("schema", "wrong", f"The schema is at {revision}; this version needs {head}.", cure)
    return Finding(
        "schema",
        "wrong",
        f"The schema is at {revision}, which this version does not know.",
        "Run the newer version of metafield-sync that migrated it.",
        by_setting=True,
    )


def _unusable(check: str, error: DatabaseUnusable, cure: str | None = None) -> Finding:
    return Finding(check, "wrong", error.detail, cure, by_setting=True)


def check_pooler(*, pooled: bool) -> Finding:
    """Whether a pooler stands in between: not wrong, and worth knowing."""
    if not pooled:
        return Finding("pooler", "ok", "Connected directly.")
    return Finding("pooler", "ok", "Behind a pooler (PgBouncer): no statement is prepared, which costs a little time.")


def check_clock(ahead_s: float) -> Finding:
    """Whether this machine and the database agree on the time."""
    if abs(ahead_s) <= CLOCK_DIFFERENCE_MAX_S:
        return Finding("clock", "ok", "This machine and the database agree on the time.")
    way = "ahead of" if ahead_s > 0 else "behind"
    return Finding(
        "clock",
        "warn",
        f"This machine's clock is {abs(ahead_s):,.0f} seconds {way} the database's.",
        "Let both keep time by NTP. Leases and schedules go by the database's clock, log lines by this one.",
    )
