"""Measure the modes of S4D, fit their costs and write ``ssmcore/data/modes.json``.

``python -m benchmarks.fit_modes [BACKEND ...]``: what is not named keeps its measurements.
"""

from __future__ import annotations

import datetime
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import ssmcore as ssm
from ssmcore import backend, modes
from ssmcore._files import replace

TARGET = Path(ssm.__file__).parent / "data" / "modes.json"
SHAPES: list[modes.Shape] = [
    (1, 256, 64, 4),
    (1, 256, 64, 32),
    (16, 1024, 64, 8),
    (4, 4096, 64, 16),
    (1, 8192, 128, 32),
    (1, 8192, 64, 4),
    (2, 2048, 256, 16),
    (1, 32768, 32, 16),
]
"""N counts stored pairs."""


def seconds(calls: dict[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """Return the median time of each call, taken in turn after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for counted in [False, *[True] * rounds]:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if counted:
                taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in taken.items()}


def measure(name: str, shape: modes.Shape) -> tuple[str, dict[str, float]]:
    """Return the key and the nanoseconds of all modes that may be chosen."""
    B, L, H, N = shape
    library = backend.load(name)
    layer = ssm.S4D(d_model=H, d_state=2 * N)
    params = layer.init(0, backend=name, dtype="float32")
    drawn = np.random.default_rng(0).standard_normal((B, L, H)).astype(np.float32)
    u = ssm.move(drawn, backend=name)

    def call(mode: str) -> Callable[[], Any]:
        run = library.compile(lambda params, u: layer(params, u, mode=mode))
        return lambda: np.asarray(library.to_numpy(run(params, u)))[0, 0]

    looped = type(library).fold is backend.Backend.fold  # steps in Python: never the fastest
    found = seconds(
        {mode: call(mode) for mode in modes.terms(shape) if not (looped and mode == "recurrence")}
    )
    return modes.key(library, u), {mode: 1e9 * t for mode, t in found.items()}


def fit(shapes: list[modes.Shape], times: list[float], mode: str) -> list[float]:
    """Return costs of at least zero that are closest to the times, in relative terms."""
    x = np.asarray([modes.terms(shape)[mode] for shape in shapes]) / np.asarray(times)[:, None]
    best, least = np.zeros(x.shape[1]), np.inf
    for chosen in itertools.product((False, True), repeat=x.shape[1]):
        if not any(chosen):
            continue
        found = np.zeros(x.shape[1])
        found[list(chosen)] = np.linalg.lstsq(x[:, chosen], np.ones(len(x)), rcond=None)[0]
        off = float(np.sum((x @ found - 1) ** 2))
        if (found >= 0).all() and off < least:
            best, least = found, off
    return [float(f"{c:.4g}") for c in best]


def main(names: list[str]) -> None:
    """Measure, fit, and write what was found."""
    stored = json.loads(TARGET.read_text()) if TARGET.exists() else {"measured": {}, "costs": {}}
    for name in names or backend.available():
        rows: dict[str, list[dict[str, Any]]] = {}
        for shape in SHAPES:
            key, times = measure(name, shape)
            rows.setdefault(key, []).append({"shape": shape, "nanoseconds": times})
            print(key, shape, {mode: f"{t / 1e6:.2f} ms" for mode, t in times.items()}, flush=True)
        for key, found in rows.items():
            shapes = [row["shape"] for row in found]
            stored["costs"][key] = {
                mode: fit(shapes, [row["nanoseconds"][mode] for row in found], mode)
                for mode in found[0]["nanoseconds"]
            }
            stored["measured"][key] = {
                "date": f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}",
                "version": backend.load(name).version(),
                "rows": found,
            }
    replace(TARGET, (json.dumps(stored, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
