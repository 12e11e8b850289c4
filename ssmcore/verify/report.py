"""What ``ssmcore verify`` found, as plain data."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssmcore._reporting import write_json
from ssmcore.verify.tolerance import FORMULAS

__all__ = ["Case", "Comparison", "Failure", "ModeResult", "Report"]


@dataclass(frozen=True)
class Failure:
    """One check that failed.

    Attributes
    ----------
    model, backend, dtype, mode : str
        Where; ``mode`` names a parameter for gradients and is "" where there is none.
    check : "oracle", "modes", "eigenvalues", "gradients" or "error"
    index : dict
        Axis name to position of the worst element, such as {"batch": 0, "time": 3, "channel": 1}.
    found, expected : str
        Both values, and what each is.
    difference, tolerance : float
        In the units of the check: of the peak, absolute for eigenvalues.
    """

    model: str
    backend: str
    dtype: str
    mode: str
    check: str
    index: dict[str, int]
    found: str
    expected: str
    difference: float
    tolerance: float

    def __str__(self) -> str:
        where = " ".join(part for part in (self.model, self.backend, self.dtype, self.mode) if part)
        if self.check == "error":
            return f"{where}: {self.found}; expected {self.expected}"
        place = ", ".join(f"{axis} {position}" for axis, position in self.index.items())
        return (
            f"{where}, {self.check}: at {place}: {self.found}, {self.expected}; "
            f"difference {self.difference:.3g}, tolerance {self.tolerance:.3g}"
        )


@dataclass(frozen=True)
class Comparison:
    """One figure with its bound; ``error`` is NaN where something was not a number."""

    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return self.error <= self.tolerance

    @property
    def share(self) -> float:
        """The error as a part of the tolerance; infinite where it is not a number."""
        return math.inf if math.isnan(self.error) else self.error / self.tolerance


@dataclass(frozen=True)
class ModeResult:
    """One mode against the oracle: worst error relative to the peak, and in ulps of the peak."""

    mode: str
    oracle: Comparison
    ulps: float


@dataclass
class Case:
    """One row: a model on a backend in a dtype.

    Attributes
    ----------
    memory : float
        Steps that count, min(L, 1 / (1 - max |a|)).
    peak : float
        Largest output of the oracle; errors of outputs are relative to it.
    modes : list of ModeResult
    between_modes : Comparison or None
        Largest difference between any two modes, relative to the peak; None with one mode.
    eigenvalues : Comparison or None
        Largest difference of the eigenvalues of A_bar (a_t for S6 and RGLRU) from the oracle's;
        None for dense matrices too ill-conditioned to have eigenvalues.
    eigenvalues_across : float or None
        Largest difference from the eigenvalues on the first backend.
    gradients : Comparison or None
        Largest difference from the gradients on ``gradients_from``, relative to each peak.
    seconds : float
        Time of the whole row, compilation included.
    """

    model: str
    backend: str
    dtype: str
    memory: float
    peak: float
    modes: list[ModeResult] = field(default_factory=list)
    between_modes: Comparison | None = None
    eigenvalues: Comparison | None = None
    eigenvalues_across: float | None = None
    gradients: Comparison | None = None
    gradients_from: str | None = None
    seconds: float = 0.0
    checks: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check of the row passed."""
        return not self.failures

    @property
    def worst(self) -> ModeResult | None:
        """The mode with the largest error against the oracle."""
        return max(self.modes, key=lambda m: m.oracle.share, default=None)


@dataclass
class Report:
    """Everything one run found.

    Attributes
    ----------
    cases : list of Case
    settings : dict
        Models, backends, modes, dtypes, sizes, seed and input of the run.
    environment : dict
        Versions, platform, devices.
    notes : list of str
        What was left out or switched on, and why.
    seconds : float
    """

    cases: list[Case]
    settings: dict[str, Any]
    environment: dict[str, Any]
    notes: list[str]
    seconds: float

    @property
    def failures(self) -> list[Failure]:
        """All failures, row by row."""
        return [failure for case in self.cases for failure in case.failures]

    @property
    def checks(self) -> int:
        """How many comparisons were made."""
        return sum(case.checks for case in self.cases)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def worst(self) -> tuple[Case, ModeResult] | None:
        """The row and mode whose error is the largest part of its tolerance."""
        rows = [(case, case.worst) for case in self.cases if case.worst is not None]
        found = [(case, mode) for case, mode in rows if mode is not None]
        return max(found, key=lambda pair: pair[1].oracle.share, default=None)

    def summary(self) -> str:
        """Return the one line that says it all."""
        line = f"{self.checks} checks, {len(self.failures)} failed"
        if self.worst is not None:
            case, mode = self.worst
            line += (
                f", worst {mode.ulps:.3g} ulp = {mode.oracle.share:.2g} of its tolerance "
                f"({case.model} {case.backend} {case.dtype} {mode.mode})"
            )
        return f"{line}, {self.seconds:.1f} s"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as nested dicts and lists."""
        return {
            "passed": self.passed,
            "summary": self.summary(),
            "checks": self.checks,
            "failed": len(self.failures),
            "seconds": self.seconds,
            "settings": self.settings,
            "tolerances": FORMULAS,
            "environment": self.environment,
            "notes": self.notes,
            "cases": [{"passed": c.passed, **dataclasses.asdict(c)} for c in self.cases],
            "failures": [{**dataclasses.asdict(f), "message": str(f)} for f in self.failures],
        }

    def write_json(self, path: str | Path) -> None:
        """Write the report to ``path``, wholly or not at all."""
        write_json(path, self.to_dict())
