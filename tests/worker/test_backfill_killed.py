"""A backfill whose worker is killed at each of its steps: the program that measures it, on a small shop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 110


def test_a_backfill_goes_on_wherever_its_worker_is_killed() -> None:
    command = [sys.executable, "-m", "benchmarks", "backfill", "--customers", "3000", "--hurry"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3,000 customers" in ended.stdout
    assert "with 9 kills: 0 wrong" in ended.stdout
