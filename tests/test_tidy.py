"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 480


def functions(path: Path) -> list[tuple[str, int]]:
    """Each function of a file with its length in lines, its docstring left out."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            found.append((node.name, lines))
    return found


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {name} has {lines} lines"
        for path in SOURCES
        for name, lines in functions(path)
        if lines > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_no_file_is_a_burden() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in SOURCES
        if (lines := len(path.read_text().splitlines())) > FILE_LINES_MAX
    ]
    assert long == []


def test_every_migration_has_its_place_and_its_sql() -> None:
    versions = ROOT / "src/metafield_sync/db/migrations/versions"
    steps = sorted(path.stem for path in versions.glob("[0-9]*.sql"))
    assert steps == sorted(path.stem for path in versions.glob("[0-9]*.py"))
    assert [step[:4] for step in steps] == [f"{number:04d}" for number in range(1, len(steps) + 1)]


def test_no_network_call_happens_inside_a_transaction() -> None:
    """`sync` is the only place that has both; there, nothing of Shopify's is awaited inside `db.shop()`."""
    offenders = [
        f"{path.relative_to(ROOT)}:{inner.lineno}"
        for path in SOURCES
        if "/sync/" in str(path)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncWith) and re.search(r"\.(shop|unscoped)\(", ast.unparse(node.items[0]))
        for inner in ast.walk(node)
        if isinstance(inner, ast.Await)
        and re.search(r"\b(set_metafields|ensure_definition|drain|push_batch|begin_drain)\(", ast.unparse(inner))
    ]
    assert offenders == []


def test_the_demo_carries_its_data_with_its_attribution() -> None:
    data = ROOT / "src/metafield_sync/data"
    assert len((data / "CDNOW_sample.txt").read_bytes()) == 228_327
    assert "Fader" in (data / "README.md").read_text()
