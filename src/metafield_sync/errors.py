"""The one base of errors a caller may be told about."""

from __future__ import annotations

from typing import ClassVar


class AppError(Exception):
    """Something a caller can act on: a stable `code`, an HTTP `status`, and a `detail` that says what to do next.

    Subclass it beside whatever raises it. The web edge turns any of them into `application/problem+json`, the command
    line into one line on standard error.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1
    """What the command line exits with: 1 finished with failures, 2 wrong usage or settings."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
