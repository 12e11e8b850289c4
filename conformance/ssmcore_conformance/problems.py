"""Problems for derivatives: a primitive, its inputs, directions to move them in, a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ssmcore as ssm
from ssmcore import arrays
from ssmcore_conformance.adjoints import ADJOINTS
from ssmcore_conformance.running import host
from ssmcore_conformance.strategies import numbers, transition
from ssmcore_conformance.tolerances import bound, fft, steps

__all__ = ["COMPILED", "FORMS", "PROBLEMS", "WITH_STATE", "Problem", "outputs"]

Numbers = np.ndarray[Any, Any]
Given = dict[str, Any]
H, P, N, L, LONG = 3, 5, 2, 13, 101
WITH_STATE = ("diagonal_scan", "selective_scan", "short_convolution")


def _linear_scan(
    rng: np.random.Generator,
    kind: str,
    form: str = "(..., L, P)",
    length: int = L,
    batch: tuple[int, ...] = (2,),
    **options: Any,
) -> Given:
    shapes = {"(P,)": (P,), "(1, P)": (1, P), "(L, P)": (length, P)}
    a = transition(rng, shapes.get(form, (*batch, length, P)), kind)
    b, initial = numbers(rng, (*batch, length, P), kind), numbers(rng, (*batch, P), kind)
    return {"a": a, "b": b, "initial": initial, **options}


def _diagonal_scan(
    rng: np.random.Generator,
    kind: str,
    separate: bool,
    length: int = L,
    batch: tuple[int, ...] = (2,),
    through: bool = True,
    **options: Any,
) -> Given:
    shapes = ((H, N), (H, N), (H, N), (H, N)) if separate else ((P,), (P, H), (H, P), (P,))
    a = transition(rng, shapes[0], kind)
    B, C = (numbers(rng, shape, kind) for shape in shapes[1:3])
    u = numbers(rng, (*batch, length, H), "float64")
    initial = numbers(rng, (*batch, *shapes[3]), kind)
    D = {"D": numbers(rng, (H,), "float64")} if through else {}
    return {"a": a, "B": B, "C": C, "u": u, "initial": initial, **D, **options}


def _selective_scan(
    rng: np.random.Generator, kind: str, length: int = L, own: bool = False, **options: Any
) -> Given:
    """``own``: B and C of every channel, else shared by them."""
    A, N_t = -np.exp(rng.uniform(-2, 1, (H, N))), (H, N) if own else (N,)
    return {
        "u": numbers(rng, (2, length, H), "float64"),
        "delta": np.exp(rng.uniform(np.log(1e-6), np.log(10), (2, length, H))),
        "A": A + 1j * rng.uniform(-3, 3, A.shape) if kind == "complex128" else A,
        "B": numbers(rng, (2, length, *N_t), kind),
        "C": numbers(rng, (2, length, *N_t), kind),
        "D": numbers(rng, (H,), "float64"),
        "initial": numbers(rng, (2, H, N), kind),
        **options,
    }


def _convolution(
    rng: np.random.Generator, kind: str, taps: int, batch: tuple[int, ...] = ()
) -> Given:
    return {"u": numbers(rng, (2, L, H), kind), "kernel": numbers(rng, (*batch, taps, H), kind)}


def _short(rng: np.random.Generator, taps: int = 4, bias: bool = True) -> Given:
    shapes = {"u": (2, L, H), "weight": (taps, H), "state": (2, taps - 1, H)}
    shapes |= {"bias": (H,)} if bias else {}
    return {name: numbers(rng, shape, "float64") for name, shape in shapes.items()}


def _kernel(rng: np.random.Generator, kind: str) -> Given:
    a, c = transition(rng, (H, N), kind), numbers(rng, (H, N), kind)
    return {"a": a, "coefficients": c, "length": L}


def _dplr(rng: np.random.Generator, rank: int) -> Given:
    Lambda = -rng.uniform(0.1, 1, (H, N)) + 1j * rng.uniform(0, 5, (H, N))
    P_, B, C = (numbers(rng, (*lead, H, N), "complex128") for lead in ((rank,), (), ()))
    dt = np.exp(rng.uniform(-4, 0, H))
    return {"dt": dt, "Lambda": Lambda, "P": P_, "B": B, "C": C, "length": L}


RESET, LONG_RESET = (np.arange(length) % 5 == 3 for length in (L, LONG))
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
FORMS: dict[str, tuple[str, Draw]] = {
    "linear_scan, constant a, reset": (
        "linear_scan",
        lambda r: _linear_scan(r, "complex128", "(P,)", reset=RESET),
    ),
    "linear_scan, constant a with a time axis, reverse": (
        "linear_scan",
        lambda r: _linear_scan(r, "float64", "(1, P)", reverse=True),
    ),
    "linear_scan, long, complex, reset": (
        "linear_scan",
        lambda r: _linear_scan(r, "complex128", length=LONG, reset=LONG_RESET),
    ),
    "linear_scan, long, constant a, reverse": (
        "linear_scan",
        lambda r: _linear_scan(r, "float64", "(P,)", LONG, reset=LONG_RESET, reverse=True),
    ),
    "linear_scan, complex": ("linear_scan", lambda r: _linear_scan(r, "complex128")),
    "linear_scan, a for the whole batch": (
        "linear_scan",
        lambda r: _linear_scan(r, "complex128", "(L, P)"),
    ),
    "linear_scan, no batch": ("linear_scan", lambda r: _linear_scan(r, "float64", batch=())),
    "linear_scan, float32": ("linear_scan", lambda r: _linear_scan(r, "float32", reset=RESET)),
    "linear_scan, complex64, constant a": (
        "linear_scan",
        lambda r: _linear_scan(r, "complex64", "(P,)"),
    ),
    "diagonal_scan, long, no batch": (
        "diagonal_scan",
        lambda r: _diagonal_scan(r, "complex128", False, LONG, (), False, reset=LONG_RESET),
    ),
    "selective_scan, own B and C": (
        "selective_scan",
        lambda r: _selective_scan(r, "complex128", own=True, reset=RESET),
    ),
    "selective_scan, long": (
        "selective_scan",
        lambda r: _selective_scan(r, "float64", LONG, reset=LONG_RESET),
    ),
    "causal_convolution, more taps than steps": (
        "causal_convolution",
        lambda r: _convolution(r, "float64", L + 4),
    ),
    "causal_convolution, kernels of their own": (
        "causal_convolution",
        lambda r: _convolution(r, "complex128", L, (2,)),
    ),
    "short_convolution, more taps than steps": ("short_convolution", lambda r: _short(r, L + 4)),
    "short_convolution, no bias": ("short_convolution", lambda r: _short(r, bias=False)),
}
"""Other forms of the arguments, of which JAX, which compiles each anew, tries COMPILED."""
COMPILED = tuple(FORMS)[:4]
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
        self.name, draw = (PROBLEMS | FORMS)[title]
        self.given = draw(rng)
        self.inputs = {k: x for k, x in self.given.items() if k not in OPTIONS}
        self.dtype = min((x.real.dtype for x in self.inputs.values()), key=lambda d: d.itemsize)
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
        fixed |= {"reset": library.from_numpy(fixed["reset"])} if "reset" in fixed else {}

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
        passes = 2 * steps(self.weights[0].shape[-2], 2 * max(H, P))
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
        return {k: bound(self.dtype, self.count(), x) for k, x in growth.items()}


def conditions(given: Given) -> float:
    """Return the largest condition number of I - dt/2 A, squared: two solves in a row."""
    Lambda, P_ = (np.concatenate([z, z.conj()], axis=-1) for z in (given["Lambda"], given["P"]))
    A = Lambda[..., None] * np.eye(2 * N)
    for row in P_:
        A = A - row[:, :, None] * row.conj()[:, None, :]
    return float(np.linalg.cond(np.eye(2 * N) - given["dt"][:, None, None] / 2 * A).max() ** 2)
