"""Proof that every backend and every way of running a model gives the same answer.

``run`` puts every model on every installed backend, in every mode and dtype, over a recorded
series, and compares each output with the sequential float64 oracle, the modes with each other, and
eigenvalues and gradients between the backends. ``ssmcore verify`` is its command line.
``compare`` puts any two models on the same input (``ssmcore compare``).

Examples
--------
>>> from ssmcore import verify
>>> report = verify.run(["S5"], ["numpy"], length=64)
>>> report.passed, [case.dtype for case in report.cases]
(True, ['float32', 'float64'])
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

import numpy as np

import ssmcore
from ssmcore import backend
from ssmcore._reporting import environment, unusable
from ssmcore.backend import DTYPES
from ssmcore.data import electrocardiogram
from ssmcore.errors import SSMError, check_choice
from ssmcore.layers import Layer
from ssmcore.series import as_channels, as_numpy
from ssmcore.typing import Array
from ssmcore.verify.checks import LARGEST_SPECTRUM, Numbers, Problem, has_spectrum, pose
from ssmcore.verify.report import Case, Comparison, Failure, ModeResult, Report
from ssmcore.verify.rows import Row, across_backends, compare_gradients, run_row

if TYPE_CHECKING:
    from ssmcore.verify.compare_report import CompareReport
    from ssmcore.verify.compare_run import compare

__all__ = [
    "MODELS",
    "MODES",
    "Case",
    "CompareReport",
    "Comparison",
    "Failure",
    "ModeResult",
    "Report",
    "choose_backends",
    "compare",
    "run",
]

MODELS = ("LSSL", "S4", "S4D", "S5", "LRU", "S6", "RGLRU")
MODES = ("recurrence", "scan", "convolution", "chunked")
LENGTH = 1024

Progress = Callable[[str, int, int], None]
LAZY = {"compare": "compare_run", "CompareReport": "compare_report"}


def __getattr__(name: str) -> Any:
    """Import what compares users' models only when it is asked for."""
    if name not in LAZY:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{LAZY[name]}"), name)


def run(
    models: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
    modes: Sequence[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    series: Array | None = None,
    *,
    length: int | None = None,
    d_model: int = 8,
    d_state: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Verify models on backends in modes and dtypes, and report every figure.

    Parameters
    ----------
    models : names such as "S5", in any case; None means all seven
    backends : names; None means every installed one that has a device
    modes : of "recurrence", "scan", "convolution" (time-invariant models), "chunked" (mode "auto"
        over random chunks with the state carried); None means all
    dtypes : of "float32", "float64"
    series : (L,) or (L, channels) real
        Input, standardised and spread over the channels; None means the shipped electrocardiogram.
        The second sequence of the batch is the same backwards in time.
    length : int
        Leading samples used; None means 1024, or all where there are fewer.
    d_model, d_state : int
        Sizes of the models.
    seed : int
        Of parameters, chunks and cotangents.
    progress : called with (label, rows done, rows in all) after each row

    Returns
    -------
    Report

    Raises
    ------
    SSMError
        Unknown names, absent or device-less backends named, sizes a model cannot have, unusable
        input, float64 on a backend whose 64-bit types are off.

    Notes
    -----
    Rows run two at a time, because compilers use one core each. Tolerances and where they come
    from: ``ssmcore.verify.tolerance``.
    """
    start = time.perf_counter()
    names = _choose_models(models)
    chosen, notes = choose_backends(backends)
    wanted = _choose("mode", modes, MODES)
    kinds = _choose("dtype", dtypes, DTYPES)
    _check_float64(chosen, kinds)
    layers = [_layer(name, d_model, d_state) for name in names]
    u = _input(series, length, d_model)
    plan = _plan(layers, wanted, notes)
    problems = [pose(layer, dtype, u, seed) for layer in plan for dtype in kinds]
    rows = _run_rows(problems, chosen, wanted, seed, progress)
    notes += _left_out(plan, chosen, kinds)
    settings = {
        "models": [layer.name for layer in plan],
        "backends": chosen,
        "modes": wanted,
        "dtypes": kinds,
        "input": "shipped electrocardiogram" if series is None else "given series",
        "input_channels": 1 if series is None else _channels(series),
        "batch": u.shape[0],
        "length": u.shape[1],
        "d_model": d_model,
        "d_state": d_state,
        "seed": seed,
    }
    seconds = time.perf_counter() - start
    return Report([row.case for row in rows], settings, environment(chosen), notes, seconds)


# ------------------------------------------------------------------------------------- choices


def _choose(option: str, given: Sequence[str] | None, valid: Sequence[str]) -> list[str]:
    """Return ``given`` without repetitions, or all of ``valid``."""
    _check_list(option, given)
    names = list(dict.fromkeys(valid if given is None else given))
    for name in names:
        check_choice("verify", option, name, valid)
    if not names:
        msg = f"verify: no {option} given; expected some of {', '.join(valid)}"
        raise SSMError(msg)
    return names


def _check_list(option: str, given: object) -> None:
    if given is not None and (isinstance(given, str) or not isinstance(given, Iterable)):
        msg = f"verify: {option}s is {given!r}; expected a list of names"
        raise SSMError(msg)


def _choose_models(given: Sequence[str] | None) -> list[str]:
    if given is None:
        return list(MODELS)
    _check_list("model", given)
    plain = {n: str(n).upper().replace("-", "").replace("_", "") for n in given}
    return _choose("model", [plain[n] if plain[n] in MODELS else n for n in given], MODELS)


def choose_backends(given: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the backends to run on and, where none was named, notes on those left out.

    Raises
    ------
    SSMError
        A backend that is named but unknown, broken, not installed, or has no device.
    """
    _check_list("backend", given)
    every = sorted(backend.available(), key=lambda name: name != "numpy")
    names = list(dict.fromkeys(every if given is None else given))
    if not names:
        msg = f"no backend given; expected some of {', '.join(backend.names())}"
        raise SSMError(msg)
    notes = [] if given is not None else [f"left out: {x}" for x in backend.failures().values()]
    chosen = []
    for name in names:
        backend.load(name)
        reason = unusable(name)
        if reason is None:
            chosen.append(name)
        elif given is not None:
            msg = f"backend {name!r} is installed but cannot be used here: {reason}; leave it out"
            raise SSMError(msg)
        else:
            notes.append(f"{name}: installed but left out, it cannot be used here ({reason})")
    return chosen, notes


def _check_float64(names: Iterable[str], dtypes: Iterable[str]) -> None:
    for name in names:
        if "float64" in dtypes and not backend.load(name).has_float64():
            msg = (
                f"verify: float64 asked of backend {name!r}, whose 64-bit types are off; call "
                f'ssmcore.backend.load("{name}").enable_float64() first or ask for float32'
            )
            raise SSMError(msg)


def _layer(name: str, d_model: int, d_state: int) -> Layer:
    kind = getattr(ssmcore, name)
    layer: Layer = kind(d_model) if name == "RGLRU" else kind(d_model, d_state=d_state)
    return layer


def _channels(series: Array) -> int:
    """Return how many channels a series has itself."""
    values = as_numpy("verify", series)
    return int(values.shape[1]) if values.ndim == 2 else 1


def _input(series: Array | None, length: int | None, d_model: int) -> Numbers:
    """Return the batch of two: the series over the channels, and the same backwards in time."""
    values = as_numpy("verify", electrocardiogram()[0] if series is None else series)
    values = values[:, None] if values.ndim == 1 else values
    samples = values.shape[0] if values.ndim else 0
    if length is not None and not (isinstance(length, int) and 1 <= length <= samples):
        msg = f"verify: length is {length!r}; expected 1 to {samples}, the samples of the input"
        raise SSMError(msg)
    u = as_channels(values[: length or LENGTH] if values.ndim else values, d_model)
    if not np.any(u):
        msg = (
            f"verify: the input is constant over {len(u)} of {samples} samples, which shows "
            "nothing; expected a series that varies, and a length of at least 2"
        )
        raise SSMError(msg)
    return np.stack((u, u[::-1]))


def _plan(layers: list[Layer], modes: list[str], notes: list[str]) -> list[Layer]:
    """Return the layers that have any of ``modes``; note the others."""
    plan = [layer for layer in layers if _modes_of(layer, modes)]
    left = [layer.name for layer in layers if layer not in plan]
    if not plan:
        msg = f"verify: {', '.join(left)} cannot run as a convolution; give another mode or model"
        raise SSMError(msg)
    if left:
        notes.append(f"{', '.join(left)}: left out, time-varying models have no convolution")
    return plan


def _modes_of(layer: Layer, modes: list[str]) -> list[str]:
    return [mode for mode in modes if not (layer.time_varying and mode == "convolution")]


def _left_out(layers: list[Layer], names: list[str], dtypes: list[str]) -> list[str]:
    """Return notes on the figures that this choice does not give."""
    notes = []
    if "float64" not in dtypes:
        notes.append("gradients: not compared, that takes float64")
    elif sum(backend.load(name).gradients for name in names) < 2:
        notes.append("gradients: not compared, that takes two backends that differentiate")
    large = [layer.name for layer in layers if not has_spectrum(layer)]
    if large:
        notes.append(
            f"{', '.join(large)}: eigenvalues not compared, rounding leaves nothing of them beyond "
            f"{LARGEST_SPECTRUM} states"
        )
    return notes


# ------------------------------------------------------------------------------------- the run


def _run_rows(
    problems: list[Problem], names: list[str], modes: list[str], seed: int, progress: Any
) -> list[Row]:
    """Run every row, two at a time, then compare between backends; rows in the table's order."""
    jobs = [(problem, name) for problem in problems for name in names]
    jobs.sort(key=lambda job: (MODELS.index(job[0].model), names.index(job[1])))
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        futures = {
            pool.submit(run_row, problem, name, _modes_of(problem.layer, modes), seed): index
            for index, (problem, name) in enumerate(jobs)
        }
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                case = future.result().case
                if progress is not None:
                    progress(f"{case.model} {case.backend} {case.dtype}", done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    rows = [future.result() for future in futures]
    for problem in problems:
        across_backends([row for row in rows if row.problem is problem])
        compare_gradients([row for row in rows if row.problem is problem])
    return rows
