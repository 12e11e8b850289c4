"""The catalogue of planted faults fits the source, and the runner tells a kill from a survival."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checks.mutants.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]


def test_there_are_enough_and_no_two_alike() -> None:
    assert len(CATALOGUE) >= 30
    assert len({m.name for m in CATALOGUE}) == len(CATALOGUE)
    assert len({(m.file, m.old, m.new) for m in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda m: m.name)
def test_each_fault_can_be_planted(mutant: Any) -> None:
    """Its text is there once, the changed file is Python, and the test that kills it exists."""
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1
    compile(source.replace(mutant.old, mutant.new), mutant.file, "exec")
    file, _, test = mutant.killed_by.partition("::")
    suite = (ROOT / "conformance" / "ssmcore_conformance" / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {test}\(", suite, re.MULTILINE)


def test_one_fault_from_end_to_end() -> None:
    command = [sys.executable, "-m", "checks.mutants.run", "the convolution wraps around"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 faults killed, 0 survive" in done.stdout
