"""Logs: one form for ours and everybody's, and no secret in any line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import structlog

from metafield_sync import logs
from metafield_sync.settings import Settings

if TYPE_CHECKING:
    from typing import Literal

KEY = "mfs_" + "k" * 43
TOKEN = "shpat_0123456789abcdef"  # noqa: S105 - made up


def _configured(form: Literal["console", "json"] | None = None, level: str | None = None) -> None:
    logs.configure(Settings().model_copy(update={"log_format": form}), level=level)


def test_ours_and_the_standard_librarys_lines_have_one_form(capsys: pytest.CaptureFixture[str]) -> None:
    _configured()
    structlog.get_logger().info("pushed", customers=25)
    logging.getLogger("psycopg.pool").warning("slow %s", "client")
    out, err = capsys.readouterr()
    assert out == ""
    ours, theirs = (json.loads(line) for line in err.splitlines())
    assert list(ours) == ["timestamp", "level", "message", "customers"]
    assert (ours["level"], ours["message"], ours["customers"]) == ("info", "pushed", 25)
    assert (theirs["level"], theirs["message"]) == ("warning", "slow client")
    assert datetime.fromisoformat(ours["timestamp"]).utcoffset() == UTC.utcoffset(None)
    assert ours["timestamp"].endswith("Z")


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_secret_is_in_any_line(capsys: pytest.CaptureFixture[str], form: Literal["console", "json"]) -> None:
    _configured(form)
    log = structlog.get_logger()
    log.info("key %s", KEY, token=TOKEN, url="postgresql://me:hidden@host/points")
    try:
        raise ValueError(f"refused {TOKEN}")  # noqa: TRY301 - the traceback is the point
    except ValueError:
        log.exception("failed")
    logging.getLogger("other").warning("Authorization: Bearer %s", KEY)
    err = capsys.readouterr().err
    for secret in (KEY, TOKEN, "hidden"):
        assert secret not in err
    assert err.count("[secret]") >= 5
    assert "ValueError" in err


def test_the_level_is_kept_and_can_be_overruled(capsys: pytest.CaptureFixture[str]) -> None:
    _configured(level="warning")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert json.loads(capsys.readouterr().err)["message"] == "loud"
    _configured(level="debug")
    structlog.get_logger().debug("all")
    logging.getLogger("httpx").info("HTTP Request: …")
    assert json.loads(capsys.readouterr().err)["message"] == "all"


def test_a_tracebacks_json_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _configured("json")
    try:
        raise ValueError("no")  # noqa: TRY301 - the traceback is the point
    except ValueError:
        logging.getLogger("other").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "Traceback" in json.loads(line)["exception"]
