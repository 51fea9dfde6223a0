"""Alembic's entry: everything that is pending, in one transaction, one migrator at a time."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

MIGRATION_LOCK_ID = 0x6D667379  # "mfsy": any number that nothing else in the database locks
MIGRATION_WAIT_S = 120
"""How long one start waits for another's migration."""
MIGRATION_TABLE_LOCK_S = 5
"""How long a step may queue for a table lock. Postings queue behind it, so it gives up instead."""
MIGRATION_STATEMENT_S = 600


def run(connection: Connection) -> None:
    """Take the lock, then look what is pending, so that the second of two starts at once finds nothing to do."""
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        connection.execute(text(f"set local lock_timeout = '{MIGRATION_WAIT_S}s'"))
        connection.execute(text("select pg_advisory_xact_lock(:id)"), {"id": MIGRATION_LOCK_ID})
        connection.execute(text(f"set local lock_timeout = '{MIGRATION_TABLE_LOCK_S}s'"))
        connection.execute(text(f"set local statement_timeout = '{MIGRATION_STATEMENT_S}s'"))
        context.run_migrations()
        connection.execute(text("grant select on alembic_version to metafield_sync_app"))


run(context.config.attributes["connection"])
