"""``diagonal_scan`` on PyTorch by native kernels, where no derivative is asked for."""

from __future__ import annotations

from typing import Any

import torch

from ssmcore import backend
from ssmcore.primitives import REFERENCES
from ssmcore.primitives.canonical import diagonal_scan_form
from ssmcore_torch._ops import KERNELS, numpy_view, tensors, traced

__all__ = ["diagonal_scan"]

Tensor = torch.Tensor


def diagonal_scan(
    a: Tensor,
    B: Tensor,
    C: Tensor,
    u: Tensor,
    initial: Tensor | None,
    *,
    D: Tensor | None = None,
    reset: Tensor | None,
    reverse: bool,
) -> Any:
    """See ssmcore.diagonal_scan."""
    given = [x for x in (a, B, C, u, D, initial, reset) if x is not None]
    by_numba = KERNELS.get(u.device.type) == "numba"
    if not by_numba or backend.of(u).differentiates(*given) or traced():
        return REFERENCES["diagonal_scan"](a, B, C, u, initial, D=D, reset=reset, reverse=reverse)
    from ssmcore_numba import diagonal, mixing

    form = diagonal_scan_form(a, u, initial, reset)
    run = mixing.diagonal_scan if a.ndim == 1 else diagonal.diagonal_scan
    views = (None if x is None else numpy_view(x) for x in (a, B, C, D, *form))
    y, last = tensors(*run(*views, reverse=reverse, threads=torch.get_num_threads()))
    return y.reshape(u.shape), last.reshape((*u.shape[:-2], *a.shape))
