"""Every Python block of the README runs, except those marked as needing a GPU."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"(<!-- needs a GPU[^\n]*-->\n)?```python\n(.*?)```", re.DOTALL)


def blocks() -> list[str]:
    found = BLOCK.findall(README.read_text(encoding="utf-8"))
    return [code for marked, code in found if not marked]


def test_the_readme_has_its_examples() -> None:
    libraries = ("numpy", "ssmcore_torch", "ssmcore_jax")
    assert all(any(f"import {name}" in code for code in blocks()) for name in libraries)


@pytest.mark.parametrize("index", range(len(blocks())))
def test_readme_block_runs(index: int) -> None:
    code = blocks()[index]
    for library in ("torch", "jax"):
        if re.search(rf"\bimport {library}\b|\"{library}\"", code):
            pytest.importorskip(library)
    exec(compile(code, f"README block {index}", "exec"), {})


def test_readme_names_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert "python -m pip install nox && python -m nox -s verify" in text
    assert "python -m nox -s tests" in text


def test_files_named_in_the_readme_exist() -> None:
    root = README.parent
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (root / target).exists(), target
    named = re.findall(r"`(conformance/[\w/]+\.py)`", text)
    assert named
    for name in named:
        assert (root / name).exists(), name


def test_the_table_of_figures_is_that_of_the_committed_run() -> None:
    record = pytest.importorskip("benchmarks.record")
    shown = re.search(
        r"<!-- figures: (\S+) -->\n(.*?)<!-- end -->", README.read_text("utf-8"), re.DOTALL
    )
    assert shown is not None
    report = json.loads((README.parent / shown[1]).read_text(encoding="utf-8"))
    assert not report["quick"]
    assert shown[2].strip() == record.markdown(report).strip()
