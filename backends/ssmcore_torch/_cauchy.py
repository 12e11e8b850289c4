"""``dplr_kernel`` on PyTorch: its Cauchy sums by native kernels, with their gradient.

CPU tensors, ranks above MOST_RANK, and derivatives that the operator does not give, run as the
reference.
"""

from __future__ import annotations

from typing import Any

import torch

from ssmcore.primitives import REFERENCES
from ssmcore.primitives import _generating_function as generating
from ssmcore.primitives._generating_function import cauchy_sums
from ssmcore_torch._ops import (
    KERNELS,
    define,
    differentiable,
    differentiate,
    empties,
    transformed,
)

__all__ = ["dplr_kernel"]

Tensor = torch.Tensor
MOST_RANK = 2
"""(rank + 1)^2 complex sums of one thread are in registers."""


def dplr_kernel(dt: Tensor, Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, length: int) -> Tensor:
    """See ssmcore.dplr_kernel."""
    by_triton = KERNELS.get(dt.device.type) == "triton" and P.shape[0] <= MOST_RANK
    K: Tensor
    if by_triton and length > 0 and not transformed(dt, Lambda, P, B, C):
        K = generating.dplr_kernel(dt, Lambda, P, B, C, length, sums=_sums)
    else:
        K = REFERENCES["dplr_kernel"](dt, Lambda, P, B, C, length)
    return K


def _by_triton(z: Tensor, c: Tensor, x: Tensor, v: Tensor) -> Tensor:
    from ssmcore_torch._triton import cauchy

    return cauchy.cauchy_sums(z, c, x, v)


def _backward_by_triton(
    z: Tensor, c: Tensor, x: Tensor, v: Tensor, g: Tensor
) -> tuple[Tensor, ...]:
    from ssmcore_torch._triton import cauchy

    return cauchy.cauchy_sums_backward(z, c, x, v, g)


_sums = define(
    "cauchy_sums(Tensor z, Tensor c, Tensor x, Tensor v) -> Tensor",
    lambda z, c, x, v: v.new_empty((v.shape[2], x.shape[0], z.shape[0])).permute(1, 2, 0),
    triton=_by_triton,
)
_backward = define(
    "cauchy_sums_backward(Tensor z, Tensor c, Tensor x, Tensor v, Tensor g) -> (Tensor, Tensor)",
    lambda z, c, x, v, g: empties(x, v),
    triton=_backward_by_triton,
)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, g: Tensor) -> Any:
    if torch.is_grad_enabled():
        return tuple(differentiable(cauchy_sums, ctx.saved_tensors, (g,)))
    return None, None, *_backward(*ctx.saved_tensors, g)


differentiate("cauchy_sums", _gradient, _save)
