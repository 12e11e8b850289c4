"""The work of ``ssmcore bench``: each primitive and layer on each backend, beside a floor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssmcore import arrays, backend
from ssmcore._reporting import environment, first_line, unusable, write_json
from ssmcore.backend import Backend
from ssmcore.bench import memory, timing
from ssmcore.bench.machine import describe, today
from ssmcore.bench.subjects import HEADS, SUBJECTS, Size, Subject, Tree
from ssmcore.errors import SSMError, check_choice
from ssmcore.typing import Array

__all__ = ["Report", "Row", "Size", "run"]

QUICK = Size(1, 64, 8, 8)
USUAL = Size(2, 4096, 128, 32)
SECONDS = 1.0


@dataclass
class Row:
    """One primitive or layer on one backend.

    Attributes
    ----------
    first_call_s, compile_s : seconds of the first call, and what of it a steady call does not take
    forward, backward, floor : median, quartiles and counts; backward None without gradients
    ratio : forward over floor, median over rounds
    peak_bytes : memory at its worst above what was there, outputs included; None where unknown
    error : 2-norm of the difference from NumPy's reference in float64, relative
    problem : what it raised; "" where nothing
    """

    name: str
    backend: str
    floor_name: str = ""
    first_call_s: float = 0.0
    compile_s: float = 0.0
    forward: dict[str, Any] | None = None
    backward: dict[str, Any] | None = None
    floor: dict[str, Any] | None = None
    ratio: float | None = None
    peak_bytes: int | None = None
    error: float | None = None
    problem: str = ""


@dataclass
class Report:
    """What ``run`` found."""

    size: Size
    quick: bool
    rows: list[Row] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=describe)
    environment: dict[str, Any] = field(default_factory=dict)
    date: str = field(default_factory=today)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything ran."""
        return not any(row.problem for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as nested dicts and lists."""
        return {"kind": "ssmcore bench", "passed": self.passed, **dataclasses.asdict(self)}

    def write_json(self, path: str | Path) -> None:
        """Write the report to ``path``, wholly or not at all."""
        write_json(path, self.to_dict())


def run(
    names: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
    *,
    size: Size | None = None,
    quick: bool = False,
    seconds: float = SECONDS,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Time primitives and layers on every backend, each in turn with its floor.

    Parameters
    ----------
    names : primitives and layers; None means all
    backends : names; None means all that are installed and have a device
    size : of all inputs
    quick : small inputs and single calls; its figures mean nothing
    seconds : what one side of a comparison may take
    progress : called with (label, done, all) before each row

    Returns
    -------
    Report

    Raises
    ------
    SSMError
        Unknown names; a backend that cannot be used.
    """
    start = time.perf_counter()
    if size is not None:
        _check_size(size)
    for name in names or ():
        check_choice("bench", "name", name, list(SUBJECTS))
    owners = [backend.load(name) for name in _usable(backends)]
    chosen = [SUBJECTS[name] for name in names or SUBJECTS]
    report = Report(size or (QUICK if quick else USUAL), quick)
    report.environment = environment([owner.name for owner in owners])
    jobs = [(subject, owner) for subject in chosen for owner in owners]
    calls: list[tuple[Row, Callable[[], Any]]] = []
    for done, (subject, owner) in enumerate(jobs):
        if progress is not None:
            progress(f"{subject.name} on {owner.name}", done, len(jobs))
        row = Row(subject.name, owner.name)
        report.rows.append(row)
        try:
            calls.append((row, _time(row, subject, owner, report, seconds)))
        except Exception as error:  # whatever a kernel or a library raises
            row.problem = first_line(error)
    for row, call in calls:  # after all times, because it slows the process down
        row.peak_bytes = memory.peak(call)
    report.seconds = time.perf_counter() - start
    return report


def _check_size(size: Size) -> None:
    """Raise SSMError for sizes that some primitive or layer cannot have."""
    for name, value, factor in (("channels", size.channels, HEADS), ("states", size.states, 2)):
        if value < factor or value % factor:
            msg = f"bench: {name} is {value}; expected a positive multiple of {factor}"
            raise SSMError(msg)


def _usable(given: Sequence[str] | None) -> list[str]:
    """Return the backends to run; SSMError for one that was named and cannot be used."""
    if given is None:
        return [name for name in backend.available() if unusable(name) is None]
    for name in given:
        check_choice("bench", "backend", name, backend.names())
        backend.load(name)
        reason = unusable(name)
        if reason is not None:
            msg = f"bench: backend {name!r} cannot be used: {reason}"
            raise SSMError(msg)
    return list(given)


def _time(
    row: Row, subject: Subject, owner: Backend, report: Report, seconds: float
) -> Callable[[], Any]:
    """Fill ``row`` and return its forward call."""
    values, function = subject.prepare(report.size)
    tree = arrays.tree_map(owner.from_numpy, values)
    compiled = owner.compile(function)

    def forward() -> Array:
        return owner.wait(compiled(tree))

    y, row.first_call_s = timing.first_call(forward)
    found = owner.to_numpy(y)
    row.error = _error(found, function(_wide(values)))
    row.floor_name = "matmul" if subject.mixes else "add"
    sides = {"forward": forward, "floor": _floor(owner, subject, report.size, values, found)}
    if owner.gradients:
        sides["backward"] = _backward(owner, function, tree, y)
    for name in ("floor", "backward"):
        if name in sides:
            sides[name]()
    times = timing.interleave(sides, seconds=0.0 if report.quick else seconds)
    for name, found_times in times.items():
        setattr(row, name, found_times.to_dict())
    row.compile_s = max(0.0, row.first_call_s - times["forward"].median)
    row.ratio = timing.ratio(times["forward"], times["floor"])
    return forward


def _wide(tree: Tree) -> Tree:
    """Return ``tree`` in double precision."""
    wide: Tree = arrays.tree_map(
        lambda x: x.astype(np.complex128 if x.dtype.kind == "c" else np.float64), tree
    )
    return wide


def _error(found: Any, wanted: Any) -> float:
    gap = np.linalg.norm((found - wanted).ravel()) / np.linalg.norm(wanted.ravel())
    return float(gap) if np.isfinite(gap) else float("inf")


def _backward(
    owner: Backend, function: Callable[[Tree], Array], tree: Tree, y: Array
) -> Callable[[], Any]:
    """Return a call of the gradients of <w, y> with respect to everything in ``tree``."""
    xp = arrays.namespace(y)
    w = owner.from_numpy(np.random.default_rng(4).standard_normal(y.shape, np.float32))
    both = owner.compile(
        lambda inputs: owner.value_and_grad(lambda x: xp.sum(function(x) * w), inputs)
    )

    def call() -> Any:
        value, gradients = both(tree)
        for _, x in arrays.leaves(gradients):
            owner.wait(x)
        return owner.wait(value)

    return call


def _floor(
    owner: Backend, subject: Subject, size: Size, values: Tree, found: Any
) -> Callable[[], Any]:
    """Return the floor in the same library.

    Bandwidth: an addition out of place that moves as many bytes as inputs and output have. Matrix
    products: (B L, H) by (H, 2 N) and back.
    """
    if subject.mixes:
        shapes = ((size.batch * size.length, size.channels), (size.channels, 2 * size.states))
        x, there = (owner.from_numpy(np.ones(shape, np.float32)) for shape in shapes)
        back = owner.from_numpy(np.ones(shapes[1][::-1], np.float32))
        product = owner.compile(lambda x, there, back: (x @ there) @ back)
        return lambda: owner.wait(product(x, there, back))
    moved = found.nbytes + sum(x.nbytes for _, x in arrays.leaves(values))
    a, b = (owner.from_numpy(np.ones(max(1, moved // 12), np.float32)) for _ in range(2))
    add = owner.compile(lambda a, b: a + b)
    return lambda: owner.wait(add(a, b))
