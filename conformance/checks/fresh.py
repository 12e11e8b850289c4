"""Runs Python code in an interpreter of its own, as imports can only be watched in a fresh one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["WITHOUT", "failure", "output"]

WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in {libraries!r}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""
"""Code after which the libraries in ``libraries`` cannot be found, as if not installed."""


def _run(
    code: str, path: Path | None, where: Path | None, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    before = os.environ.get("PYTHONPATH")
    paths = [str(path)] * (path is not None) + [before] * bool(before)
    clean = {name: value for name, value in os.environ.items() if name != "SSMCORE_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"PYTHONPATH": os.pathsep.join(map(str, paths))} | environment,
        cwd=where,
        text=True,
        capture_output=True,
        check=False,
    )


def output(
    code: str, *, path: Path | None = None, where: Path | None = None, **environment: str
) -> str:
    """Return what ``code`` prints; it must succeed. ``path`` comes first among its imports."""
    done = _run(code, path, where, environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def failure(code: str, *, path: Path | None = None, **environment: str) -> str:
    """Return the last line that ``code`` writes as it fails; it must fail."""
    done = _run(code, path, None, environment)
    assert done.returncode != 0, done.stdout
    return done.stderr.strip().splitlines()[-1]
