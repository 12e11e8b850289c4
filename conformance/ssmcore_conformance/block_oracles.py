"""Sequential definitions of blocks and networks in plain NumPy: one document, from its beginning.

One loop over time each, straight from the papers; layers are those of ``ssmcore.oracle``. Resets,
padding, states and batches are not here: they are judged by running documents one by one. Shared
with the library are the names of the parts and the hyper-parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssmcore import oracle

__all__ = ["run"]

Numbers = np.ndarray[Any, Any]
OPTIONS: dict[str, tuple[str, ...]] = {"S4D": ("discretization",)}


def run(module: Any, params: Mapping[str, Any], u: Numbers) -> Numbers:
    """Return y (L, d) of ``module`` for one document u (L, d), or tokens (L,)."""
    name = type(module).__name__
    if name in oracle.SHAPES:
        options = {option: getattr(module, option) for option in OPTIONS.get(name, ())}
        return np.asarray(oracle.run(name, params, u, options=options).y)
    return ORACLES[name](module, params, u)


def _part(module: Any, params: Mapping[str, Any], name: str, u: Numbers) -> Numbers:
    if name not in module.parts():
        return u
    return run(module.parts()[name], params.get(name, {}), u)


def activation(name: str, x: Numbers) -> Numbers:
    """Return the activation, number by number."""
    return np.asarray(np.vectorize(ACTIVATIONS[name], otypes=[float])(x))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: x * (0.5 * math.erfc(-x / math.sqrt(2.0))),
    "gelu_tanh": lambda x: x * _sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)),
    "silu": lambda x: x * _sigmoid(x),
    "relu": lambda x: max(x, 0.0),
    "identity": lambda x: x,
    "sigmoid": _sigmoid,
}


def _linear(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    rows = [p["weight"] @ x + (p["bias"] if m.bias else 0.0) for x in u]
    return np.asarray(rows).reshape(len(u), m.d_output)


def _embedding(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    return np.asarray([m.scale * p["weight"][int(token)] for token in u])


def _layer_norm(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    return np.asarray(
        [(x - x.mean()) / math.sqrt(x.var() + m.eps) * p["scale"] + p["bias"] for x in u]
    )


def _rms_norm(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    size = [math.sqrt(x @ x / len(x) + m.eps) for x in u]
    return np.asarray([x / s * (m.offset + p["scale"]) for x, s in zip(u, size, strict=True)])


def _batch_norm(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    gain = p["scale"] / np.sqrt(p["var"] + m.eps)
    return np.asarray([gain * x + (p["bias"] - gain * p["mean"]) for x in u])


def _short_convolution(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    y = np.zeros(u.shape) + (p["bias"] if m.bias else 0.0)
    for t in range(len(u)):
        for lag in range(min(m.taps, t + 1)):
            y[t] += p["weight"][m.taps - 1 - lag] * u[t - lag]
    return activation(m.activation, y)


def _glu(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    y = _part(m, p, "linear", u)
    if m.variant == "glu":
        value, gate = np.split(y, 2, axis=-1)
        return value * activation("sigmoid", gate)
    return y if m.variant == "linear" else u * activation("sigmoid", y)


def _gated_mlp(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    gate = activation(m.activation, _part(m, p, "gate", u))
    return _part(m, p, "down", gate * _part(m, p, "up", u))


def _ssm_block(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    x = _part(m, p, "layer", _part(m, p, "norm", u) if m.prenorm else u)
    z = activation(m.activation, x)
    z = (
        _part(m, p, "output", z)
        if m.glu != "half_glu2"
        else x * activation("sigmoid", _part(m, p, "output", z))
    )
    return u + z if m.prenorm else _part(m, p, "norm", u + z)


def _mamba(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    x, z = np.split(_part(m, p, "in_proj", u), 2, axis=-1)
    y = _part(m, p, "ssm", _part(m, p, "conv", x))
    return _part(m, p, "out_proj", y * activation("silu", z))


def _hawk(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    x = _part(m, p, "rglru", _part(m, p, "conv", _part(m, p, "linear_x", u)))
    return _part(m, p, "linear_out", x * activation(m.activation, _part(m, p, "linear_y", u)))


def _h3(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    """Every head has a matrix of sequences k_i v_j, which one system runs; q_i weighs its rows."""
    q, k, v = (_part(m, p, f"{name}_proj", u) for name in "qkv")
    k, E = _part(m, p, "shift", k), m.head_dim
    y = np.zeros_like(v)
    for i in range(E):
        for j in range(E):
            y[:, j::E] += q[:, i::E] * _part(m, p, "ssm", k[:, i::E] * v[:, j::E])
    return _part(m, p, "out_proj", y)


def _attention(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    """Pairs of channels as complex numbers, turned by the distance of query and key."""
    L, E = len(u), m.width
    q = _part(m, p, "q_proj", u).reshape(L, m.heads, E)
    k, v = (_part(m, p, f"{name}_proj", u).reshape(L, m.kv_heads, E) for name in "kv")
    half = int(m.rotary * E) // 2
    rates = np.asarray([m.rope_base ** (-i / half) for i in range(half)])
    y = np.zeros((L, m.heads, E))
    for t in range(L):
        past = range(max(0, t - m.window + 1), t + 1)
        for h in range(m.heads):
            group = h // (m.heads // m.kv_heads)
            scores = []
            for s in past:
                one, two = q[t, h], k[s, group]
                a = one[:half] + 1j * one[half : 2 * half]
                b = two[:half] + 1j * two[half : 2 * half]
                score = np.sum(a * np.conj(b) * np.exp(1j * rates * (t - s))).real
                scores.append((score + one[2 * half :] @ two[2 * half :]) / math.sqrt(E))
            weights = np.exp(np.asarray(scores) - max(scores))
            y[t, h] = weights @ v[list(past), group] / weights.sum()
    return _part(m, p, "o_proj", y.reshape(L, m.heads * E))


def _residual(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    x = u + _part(m, p, "mixer", _part(m, p, "norm", u))
    return x if m.mlp is None else x + _part(m, p, "mlp", _part(m, p, "mlp_norm", x))


def _stack(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    for name in m.parts():
        u = _part(m, p, name, u)
    return u


def _language_model(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    x = _part(m, p, "norm", _part(m, p, "layers", _part(m, p, "embedding", u)))
    y: Numbers = x @ p["embedding" if m.tied else "head"]["weight"].T
    return y if m.soft_cap is None else np.asarray(m.soft_cap * np.tanh(y / m.soft_cap))


def _classifier(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    """For one sequence, or a pair of them on the first axis: logits (classes,), or (L, classes)."""
    if m.documents == 2:
        a, b = (_pooled(m, p, x) for x in u)
        features = np.concatenate([a, b, a - b, a * b])[None]
        hidden = activation("gelu", _part(m, p, "pair", features))
        return np.asarray(_part(m, p, "head", hidden)[0])
    x = _pooled(m, p, u)
    return _part(m, p, "head", x if m.pooling == "none" else x[None]).reshape(
        (len(x), -1) if m.pooling == "none" else (-1,)
    )


def _pooled(m: Any, p: Mapping[str, Any], u: Numbers) -> Numbers:
    x = _part(m, p, "norm", _part(m, p, "layers", _part(m, p, "encoder", u)))
    pools = {"mean": x.mean(axis=0), "max": x.max(axis=0), "last": x[-1], "none": x}
    return np.asarray(pools[m.pooling])


ORACLES: dict[str, Callable[[Any, Mapping[str, Any], Numbers], Numbers]] = {
    "Linear": _linear,
    "Embedding": _embedding,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "BatchNorm": _batch_norm,
    "Dropout": lambda m, p, u: u,
    "ShortConvolution": _short_convolution,
    "GLU": _glu,
    "GatedMLP": _gated_mlp,
    "SSMBlock": _ssm_block,
    "Mamba": _mamba,
    "Hawk": _hawk,
    "H3": _h3,
    "LocalAttention": _attention,
    "Residual": _residual,
    "Stack": _stack,
    "LanguageModel": _language_model,
    "SequenceClassifier": _classifier,
}
