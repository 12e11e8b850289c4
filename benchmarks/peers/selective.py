"""Peers of selective_scan: transformers' loop, mambapy, and two ways to write it in JAX."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import need

__all__ = ["associative_scan", "lax_scan", "mambapy_scan", "transformers_loop"]


def transformers_loop(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
    """``mamba_selective_scan`` of transformers, which loops over time without CUDA kernels.

    In its own layout: u, delta (B, H, L), B, C (B, N, L); returns (B, H, L).
    """
    scan = need("transformers.models.mamba.modeling_mamba").mamba_selective_scan
    return scan(u, delta, A, B, C, D)


def mambapy_scan(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
    """The selective scan as mambapy's MambaBlock runs it: everything at full size, then pscan."""
    import torch

    pscan = need("mambapy.pscan").pscan
    decay = torch.exp(delta.unsqueeze(-1) * A)
    drive = (delta * u).unsqueeze(-1) * B.unsqueeze(2)
    states = pscan(decay, drive)
    return (states @ C.unsqueeze(-1)).squeeze(-1) + D * u


def associative_scan(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
    """The same with ``jax.lax.associative_scan``."""
    import jax
    import jax.numpy as jnp

    def combine(left: Any, right: Any) -> Any:
        return right[0] * left[0], right[0] * left[1] + right[1]

    decay = jnp.exp(delta[..., None] * A)
    drive = (delta * u)[..., None] * B[:, :, None, :]
    states = jax.lax.associative_scan(combine, (decay, drive), axis=1)[1]
    return jnp.einsum("blhn,bln->blh", states, C) + D * u


def lax_scan(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
    """The same with a plain ``jax.lax.scan`` over time, nothing of size (L, H, N) formed by it."""
    import jax
    import jax.numpy as jnp

    def step(h: Any, now: Any) -> Any:
        u_t, delta_t, B_t, C_t = now
        h = jnp.exp(delta_t[..., None] * A) * h + (delta_t * u_t)[..., None] * B_t[:, None, :]
        return h, jnp.einsum("bhn,bn->bh", h, C_t)

    times = tuple(jnp.moveaxis(x, 1, 0) for x in (u, delta, B, C))
    h = jnp.zeros((u.shape[0], *A.shape), u.dtype)
    return jnp.moveaxis(jax.lax.scan(step, h, times)[1], 0, 1) + D * u
