"""Every page of docs/ runs: its Python blocks, in their order, in one interpreter of their own."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
from checks import fresh
from checks.test_readme import BLOCK

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
PACKAGE_OF = {"s5": "s5-pytorch"}


def code_of(page: Path) -> str:
    """Return the Python blocks of a page as one program; those that need a GPU are left out."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return "\n".join(code for marked, code in found if not marked)


def missing(code: str) -> list[str]:
    """Return the packages that ``code`` imports and that are not installed."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return sorted(PACKAGE_OF.get(n, n) for n in names if importlib.util.find_spec(n) is None)


def test_there_are_pages_with_code() -> None:
    assert any(code_of(page) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    code = code_of(page)
    absent = missing(code)
    if absent:
        pytest.skip(f"{page.name} needs {', '.join(absent)}: not installed")
    print(fresh.output(code, where=tmp_path))


def test_what_is_missing_is_found() -> None:
    assert missing("import numpy, no_such_package.part\nfrom ssmcore import verify") == [
        "no_such_package"
    ]


def test_a_page_that_fails_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\ntext\n```python\nassert x == 2\n```\n")
    assert fresh.failure(code_of(page)) == "AssertionError"
