"""``short_convolution`` on PyTorch: on CUDA devices by native kernels, with their gradient.

Elsewhere, and where the kernels do not take it (more than MOST_TAPS taps, tangents, batches), one
fused multiply-add over the array a tap.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ssmcore.primitives import REFERENCES
from ssmcore_torch._ops import (
    KERNELS,
    define,
    differentiable,
    differentiate,
    empties,
    transformed,
)

__all__ = ["short_convolution"]

Tensor = torch.Tensor
MOST_TAPS = 8
"""Weights, their gradients and the window of inputs are in registers."""


def short_convolution(
    u: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See ssmcore.short_convolution."""
    by_triton = KERNELS.get(u.device.type) == "triton" and weight.shape[0] <= MOST_TAPS
    if not by_triton or 0 in u.shape or transformed(u, weight, bias, state):
        return _tap_by_tap(u, weight, bias, state)
    lead, (length, channels) = u.shape[:-2], u.shape[-2:]
    rows, past = math.prod(lead), weight.shape[0] - 1
    if state is None:
        state = u.new_zeros((rows, past, channels))
    y, after = _forward(
        u.reshape(rows, length, channels), weight, bias, state.reshape(rows, past, channels)
    )
    return y.reshape(u.shape), after.reshape((*lead, past, channels))


def _tap_by_tap(
    u: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return outputs and state; differentiable by autograd, on any device."""
    taps, length = weight.shape[0], u.shape[-2]
    if state is None:
        state = torch.zeros((*u.shape[:-2], taps - 1, u.shape[-1]), dtype=u.dtype, device=u.device)
    past = torch.cat((state, u), dim=-2)
    first = past[..., :length, :]
    y = weight[0] * first if bias is None else torch.addcmul(bias, weight[0], first)
    for k in range(1, taps):
        y = torch.addcmul(y, weight[k], past[..., k : k + length, :])
    return y, past[..., length:, :]


def _by_triton(u: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> tuple[Tensor, ...]:
    from ssmcore_torch._triton import short_convolution as triton

    return triton.short_convolution(u, weight, bias, state)


def _backward_by_triton(
    u: Tensor, weight: Tensor, state: Tensor, dy: Tensor, dafter: Tensor
) -> tuple[Tensor, ...]:
    from ssmcore_torch._triton import short_convolution as triton

    return triton.short_convolution_backward(u, weight, state, dy, dafter)


_forward = define(
    "short_convolution(Tensor u, Tensor weight, Tensor? bias, Tensor state) -> (Tensor, Tensor)",
    lambda u, weight, bias, state: empties(u, state),
    triton=_by_triton,
)
_backward = define(
    "short_convolution_backward(Tensor u, Tensor weight, Tensor state, Tensor dy, Tensor dafter) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    lambda u, weight, state, dy, dafter: (
        *empties(u, weight),
        weight.new_empty(weight.shape[1]),
        *empties(state),
    ),
    triton=_backward_by_triton,
)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, dy: Tensor, dafter: Tensor) -> Any:
    u, weight, bias, state = given = ctx.saved_tensors
    if torch.is_grad_enabled():
        return tuple(differentiable(REFERENCES["short_convolution"], given, (dy, dafter)))
    du, dweight, dbias, dstate = _backward(u, weight, state, dy, dafter)
    return du, dweight, None if bias is None else dbias, dstate


differentiate("short_convolution", _gradient, _save)
