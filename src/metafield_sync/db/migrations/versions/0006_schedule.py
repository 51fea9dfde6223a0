"""The schedule, the job queue it stands on, and how history ends."""

from __future__ import annotations

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from metafield_sync.db.migrate import DatabaseUnusable
from metafield_sync.db.migrations.plain_sql import run_sql, run_sql_beside

revision = "0006"
down_revision = "0005"

JOBS_SCHEMA_SHA256 = "c70ec4b400a60ad9592787653aae5ae77ae41bf801d56b5bd2712751a07f2009"
"""Of procrastinate 3.10's `sql/schema.sql`."""


def upgrade() -> None:
    """Make procrastinate's tables from the file the installed package carries, then run our own beside this one.

    Its file, and not a copy of 600 lines that nobody here wrote; by its digest, so that this step does the same for
    ever. A release with another schema brings a migration of its own: its upgrade for who has these tables, and a copy
    of the old file for this step, to begin from.

    Raises:
        DatabaseUnusable: another procrastinate is installed than the lock files say.
    """
    package = find_spec("procrastinate")
    if package is None or package.origin is None:
        raise DatabaseUnusable("procrastinate is not installed. Install what requirements/runtime.txt names.")
    schema = Path(package.origin).with_name("sql").joinpath("schema.sql").read_bytes()
    if sha256(schema).hexdigest() != JOBS_SCHEMA_SHA256:
        raise DatabaseUnusable(
            "The procrastinate that is installed is not 3.10, whose schema this database needs. Install what "
            "requirements/runtime.txt names."
        )
    run_sql(schema)
    run_sql_beside(__file__)
