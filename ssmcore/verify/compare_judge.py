r"""Whether two arrays differ by rounding or for real, and where they part first.

Let e_t be the largest difference at steps up to t, of the peak of the two arrays, in the precision
asked for. Two bounds, one argument each:

1. *Modelled.* Each side may be off by eps (64 + t + 1): 64 roundings for one output, and one more
   for every step so far, since a transition e^{dt lambda} that is off by eps is off by t eps after
   t steps (``ssmcore.verify.tolerance.oracle`` with the longest memory there can be). Two sides:
   2 eps (64 + t + 1); in a stack, as often as there are blocks before; gradients, which sum L terms
   of either sign, sqrt(L) times that at t = L.
2. *Measured.* Rounding shrinks with eps: what is e_t in float32 is about e_t eps64 / eps32 in
   float64, however much the model amplifies it. With 64 again for luck: a float64 difference up to
   64 e_t eps64 / eps32 is rounding. A real difference stays.

Where both precisions can be run, float64 decides, with the larger of the two bounds. Where only one
can, the modelled bound decides: rounding grows with length no faster than it does.

A float64 run shows nothing finer than float32 where a side rounds to float32 inside. Where float32
was asked for, the float32 bound then holds for both runs, if that is known (a parameter, or the
input, makes no difference to the output when it is changed by less than float32 can hold), or
cannot be known (a plain callable, whose parameters are out of reach).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssmcore.errors import SSMError
from ssmcore.verify import tolerance
from ssmcore.verify.checks import Numbers

__all__ = ["DIFFERENT", "EQUAL", "ROUNDING", "Figure", "Pair", "Part", "Place", "judge"]

EQUAL, ROUNDING, DIFFERENT = "equal bit for bit", "rounding", "different"
SHRINKAGE = tolerance.eps("float64") / tolerance.eps("float32")


@dataclass(frozen=True)
class Place:
    """One element where the two sides differ: its index by axis, and both values."""

    index: dict[str, int]
    reference: float
    candidate: float

    def __str__(self) -> str:
        where = ", ".join(f"{axis} {position}" for axis, position in self.index.items())
        values = f"reference {self.reference:.9g}, candidate {self.candidate:.9g}"
        return f"{where}: {values}" if where else values


@dataclass(frozen=True)
class Figure:
    """The largest difference in one precision, of the peak, and what rounding may make of it."""

    error: float
    allowed: float
    worst: Place


@dataclass(frozen=True)
class Part:
    """One pair of arrays: an output, a state, a gradient.

    Attributes
    ----------
    name : str
        "y", "state", "grad.u", "grad." + parameter, or an output's own name.
    shape : tuple of int
    verdict : "equal bit for bit", "rounding" or "different"
    first : Place or None
        Where a difference is first beyond rounding, time before other axes.
    figures : dict
        By dtype: "float32", "float64" or both.
    growth : float or None
        p of e_t ~ t^p in the precision asked for; None without time axis or difference.
    reason : str
        What the verdict rests on.
    """

    name: str
    shape: tuple[int, ...]
    verdict: str
    first: Place | None
    figures: dict[str, Figure]
    growth: float | None
    reason: str


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
        """Return the modelled bound, (steps,) with a time axis, else (1,)."""
        last = np.asarray([float(self.steps)])
        seen = last if self.time is None else np.arange(1.0, self.steps + 1)
        factor = 2.0 * self.depth * (math.sqrt(self.steps) if self.name.startswith("grad.") else 1)
        if self.name == "grad.u":  # runs backwards: every step has seen up to all others
            seen = np.full_like(seen, self.steps)
        out: Numbers = factor * tolerance.eps(dtype) * (tolerance.STEP + seen)
        return out


def judge(pair: Pair, asked: str, coarse: Callable[[], str | None]) -> Part:
    """Return the verdict on ``pair``; ``asked`` is the dtype that the user compares in.

    ``coarse`` says why a side may be no better than float32 in a float64 run, or None; it is asked
    only where the verdict depends on it.
    """
    gaps = {dtype: _gap(pair, dtype) for dtype in pair.arrays}
    running = {dtype: _running(pair, gap) for dtype, gap in gaps.items()}
    bounds = {dtype: pair.bound(dtype) for dtype in gaps}
    reason = "the bits are the same"
    verdict, first = EQUAL, None
    if not np.isfinite(gaps[asked]).all():
        verdict, reason = DIFFERENT, f"one side alone is not finite in {asked}"
        first = _place(pair, asked, _time_first(pair, ~np.isfinite(gaps[asked])))
    elif gaps[asked].any():
        decisive = "float64" if "float64" in gaps else "float32"
        allowed = bounds[decisive]
        if len(gaps) == 2:
            measured = tolerance.STEP * SHRINKAGE * running["float32"]
            allowed = np.maximum(allowed, np.where(np.isfinite(measured), measured, 0.0))
        fine = asked == "float64"
        verdict, reason, first = _verdict(
            pair, gaps, running, bounds, allowed, _nothing if fine else coarse
        )
        bounds[decisive] = allowed
    figures = {}
    for dtype, gap in gaps.items():
        worst = np.unravel_index(int(np.argmax(gap)), gap.shape)
        t = 0 if pair.time is None else worst[pair.time]
        figures[dtype] = Figure(
            float(gap.max(initial=0.0)), float(bounds[dtype][t]), _place(pair, dtype, worst)
        )
    shape = pair.arrays[asked][0].shape
    return Part(pair.name, shape, verdict, first, figures, _growth(pair, running[asked]), reason)


def _nothing() -> None:
    """Excuse nothing: who asks for float64 gets float64."""


def _verdict(
    pair: Pair,
    gaps: dict[str, Numbers],
    running: dict[str, Numbers],
    bounds: dict[str, Numbers],
    allowed: Numbers,
    coarse: Callable[[], str | None],
) -> tuple[str, str, Place | None]:
    decisive = "float64" if "float64" in gaps else "float32"
    found = _first_beyond(pair, gaps[decisive], allowed)
    if len(gaps) == 2:
        if found is None:
            amplified = (running["float32"] > bounds["float32"]).any()
            more = "; the model amplifies it beyond the modelled bound" if amplified else ""
            return ROUNDING, f"in float64 no gap but rounding{more}", None
        if all((running[dtype] <= bounds["float32"]).all() for dtype in gaps):
            why = coarse()
            if why is not None:
                return ROUNDING, f"the gap is rounding in float32, and {why}", None
        place = _place(pair, decisive, found)
        return DIFFERENT, "the gap stays in float64", place
    if found is None:
        return ROUNDING, f"within the modelled bound of {decisive}", None
    t = 0 if pair.time is None else found[pair.time]
    before = running[decisive][t - 1] if t else 0.0
    grown = f"from {before:.1e} at step {t - 1} to {running[decisive][t]:.1e} of the peak"
    text = f"the gap outgrows rounding, {grown if t else 'at the first step'}"
    return DIFFERENT, f"{text}; judged in {decisive} alone", _place(pair, decisive, found)


def _gap(pair: Pair, dtype: str) -> Numbers:
    """Return |candidate - reference| of the peak; infinite where just one is not finite."""
    reference, candidate = (x.astype(np.float64) for x in pair.arrays[dtype])
    odd = ~np.isfinite(reference) & ~np.isfinite(candidate)
    if odd.any():
        place = _place(pair, dtype, tuple(_time_first(pair, odd)))
        msg = (
            f"compare: {pair.name} is not finite on either side at {place}; expected an input and "
            "parameters with which the reference stays finite"
        )
        raise SSMError(msg)
    with np.errstate(invalid="ignore"):
        gap = np.abs(candidate - reference)
    finite = np.concatenate([x[np.isfinite(x)].ravel() for x in (reference, candidate)])
    peak = float(np.max(np.abs(finite), initial=0.0)) or 1.0
    out: Numbers = np.where(np.isnan(gap), np.inf, gap) / peak
    return out


def _running(pair: Pair, gap: Numbers) -> Numbers:
    """Return e_t: (steps,) with a time axis, else (1,)."""
    if pair.time is None:
        return np.asarray([gap.max(initial=0.0)])
    others = tuple(axis for axis in range(gap.ndim) if axis != pair.time)
    out: Numbers = np.maximum.accumulate(gap.max(axis=others, initial=0.0))
    return out


def _first_beyond(pair: Pair, gap: Numbers, allowed: Numbers) -> tuple[int, ...] | None:
    if pair.time is not None:
        allowed = allowed.reshape((-1,) + (1,) * (gap.ndim - pair.time - 1))
    beyond = gap > allowed
    return _time_first(pair, beyond) if beyond.any() else None


def _time_first(pair: Pair, found: Numbers) -> tuple[int, ...]:
    """Return the first true index, time before the other axes."""
    order = [axis for axis in range(found.ndim) if axis != pair.time]
    order = order if pair.time is None else [pair.time, *order]
    turned = np.transpose(found, order)
    place = np.unravel_index(int(np.argmax(turned)), turned.shape)
    by_axis = dict(zip(order, place, strict=True))
    return tuple(int(by_axis[axis]) for axis in range(found.ndim))


def _place(pair: Pair, dtype: str, index: tuple[int, ...] | tuple[np.intp, ...]) -> Place:
    reference, candidate = pair.arrays[dtype]
    named = dict(zip(pair.axes, (int(i) for i in index), strict=True))
    return Place(named, float(reference[index]), float(candidate[index]))


def _growth(pair: Pair, running: Numbers) -> float | None:
    """Return the slope of log e_t over log t at t = 1, 2, 4, ..., from the first gap on."""
    if pair.time is None or pair.steps < 8:
        return None
    steps = 2 ** np.arange(int(math.log2(pair.steps)) + 1)
    found = running[steps - 1]
    counts = (found > 0) & np.isfinite(found)
    if counts.sum() < 3:
        return None
    return float(np.polyfit(np.log(steps[counts]), np.log(found[counts]), 1)[0])
