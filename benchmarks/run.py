"""Choose rows, run each in a process of its own, print the tables, write the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import table
from benchmarks.curves import CURVES
from benchmarks.libraries import GPU
from benchmarks.one import STAGE
from benchmarks.peers import PEERS
from benchmarks.rows import ROWS
from ssmcore._reporting import check_writable, write_json
from ssmcore.bench import machine
from ssmcore.errors import SSMError

__all__ = ["choose", "main", "passed"]

CHECKOUT = Path(__file__).resolve().parents[1]
LIBRARIES = ("ssmcore", "numpy", "torch", "triton", "jax", "jaxlib", "numba", "cupy-cuda12x")
LONGEST = 300  # seconds that one row may take
# glibc: what is freed stays in the process, and is handed out again with its pages. Else the one
# side of a row gets fresh pages, which take longer than the arithmetic, and the other ready ones.
# For rows that only an addition judges; peers run with what people run them with.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
}


def choose(parts: Sequence[str], gpu: bool = False) -> list[str]:
    """Return the rows and curves that are one of ``parts``, else those that contain one.

    Without ``parts``: everything that runs on the CPU, or, with ``gpu``, on the GPU.
    """
    known = [*ROWS, *CURVES]
    chosen = []
    for part in parts:
        found = [part] if part in known else [name for name in known if part in name]
        if not found:
            msg = f"benchmarks: no row is called or contains {part!r}; see --list"
            raise SSMError(msg)
        chosen += found
    if parts:
        return list(dict.fromkeys(chosen))
    rows = [name for name, row in ROWS.items() if (row.library in GPU) == gpu]
    return rows if gpu else [*rows, *CURVES]


def main(
    parts: Sequence[str],
    *,
    gpu: bool,
    names: bool,
    threads: int,
    seconds: float,
    quick: bool,
    path: Path | None,
) -> int:
    """Run rows; return the exit code: 0 all bars hold, 1 one does not, 2 bad input, 130 stopped."""
    if names:
        for name in (*ROWS, *CURVES):
            print(f"{name:44} {(ROWS[name] if name in ROWS else CURVES[name]).what}")
        return 0
    try:
        check_writable(path)
        chosen = choose(parts, gpu)
    except SSMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report = _report(threads, quick)
    try:
        for index, name in enumerate(chosen, start=1):
            kind = "curves" if name in CURVES else "rows"
            report[kind].append(_in_its_own_process(name, f"{index}/{len(chosen)}", seconds, quick))
            if path is not None:  # after each, so that nothing is lost
                write_json(path, report)
    except KeyboardInterrupt:
        print("\ninterrupted: what follows is what was done", file=sys.stderr)
        table.show(report, Console(highlight=False))
        return 130
    table.show(report, Console(highlight=False))
    return 0 if passed(report) else 1


def passed(report: Mapping[str, Any]) -> bool:
    """Whether everything ran and, unless it was quick, every bar that could be judged holds."""
    everything = [*report["rows"], *report["curves"]]
    if any("failed" in found for found in everything):
        return False
    judged = [bar["holds"] for row in report["rows"] for bar in row["bars"]]
    judged += [one["holds"] for curve in report["curves"] for one in curve["libraries"]]
    return report["quick"] or False not in judged


def _report(threads: int, quick: bool) -> dict[str, Any]:
    return {
        "kind": "ssmcore benchmarks",
        "date": machine.today(),
        "machine": machine.describe(),
        "threads": threads,
        "quick": quick,
        "versions": machine.versions([*LIBRARIES, *PEERS]),
        "peers_not_installed": {
            name: how for name, how in PEERS.items() if not machine.versions([name])
        },
        "rows": [],
        "curves": [],
    }


def _judged_by_add(name: str) -> bool:
    """Whether all bars of a row are distances from the bandwidth floor."""
    bars = ROWS[name].bars if name in ROWS else ()
    return {(bar.what, bar.against) for bar in bars} == {("slower", ("add",))}


def _in_its_own_process(name: str, place: str, seconds: float, quick: bool) -> dict[str, Any]:
    """Return the figures of one row or curve, or why there are none."""
    label = f"[{place}] {name}"
    _show(label)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks.one", name, str(path), str(seconds)]
        process = subprocess.Popen(
            [*command, "quick"] if quick else command,
            cwd=CHECKOUT,
            env=os.environ | (ALLOCATOR if _judged_by_add(name) else {}),
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        killer = threading.Timer(LONGEST, process.kill)
        killer.start()
        last = "no message"
        try:
            for line in process.stderr or ():
                if line.startswith(STAGE):
                    _show(f"{label}: {line.removeprefix(STAGE).strip()}")
                else:
                    last = line.strip() or last
            code = process.wait()
        finally:  # an interrupt leaves nothing running
            killer.cancel()
            process.kill()
        took = time.perf_counter() - start
        if code == 0:
            found = json.loads(path.read_text())
        elif took >= LONGEST:
            found = {"failed": f"not done after {LONGEST} s"}
        else:
            found = {"failed": f"{last} (exit code {code})"}
    _show(f"{label}: {found.get('failed', 'done')}, {took:.1f} s", end="\n")
    return {"row": name, **found}


def _show(text: str, end: str = "") -> None:
    """Write one line of progress on standard error; away from a terminal only finished ones."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end=end, file=sys.stderr, flush=True)
    elif end:
        print(text, file=sys.stderr, flush=True)
