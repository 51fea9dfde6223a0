"""How a migration runs its SQL file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from alembic import op

if TYPE_CHECKING:
    import psycopg


def run_sql_beside(migration: str) -> None:
    """Run the `.sql` file that has the name of the migration's own file (pass `__file__`)."""
    run_sql(Path(migration).with_suffix(".sql").read_bytes())


def run_sql(statements: bytes) -> None:
    """Run many statements in one go.

    Handed to psycopg as they are, without parameters: no `%` or `:name` is special in them.
    """
    connection = cast("psycopg.Connection", op.get_bind().connection.driver_connection)
    connection.execute(statements)
