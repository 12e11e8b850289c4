"""Where a side rounds to float32 in a float64 run, and how far that moves what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial

import numpy as np

from ssmcore.verify import tolerance
from ssmcore.verify.checks import Numbers
from ssmcore.verify.compare_judge import Inside
from ssmcore.verify.compare_sides import ImpossibleError, Named, Nudge, Side

__all__ = ["Insides", "Run"]

Run = Callable[[Side, Nudge | None], Named]
SMALL, LARGE = 2.0**-36, 2.0**-18  # far below the spacing of float32, and far above it
VISIBLE = 16.0 * tolerance.eps("float64")


class Insides:
    """What the float64 runs of two sides hide; looked for when it is first asked for."""

    def __init__(self, sides: Sequence[Side], u: Numbers) -> None:
        self.sides, self.u = sides, u

    @cached_property
    def rounded(self) -> list[tuple[Side, str]]:
        """The parameters, and the input, that are rounded below float64, with their sides."""
        return [(side, name) for side in self.sides for name in _rounded(side, self.u)]

    def about(
        self, shape: tuple[int, ...], moved: Callable[[], Numbers] | None = None
    ) -> Inside | None:
        """Return what a part of ``shape`` may be excused with; ``moved`` as in ``Inside``, or 0."""
        nothing = np.zeros(shape)
        opaque = next((side for side in self.sides if side.opaque), None)
        if opaque is not None:
            return Inside(opaque.role, None, nothing)
        if not self.rounded:
            return None
        side = self.rounded[0][0]
        names = [name for owner, name in self.rounded if owner is side]
        what = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return Inside(side.role, what, nothing if moved is None else nothing + moved())

    def moved(self, run: Run) -> list[Named]:
        """Return by name, for each side, how far eps32 in all that it rounds moves its results."""
        return [
            _moved(partial(run, side), [name for owner, name in self.rounded if owner is side])
            for side in self.sides
        ]


def _rounded(side: Side, u: Numbers) -> list[str]:
    """Return the parameters of ``side``, and "u", that it rounds below float64.

    Of a float64 run, a relative change by 2^-36 moves 2^-18 times what one by 2^-18 moves. Where
    that is at least 16 eps64 of the peak, so that arithmetic in float64 does not hide it, and yet
    no bit moves, the change has been rounded away.
    """
    before = side.run(u, "float64")
    found = []
    for name in side.parameters() + ["u"] * (u.dtype.kind == "f"):
        with suppress(ImpossibleError):  # a model that refuses the change shows nothing
            small = side.run(u, "float64", (name, SMALL))
            if all(np.array_equal(before[key], small[key], equal_nan=True) for key in before):
                large = side.run(u, "float64", (name, LARGE))
                found += [name] * any(_visible(before[key], large[key]) for key in before)
    return found


def _moved(run: Callable[[Nudge | None], Named], names: list[str]) -> Named:
    """Return the sum of the moves of each result by eps32 in each of ``names``; {} for none."""
    start = run(None) if names else {}
    total = {key: np.zeros(x.shape) for key, x in start.items()}
    for name in names:
        with suppress(ImpossibleError):
            after = run((name, tolerance.eps("float32")))
            for key, x in start.items():
                total[key] += _distance(x, after[key])
    return total


def _visible(before: Numbers, large: Numbers) -> bool:
    peak = np.max(_distance(np.zeros_like(before), before), initial=0.0)
    move = np.max(_distance(before, large), initial=0.0)
    return bool(move * (SMALL / LARGE) > VISIBLE * peak)


def _distance(x: Numbers, y: Numbers) -> Numbers:
    """Return |x - y|, 0 where it is not finite."""
    with np.errstate(invalid="ignore"):
        out: Numbers = np.nan_to_num(np.abs(y.astype(np.float64) - x), nan=0.0, posinf=0.0)
    return out
