"""The checks of one row: outputs in every mode, eigenvalues, gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssmcore import arrays, backend
from ssmcore import oracle as oracles
from ssmcore.backend import Backend
from ssmcore.layers import Layer
from ssmcore.typing import Params
from ssmcore.verify import tolerance
from ssmcore.verify.report import Failure

__all__ = [
    "LARGEST_SPECTRUM",
    "Problem",
    "Worst",
    "chunk_sizes",
    "compare",
    "eigenvalues",
    "gradients",
    "has_spectrum",
    "output",
    "pose",
    "widest_gap",
]

Numbers: TypeAlias = NDArray[Any]
DENSE = ("LSSL", "S4")
LARGEST_SPECTRUM = 16
AXES = ("batch", "time", "channel")
EIGENVALUE_AXES = {
    "LSSL": ("channel", "state"),
    "S4": ("channel", "state"),
    "S4D": ("channel", "state"),
    "S5": ("state",),
    "LRU": ("state",),
    "S6": ("batch", "time", "channel", "state"),
    "RGLRU": ("batch", "time", "channel"),
}


@dataclass(frozen=True)
class Problem:
    """One model in one dtype with its answers: parameters and input in NumPy, outputs float64."""

    layer: Layer
    dtype: str
    params: Params
    u: Numbers
    y: Numbers
    eigenvalues: Numbers
    memory: float
    condition: float | None = None

    @property
    def model(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def peak(self) -> float:
        """Largest output of the oracle."""
        return float(np.max(np.abs(self.y)))

    @property
    def ulp(self) -> float:
        """Spacing of ``dtype`` at the peak."""
        return float(np.spacing(np.asarray(self.peak, dtype=self.dtype)))

    @property
    def dense(self) -> bool:
        """Whether the transition is a dense matrix, whose eigenvalues have no order."""
        return self.model in DENSE


def pose(layer: Layer, dtype: str, u: Numbers, seed: int) -> Problem:
    """Return ``layer`` with input u (batch, L, H), rounded to ``dtype``, and the answers."""
    params = backend.to_numpy(layer.init(seed, backend="numpy", dtype=dtype))
    u = u.astype(dtype)
    y = oracles.run(layer.name, params, u).y
    found = _oracle_eigenvalues(layer, params, u)
    condition = None
    if layer.name in DENSE and has_spectrum(layer):
        system: Any = layer.system(params)
        condition = tolerance.condition(system.to_dense().A)
    steps = tolerance.memory(found, u.shape[-2])
    return Problem(layer, dtype, params, u, y, found, steps, condition)


def has_spectrum(layer: Layer) -> bool:
    """Whether rounding leaves anything of the eigenvalues of A_bar: see ``S4.eigenvalues``."""
    return layer.name not in DENSE or vars(layer)["d_state"] <= LARGEST_SPECTRUM


def _oracle_eigenvalues(layer: Layer, params: Params, u: Numbers) -> Numbers:
    """Return the oracle's eigenvalues of A_bar, or a_t of ``u`` where they change with the input.

    a_t is what one step does to a state: every step is run as a sequence of its own, from a state
    so large (2^60) that the input does not count, and from zero.
    """
    if not layer.time_varying:
        return oracles.eigenvalues(layer.name, params)
    steps = u[..., None, :]
    key = "h" if layer.name == "RGLRU" else "x"
    shape = (*steps.shape[:-2], *next(iter(layer.state_shapes().values())))
    large = 2.0**60
    runs = [
        oracles.run(layer.name, params, steps, state={key: np.full(shape, start)}).state[key]
        for start in (large, 0.0)
    ]
    a: Numbers = (runs[0] - runs[1]) / large
    return a


# ------------------------------------------------------------------------------------- outputs


def chunk_sizes(length: int, seed: int) -> list[int]:
    """Return random sizes that add up to ``length``: a single step first, then up to L / 16."""
    rng = np.random.default_rng(seed)
    sizes = [1]
    while sum(sizes) < length:
        size = int(rng.integers(1, max(2, length // 16 + 1)))
        sizes.append(min(size, length - sum(sizes)))
    return sizes


def output(problem: Problem, owner: Backend, mode: str, seed: int) -> Numbers:
    """Return y (batch, L, H) of ``problem`` on a backend in a mode, in NumPy, dtype as returned."""
    params = backend.move(problem.params, backend=owner.name)
    if mode == "chunked":
        return _chunked(problem, owner, params, chunk_sizes(problem.u.shape[-2], seed))
    run = owner.compile(lambda p, u: problem.layer(p, u, mode=mode))
    return owner.to_numpy(run(params, owner.from_numpy(problem.u)))


def _chunked(problem: Problem, owner: Backend, params: Params, sizes: list[int]) -> Numbers:
    """Run chunk by chunk in mode "auto" with the state carried.

    Where functions are compiled, each chunk is padded to the longest and given its ``lengths``:
    one compilation instead of one a size.
    """
    layer, batch = problem.layer, problem.u.shape[:-2]

    def chunk(p: Params, u: Any, state: Any, lengths: Any) -> Any:
        return layer(p, u, state, lengths=lengths, return_state=True)

    run = owner.compile(chunk)
    longest = max(sizes) if run is not chunk else 0
    state = layer.initial_state(params, batch)
    pieces, start = [], 0
    for size in sizes:
        u, lengths = problem.u[..., start : start + size, :], None
        if longest:
            u = np.pad(u, [(0, 0)] * len(batch) + [(0, longest - size), (0, 0)])
            lengths = owner.from_numpy(np.full(batch, size, dtype=np.int32))
        y, state = run(params, owner.from_numpy(u), state, lengths)
        pieces.append(owner.to_numpy(y)[..., :size, :])
        start += size
    return np.concatenate(pieces, axis=-2)


# ------------------------------------------------------------------- eigenvalues and gradients


def eigenvalues(problem: Problem, owner: Backend) -> Numbers:
    """Return the layer's eigenvalues of A_bar, or a_t of the input, on a backend."""
    params = backend.move(problem.params, backend=owner.name)
    u = owner.from_numpy(problem.u)
    if problem.model in DENSE:  # decomposed on the host: nothing to compile
        return owner.to_numpy(problem.layer.eigenvalues(params))
    varying = problem.layer.time_varying
    find = owner.compile(lambda p, u: problem.layer.eigenvalues(p, u if varying else None))
    return owner.to_numpy(find(params, u))


def gradients(problem: Problem, owner: Backend, cotangent: Numbers) -> dict[str, Numbers]:
    """Return the gradient of sum(y * cotangent) by every parameter and by u, by dotted name."""
    weight = owner.from_numpy(cotangent)
    tree = backend.move({"parameters": problem.params, "u": problem.u}, backend=owner.name)

    def loss(given: Any) -> Any:
        y = problem.layer(given["parameters"], given["u"])
        return arrays.namespace(y).sum(y * weight)

    _, grads = owner.value_and_grad(loss, tree)
    return dict(arrays.leaves(backend.to_numpy(grads)))


# ---------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class Worst:
    """The worst element of a comparison: relative difference, place, both values."""

    error: float
    index: tuple[int, ...]
    found: Any
    expected: Any

    def failure(
        self, problem: Problem, owner: str, check: str, allowed: float, **named: Any
    ) -> Failure:
        """Return this as a failed check; ``named``: mode, axes, and labels of both values."""
        axes = named.get("axes", AXES)
        found, expected = named.get("labels", ("got", "expected"))
        return Failure(
            model=problem.model,
            backend=owner,
            dtype=problem.dtype,
            mode=named.get("mode", ""),
            check=check,
            index=dict(zip(axes, self.index, strict=False)),
            found=f"{found} {self.found}",
            expected=f"{expected} {self.expected}",
            difference=self.error,
            tolerance=allowed,
        )


def compare(found: Numbers, expected: Numbers, scale: float) -> Worst:
    """Return the worst element of ``found`` against ``expected``, over ``scale``; NaN is worst."""
    wide = np.complex128 if np.iscomplexobj(found) or np.iscomplexobj(expected) else np.float64
    with np.errstate(invalid="ignore"):  # infinities are found below
        gap = np.abs(found.astype(wide) - expected.astype(wide))
    gap = np.where(np.isnan(gap), np.inf, gap)
    place = np.unravel_index(int(np.argmax(gap)), gap.shape)
    index = tuple(int(i) for i in place)
    return Worst(float(gap[place]) / (scale or 1.0), index, found[place], expected[place])


def nearest(found: Numbers, expected: Numbers) -> Worst:
    """Return the worst of ``found`` (..., N) against its nearest in ``expected``, and the reverse.

    For spectra, which have no order: the Hausdorff distance.
    """
    gaps = np.abs(found[..., :, None] - expected[..., None, :])
    partner = np.take_along_axis(expected, np.argmin(gaps, axis=-1), axis=-1)
    other = np.take_along_axis(found, np.argmin(gaps, axis=-2), axis=-1)
    forth, back = compare(found, partner, 1.0), compare(other, expected, 1.0)
    return forth if forth.error >= back.error else back


def widest_gap(outputs: dict[str, Numbers], scale: float) -> tuple[Worst, str, str]:
    """Return the largest difference between any two modes over ``scale``, and which two."""
    names = list(outputs)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    gaps = [(compare(outputs[a], outputs[b], scale), a, b) for a, b in pairs]
    return max(gaps, key=lambda gap: gap[0].error)
