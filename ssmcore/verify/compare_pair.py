"""A pair of arrays that are compared, their peaks, and what bounds their rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssmcore.verify import tolerance
from ssmcore.verify.checks import Numbers

__all__ = ["Pair"]


@dataclass(frozen=True)
class Pair:
    """The two arrays of a part, by dtype, and what bounds their rounding.

    ``time`` is the time axis or None; ``steps`` the length; ``depth`` the blocks so far.
    """

    name: str
    arrays: dict[str, tuple[Numbers, Numbers]]
    axes: tuple[str, ...]
    time: int | None
    steps: int
    depth: int = 1

    def bound(self, dtype: str) -> Numbers:
        """Return the modelled bound: along time, or one number."""
        factor = 2.0 * self.depth * (math.sqrt(self.steps) if self.gradient else 1.0)
        out: Numbers = factor * tolerance.eps(dtype) * self._roundings()
        return out

    def luck(self, dtype: str) -> Numbers:
        """Return how far independent roundings part the sides: along time, or one number."""
        out: Numbers = tolerance.eps(dtype) * np.sqrt(6.0 * self.depth * self._roundings())
        return out

    def running(self, x: Numbers) -> Numbers:
        """Return the largest of ``x`` so far in each channel, over the other axes; they keep 1."""
        others = tuple(axis for axis in range(x.ndim) if axis not in (self.time, self.channel))
        out: Numbers = x.max(axis=others, initial=0.0, keepdims=True)
        return out if self.time is None else np.maximum.accumulate(out, axis=self.time)

    def peak(self, dtype: str) -> Numbers:
        """Return the smaller of the sides' peaks in each channel: one that explodes hides nothing.

        A side that is 0, or not finite somewhere, leaves it to the other; 1 where all are 0.
        """
        sizes = [np.abs(x.astype(np.float64)) for x in self.arrays[dtype]]
        others = tuple(axis for axis in range(sizes[0].ndim) if axis != self.channel)
        finite = [np.where(np.isfinite(x), x, 0.0) for x in sizes]
        peaks = [x.max(axis=others, initial=0.0, keepdims=True) for x in finite]
        whole = [
            np.isfinite(x).all(axis=others, keepdims=True) & (p > 0.0)
            for x, p in zip(sizes, peaks, strict=True)
        ]
        least = np.minimum(*(np.where(w, p, np.inf) for w, p in zip(whole, peaks, strict=True)))
        peak = np.where(np.isfinite(least), least, np.maximum(*peaks))
        out: Numbers = np.where(peak == 0.0, 1.0, peak)
        return out

    @property
    def channel(self) -> int | None:
        """The channel axis, or None."""
        return None if "channel" not in self.axes else self.axes.index("channel")

    @property
    def gradient(self) -> bool:
        """Whether the arrays are gradients."""
        return self.name.startswith("grad.")

    def _roundings(self) -> Numbers:
        """Return 64 + the steps seen, along time; a gradient has seen all of them."""
        if self.time is None or self.gradient:
            return np.full((1,) * len(self.axes), tolerance.STEP + self.steps)
        shape = [1] * len(self.axes)
        shape[self.time] = self.steps
        return tolerance.STEP + np.arange(1.0, self.steps + 1).reshape(shape)
