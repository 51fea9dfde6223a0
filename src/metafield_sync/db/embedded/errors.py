"""What the embedded PostgreSQL tells its user when it cannot work."""

from __future__ import annotations

from typing import ClassVar

from metafield_sync.errors import AppError


class EmbeddedPostgresError(AppError):
    """The embedded PostgreSQL cannot be used here; the `detail` says why and what to do about it."""

    code: ClassVar[str] = "embedded_postgres"
    status: ClassVar[int] = 503
    exit_status: ClassVar[int] = 2
