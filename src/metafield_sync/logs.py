"""Logs: structlog and the standard library's logging through one door, to standard error, secrets struck out."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from metafield_sync.settings import Settings

SECRETS = re.compile(
    r"mfs_[A-Za-z0-9_-]{20,}"  # our API keys
    r"|shp[a-z]{2,4}_[A-Za-z0-9_-]{8,}"  # Shopify's access tokens and app secrets
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # ID tokens, and every other JWT
    r"|\bgAAAAA[A-Za-z0-9_=-]{40,}"  # what is sealed, too
    r"|(?<=://)[^/@\s\"']+:[^/@\s\"']+(?=@)",  # user and password in a URL
)
STRUCK_OUT = "[secret]"

QUIET_LOGGERS = ("httpx", "httpcore", "asyncio", "procrastinate")
"""Each tells of every call, at a level that is ours for things worth knowing."""


def configure(settings: Settings, *, level: str | None = None) -> None:
    """Send every log line to standard error in the wanted form; doing it again changes form and level.

    Args:
        settings: `log_format` (None: console on a terminal, else JSON) and `log_level`.
        level: wins over `log_level`.
    """
    as_json = settings.log_format == "json" or (settings.log_format is None and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _StandardError()
    handler.setFormatter(_Formatter(shared, as_json=as_json))
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _StandardError)]:
        root.removeHandler(old)
    root.addHandler(handler)
    wanted = (level or settings.log_level).upper()
    root.setLevel(wanted)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    migrations = logging.getLogger("alembic.runtime.migration")
    migrations.filters[:] = [_applies_a_step]


def strike_out(text: str) -> str:
    """The text without keys, tokens and passwords, wherever they stand in it."""
    return SECRETS.sub(STRUCK_OUT, text)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that moment: a progress bar puts itself in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # pyright: ignore[reportIncompatibleVariableOverride] - never set, only read
        return sys.stderr


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """One line for a log entry (and its traceback, on a console)."""

    def __init__(self, shared: list[Processor], *, as_json: bool) -> None:
        if as_json:
            rendered: list[Processor] = [
                structlog.processors.format_exc_info,
                structlog.processors.EventRenamer("message"),
                _heading_first,
                structlog.processors.JSONRenderer(),
            ]
        else:
            rendered = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        super().__init__(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )

    def format(self, record: logging.LogRecord) -> str:
        """Render, then strike secrets out of the whole line: whichever part of it they came in by."""
        return strike_out(super().format(record))


def _heading_first(_: Any, __: str, event: EventDict) -> EventDict:
    """When, how bad and what, before the particulars: people read these lines too."""
    heading = {name: event.pop(name) for name in ("timestamp", "level", "message") if name in event}
    return {**heading, **event}


def _applies_a_step(record: logging.LogRecord) -> Any:
    """Alembic says first which dialect it has found, each time; only the steps are news."""
    return record.levelno > logging.INFO or str(record.msg).startswith("Running")
