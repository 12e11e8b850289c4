"""``compare``: two models, of any two libraries, on the same input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from ssmcore import backend
from ssmcore.backend import DTYPES
from ssmcore.errors import SSMError
from ssmcore.typing import Array
from ssmcore.verify.checks import Numbers
from ssmcore.verify.compare_inside import Insides
from ssmcore.verify.compare_judge import Inside, Part, judge
from ssmcore.verify.compare_pair import Pair
from ssmcore.verify.compare_report import Block, CompareReport
from ssmcore.verify.compare_sides import (
    ImpossibleError,
    Named,
    Nudge,
    Side,
    as_side,
    blocks_of,
    main_output,
)

__all__ = ["compare"]

Both = dict[str, tuple[Numbers, Numbers]]  # the two arrays of a part, by dtype


def compare(
    reference: Any,
    candidate: Any,
    inputs: Array,
    *,
    gradients: bool = True,
    names: Mapping[str, str] | None = None,
    reference_library: str | None = None,
    candidate_library: str | None = None,
    seed: int = 0,
) -> CompareReport:
    """Compare two models, of any libraries, on one input: outputs, states, gradients.

    e_t = max_{s<=t} |candidate_s - reference_s| / peak of the channel, in float32 and in float64: a
    gap that shrinks by eps64 / eps32 is rounding, one that stays is real. Where that cannot be
    seen, and the gap is one that rounding may make, the verdict is "undecided".

    Parameters
    ----------
    reference, candidate
        A callable of one array; (layer, params) with an ssmcore layer; (function, params) with
        function(params, u) and a nested dict; a torch module; a layer of ssmcore_torch or
        ssmcore_jax. It returns y, (y, state) or a dict of arrays. A list of these (or a torch
        container of modules) is a stack, compared block by block: two stacks of equal length.
    inputs : (..., L, H) real, or (..., L) integer
        The same numbers for both, in each side's library.
    gradients : bool
        Also compare the gradients of the sum of x w over all outputs and states x that both return,
        w standard normal, by input and parameters.
    names : mapping
        The candidate's name for a reference's parameter or output, where they differ.
    reference_library, candidate_library : str
        Backend whose arrays a plain callable takes; None means that of ``inputs``.
    seed : int
        Of w.

    Returns
    -------
    CompareReport
        ``passed`` (shown to be the same), ``verdict``, ``first`` (the part that differs, with its
        first index and both values), ``first_block``, ``parts``; ``str()`` is a short report,
        ``to_json()`` all of it.

    Raises
    ------
    SSMError
        What is no model; input that is not finite; a side that fails on it; outputs of different
        shapes; values that are not finite on both sides.

    Notes
    -----
    Bounds on rounding, and where they come from: ``ssmcore.verify.compare_judge``. Models are left
    as they are: copies are converted to float64, torch modules run in evaluation mode. Where one
    side is in float32, the parameters of both are rounded to it first.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> from ssmcore import verify
    >>> layer = ssm.LRU(d_model=2, d_state=4)
    >>> params = layer.init(0)
    >>> u = np.random.default_rng(0).standard_normal((1, 50, 2))
    >>> wrong = {**params, "D": params["D"] + np.float32([0.0, 0.1])}
    >>> report = verify.compare((layer, params), (layer, wrong), u)
    >>> report.verdict, report.first.name, report.first.first.index
    ('different', 'y', {'batch': 0, 'time': 0, 'channel': 1})
    """
    blocks = (blocks_of(reference), blocks_of(candidate))
    u = _checked_input(inputs)
    renamed = _checked_names(names)
    if isinstance(reference, list) or isinstance(candidate, list):
        _check_stacks(*blocks)
    stacks = _stacks(reference, candidate, blocks)
    chains = [
        [as_side(role, block, library, inputs) for block in stack]
        for role, stack, library in zip(
            ("reference", "candidate"), stacks, (reference_library, candidate_library), strict=True
        )
    ]
    asked = _precision(chains[0] + chains[1], u)
    for side in chains[0] + chains[1]:
        side.round_to(asked)
    u = u.astype(asked) if u.dtype.kind == "f" else u
    work = _Work(asked, renamed, gradients, seed)
    titles = [" -> ".join(map(str, chain)) for chain in chains]
    if len(chains[0]) == 1:
        sides = chains[0][0], chains[1][0]
        parts, found = work.pair(sides, u, Insides(sides, u)), []
    else:
        found = work.stack(chains[0], chains[1], u)
        parts = [found[-1].running]
    notes = [note for chain in chains for side in chain for note in side.notes] + work.notes
    return CompareReport(titles[0], titles[1], asked, parts, found, list(dict.fromkeys(notes)))


# --------------------------------------------------------------------------------- what is given


def _checked_input(inputs: Array) -> Numbers:
    u: Numbers = np.asarray(backend.to_numpy(inputs))
    if u.dtype.kind not in "fiu" or u.ndim < (2 if u.dtype.kind == "f" else 1) or u.size == 0:
        msg = (
            f"compare: inputs are {u.dtype} {u.shape}; expected real (..., L, H) or integer "
            "(..., L), not empty"
        )
        raise SSMError(msg)
    bad = np.argwhere(~np.isfinite(u))
    if bad.size:
        place = tuple(bad[0].tolist())
        msg = f"compare: inputs hold {u[place]} at index {place}; expected finite numbers"
        raise SSMError(msg)
    return u


def _checked_names(names: Any) -> dict[str, str]:
    if names is None:
        return {}
    if not isinstance(names, Mapping):
        msg = f"compare: names is {names!r:.50}; expected a dict from reference to candidate names"
        raise SSMError(msg)
    return dict(names)


def _check_stacks(reference: list[Any] | None, candidate: list[Any] | None) -> None:
    counts = ["no stack" if x is None else f"{len(x)} blocks" for x in (reference, candidate)]
    if counts[0] != counts[1] or not reference:
        msg = (
            f"compare: reference is {counts[0]}, candidate {counts[1]}; expected two lists of "
            "equally many blocks, at least one"
        )
        raise SSMError(msg)


def _stacks(
    reference: Any, candidate: Any, blocks: tuple[list[Any] | None, list[Any] | None]
) -> tuple[list[Any], list[Any]]:
    """Return the blocks of both, or both as one block where they cannot be paired."""
    one, other = blocks
    if one is None or other is None or len(one) != len(other):
        return [reference], [candidate]
    return one, other


def _precision(sides: list[Side], u: Numbers) -> str:
    """Return the dtype asked for: the lowest of the parameters, else that of the input."""
    known = [side.dtype for side in sides if side.dtype is not None]
    if known:
        return min(known)
    return str(u.dtype) if str(u.dtype) in DTYPES else "float32"


# --------------------------------------------------------------------------------------- the work


class _Work:
    """What stays the same over all blocks of one comparison, and the notes that come up."""

    def __init__(self, asked: str, renamed: dict[str, str], gradients: bool, seed: int) -> None:
        self.asked, self.renamed, self.gradients, self.seed = asked, renamed, gradients, seed
        self.notes: list[str] = []

    def pair(self, sides: tuple[Side, Side], u: Numbers, insides: Insides) -> list[Part]:
        """Compare one model or block with another on the same input."""
        outputs = self._in_both(sides, lambda side, dtype: side.run(u, dtype), "")
        found = self._matched(outputs, "output")
        if not found:
            kinds = [sorted(x) for x in outputs[self.asked]]
            msg = f"compare: outputs are {kinds[0]} and {kinds[1]}; expected a name in common"
            raise SSMError(msg)
        moved = cache(partial(insides.moved, lambda side, nudge: side.run(u, "float64", nudge)))
        parts = self._parts(found, "", u, insides, moved)
        return parts + (self._gradients(sides, u, found, insides) if self.gradients else [])

    def _gradients(
        self,
        sides: tuple[Side, Side],
        u: Numbers,
        outputs: dict[tuple[str, str], Both],
        insides: Insides,
    ) -> list[Part]:
        twice = len(next(iter(outputs.values()))) == 2  # without a float64 run, no such gradient
        rng = np.random.default_rng(self.seed)
        weights: dict[str, Named] = {side.role: {} for side in sides}
        for names, both in outputs.items():
            weight = rng.standard_normal(both[self.asked][0].shape).astype(self.asked)
            for side, name in zip(sides, names, strict=True):
                weights[side.role][name] = weight

        def run(side: Side, dtype: str, nudge: Nudge | None = None) -> Named:
            return side.gradients(u, dtype, weights[side.role], nudge)

        try:
            grads = self._in_both(sides, run, "gradients: ", twice=twice)
        except SSMError as error:
            reason = str(error).removeprefix("compare: ")
            self.notes.append(f"gradients: not compared, {reason}")
            return []
        found = self._matched(grads, "gradient")
        moved = cache(partial(insides.moved, lambda side, nudge: run(side, "float64", nudge)))
        return self._parts(found, "grad.", u, insides, moved)

    def _parts(
        self,
        found: dict[tuple[str, str], Both],
        prefix: str,
        u: Numbers,
        insides: Insides,
        moved: Callable[[], list[Named]],
    ) -> list[Part]:
        """Judge every pair of arrays; ``moved`` is asked only where a float64 run hides things."""

        def shift(names: tuple[str, str]) -> Numbers:
            by_side = [x[name] for x, name in zip(moved(), names, strict=True) if name in x]
            return np.asarray(np.sum(by_side, axis=0))

        return [
            self._part(
                prefix + names[0],
                both,
                u,
                partial(insides.about, both[self.asked][0].shape, partial(shift, names)),
            )
            for names, both in found.items()
        ]

    def stack(self, reference: list[Side], candidate: list[Side], u: Numbers) -> list[Block]:
        """Compare two stacks block by block: alone on the reference's input, and running."""
        fed = dict.fromkeys(DTYPES, (u, u))
        blocks, before = [], []
        for index, sides in enumerate(zip(reference, candidate, strict=True)):
            name = f"block {index} ({sides[0].label})"
            before.append(Insides(sides, fed[self.asked][0]))
            alone = self.pair(sides, fed[self.asked][0], before[-1])
            fed = self._fed_on(sides, fed, name)
            inside = partial(_so_far, list(before), fed[self.asked][0].shape)
            blocks.append(Block(name, alone, self._part("y", fed, u, inside, index + 1)))
        return blocks

    def _fed_on(
        self,
        sides: tuple[Side, Side],
        fed: Both,
        name: str,
    ) -> Both:
        """Return the outputs of a block of each side, each fed by its own blocks before."""
        out = {}
        for dtype, given in fed.items():
            try:
                y = [main_output(s.run(x, dtype)) for s, x in zip(sides, given, strict=True)]
            except ImpossibleError as error:
                if dtype == self.asked:
                    msg = f"compare: {name}: {error}"
                    raise SSMError(msg) from error
                continue
            out[dtype] = (y[0], y[1])
        return out

    def _in_both(
        self,
        sides: tuple[Side, Side],
        work: Callable[[Side, str], Named],
        what: str,
        twice: bool = True,
    ) -> dict[str, list[Named]]:
        """Return the results of both sides in the precision asked for, and the other if it can."""
        found: dict[str, list[Named]] = {}
        for side in sides:
            try:
                found.setdefault(self.asked, []).append(work(side, self.asked))
            except ImpossibleError as error:
                msg = f"compare: {side.role} {side}: {error}"
                raise SSMError(msg) from error
        if not twice:
            return found
        other = "float64" if self.asked == "float32" else "float32"
        try:
            again = []
            for side in sides:
                again.append(work(side, other))
                _check_precision(again[-1], other, side)
        except ImpossibleError as error:
            self.notes.append(f"{what}no run in {other}, {side.role} {side}: {error}")
            return found
        return found | {other: again}

    def _matched(self, found: dict[str, list[Named]], what: str) -> dict[tuple[str, str], Both]:
        """Return the arrays that both sides have, by their names in the reference and candidate."""
        reference, candidate = found[self.asked]
        partner = {name: self.renamed.get(name, name) for name in reference}
        states = [[n for n in x if n.split(".")[0] == "state"] for x in (reference, candidate)]
        if what == "output" and [len(x) for x in states] == [1, 1]:
            partner[states[0][0]] = states[1][0]
        common = {name: other for name, other in partner.items() if other in candidate}
        left = [f"reference's {n}" for n in reference if n not in common]
        left += [f"candidate's {n}" for n in candidate if n not in common.values()]
        if left:
            self.notes.append(f"{what} without a counterpart: {', '.join(left)}; see names=")
        return {
            (name, other): {dtype: (x[0][name], x[1][other]) for dtype, x in found.items()}
            for name, other in common.items()
        }

    def _part(
        self,
        name: str,
        arrays: Both,
        u: Numbers,
        inside: Callable[[], Inside | None],
        depth: int = 1,
    ) -> Part:
        reference, candidate = arrays[self.asked]
        if reference.shape != candidate.shape:
            msg = (
                f"compare: {name} has shape {reference.shape} in the reference and "
                f"{candidate.shape} in the candidate; expected the same"
            )
            raise SSMError(msg)
        sequence = u.shape[:-1] if u.dtype.kind == "f" else u.shape
        leading = len(sequence)
        in_time = reference.shape[:leading] == sequence and reference.ndim >= leading
        in_time &= not name.startswith("grad.") or name == "grad.u"
        in_time &= name.split(".")[0] != "state"
        time = leading - 1 if in_time else None
        return judge(
            Pair(name, arrays, _axes(reference.ndim, time), time, sequence[-1], depth),
            self.asked,
            inside,
        )


def _axes(ndim: int, time: int | None) -> tuple[str, ...]:
    """Return the names of the axes: batch, time, channel where there is time."""
    names = [f"axis {axis}" for axis in range(ndim)]
    if time is not None:
        names[:time] = ["batch"] if time == 1 else [f"batch axis {i}" for i in range(time)]
        names[time] = "time"
        names[time + 1 : time + 2] = ["channel"] * (ndim > time + 1)
    return tuple(names)


def _check_precision(found: Named, dtype: str, side: Side) -> None:
    for name, x in found.items():
        if str(x.dtype) != dtype:
            msg = f"{name} comes back as {x.dtype}"
            raise ImpossibleError(msg)


def _so_far(blocks: list[Insides], shape: tuple[int, ...]) -> Inside | None:
    """Return what the output of a stack may be excused with; a plain callable counts first."""
    found = [inside for block in blocks if (inside := block.about(shape)) is not None]
    return min(found, key=lambda inside: inside.rounded is not None, default=None)
