"""``selective_scan`` on PyTorch by native kernels, with its gradient.

h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t for real A (H, N) and B, C
(R, L, N) shared by all channels. The states before every chunk of steps are kept for the gradient,
which runs the chunks again. What the kernels do not take runs as the reference.
"""

from __future__ import annotations

from typing import Any

import torch
from ssmcore_numba.selective import STEPS
from ssmcore_numba.selective import selective_scan as forward
from ssmcore_numba.selective_backward import selective_scan_backward as backward

from ssmcore import backend
from ssmcore.primitives import REFERENCES
from ssmcore.primitives.canonical import fused, selective_scan_form
from ssmcore_torch._ops import define, differentiate, numpy_view, tensors

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
    if u.device.type != "cpu" or not fused(u, A, B, C) or _transformed(*given):
        run = REFERENCES["selective_scan"]
        return run(u, delta, A, B, C, D, initial=initial, reset=reset)
    form = selective_scan_form(u, delta, A, B, C, initial, reset)
    gradient = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)
    y, last, _ = _forward(*form[:5], D, *form[5:], gradient)
    return y.reshape(u.shape), last.reshape((*u.shape[:-2], *A.shape))


def _transformed(*given: Tensor | None) -> bool:
    """Whether tangents, batches or derivatives of derivatives are asked for: not ours to give."""
    with torch.no_grad():
        seen = [x for x in given if x is not None]
        return not torch.compiler.is_compiling() and backend.of(*seen).differentiates(*seen)


def _on_cpu(
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
    given = map(numpy_view, (u, delta, A, B, C, D, start, keep))
    found: Any = forward(*given, checkpoints, threads=torch.get_num_threads())  # type: ignore[misc,arg-type]
    return tensors(*found)


def _backward_on_cpu(
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
    given = map(numpy_view, (u, delta, A, B, C, D, keep, saved, dy, dlast))
    *found, dD, dstart = backward(*given, threads=torch.get_num_threads())
    return tensors(*found, A.new_empty(0).numpy() if dD is None else dD, dstart)


def _fake(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    rows, length, channels = u.shape
    chunks = -(-length // STEPS) if rest[-1] else 0
    last = u.new_empty((rows, *A.shape))
    return u.new_empty(u.shape), last, u.new_empty((rows, chunks, A.shape[1], channels))


_forward = define(
    "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor start, "
    "Tensor? keep, bool checkpoints) -> (Tensor, Tensor, Tensor)",
    _fake,
    _on_cpu,
)
_backward = define(
    "selective_scan_backward(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, "
    "Tensor? keep, Tensor saved, Tensor dy, Tensor dlast) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    lambda u, delta, A, B, C, D, keep, saved, dy, dlast: (
        *(x.new_empty(x.shape) for x in (u, delta, A, B, C)),
        u.new_empty(0 if D is None else D.shape),
        dlast.new_empty(dlast.shape),
    ),
    _backward_on_cpu,
)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:-1], output[2])
    ctx.mark_non_differentiable(output[2])


def _gradient(ctx: Any, dy: Tensor, dlast: Tensor, _: Tensor) -> Any:
    *given, saved = ctx.saved_tensors
    if torch.is_grad_enabled():
        return *_differentiable(given, dy, dlast), None, None
    u, delta, A, B, C, D, _start, keep = given
    *found, dD, dstart = _backward(u, delta, A, B, C, D, keep, saved, dy, dlast)
    return *found, None if D is None else dD, dstart, None, None


def _differentiable(given: list[Any], dy: Tensor, dlast: Tensor) -> list[Tensor | None]:
    """Return the gradients by all but ``keep`` so that they have derivatives, by the reference."""
    *scan, start, keep = given
    reset = None if keep is None else ~keep
    results = REFERENCES["selective_scan"](*scan, initial=start, reset=reset)
    asked = [x for x in (*scan, start) if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(results, asked, (dy, dlast), create_graph=True))
    return [next(found) if any(x is y for y in asked) else None for x in (*scan, start)]


differentiate("selective_scan", _gradient, _save)
