"""What a test does where something it needs cannot be had: in CI it fails, elsewhere it skips and says so."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_loudly(config: pytest.Config, reason: str) -> NoReturn:
    """Skip with one red line that pytest does not keep to itself; in CI, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI this must not be missing: {reason}")
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"\nNOT PROVED: {reason}", red=True)
    pytest.skip(reason)
