"""One step of a selective scan: the state is read and written once."""

from __future__ import annotations

import torch
import triton

from ssmcore_torch._triton.arguments import accumulated, accumulator, launch, strided
from ssmcore_torch._triton.selective_step_kernel import step

__all__ = ["selective_step"]


def selective_step(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    state: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return y (R, H) and the state after the step (R, H, N), in ``out`` or a new array.

    u, delta (R, H); A (H, N); B, C (R, N); D (H) or None; state (R, H, N). ``out`` may be state.
    """
    R, H = u.shape
    N = A.shape[1]
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    after = torch.empty((R, H, N), dtype=state.dtype, device=u.device) if out is None else out
    if not u.numel():
        return y, after
    NB = max(int(triton.next_power_of_2(N)), 1)
    BLOCK = min(max(512 // NB, 1), triton.next_power_of_2(H))
    launch(
        step,
        (R * triton.cdiv(H, BLOCK),),
        u.device,
        u=strided(u[:, None]),
        delta=strided(delta[:, None]),
        A=strided(A[None, None]),
        B=strided(B[:, None]),
        C=strided(C[:, None]),
        D=None if D is None else strided(D[None, None]),
        state=strided(state[:, None]),
        y=strided(y[:, None]),
        after=strided(after[:, None]),
        channels=H,
        states=N,
        WIDE=accumulator(accumulated(u.dtype)),
        NB=NB,
        BLOCK=BLOCK,
    )
    return y, after
