"""The short causal convolution on torch: one fused multiply-add over the array a tap."""

from __future__ import annotations

import torch

__all__ = ["short_convolution"]


def short_convolution(
    u: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    state: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ssmcore.short_convolution; differentiable by autograd, any dtype and device."""
    taps, length = weight.shape[0], u.shape[-2]
    if state is None:
        state = torch.zeros((*u.shape[:-2], taps - 1, u.shape[-1]), dtype=u.dtype, device=u.device)
    past = torch.cat((state, u), dim=-2)
    first = past[..., :length, :]
    y = weight[0] * first if bias is None else torch.addcmul(bias, weight[0], first)
    for k in range(1, taps):
        y = torch.addcmul(y, weight[k], past[..., k : k + length, :])
    return y, past[..., length:, :]
