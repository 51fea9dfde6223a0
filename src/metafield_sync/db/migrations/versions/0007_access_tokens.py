"""Access tokens that expire, and how a shop is installed."""

from metafield_sync.db.migrations.plain_sql import run_sql_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql_beside(__file__)
