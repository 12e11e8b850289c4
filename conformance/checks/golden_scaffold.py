"""What the originals do around their state space layers, in plain NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Map = Callable[[np.ndarray], np.ndarray]


def gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x), exact."""
    return np.asarray(0.5 * x * (1.0 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2.0))))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """The tanh approximation, flax's default."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def gate(z: np.ndarray) -> Map:
    """Mamba: y SiLU(z)."""
    return lambda y: y * z * sigmoid(z)


def s4_output(linear: Mapping[str, np.ndarray]) -> Map:
    """S4Block and s4d.py: GELU, Linear(H -> 2H), GLU."""
    weight, bias = linear["weight"], linear["bias"]
    matrix = weight.reshape(weight.shape[:2])  # s4d.py has a convolution of width 1

    def finish(y: np.ndarray) -> np.ndarray:
        value, gate = np.split(gelu(y) @ matrix.T + bias, 2, axis=-1)
        return np.asarray(value * sigmoid(gate))

    return finish


def s5_layer(
    params: Mapping[str, np.ndarray], config: Mapping[str, Any], u: np.ndarray
) -> tuple[np.ndarray, Map]:
    """S5 SequenceLayer: return the input of its system, and what follows that."""

    def norm(x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        return np.asarray(unit * params["norm/scale"] + params["norm/bias"])

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return np.asarray(x @ params[f"{name}/kernel"] + params[f"{name}/bias"])

    activations: dict[str, Map] = {
        "full_glu": lambda y: dense("out1", gelu_tanh(y)) * sigmoid(dense("out2", gelu_tanh(y))),
        "half_glu1": lambda y: gelu_tanh(y) * sigmoid(dense("out2", gelu_tanh(y))),
        "half_glu2": lambda y: y * sigmoid(dense("out2", gelu_tanh(y))),
        "gelu": gelu_tanh,
    }
    activate = activations[config["activation"]]
    if config["prenorm"]:
        return norm(u), lambda y: u + activate(y)
    return u, lambda y: norm(u + activate(y))
