"""Peers of linear_scan: plain loops, mambapy, accelerated-scan, jax.lax.associative_scan."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers import need

__all__ = ["accelerated_scan", "associative_scan", "mambapy_scan", "numpy_loop", "torch_loop"]


def numpy_loop(a: Any, b: Any) -> Any:
    """h_t = a_t h_{t-1} + b_t, step by step in NumPy."""
    out, h = np.empty_like(b), np.zeros_like(b[:, 0])
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        out[:, t] = h
    return out


def torch_loop(a: Any, b: Any) -> Any:
    """The same in torch, states stacked at the end, so that autograd can follow."""
    import torch

    out, h = [], torch.zeros_like(b[:, 0])
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        out.append(h)
    return torch.stack(out, dim=1)


def mambapy_scan(a: Any, b: Any) -> Any:
    """``mambapy.pscan``, real, channels split as (D, 16)."""
    pscan = need("mambapy.pscan").pscan
    shape = (*b.shape[:2], b.shape[2] // 16, 16)
    return pscan(a.reshape(shape), b.reshape(shape)).reshape(b.shape)


def accelerated_scan(a: Any, b: Any) -> Any:
    """``accelerated_scan.ref``, its plain torch version, on its own layout (B, C, L)."""
    return need("accelerated_scan.ref").scan(a, b)


def associative_scan(a: Any, b: Any) -> Any:
    """``jax.lax.associative_scan`` over time, the way S5 and LRU use it."""
    import jax

    def combine(left: Any, right: Any) -> Any:
        return right[0] * left[0], right[0] * left[1] + right[1]

    return jax.lax.associative_scan(combine, (a, b), axis=1)[1]
