"""What ``ssmcore bench`` times: every primitive and every layer, with inputs of a given size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ssmcore import layers, primitives
from ssmcore.initialization import nplr
from ssmcore.typing import Array

__all__ = ["HEADS", "SUBJECTS", "Size", "Subject"]

Tree = dict[str, Any]
Call = Callable[[Tree], Array]
TAPS, HEADS, SMALLEST = 4, 4, 0.9


@dataclass(frozen=True)
class Size:
    """Batch B, length L, channels H and states N of all inputs."""

    batch: int
    length: int
    channels: int
    states: int

    @property
    def sequence(self) -> tuple[int, int, int]:
        """(B, L, H)."""
        return self.batch, self.length, self.channels


@dataclass(frozen=True)
class Subject:
    """One primitive or layer.

    Attributes
    ----------
    prepare : from a size to float32 NumPy inputs, as a nested dict, and the function of such a dict
    mixes : whether it is matrix products at heart: its floor is their rate, else bandwidth
    """

    name: str
    prepare: Callable[[Size], tuple[Tree, Call]]
    mixes: bool = False


def _real(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _complex(*shape: int) -> Any:
    rng = np.random.default_rng(1)
    z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (z / np.sqrt(2 * shape[-1])).astype(np.complex64)


def _stable(*shape: int) -> Any:
    rng = np.random.default_rng(2)
    a = rng.uniform(SMALLEST, 0.999, shape) * np.exp(1j * rng.uniform(0, np.pi, shape))
    return a.astype(np.complex64)


def _decays(*shape: int) -> Any:
    return np.random.default_rng(3).uniform(0.001, 0.1, shape).astype(np.float32)


def _selective(size: Size) -> Tree:
    rows = np.arange(1, size.states + 1, dtype=np.float32)
    shared = (size.batch, size.length, size.states)
    return {
        "u": _real(*size.sequence),
        "delta": _decays(*size.sequence),
        "A": -np.tile(rows, (size.channels, 1)),
        "B": _real(*shared),
        "C": _real(*shared),
        "D": np.ones(size.channels, np.float32),
    }


def _dplr(size: Size) -> Tree:
    form = nplr("legs", 2 * (size.states // 2))
    Lambda, P, B = (
        np.tile(x, (size.channels, 1)).astype(np.complex64)
        for x in (form.Lambda, form.P[0], form.B)
    )
    steps = _decays(size.channels)
    return {"dt": steps, "Lambda": Lambda, "P": P[None], "B": B, "C": _complex(*B.shape)}


def _primitive(name: str, inputs: Callable[[Size], Tree], mixes: bool = False) -> Subject:
    """Return the subject of a primitive whose arguments are named as ``inputs`` names them."""
    function = getattr(primitives, name)

    def prepare(size: Size) -> tuple[Tree, Call]:
        fixed = {"length": size.length} if name.endswith("_kernel") else {}

        def call(tree: Tree) -> Array:
            found = function(**tree, **fixed)
            y: Array = found[0] if isinstance(found, tuple) else found
            return y

        return inputs(size), call

    return Subject(name, prepare, mixes)


def _layer(make: Callable[[Size], layers.Layer], mixes: bool = False) -> Subject:
    """Return the subject of a layer in mode "auto"."""

    def prepare(size: Size) -> tuple[Tree, Call]:
        layer = make(size)
        inputs = {"params": layer.init(0), "u": _real(*size.sequence)}
        return inputs, lambda tree: layer(tree["params"], tree["u"])

    return Subject(make(Size(1, 1, 8, 8)).name, prepare, mixes)


SUBJECTS: Mapping[str, Subject] = MappingProxyType(
    {
        subject.name: subject
        for subject in (
            _primitive(
                "linear_scan",
                lambda size: {"a": _stable(*size.sequence).real, "b": _real(*size.sequence)},
            ),
            _primitive(
                "diagonal_scan",
                lambda size: {
                    "a": _stable(size.states),
                    "B": _complex(size.states, size.channels),
                    "C": _complex(size.channels, size.states),
                    "u": _real(*size.sequence),
                },
                mixes=True,
            ),
            _primitive("selective_scan", _selective),
            _primitive(
                "causal_convolution",
                lambda size: {"u": _real(*size.sequence), "kernel": _real(*size.sequence[1:])},
            ),
            _primitive(
                "short_convolution",
                lambda size: {"u": _real(*size.sequence), "weight": _real(TAPS, size.channels)},
            ),
            _primitive(
                "diagonal_kernel",
                lambda size: {
                    "a": _stable(size.channels, size.states),
                    "coefficients": _complex(size.channels, size.states),
                },
            ),
            _primitive("dplr_kernel", _dplr),
            _layer(lambda size: layers.LSSL(size.channels, d_state=size.states)),
            _layer(lambda size: layers.S4(size.channels, d_state=2 * size.states)),
            _layer(lambda size: layers.S4D(size.channels, d_state=2 * size.states)),
            _layer(lambda size: layers.S5(size.channels, d_state=2 * size.states), mixes=True),
            _layer(lambda size: layers.LRU(size.channels, d_state=size.states), mixes=True),
            _layer(lambda size: layers.S6(size.channels, d_state=size.states)),
            _layer(lambda size: layers.RGLRU(size.channels, heads=HEADS)),
        )
    }
)
