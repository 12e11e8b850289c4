"""What the tests draw: lengths, batch shapes, numbers, resets, cuts of a sequence."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from ssmcore.backend import Backend
from ssmcore_conformance.running import examples

__all__ = [
    "BATCHES",
    "LARGE",
    "LENGTHS",
    "MODULI",
    "REACHED",
    "RESETS",
    "STEPS",
    "WIDTHS",
    "cuts",
    "large",
    "numbers",
    "resets",
    "transition",
    "tried",
]

Numbers = np.ndarray[Any, Any]
LENGTHS = (0, 1, 2, 3, 5, 7, 13, 31, 32, 33, 63, 64, 65, 127)
BATCHES: tuple[tuple[int, ...], ...] = ((), (1,), (2, 3), (0,))
RESETS = ("none", "all", "random")
LARGE: tuple[dict[str, Any], ...] = (
    {"length": 1025, "batch": (2, 1, 4), "width": 129, "states": 1},
    {"length": 257, "batch": (7,), "width": 5, "states": 65},
    {"length": 257, "batch": (3, 3), "width": 33, "states": 16},
)
"""Beyond the tiles and blocks that a kernel works in, in every direction."""
WIDTHS = (1, 2, 5)
MODULI = ("any", "0", "1 - 1e-7", "1")
STEPS = ("any", "1e-6", "10")
REACHED: Counter[tuple[str, str, str]] = Counter()
"""How often each (owner, axis, value) was drawn: the tests of the suite look whether all were."""


def tried(library: Backend, owner: str, length: int, axes: dict[str, Any]) -> Callable[..., None]:
    """Run the decorated check(case) at once, on hypothesis' choices of a value for every axis.

    ``case`` also has the "seed" of its random numbers. A failing case shrinks towards the first
    value of each axis. Where the profile repeats itself, each length has choices of its own.
    """
    choices = {name: st.sampled_from(values) for name, values in axes.items()}
    cases = st.fixed_dictionaries({**choices, "seed": st.integers(0, 2**16)})

    def decorate(check: Callable[[dict[str, Any]], None]) -> None:
        @hypothesis.settings(max_examples=examples(library))
        @hypothesis.given(case=cases)
        def run(case: dict[str, Any]) -> None:
            REACHED[owner, "length", str(length)] += 1
            REACHED.update((owner, name, str(case[name])) for name in axes)
            check(case)

        repeats = (
            hypothesis.settings.default is not None and hypothesis.settings.default.derandomize
        )
        (hypothesis.seed(length)(run) if repeats else run)()

    return decorate


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Numbers:
    """Return standard normal numbers, complex ones with unit variance too."""
    if np.dtype(dtype).kind == "c":
        pair = rng.standard_normal((*shape, 2)) * np.sqrt(0.5)
        return np.asarray(pair[..., 0] + 1j * pair[..., 1]).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def transition(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str, modulus: str = "any"
) -> Numbers:
    """Return transitions of any phase or sign, their modulus one of MODULI; "any": 0 to 1."""
    size: Numbers = np.asarray(rng.uniform(0.0, 1.0, shape))
    if modulus != "any":
        size = np.full(shape, {"0": 0.0, "1 - 1e-7": 1 - 1e-7, "1": 1.0}[modulus])
    if np.dtype(dtype).kind == "c":
        phase = rng.uniform(-np.pi, np.pi, shape)
        return np.asarray(size * np.exp(1j * phase), dtype=dtype)
    return np.asarray(size * rng.choice([-1.0, 1.0], shape), dtype=dtype)


def large(
    library: Backend, variants: Sequence[dict[str, Any]], shapes: Sequence[dict[str, Any]] = LARGE
) -> Iterator[dict[str, Any]]:
    """Yield the variants in large shapes.

    Two cases on JAX, which compiles each anew, and on array_api_strict, which computes as NumPy.
    """
    every = [shape | variant for shape, variant in itertools.product(shapes, variants)]
    few = [shape | variant for shape, variant in zip(shapes[:2], variants, strict=False)]
    chosen = few if library.name in ("jax", "array_api_strict") else every
    for seed, case in enumerate(chosen):
        yield case | {"seed": seed}


def resets(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Numbers | None:
    """Return no reset at all, one before every step, or one before about every fourth.

    "edges": rare ones, but before every 32nd step in about half of the sequences.
    """
    if kind == "none":
        return None
    if kind == "edges":
        edge = np.arange(shape[-1]) % 32 == 0
        return rng.uniform(size=shape) < np.where(edge, 1 / 2, 1 / 128)
    return np.ones(shape, bool) if kind == "all" else rng.uniform(size=shape) < 1 / 4


@st.composite
def cuts(draw: st.DrawFn, length: int, most: int = 5) -> list[int]:
    """Draw where to cut a sequence: sorted, repeated cuts make empty chunks."""
    inner = draw(st.lists(st.integers(0, length), min_size=1, max_size=most))
    return [0, *sorted(inner), length]
