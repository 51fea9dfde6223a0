"""`chaos` stands beside `src`, where `make chaos` finds it; here it has to be pointed out."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
