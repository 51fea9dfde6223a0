"""Changes of balance that Shopify Flow is told of."""

from metafield_sync.db.migrations.plain_sql import run_sql_beside

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_sql_beside(__file__)
