"""A report of the suite reads like a specification: every test says what must hold."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SUITE = Path(__file__).resolve().parents[1] / "ssmcore_conformance"


@pytest.mark.parametrize("file", sorted(SUITE.glob("test_*.py")), ids=lambda path: path.stem)
def test_every_test_states_a_property(file: Path) -> None:
    body = ast.parse(file.read_text("utf-8")).body
    tests = [x for x in body if isinstance(x, ast.FunctionDef) and x.name.startswith("test_")]
    assert tests
    for test in tests:
        first = (ast.get_docstring(test) or "").partition("\n")[0]
        assert len(first) > 10, f"{file.name}::{test.name}: {first!r}"
