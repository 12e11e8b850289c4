"""Cauchy sums of DPLR kernels: sum_n v_n / (z - c x_n) + conj(v_n) / (z - c conj(x_n)).

Lanes are nodes; all S numerators share the two reciprocals of a pole, and nothing of size N times
the nodes is stored.
"""

from __future__ import annotations

import torch
import triton

from ssmcore_torch._triton.arguments import accumulator, launch
from ssmcore_torch._triton.cauchy_kernels import backward, forward

__all__ = ["cauchy_sums", "cauchy_sums_backward"]

BLOCK = 64


def _parts(x: torch.Tensor) -> torch.Tensor:
    """Return a complex tensor as contiguous pairs."""
    return torch.view_as_real(x.resolve_conj().contiguous())


def cauchy_sums(z: torch.Tensor, c: torch.Tensor, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the sums (H, F, S) at the nodes z, c (F,) for poles x (H, N), numerators v (H, N, S).

    All complex, of one precision. O(H F N) operations, no memory but the result.
    """
    (H, N), F, S = x.shape, z.shape[0], v.shape[2]
    sums = torch.empty((S, H, F), dtype=v.dtype, device=v.device)
    if sums.numel():
        launch(
            forward,
            (triton.cdiv(F, BLOCK) * H,),
            v.device,
            z=_parts(z),
            c=_parts(c),
            x=_parts(x),
            v=_parts(v),
            out=torch.view_as_real(sums),
            nodes=F,
            poles=N,
            channels=H,
            S=S,
            WIDE=accumulator(v.dtype),
            BLOCK=BLOCK,
        )
    return sums.permute(1, 2, 0)


def cauchy_sums_backward(
    z: torch.Tensor, c: torch.Tensor, x: torch.Tensor, v: torch.Tensor, g: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (dx, dv) for the gradient g (H, F, S) of the sums, as torch defines gradients."""
    (H, N), F, S = x.shape, z.shape[0], v.shape[2]
    dx = torch.empty((H, N), dtype=v.dtype, device=v.device)
    dv = torch.empty((H, N, S), dtype=v.dtype, device=v.device)
    if dv.numel():
        launch(
            backward,
            (N * H,),
            v.device,
            z=_parts(z),
            c=_parts(c),
            x=_parts(x),
            v=_parts(v),
            g=_parts(g.permute(2, 0, 1)),
            dx=torch.view_as_real(dx),
            dv=torch.view_as_real(dv),
            nodes=F,
            poles=N,
            channels=H,
            S=S,
            WIDE=accumulator(v.dtype),
            BLOCK=BLOCK,
        )
    return dx, dv
