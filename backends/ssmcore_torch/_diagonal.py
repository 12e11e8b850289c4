"""``diagonal_scan`` on PyTorch by native kernels, where no derivative is asked for."""

from __future__ import annotations

from typing import Any

import torch
from ssmcore_numba import diagonal, mixing
from torch.autograd.forward_ad import unpack_dual

from ssmcore.primitives import REFERENCES
from ssmcore.primitives.canonical import diagonal_scan_form
from ssmcore_torch._ops import numpy_view, tensors

__all__ = ["diagonal_scan"]

Tensor = torch.Tensor


def plain(x: Tensor | None) -> bool:
    """Whether ``x`` is a tensor on the CPU, not traced, batched or differentiated."""
    return x is None or (
        not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and x.device.type == "cpu"
        and not (torch.is_grad_enabled() and x.requires_grad)
        and unpack_dual(x).tangent is None  # type: ignore[no-untyped-call]
    )


def diagonal_scan(
    a: Tensor,
    B: Tensor,
    C: Tensor,
    u: Tensor,
    initial: Tensor | None,
    *,
    reset: Tensor | None,
    reverse: bool,
) -> Any:
    """See ssmcore.diagonal_scan."""
    if not all(map(plain, (a, B, C, u, initial, reset))):
        return REFERENCES["diagonal_scan"](a, B, C, u, initial, reset=reset, reverse=reverse)
    form = diagonal_scan_form(a, u, initial, reset)
    run = mixing.diagonal_scan if a.ndim == 1 else diagonal.diagonal_scan
    given = map(numpy_view, (a, B, C, *form))
    y, last = tensors(*run(*given, reverse=reverse, threads=torch.get_num_threads()))
    return y.reshape(u.shape), last.reshape((*u.shape[:-2], *a.shape))
