"""``python -m benchmarks.one NAME FILE SECONDS [quick]``: one row or curve in a process of its own.

``python -m benchmarks`` starts it, so that first calls are first and memory is the row's own.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import curves
from benchmarks.measure import measure
from benchmarks.rows import ROWS
from ssmcore._reporting import write_json

__all__ = ["STAGE", "main"]


STAGE = "stage: "  # what begins a line of progress on standard error


def main(name: str, path: str, seconds: str, quick: str = "") -> None:
    """Measure ``name`` and write its figures to ``path``."""
    small = quick == "quick"
    found: dict[str, Any]
    if name in curves.CURVES:
        found = curves.measure(curves.CURVES[name], quick=small, progress=_say)
    else:
        found = measure(ROWS[name], quick=small, seconds=float(seconds), progress=_say)
    write_json(path, found)


def _say(what: str) -> None:
    print(f"{STAGE}{what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
