"""Gradients of every primitive against its analytic adjoint, forward derivatives against both.

By every input, the initial state among them, of a weighted sum of every output, the last state
among them. Complex inputs are differentiated as pairs of real numbers, where libraries agree on
what a gradient is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import arrays
from ssmcore_conformance.adjoints import ADJOINTS
from ssmcore_conformance.running import host
from ssmcore_conformance.strategies import numbers, transition
from ssmcore_conformance.tolerances import bound, check, eps, fft, steps

Numbers = np.ndarray[Any, Any]
Given = dict[str, Any]
H, P, N, L = 3, 5, 2, 13
WITH_STATE = ("diagonal_scan", "selective_scan", "short_convolution")


def _linear_scan(rng: np.random.Generator, kind: str, **options: Any) -> Given:
    a, b = transition(rng, (2, L, P), kind), numbers(rng, (2, L, P), kind)
    return {"a": a, "b": b, "initial": numbers(rng, (2, P), kind), **options}


def _diagonal_scan(rng: np.random.Generator, kind: str, separate: bool, **options: Any) -> Given:
    shapes = ((H, N), (H, N), (H, N), (H, N)) if separate else ((P,), (P, H), (H, P), (P,))
    a = transition(rng, shapes[0], kind)
    B, C = (numbers(rng, shape, kind) for shape in shapes[1:3])
    u, initial = numbers(rng, (2, L, H), "float64"), numbers(rng, (2, *shapes[3]), kind)
    return {"a": a, "B": B, "C": C, "u": u, "initial": initial, **options}


def _selective_scan(rng: np.random.Generator, kind: str, **options: Any) -> Given:
    A = -np.exp(rng.uniform(-2, 1, (H, N)))
    return {
        "u": numbers(rng, (2, L, H), "float64"),
        "delta": np.exp(rng.uniform(np.log(1e-6), np.log(10), (2, L, H))),
        "A": A + 1j * rng.uniform(-3, 3, A.shape) if kind == "complex128" else A,
        "B": numbers(rng, (2, L, N), kind),
        "C": numbers(rng, (2, L, N), kind),
        "D": numbers(rng, (H,), "float64"),
        "initial": numbers(rng, (2, H, N), kind),
        **options,
    }


def _convolution(rng: np.random.Generator, kind: str, taps: int) -> Given:
    return {"u": numbers(rng, (2, L, H), kind), "kernel": numbers(rng, (taps, H), kind)}


def _short(rng: np.random.Generator) -> Given:
    shapes = {"u": (2, L, H), "weight": (4, H), "bias": (H,), "state": (2, 3, H)}
    return {name: numbers(rng, shape, "float64") for name, shape in shapes.items()}


def _kernel(rng: np.random.Generator, kind: str) -> Given:
    a, c = transition(rng, (H, N), kind), numbers(rng, (H, N), kind)
    return {"a": a, "coefficients": c, "length": L}


def _dplr(rng: np.random.Generator, rank: int) -> Given:
    Lambda = -rng.uniform(0.1, 1, (H, N)) + 1j * rng.uniform(0, 5, (H, N))
    P_, B, C = (numbers(rng, (*lead, H, N), "complex128") for lead in ((rank,), (), ()))
    dt = np.exp(rng.uniform(-4, 0, H))
    return {"dt": dt, "Lambda": Lambda, "P": P_, "B": B, "C": C, "length": L}


RESET = np.arange(L) % 5 == 3
Draw = Callable[[np.random.Generator], Given]
PROBLEMS: dict[str, tuple[str, Draw]] = {
    "linear_scan": ("linear_scan", lambda r: _linear_scan(r, "float64")),
    "linear_scan, complex, reset, reverse": (
        "linear_scan",
        lambda r: _linear_scan(r, "complex128", reset=RESET, reverse=True),
    ),
    "diagonal_scan, one system": (
        "diagonal_scan",
        lambda r: _diagonal_scan(r, "complex128", separate=False),
    ),
    "diagonal_scan, one a channel, reset, reverse": (
        "diagonal_scan",
        lambda r: _diagonal_scan(r, "complex128", separate=True, reset=RESET, reverse=True),
    ),
    "diagonal_scan, real": (
        "diagonal_scan",
        lambda r: _diagonal_scan(r, "float64", separate=True, reset=RESET),
    ),
    "selective_scan": ("selective_scan", lambda r: _selective_scan(r, "float64", reset=RESET)),
    "selective_scan, complex": ("selective_scan", lambda r: _selective_scan(r, "complex128")),
    "causal_convolution": ("causal_convolution", lambda r: _convolution(r, "float64", L)),
    "causal_convolution, complex, short kernel": (
        "causal_convolution",
        lambda r: _convolution(r, "complex128", 4),
    ),
    "short_convolution": ("short_convolution", _short),
    "diagonal_kernel": ("diagonal_kernel", lambda r: _kernel(r, "complex128")),
    "diagonal_kernel, real": ("diagonal_kernel", lambda r: _kernel(r, "float64")),
    "dplr_kernel": ("dplr_kernel", lambda r: _dplr(r, 1)),
    "dplr_kernel, rank 2": ("dplr_kernel", lambda r: _dplr(r, 2)),
}
OPTIONS = ("reset", "reverse", "length")


def outputs(name: str, given: Given) -> list[Any]:
    """Return every output of a primitive, the last state among them."""
    extra = {"return_state": True} if name in WITH_STATE[:2] else {}
    out = getattr(ssm, name)(**given, **extra)
    return list(out) if isinstance(out, tuple) else [out]


class Problem:
    """A primitive with inputs, directions to move them in, and weights of its outputs."""

    def __init__(self, title: str, seed: int = 0) -> None:
        rng = np.random.default_rng([sum(map(ord, title)), seed])
        self.name, draw = PROBLEMS[title]
        self.given = draw(rng)
        self.inputs = {k: x for k, x in self.given.items() if k not in OPTIONS}
        found = [host(y) for y in outputs(self.name, self.given)]
        self.weights = [numbers(rng, y.shape, str(y.dtype)) for y in found]
        self.moves = {k: numbers(rng, x.shape, str(x.dtype)) for k, x in self.inputs.items()}
        if "delta" in self.moves:  # steps stay positive
            self.moves["delta"] *= self.inputs["delta"]

    def tree(self, library: Any, values: dict[str, Numbers]) -> dict[str, Any]:
        """Return real arrays of the library: complex inputs as pairs."""
        paired = {k: arrays.split(x) if np.iscomplexobj(x) else x for k, x in values.items()}
        return {k: library.from_numpy(np.asarray(x)) for k, x in paired.items()}

    def loss(self, library: Any) -> Callable[[Any], Any]:
        """Return Re sum conj(weight) output as a function of the tree."""
        xp = library.xp
        weights = [library.from_numpy(w) for w in self.weights]
        fixed = {k: self.given[k] for k in OPTIONS if k in self.given}
        fixed |= {"reset": library.from_numpy(RESET)} if "reset" in fixed else {}

        def f(tree: Any) -> Any:
            joined = {
                k: arrays.join(x) if np.iscomplexobj(self.inputs[k]) else x for k, x in tree.items()
            }
            total = 0.0
            for w, y in zip(weights, outputs(self.name, joined | fixed), strict=True):
                total = total + xp.sum(xp.real(w) * xp.real(y) if arrays.is_complex(y) else w * y)
                if arrays.is_complex(y):
                    total = total + xp.sum(xp.imag(w) * xp.imag(y))
            return total

        return f

    def count(self) -> float:
        """Return the roundings of a forward and a backward pass, in eps."""
        passes = 2 * steps(L, 2 * max(H, P))
        return passes + (2 * fft(2 * L) if "convolution" in self.name else 0.0)

    def tolerance(self, grads: dict[str, Numbers]) -> dict[str, Numbers]:
        """Return eps times the roundings times the growth of each gradient."""
        if self.name == "dplr_kernel":
            growth = {k: np.abs(x).max() * conditions(self.given) for k, x in grads.items()}
        elif self.name == "causal_convolution":  # a transform mixes all: norms, not entries
            moduli = ADJOINTS[self.name](self.given, tuple(self.weights), modulus=True)
            growth = {k: np.linalg.norm(x) for k, x in moduli.items()}
        else:
            growth = ADJOINTS[self.name](self.given, tuple(self.weights), modulus=True)
        return {k: bound("float64", self.count(), x) for k, x in growth.items()}


def conditions(given: Given) -> float:
    """Return the largest condition number of I - dt/2 A, squared: two solves in a row."""
    Lambda, P_ = (np.concatenate([z, z.conj()], axis=-1) for z in (given["Lambda"], given["P"]))
    A = Lambda[..., None] * np.eye(2 * N)
    for row in P_:
        A = A - row[:, :, None] * row.conj()[:, None, :]
    return float(np.linalg.cond(np.eye(2 * N) - given["dt"][:, None, None] / 2 * A).max() ** 2)


@pytest.mark.parametrize("title", PROBLEMS)
def test_gradient(ssm_autodiff: Any, worst: Any, title: str) -> None:
    """The gradient by every input and the initial state is that of the analytic adjoint."""
    problem = Problem(title)
    expected = ADJOINTS[problem.name](problem.given, tuple(problem.weights))
    tree = problem.tree(ssm_autodiff, problem.inputs)
    _, found = ssm_autodiff.value_and_grad(problem.loss(ssm_autodiff), tree)
    limits = problem.tolerance(expected)
    for key, value in expected.items():
        got = ssm_autodiff.to_numpy(found[key])
        got = got[..., 0] + 1j * got[..., 1] if np.iscomplexobj(value) else got
        row = f"{problem.name}: gradient by {key}"
        check(worst, row, ssm_autodiff.name, "float64", got, value, limits[key])


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("title", PROBLEMS)
def test_forward_derivative(ssm_autodiff: Any, worst: Any, title: str) -> None:
    """The derivative along a direction is the gradient times it (jvp, where there is one)."""
    problem, jvp = Problem(title), JVP.get(ssm_autodiff.library)
    if jvp is None:
        pytest.skip(f"{ssm_autodiff.name}: no forward derivative is known for its library")
    expected = ADJOINTS[problem.name](problem.given, tuple(problem.weights))
    limits = problem.tolerance(expected)
    slope, allowed = 0.0, 0.0
    for key, move in problem.moves.items():
        slope += float(np.real(np.sum(np.conj(expected[key]) * move)))
        allowed += float(np.sum(np.abs(limits[key]) * np.abs(move)))
    tree = problem.tree(ssm_autodiff, problem.inputs)
    moves = problem.tree(ssm_autodiff, problem.moves)
    got = float(jvp(problem.loss(ssm_autodiff), tree, moves))
    row = f"{problem.name}: forward derivative"
    check(worst, row, ssm_autodiff.name, "float64", got, slope, allowed + eps("float64"))


def _torch_jvp(fn: Any, tree: Any, moves: Any) -> Any:
    import torch

    return torch.func.jvp(fn, (tree,), (moves,))[1]


def _jax_jvp(fn: Any, tree: Any, moves: Any) -> Any:
    import jax

    return jax.jit(lambda x, v: jax.jvp(fn, (x,), (v,))[1])(tree, moves)


JVP: dict[str, Callable[..., Any]] = {"torch": _torch_jvp, "jax": _jax_jvp}


@pytest.mark.parametrize("title", PROBLEMS)
def test_the_adjoints_are_derivatives(title: str) -> None:
    """Central differences of the NumPy library in one direction: the adjoints judge, so are judged.

    D(h) = f' + h^2 f'''/6 + ...: |D(2h) - D(h)| / 3 estimates the error of D(h), the doubled value
    bounds it; rounding adds eps growth / h.
    """
    from ssmcore import backend

    problem, library = Problem(title), backend.load("numpy")
    f, step = problem.loss(library), eps("float64") ** (1 / 3)
    grads = ADJOINTS[problem.name](problem.given, tuple(problem.weights))
    slope = sum(np.real(np.sum(np.conj(grads[k]) * v)) for k, v in problem.moves.items())

    def along(width: float) -> float:
        ends = []
        for sign in (1.0, -1.0):
            moved = {k: x + sign * width * problem.moves[k] for k, x in problem.inputs.items()}
            ends.append(float(f(problem.tree(library, moved))))
        return (ends[0] - ends[1]) / (2 * width)

    near, far = along(step), along(2 * step)
    size = sum(float(np.sum(np.abs(x) * np.abs(problem.moves[k]))) for k, x in grads.items())
    allowed = 2 * abs(far - near) / 3 + eps("float64") * problem.count() * (1 + size) / step
    print(f"{title}: {abs(near - slope):.1e} of {abs(slope):.1e}, allowed {allowed:.1e}")
    assert abs(near - slope) <= allowed
    assert allowed < 1e-3 * size
