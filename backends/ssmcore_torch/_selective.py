"""``selective_scan`` on PyTorch by native kernels, with its gradient.

h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t for real A (H, N) and B, C
(R, L, N) shared by all channels. The states before every chunk of steps are kept for the gradient,
which runs the chunks again. What the kernels do not take runs as the reference.
"""

from __future__ import annotations

from typing import Any

import torch

from ssmcore.primitives import REFERENCES
from ssmcore.primitives.canonical import fused, selective_scan_form
from ssmcore_torch._ops import (
    KERNELS,
    define,
    differentiable,
    differentiate,
    empties,
    numpy_view,
    recorded,
    tensors,
    transformed,
)

__all__ = ["selective_scan"]

Tensor = torch.Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    *,
    initial: Tensor | None,
    reset: Tensor | None,
) -> Any:
    """See ssmcore.selective_scan."""
    given = (u, delta, A, B, C, D, initial, reset)
    if u.device.type not in KERNELS or not fused(u, A, B, C) or transformed(*given):
        run = REFERENCES["selective_scan"]
        return run(u, delta, A, B, C, D, initial=initial, reset=reset)
    form = selective_scan_form(u, delta, A, B, C, initial, reset)
    y, last, _ = _forward(*form[:5], D, *form[5:], recorded(*given))
    return y.reshape(u.shape), last.reshape((*u.shape[:-2], *A.shape))


def _by_numba(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    start: Tensor,
    keep: Tensor | None,
    checkpoints: bool,
) -> tuple[Tensor, ...]:
    from ssmcore_numba.selective import selective_scan as run

    given = map(numpy_view, (u, delta, A, B, C, D, start, keep))
    found: Any = run(*given, checkpoints, threads=torch.get_num_threads())  # type: ignore[misc,arg-type]
    return tensors(*found)


def _by_triton(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    start: Tensor,
    keep: Tensor | None,
    checkpoints: bool,
) -> tuple[Tensor, ...]:
    from ssmcore_torch._triton import selective_scan as triton
    from ssmcore_torch._triton.selective_step import selective_step

    if u.shape[1] == 1 and keep is None and not checkpoints:
        y, last = selective_step(u[:, 0], delta[:, 0], A, B[:, 0], C[:, 0], D, start)
        return y[:, None], last, _saved(u, A, checkpoints)
    y, last, saved = triton.selective_scan(
        u, delta, A, B, C, D, start, keep, checkpoint=checkpoints
    )
    return y, last, _saved(u, A, checkpoints) if saved is None else saved


def _backward_by_numba(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    keep: Tensor | None,
    saved: Tensor,
    dy: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, ...]:
    from ssmcore_numba.selective_backward import selective_scan_backward as run

    given = map(numpy_view, (u, delta, A, B, C, D, keep, saved, dy, dlast))
    *found, dD, dstart = run(*given, threads=torch.get_num_threads())
    return tensors(*found, A.new_empty(0).numpy() if dD is None else dD, dstart)


def _backward_by_triton(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    keep: Tensor | None,
    saved: Tensor,
    dy: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, ...]:
    from ssmcore_torch._triton import selective_scan as triton

    found = triton.selective_scan_backward(u, delta, A, B, C, D, saved, dy, dlast, keep)
    *others, dD, dstart = found
    return *others, A.new_empty(0) if dD is None else dD, dstart


def _saved(u: Tensor, A: Tensor, checkpoints: bool) -> Tensor:
    """Return an empty tensor for the states that the kernels of u's device keep."""
    rows, length, channels = u.shape
    if KERNELS[u.device.type] == "numba":
        from ssmcore_numba.selective import STEPS

        chunks = -(-length // STEPS) if checkpoints else 0
        return u.new_empty((rows, chunks, A.shape[1], channels))
    from ssmcore_torch._triton.selective_scan import EVERY

    chunks = -(-length // EVERY) if checkpoints else 0
    return u.new_empty((rows, chunks, *A.shape))


def _fake(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    last = u.new_empty((u.shape[0], *A.shape))
    return u.new_empty(u.shape), last, _saved(u, A, rest[-1])


_forward = define(
    "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor start, "
    "Tensor? keep, bool checkpoints) -> (Tensor, Tensor, Tensor)",
    _fake,
    numba=_by_numba,
    triton=_by_triton,
)
_backward = define(
    "selective_scan_backward(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, "
    "Tensor? keep, Tensor saved, Tensor dy, Tensor dlast) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    lambda u, delta, A, B, C, D, keep, saved, dy, dlast: (
        *empties(u, delta, A, B, C),
        u.new_empty(0 if D is None else D.shape),
        *empties(dlast),
    ),
    numba=_backward_by_numba,
    triton=_backward_by_triton,
)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:-1], output[2])
    ctx.mark_non_differentiable(output[2])


def _gradient(ctx: Any, dy: Tensor, dlast: Tensor, _: Tensor) -> Any:
    *given, saved = ctx.saved_tensors
    if torch.is_grad_enabled():
        return *differentiable(_by_reference, given, (dy, dlast)), None
    u, delta, A, B, C, D, _start, keep = given
    *found, dD, dstart = _backward(u, delta, A, B, C, D, keep, saved, dy, dlast)
    return *found, None if D is None else dD, dstart, None, None


def _by_reference(*given: Any) -> Any:
    *scan, start, keep = given
    reset = None if keep is None else ~keep
    return REFERENCES["selective_scan"](*scan, initial=start, reset=reset)


differentiate("selective_scan", _gradient, _save)
