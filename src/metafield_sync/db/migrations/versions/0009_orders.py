"""Orders, what they earned, and the rule they earn by."""

from metafield_sync.db.migrations.plain_sql import run_sql_beside

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql_beside(__file__)
