"""Runs the conformance suite in a process of its own, with or without a planted fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["WRONG_VALUE", "command", "plant", "run"]

HEAD = """
import numpy as np
from ssmcore.primitives import REFERENCES
from ssmcore_numpy import NumpyBackend

reference = REFERENCES["linear_scan"]
"""
WRONG_VALUE = """
def fault(a, b, initial, *, reset, reverse):
    out = np.array(reference(a, b, initial, reset=reset, reverse=reverse))
    if out.shape[-2] in (7, 33):
        out[..., 5, -1] += 0.5
    return out
"""
TAIL = """
NumpyBackend.primitives = lambda self: {"linear_scan": fault}
"""


def plant(folder: Path, code: str) -> Path:
    """Write the pytest plugin ``planted`` to ``folder``: NumPy's linear_scan is ``fault``."""
    (folder / "planted.py").write_text(HEAD + code + TAIL)
    return folder


def command(
    *words: str, path: Path | None = None, where: Path | None = None, planted: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Python with ``words``; ``path`` comes first among its imports."""
    before = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    paths = os.pathsep.join([*([str(path)] if path else []), *before])
    extra = {"PYTHONPATH": paths, "NO_COLOR": "1", "COLUMNS": "200"}
    extra |= {"PYTEST_ADDOPTS": "-p planted"} if planted else {}
    return subprocess.run(
        [sys.executable, *words],
        env=os.environ | extra,
        cwd=where,
        text=True,
        capture_output=True,
        check=False,
        timeout=600,
    )


def run(
    *words: str, where: Path, fault: str = "", path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the suite's own command on few examples; ``fault`` is planted in ``where``."""
    if fault:
        path = plant(where, fault)
    line = ("-m", "ssmcore_conformance", "--profile", "dev", *words)
    return command(*line, path=path, where=where, planted=bool(fault))
