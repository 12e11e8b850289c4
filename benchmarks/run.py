"""Choose rows, run each, print the table, write the figures."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.measure import measure
from benchmarks.rows import ROWS
from ssmcore._reporting import check_writable, write_json
from ssmcore.bench import machine
from ssmcore.errors import SSMError

__all__ = ["choose", "main"]


def choose(parts: list[str]) -> list[str]:
    """Return the names of rows that are one of ``parts``, else of those that contain one."""
    chosen = []
    for part in parts:
        found = [part] if part in ROWS else [name for name in ROWS if part in name]
        if not found:
            msg = f"benchmarks: no row is called or contains {part!r}; see --list"
            raise SSMError(msg)
        chosen += found
    return list(dict.fromkeys(chosen)) or list(ROWS)


def main(
    parts: list[str], names: bool, threads: int, seconds: float, quick: bool, json: Path | None
) -> int:
    """Run rows; return the exit code."""
    if names:
        for row in ROWS.values():
            print(f"{row.name:44} {row.what}")
        return 0
    try:
        check_writable(json)
        chosen = choose(parts)
    except SSMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report: dict[str, Any] = {
        "kind": "ssmcore benchmarks",
        "date": machine.today(),
        "machine": machine.describe(),
        "threads": threads,
        "quick": quick,
        "rows": [],
    }
    for index, name in enumerate(chosen, start=1):
        label = f"[{index}/{len(chosen)}] {name}"
        start = time.perf_counter()
        report["rows"].append(measure(ROWS[name], quick=quick, seconds=seconds, progress=_say(label)))
        print(f"\r\033[K{label}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    table.show(report)
    if json is not None:
        write_json(json, report)
    return 0


def _say(label: str) -> Any:
    def say(what: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{label}: {what}", end="", file=sys.stderr, flush=True)

    return say
