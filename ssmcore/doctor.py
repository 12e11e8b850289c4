"""A look at the installation: which backends are there, and whether their primitives are right.

Every primitive is *executed* on every usable backend, in float32 and float64, and compared with
sequential NumPy loops written out in ``ssmcore._naive``.

Examples
--------
>>> from ssmcore import doctor
>>> report = doctor.run(["numpy"])
>>> report.passed, report.backends[0].status
(True, 'ok')
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssmcore import _naive, backend, primitives
from ssmcore._reporting import environment, first_line, unusable, write_json
from ssmcore.backend import DTYPES, Backend
from ssmcore.errors import check_choice

__all__ = ["BackendResult", "PrimitiveResult", "Report", "implementation", "run", "show"]


@dataclass
class PrimitiveResult:
    """One primitive on one backend in one dtype.

    Attributes
    ----------
    implementation : "reference", "reference, compiled" or "native: <qualified name>"
    error : float or None
        Worst error relative to the peak; None where it raised.
    tolerance : float
    problem : str
        What it raised; "" where nothing.
    """

    primitive: str
    dtype: str
    implementation: str
    error: float | None
    tolerance: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ran and is within the tolerance."""
        return self.error is not None and self.error <= self.tolerance


@dataclass
class BackendResult:
    """One backend.

    Attributes
    ----------
    status : "ok", "absent", "no device" or "broken"
    detail : str
        How to install it, why it has no device, or what is broken.
    """

    name: str
    library: str
    status: str
    detail: str = ""
    version: str = ""
    devices: list[str] = field(default_factory=list)
    primitives: list[PrimitiveResult] = field(default_factory=list)


@dataclass
class Report:
    """What ``run`` found."""

    backends: list[BackendResult]
    environment: dict[str, Any]
    notes: list[str]

    @property
    def passed(self) -> bool:
        """Whether nothing that is present is broken."""
        return all(result.status != "broken" for result in self.backends)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as nested dicts and lists."""
        return {"passed": self.passed, **dataclasses.asdict(self)}

    def write_json(self, path: str | Path) -> None:
        """Write the report to ``path``, wholly or not at all."""
        write_json(path, self.to_dict())


def run(
    backends: Sequence[str] | None = None,
    *,
    enable_float64: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Execute every primitive on every usable backend.

    Parameters
    ----------
    backends : names; None means all known ones, those for tests only where they are installed
    enable_float64 : switch 64-bit types on where they are off; else float64 is left out there
    progress : called with (label, done, all) after each primitive

    Returns
    -------
    Report

    Raises
    ------
    SSMError
        Unknown backend.
    """
    for name in backends or ():
        check_choice("doctor", "backend", name, backend.names())
    looked = [_look(name) for name in (backends or backend.names())]
    results = [result for result in looked if result is not None]
    notes: list[str] = []
    usable = [result for result in results if result.status == "ok"]
    cases = _naive.cases()
    total, done = len(usable) * len(cases), 0
    for result in usable:
        owner = backend.load(result.name)
        if not owner.has_float64() and enable_float64:
            owner.enable_float64()
            notes.append(f"{owner.name}: 64-bit types were off and are switched on here")
        for name in cases:
            result.primitives += _execute(owner, name, cases[name])
            done += 1
            if progress is not None:
                progress(f"{owner.name} {name}", done, total)
        notes += [f"{owner.name}: {remark}" for remark in owner.remarks()]
        broken = [p for p in result.primitives if not p.passed]
        if broken:
            result.status = "broken"
            result.detail = ", ".join(dict.fromkeys(p.primitive for p in broken))
    return Report(results, environment([result.name for result in usable]), notes)


def _look(name: str) -> BackendResult | None:
    """Return what is there of a backend, its library imported; None: for tests only and absent."""
    result = BackendResult(name, "", "ok")
    try:
        owner = backend._entry(name)
        result.library = owner.library
        if not backend.installed(name):
            result.status, result.detail = "absent", owner.install
            return None if owner.test_only else result
        importlib.import_module(owner.library)
        result.version = owner.version()
    except Exception as error:  # whatever a broken library raises
        result.status, result.detail = "broken", first_line(error)
        return result
    reason = unusable(name)
    if reason is None:
        result.devices = owner.devices()
    else:
        result.status, result.detail = "no device", reason
    return result


def implementation(owner: Backend, primitive: str) -> str:
    """Return which code runs ``primitive``: the reference, compiled or not, or native code.

    Examples
    --------
    >>> from ssmcore import backend, doctor
    >>> doctor.implementation(backend.load("array_api_strict"), "linear_scan")
    'reference'
    """
    native = owner.primitives().get(primitive)
    if native is None:
        return "reference"
    if getattr(native, "__wrapped__", None) is primitives.REFERENCES[primitive]:
        return "reference, compiled"
    named = getattr(native, "func", native)  # of a functools.partial
    kind = type(native)
    module = getattr(named, "__module__", kind.__module__)
    return f"native: {module}.{getattr(named, '__qualname__', kind.__qualname__)}"


def _execute(owner: Backend, primitive: str, cases: list[_naive.Case]) -> list[PrimitiveResult]:
    """Run all cases of a primitive in every dtype there is; the worst error of each dtype."""
    results = []
    for dtype in DTYPES:
        if dtype == "float64" and not owner.has_float64():
            continue
        allowed = _naive.tolerance(dtype)
        result = PrimitiveResult(primitive, dtype, "", None, allowed)
        try:
            result.implementation = implementation(owner, primitive)
            result.error = max(_error(owner, primitive, case, dtype) for case in cases)
        except Exception as error:  # whatever a broken kernel raises
            result.problem = first_line(error)
        results.append(result)
    return results


def _error(owner: Backend, primitive: str, case: _naive.Case, dtype: str) -> float:
    """Return the worst error of one case relative to the peak of each result."""
    rounded = [_naive.rounded(x, dtype) for x in case.arrays]
    expected = case.naive(*rounded)
    given = [owner.from_numpy(x) for x in rounded]
    found = case.call(getattr(primitives, primitive), *given)
    errors = []
    for y, want in zip(_tuple(found), _tuple(expected), strict=True):
        got = owner.to_numpy(y)
        if got.shape != want.shape or got.dtype != _naive.rounded(want, dtype).dtype:
            msg = f"returned {got.dtype} {got.shape}, not {dtype} {want.shape}"
            raise TypeError(msg)
        gap = float(np.max(np.abs(got - want)) / np.max(np.abs(want)))
        errors.append(gap if np.isfinite(gap) else np.inf)
    return max(errors)


def _tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


# ----------------------------------------------------------------------------------- for people


def show(report: Report, console: Any) -> None:
    """Print ``report`` on a rich console."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "broken": "bold red", "no device": "yellow", "absent": "dim"}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0))
    for name in ("backend", "version", "devices", "status", ""):
        table.add_column(name, overflow="fold")
    for found in report.backends:
        detail = f"install it with: {found.detail}" if found.status == "absent" else found.detail
        status = Text(found.status, style=styles[found.status])
        table.add_row(found.name, found.version, ", ".join(found.devices), status, Text(detail))
    console.print(table)

    rows = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0))
    for name in ("backend", "primitive", "runs"):
        rows.add_column(name, overflow="fold")
    for name in DTYPES:
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("")
    for found in report.backends:
        by_name: dict[str, dict[str, PrimitiveResult]] = {}
        for result in found.primitives:
            by_name.setdefault(result.primitive, {})[result.dtype] = result
        for index, (name, results) in enumerate(by_name.items(), start=1):
            first, good = next(iter(results.values())), all(r.passed for r in results.values())
            errors = [_shown(results.get(dtype)) for dtype in DTYPES]
            result_text = Text("ok", style="green") if good else Text("FAILED", style="bold red")
            rows.add_row(
                found.name,
                name,
                first.implementation,
                *errors,
                result_text,
                end_section=index == len(by_name),
            )
    console.print()
    console.print(rows)
    console.print()
    for note in report.notes:
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    failures = [(b.name, p) for b in report.backends for p in b.primitives if not p.passed]
    for name, p in failures:
        what = p.problem or f"error {p.error:.3g} of the peak, tolerance {p.tolerance:.3g}"
        console.print(
            Text(
                f"FAILED {name} {p.primitive} {p.dtype} ({p.implementation}): {what}", style="red"
            ),
            soft_wrap=True,
        )
    checks = sum(len(b.primitives) for b in report.backends)
    broken = [b.name for b in report.backends if b.status == "broken"]
    line = f"{checks} primitives executed, {len(failures)} failed; broken backends: "
    style = "bold green" if report.passed else "bold red"
    console.print(Text(line + (", ".join(broken) or "none"), style=style), soft_wrap=True)


def _shown(result: PrimitiveResult | None) -> str:
    if result is None:
        return "-"
    return "raised" if result.error is None else f"{result.error:.1e}"
