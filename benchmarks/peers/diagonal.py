"""Peers of diagonal_scan: the recipe of the S5 paper in JAX, and s5-pytorch."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import need

__all__ = ["s5_jax", "s5_pytorch"]


def s5_jax(a: Any, B: Any, C: Any, u: Any) -> Any:
    """Bu for every step, a complex ``associative_scan`` over time, Re(C x) for every step."""
    import jax
    import jax.numpy as jnp

    def combine(left: Any, right: Any) -> Any:
        return right[0] * left[0], right[0] * left[1] + right[1]

    def one(sequence: Any) -> Any:
        drive = jax.vmap(lambda u_t: B @ u_t)(sequence)
        decay = jnp.broadcast_to(a, drive.shape)
        states = jax.lax.associative_scan(combine, (decay, drive))[1]
        return jax.vmap(lambda x: (C @ x).real)(states)

    return jax.vmap(one)(u)


def s5_pytorch(a: Any, B: Any, C: Any, u: Any) -> Any:
    """``s5.s5_model.apply_ssm``, a sequence at a time."""
    import torch

    apply = need("s5.s5_model").apply_ssm
    none = torch.zeros(u.shape[-1])
    return torch.stack([apply(a, B, C, none, sequence)[0] for sequence in u])
