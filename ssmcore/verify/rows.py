"""One row of the report: all checks of a model on a backend in a dtype, faults caught."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ssmcore import backend
from ssmcore._reporting import first_line
from ssmcore.errors import SSMError
from ssmcore.verify import checks, tolerance
from ssmcore.verify.checks import Numbers, Problem, Worst
from ssmcore.verify.report import Case, Comparison, Failure, ModeResult

__all__ = ["Row", "across_backends", "compare_gradients", "run_row"]


@dataclass
class Row:
    """A case, and the arrays that later checks compare with those of other backends."""

    problem: Problem
    case: Case
    spectrum: Numbers | None = None
    gradients: dict[str, Numbers] | None = None


def run_row(problem: Problem, name: str, modes: Iterable[str], seed: int) -> Row:
    """Run every mode, then eigenvalues, then (float64, where there are any) gradients."""
    start = time.perf_counter()
    case = Case(problem.model, name, problem.dtype, problem.memory, problem.peak)
    row = Row(problem, case)
    outputs = {}
    for mode in modes:
        y = _attempt(row, mode, partial(_checked_output, problem, name, mode, seed))
        if y is not None:
            outputs[mode] = y
            _against_oracle(row, mode, y)
    if len(outputs) > 1:
        _between_modes(row, outputs)
    if checks.has_spectrum(problem.layer):
        _eigenvalues(row)
    if problem.dtype == "float64" and backend.load(name).gradients:
        _gradients(row, seed)
    case.seconds = time.perf_counter() - start
    return row


def _attempt(row: Row, what: str, work: Callable[[], Any]) -> Any:
    """Return ``work()``, or None with a failure noted: whatever a backend raises is its fault."""
    case = row.case
    try:
        return work()
    except Exception as error:
        case.checks += 1
        failure = Failure(
            case.model,
            case.backend,
            case.dtype,
            what,
            "error",
            {},
            f"raised {first_line(error)}",
            "a result",
            np.inf,
            0.0,
        )
        case.failures.append(failure)
        return None


def _checked_output(problem: Problem, name: str, mode: str, seed: int) -> Numbers:
    y = checks.output(problem, backend.load(name), mode, seed)
    if (y.shape, y.dtype) != (problem.u.shape, problem.u.dtype):
        msg = f"got y {y.dtype} {y.shape}; expected {problem.dtype} {problem.u.shape}"
        raise SSMError(msg)
    return y


def _note(row: Row, check: str, worst: Worst, allowed: float, **named: Any) -> Comparison:
    """Count a comparison, and note its failure if it is one."""
    found = Comparison(worst.error, allowed)
    row.case.checks += 1
    if not found.passed:
        failure = worst.failure(row.problem, row.case.backend, check, allowed, **named)
        row.case.failures.append(failure)
    return found


def _against_oracle(row: Row, mode: str, y: Numbers) -> None:
    problem = row.problem
    worst = checks.compare(y, problem.y, problem.peak)
    allowed = tolerance.oracle(problem.dtype, problem.memory)
    found = _note(row, "oracle", worst, allowed, mode=mode, labels=("got", "oracle"))
    row.case.modes.append(ModeResult(mode, found, worst.error * problem.peak / problem.ulp))


def _between_modes(row: Row, outputs: dict[str, Numbers]) -> None:
    worst, one, other = checks.widest_gap(outputs, row.problem.peak)
    allowed = tolerance.between_modes(row.problem.dtype)
    row.case.between_modes = _note(
        row, "modes", worst, allowed, mode=f"{one}, {other}", labels=(one, other)
    )


def _eigenvalues(row: Row) -> None:
    problem = row.problem
    owner = backend.load(row.case.backend)
    spectrum = _attempt(row, "eigenvalues", lambda: checks.eigenvalues(problem, owner))
    if spectrum is None:
        return
    row.spectrum = spectrum
    worst = _spectrum_gap(problem, spectrum, problem.eigenvalues)
    allowed = tolerance.eigenvalue(problem.dtype, problem.condition)
    row.case.eigenvalues = _note(
        row,
        "eigenvalues",
        worst,
        allowed,
        labels=("got", "oracle"),
        axes=checks.EIGENVALUE_AXES[problem.model],
    )


def _spectrum_gap(problem: Problem, found: Numbers, expected: Numbers) -> Worst:
    if problem.dense:
        return checks.nearest(found, expected)
    return checks.compare(found, expected, 1.0)


def _gradients(row: Row, seed: int) -> None:
    problem, owner = row.problem, backend.load(row.case.backend)
    cotangent = np.random.default_rng(seed).standard_normal(problem.u.shape)
    row.gradients = _attempt(row, "gradients", lambda: checks.gradients(problem, owner, cotangent))


def across_backends(rows: list[Row]) -> None:
    """Compare the eigenvalues of rows of one model and dtype with the first row's."""
    rows = [row for row in rows if row.spectrum is not None]
    for row in rows[1:]:
        problem, first = row.problem, rows[0]
        assert row.spectrum is not None
        assert first.spectrum is not None
        worst = _spectrum_gap(problem, row.spectrum, first.spectrum)
        allowed = 2.0 * tolerance.eigenvalue(problem.dtype, problem.condition)
        found = _note(
            row,
            "eigenvalues",
            worst,
            allowed,
            labels=("got", first.case.backend),
            axes=checks.EIGENVALUE_AXES[problem.model],
        )
        row.case.eigenvalues_across = found.error


def compare_gradients(rows: list[Row]) -> None:
    """Compare the gradients of rows of one model with the first row's that has them."""
    rows = [row for row in rows if row.gradients is not None]
    for row in rows[1:]:
        first = rows[0]
        assert row.gradients is not None
        assert first.gradients is not None
        allowed = tolerance.gradient(row.problem.memory, row.problem.u.shape[-2])
        found = []
        for name, grad in row.gradients.items():
            expected = first.gradients[name]
            worst = checks.compare(grad, expected, float(np.max(np.abs(expected))))
            axes = [f"axis {i}" for i in range(grad.ndim)]
            found.append(
                _note(
                    row,
                    "gradients",
                    worst,
                    allowed,
                    mode=name,
                    axes=axes,
                    labels=("got", first.case.backend),
                )
            )
        row.case.gradients = max(found, key=lambda comparison: comparison.error)
        row.case.gradients_from = first.case.backend
