"""A PostgreSQL of our own under `DATA_DIR`, for whoever has not set `DATABASE_URL`.

Only the program files come from a wheel; starting, sharing, adopting and stopping the server is done here,
because several of our processes use one `DATA_DIR` at the same time and any of them may be killed at any
moment. See docs/decisions/0002-embedded-postgresql.md.
"""

from metafield_sync.db.embedded.errors import EmbeddedPostgresError
from metafield_sync.db.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
