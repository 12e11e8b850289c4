"""The largest error of each comparison, as a share of the tolerance it has to meet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["Worst", "share", "shown"]

Key = tuple[str, str, str]
Figures = tuple[float, float]


class Worst:
    """Keeps, per comparison, backend and dtype, the largest error relative to its tolerance."""

    def __init__(self) -> None:
        self.found: dict[Key, Figures] = {}

    def __call__(self, name: str, backend: str, dtype: str, error: float, tolerance: float) -> None:
        """Record one error beside the tolerance it has to meet."""
        key, new = (name, backend, dtype), (float(error), float(tolerance))
        if key not in self.found or share(*new) > share(*self.found[key]):
            self.found[key] = new

    def merge(self, rows: Iterable[Iterable[Any]]) -> None:
        """Add what another test, perhaps in another process, has recorded."""
        for row in rows:
            self(*row)

    def rows(self) -> list[list[Any]]:
        """Return the records as plain lists, fit to be sent between processes."""
        return [[*key, *figures] for key, figures in self.found.items()]


def share(error: float, tolerance: float) -> float:
    """Return error / tolerance; infinity for NaN, and for any error where none is allowed."""
    if error != error:
        return float("inf")
    return error / tolerance if tolerance else float("inf") if error else 0.0


def shown(share: float) -> str:
    """Return a share of a tolerance for people: "2.7 %", "3.0e+05 times"."""
    return f"{100 * share:.2g} %" if share <= 1 else f"{share:.1e} times"
