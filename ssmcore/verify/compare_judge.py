r"""Whether two arrays differ by rounding or for real, and where they part first.

Every channel is measured by its own peak, in the finest run there is. Let e_t be the largest
difference in a channel at steps up to t, of that peak, and k = 64 + t + 1: 64 roundings for one
output, and one more for every step so far, since a transition e^{dt lambda} that is off by eps is
off by t eps after t steps (``ssmcore.verify.tolerance.oracle`` with the longest memory there can
be). In a stack, k counts once for every block so far.

1. *Modelled.* Two sides whose k roundings all have the same sign part by 2 eps k. A gradient sums L
   terms of either sign, which leaves 1 / sqrt(L) of their size: sqrt(L) times that, at t = L.
2. *Luck.* Roundings of either sign, each uniform within eps / 2, have a standard deviation of
   eps / sqrt(12); two sides of k independent ones part by at most six of theirs,
   6 sqrt(2 k / 12) eps = sqrt(6 k) eps.
3. *Measured.* What float32 does to a model is how far each side's own float32 run is from its own
   float64 run, however much the model amplifies it; a difference between the sides does not enter.
   Let m_t be the sum over the two sides, up to t. Rounding shrinks with eps: in float64 it is about
   m_t eps64 / eps32, and at most 64 times that.

Where both precisions can be run, float64 decides: a difference up to the larger of (1) and (3) is
rounding, and a real one stays. But where (1) in float32
is exceeded, and float32 moves one side 64 times as far as the other, it is not the model that
amplifies: undecided for a user who asks for float32, a fault in float32 alone or an unsuitable
algorithm. There are two exceptions, for a user who asks for float32 only:

- *A side is known to round to float32 inside*: a parameter, or the input, makes no difference when
  it is changed by less than float32 can hold. What then may remain in float64 is what float32 does:
  4 (m_t + d_t + eps32) and never more than (1) in float32. d_t is how far changing what is rounded
  by eps32 moves this very array; eps32 is the rounding of the array itself; 4 allows for one draw
  of an error being larger than another.
- *A side is a plain callable*, whose parameters are out of reach: whether it rounds inside cannot
  be known. Within (1) in float32 the verdict is "undecided".

Where one precision is all there is, a difference within (2) is rounding, one beyond (1) is real,
and in between it is undecided: real, or roundings of one sign.

In both of the last cases a gap that steps is real: one ten times all before it in its channel, and
more than (2) allows one output. Rounding grows, it does not step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssmcore.errors import SSMError
from ssmcore.verify import tolerance
from ssmcore.verify.checks import Numbers
from ssmcore.verify.compare_pair import Pair

__all__ = [
    "DIFFERENT",
    "EQUAL",
    "ROUNDING",
    "UNDECIDED",
    "Figure",
    "Inside",
    "Part",
    "Place",
    "judge",
]

EQUAL, ROUNDING, UNDECIDED, DIFFERENT = "equal bit for bit", "rounding", "undecided", "different"
SHRINKAGE = tolerance.eps("float64") / tolerance.eps("float32")
DRAWS = 4.0  # by how much one draw of a rounding error may exceed another
STEP_UP = 10.0  # how much larger than all before it a gap must be to be a step


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
    """The largest difference in one precision, of its channel's peak, and what rounding may do."""

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
    verdict : "equal bit for bit", "rounding", "undecided" or "different"
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
class Inside:
    """That a side may be no better than float32 in a float64 run.

    ``rounded`` names what it is known to round, None for a plain callable; ``moved`` is how far
    changing that by eps32 moves the array of the part.
    """

    role: str
    rounded: str | None
    moved: Numbers


Finding = tuple[str, str, Numbers]  # the verdict, its reason, and where it is beyond rounding


def judge(pair: Pair, asked: str, inside: Callable[[], Inside | None]) -> Part:
    """Return the verdict on ``pair``; ``asked`` is the dtype that the user compares in.

    ``inside`` says whether a side may round to float32 inside; it is asked only where the verdict
    depends on it.
    """
    finest = "float64" if "float64" in pair.arrays else "float32"
    peak = pair.peak(finest)
    with np.errstate(over="ignore"):
        gaps = {dtype: _gap(pair, dtype, asked) / peak for dtype in pair.arrays}
        own = [side / peak for side in _own(pair)]
    allowed = {dtype: pair.bound(dtype) for dtype in gaps}
    if len(gaps) == 2:
        measured = tolerance.STEP * SHRINKAGE * (own[0] + own[1])
        allowed["float64"] = np.maximum(allowed["float64"], measured)
    verdict, reason, beyond = _finding(pair, asked, gaps, allowed, own, peak, inside)
    broken = np.not_equal(*(np.isfinite(x) for x in pair.arrays[asked]))
    if broken.any():
        verdict, reason = DIFFERENT, f"one side alone is not finite in {asked}"
        beyond = beyond | broken
    first = None
    if beyond.any():
        index = _time_first(pair, beyond)
        seen = asked if broken[index] or verdict == UNDECIDED else finest
        first = _place(pair, seen, index)
    figures = {dtype: _figure(pair, dtype, gaps[dtype], allowed[dtype]) for dtype in gaps}
    shape = pair.arrays[asked][0].shape
    return Part(pair.name, shape, verdict, first, figures, _growth(pair, gaps[asked]), reason)


def _finding(
    pair: Pair,
    asked: str,
    gaps: dict[str, Numbers],
    allowed: dict[str, Numbers],
    own: list[Numbers],
    peak: Numbers,
    inside: Callable[[], Inside | None],
) -> Finding:
    """Return the verdict by ``gaps`` of the ``peak``; ``allowed`` gets what float32 inside may."""
    nowhere = np.zeros(gaps[asked].shape, dtype=bool)
    if not gaps[asked].any():
        return EQUAL, "the bits are the same", nowhere
    if len(gaps) == 1:
        return _alone(pair, gaps[asked], asked)
    beyond = gaps["float64"] > allowed["float64"]
    if not beyond.any():
        amplified = gaps["float32"] > allowed["float32"]
        if asked == "float32" and (amplified & _lopsided(own)).any():
            return _float32_alone(own, amplified & _lopsided(own))
        more = "; the model amplifies it beyond the modelled bound" if amplified.any() else ""
        return ROUNDING, f"in float64 no gap but rounding{more}", nowhere
    found = inside() if asked == "float32" else None
    if found is None:
        return DIFFERENT, "the gap stays in float64", beyond
    explained = _explained(pair, own[0] + own[1], pair.running(found.moved) / peak)
    allowed["float64"] = np.maximum(allowed["float64"], explained)
    return _licensed(pair, gaps["float64"], explained, found)


def _lopsided(own: list[Numbers]) -> Numbers:
    """Return where float32 moves one side far more than the other: not the model amplifies it."""
    smaller, larger = np.minimum(*own), np.maximum(*own)
    out: Numbers = larger > tolerance.STEP * (smaller + tolerance.eps("float32"))
    return out


def _float32_alone(own: list[Numbers], where: Numbers) -> Finding:
    """Return the verdict on a gap in float32 that one side alone makes."""
    sides = zip(own, ("reference", "candidate"), strict=True)
    better, worse = sorted(sides, key=lambda side: float(side[0].max()))
    reason = (
        f"in float64 no gap but rounding; in float32 the {worse[1]} is {worse[0].max():.1e} of the "
        f"peak from its own float64 run, the {better[1]} {better[0].max():.1e}: a fault in float32 "
        "alone, or an algorithm that float32 does not suit"
    )
    return UNDECIDED, reason, where


def _alone(pair: Pair, gap: Numbers, dtype: str) -> Finding:
    """Return the verdict on a gap that no other precision can be asked about."""
    far, steps = gap > pair.bound(dtype), _steps(pair, gap, dtype)
    if (far | steps).any():
        index = _time_first(pair, far | steps)
        how = "outgrows rounding," if far[index] else "steps"
        text = f"the gap {how} {_rise(pair, gap, index)}; judged by roundings in {dtype} alone"
        return DIFFERENT, text, far | steps
    nowhere = np.zeros_like(far)
    if (gap <= pair.luck(dtype)).all():
        return ROUNDING, f"no more than independent roundings in {dtype} make", nowhere
    reason = (
        f"in {dtype} alone it can be a real difference or roundings of one sign; give "
        "(function, params) or a module that runs in float64 to have it decided"
    )
    return UNDECIDED, reason, nowhere


def _licensed(pair: Pair, gap: Numbers, explained: Numbers, found: Inside) -> Finding:
    """Return the verdict on a gap that stays in a float64 run that may be float32 inside."""
    unexplained = gap > explained
    if found.rounded is not None:
        if unexplained.any():
            reason = (
                "the gap stays in float64, and is more than rounding "
                f"{found.rounded} to float32 explains"
            )
            return DIFFERENT, reason, unexplained
        reason = (
            f"the gap is rounding in float32, and {found.role} rounds {found.rounded} to float32 "
            "in a float64 run too"
        )
        return ROUNDING, reason, unexplained
    verdict, reason, beyond = _alone(pair, gap, "float32")
    if verdict == DIFFERENT:
        return verdict, "the gap stays in float64; " + reason, beyond | unexplained
    reason = (
        f"the gap stays in float64, and {found.role} is a plain callable, whose parameters may be "
        "float32; give (function, params) to have it decided"
    )
    return UNDECIDED, reason, np.zeros_like(beyond)


def _explained(pair: Pair, own: Numbers, moved: Numbers) -> Numbers:
    """Return what float32 inside can make of a gap in float64."""
    rounding = DRAWS * (own + moved + tolerance.eps("float32"))
    out: Numbers = np.minimum(pair.bound("float32"), rounding)
    return out


def _steps(pair: Pair, gap: Numbers, dtype: str) -> Numbers:
    """Return where a gap is too much larger than all before it to have grown; False at step 0."""
    if pair.time is None or pair.gradient:
        return np.zeros(gap.shape, dtype=bool)
    before = np.roll(pair.running(gap), 1, axis=pair.time)
    one = np.take(pair.luck(dtype), [0], axis=pair.time)
    out: Numbers = gap > STEP_UP * before + one
    np.moveaxis(out, pair.time, 0)[0] = False
    return out


def _rise(pair: Pair, gap: Numbers, index: tuple[int, ...]) -> str:
    """Return from what to what the gap of a channel goes at ``index``."""
    t = 0 if pair.time is None else index[pair.time]
    if t == 0:
        return "at the first step"
    running = np.moveaxis(np.broadcast_to(pair.running(gap), gap.shape), pair.time or 0, 0)
    others = tuple(i for axis, i in enumerate(index) if axis != pair.time)
    before, after = running[(t - 1, *others)], running[(t, *others)]
    return f"from {before:.1e} at step {t - 1} to {after:.1e} of the peak"


def _gap(pair: Pair, dtype: str, asked: str) -> Numbers:
    """Return |candidate - reference|; infinite where just one is not finite.

    0 where neither is in float32 that was not asked for: it says nothing there.
    """
    reference, candidate = (x.astype(np.float64) for x in pair.arrays[dtype])
    odd = ~np.isfinite(reference) & ~np.isfinite(candidate)
    if odd.any() and (dtype == asked or dtype == "float64"):
        place = _place(pair, dtype, _time_first(pair, odd))
        msg = (
            f"compare: {pair.name} is not finite on either side at {place}; expected an input and "
            "parameters with which the reference stays finite"
        )
        raise SSMError(msg)
    with np.errstate(invalid="ignore"):
        gap = np.abs(candidate - reference)
    out: Numbers = np.where(odd, 0.0, np.where(np.isnan(gap), np.inf, gap))
    return out


def _own(pair: Pair) -> list[Numbers]:
    """Return how far each side's float32 run is from its own float64 run, so far; m_t together."""
    if len(pair.arrays) == 1:
        return [np.zeros((1,) * len(pair.axes))] * 2
    with np.errstate(invalid="ignore"):
        off = [
            np.abs(x - y.astype(np.float64))
            for x, y in zip(pair.arrays["float64"], pair.arrays["float32"], strict=True)
        ]
    return [pair.running(np.where(np.isfinite(x), x, 0.0)) for x in off]


def _figure(pair: Pair, dtype: str, gap: Numbers, allowed: Numbers) -> Figure:
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(gap)), gap.shape))
    bound = np.broadcast_to(allowed, gap.shape)[worst]
    return Figure(float(gap[worst]), float(bound), _place(pair, dtype, worst))


def _time_first(pair: Pair, found: Numbers) -> tuple[int, ...]:
    """Return the first true index, time before the other axes."""
    order = [axis for axis in range(found.ndim) if axis != pair.time]
    order = order if pair.time is None else [pair.time, *order]
    turned = np.transpose(found, order)
    place = np.unravel_index(int(np.argmax(turned)), turned.shape)
    by_axis = dict(zip(order, place, strict=True))
    return tuple(int(by_axis[axis]) for axis in range(found.ndim))


def _place(pair: Pair, dtype: str, index: tuple[int, ...]) -> Place:
    reference, candidate = pair.arrays[dtype]
    named = dict(zip(pair.axes, index, strict=True))
    return Place(named, float(reference[index]), float(candidate[index]))


def _growth(pair: Pair, gap: Numbers) -> float | None:
    """Return the slope of log e_t over log t at t = 1, 2, 4, ..., from the first gap on."""
    if pair.time is None or pair.steps < 8:
        return None
    steps = 2 ** np.arange(int(math.log2(pair.steps)) + 1)
    others = tuple(axis for axis in range(gap.ndim) if axis != pair.time)
    found = np.maximum.accumulate(gap.max(axis=others, initial=0.0))[steps - 1]
    counts = (found > 0) & np.isfinite(found)
    if counts.sum() < 3:
        return None
    return float(np.polyfit(np.log(steps[counts]), np.log(found[counts]), 1)[0])
