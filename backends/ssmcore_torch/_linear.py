"""``linear_scan`` on PyTorch by native kernels, with derivatives in every way torch has them.

h_t = a_t h_{t-1} + b_t is linear in (b, h_{-1}): its tangent is the scan of db_t + da_t h_{t-1},
and its cotangent G_t = g_t + conj(a_{t+1}) G_{t+1}, a scan the other way round.
"""

from __future__ import annotations

from typing import Any

import torch

from ssmcore import backend
from ssmcore.primitives import REFERENCES
from ssmcore.primitives.canonical import linear_scan_form
from ssmcore_torch._ops import (
    KERNELS,
    define,
    differentiate,
    empties,
    numpy_view,
    tensors,
    traced,
    transformed,
)

__all__ = ["linear_scan"]

Tensor = torch.Tensor


def linear_scan(
    a: Tensor, b: Tensor, initial: Tensor | None, *, reset: Tensor | None, reverse: bool
) -> Tensor:
    """See ssmcore.linear_scan."""
    compiled = torch.compiler.is_compiling()
    if b.device.type not in KERNELS or (compiled and transformed(b)):
        run = REFERENCES["linear_scan"]
        states: Tensor = run(a, b, initial, reset=reset, reverse=reverse)
        return states
    if 0 in b.shape:
        return b
    form = linear_scan_form(a, b, initial, reset)
    given = [x for x in (a, b, initial, reset) if x is not None]
    plain = compiled or not (backend.of(b).differentiates(*given) or traced())
    apply = _forward if plain else _Scan.apply  # whose call alone costs as much as a short scan
    h: Tensor = apply(*form, reverse)
    return h.reshape(b.shape)


def _by_numba(a: Tensor, b: Tensor, start: Tensor, keep: Tensor | None, reverse: bool) -> Tensor:
    from ssmcore_numba import linear

    given = map(numpy_view, (a, b, start, keep))
    return tensors(linear.linear_scan(*given, reverse=reverse, threads=torch.get_num_threads()))[0]


def _by_triton(a: Tensor, b: Tensor, start: Tensor, keep: Tensor | None, reverse: bool) -> Tensor:
    from ssmcore_torch._triton import linear_scan as triton

    return triton.linear_scan(a, b, start, keep, reverse)


def _backward_by_numba(
    a: Tensor, h: Tensor, g: Tensor, start: Tensor, keep: Tensor | None, reverse: bool
) -> tuple[Tensor, ...]:
    from ssmcore_numba import linear

    given = map(numpy_view, (a, h, g, start, keep))
    threads = torch.get_num_threads()
    return tensors(*linear.linear_scan_backward(*given, reverse=reverse, threads=threads))


def _backward_by_triton(
    a: Tensor, h: Tensor, g: Tensor, start: Tensor, keep: Tensor | None, reverse: bool
) -> tuple[Tensor, ...]:
    from ssmcore_torch._triton import linear_scan as triton

    return triton.linear_scan_backward(a.conj(), h.conj(), g, start.conj(), keep, reverse)


_forward = define(
    "linear_scan(Tensor a, Tensor b, Tensor start, Tensor? keep, bool reverse) -> Tensor",
    lambda a, b, start, keep, reverse: empties(b)[0],
    numba=_by_numba,
    triton=_by_triton,
)
_backward = define(
    "linear_scan_backward(Tensor a, Tensor h, Tensor g, Tensor start, Tensor? keep, bool reverse)"
    " -> (Tensor, Tensor, Tensor)",
    lambda a, h, g, start, keep, reverse: empties(a, g, start),
    numba=_backward_by_numba,
    triton=_backward_by_triton,
)


def _before(h: Tensor, start: Tensor, reverse: bool) -> Tensor:
    """Return h_{t-1}, the state that step t starts from."""
    parts = (h[:, 1:], start[:, None]) if reverse else (start[:, None], h[:, :-1])
    return torch.cat(parts, dim=1)


def _next(x: Tensor, fill: Tensor, reverse: bool) -> Tensor:
    """Return x_{t+1}, on the way that the state went; ``fill`` where there is none."""
    return torch.cat((fill, x[:, :-1]) if reverse else (x[:, 1:], fill), dim=1)


def _moved(x: Tensor, keep: Tensor | None) -> Tensor:
    """Return ``x``, zero where the state restarts."""
    return x if keep is None else torch.where(keep[..., None], x, torch.zeros_like(x))


def _save(ctx: Any, inputs: Any, output: Tensor) -> None:
    a, _, start, keep, ctx.reverse = inputs
    ctx.save_for_backward(a, output, start, keep)


def _fused(ctx: Any, g: Tensor) -> Any:
    a, h, start, keep = ctx.saved_tensors
    return (*_backward(a, h, g, start, keep, ctx.reverse), None, None)


differentiate("linear_scan", _fused, _save)  # all that torch.compile needs


class _Scan(torch.autograd.Function):
    """The scan with tangents, batches and derivatives of any order; no compiler takes it."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, start: Tensor, keep: Tensor | None, reverse: bool) -> Tensor:
        h: Tensor = _forward(a, b, start, keep, reverse)
        return h

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _save(ctx, inputs, output)
        a, _, start, keep, _ = inputs
        ctx.save_for_forward(a, output, start, keep)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return _fused(ctx, g)
        a, h, start, keep = ctx.saved_tensors
        reverse = ctx.reverse
        G = _cotangent(a, g, start, keep, reverse)
        da = _moved(G * _before(h, start, reverse).conj(), keep)
        shared = [k for k in (0, 1) if a.shape[k] < da.shape[k]]
        first = slice(-1, None) if reverse else slice(None, 1)
        dstart = _moved(a[:, first].conj() * G[:, first], keep if keep is None else keep[:, first])
        return da.sum(shared, keepdim=True) if shared else da, G, dstart[:, 0], None, None

    @staticmethod
    def jvp(ctx: Any, da: Any, db: Any, dstart: Any, *_: Any) -> Tensor:
        a, h, start, keep = ctx.saved_tensors
        drive = torch.zeros_like(h) if db is None else db
        if da is not None:
            drive = drive + _moved(da * _before(h, start, ctx.reverse), keep)
        dstart = torch.zeros_like(start) if dstart is None else dstart
        tangent: Tensor = _Scan.apply(a, drive, dstart, keep, ctx.reverse)  # type: ignore[no-untyped-call]
        return tangent

    @staticmethod
    def vmap(
        info: Any, axes: Any, a: Tensor, b: Tensor, start: Tensor, keep: Any, reverse: bool
    ) -> Any:
        rows = b.shape[0] if axes[1] is None else b.movedim(axes[1], 0).shape[1]

        def flat(x: Any, axis: int | None) -> Any:
            """Return ``x`` with its batch in front of the rows, and both as rows."""
            if x is None:
                return None
            x = x.unsqueeze(0) if axis is None else x.movedim(axis, 0)
            return x.expand(info.batch_size, rows, *x.shape[2:]).flatten(0, 1)

        given = [flat(x, k) for x, k in zip((a, b, start, keep), axes[:4], strict=True)]
        h = _Scan.apply(*given, reverse)  # type: ignore[no-untyped-call]
        return h.unflatten(0, (info.batch_size, rows)), 0


def _cotangent(a: Tensor, g: Tensor, start: Tensor, keep: Tensor | None, reverse: bool) -> Tensor:
    """Return G_t = g_t + conj(a_{t+1}) G_{t+1}; the last step, which has no next, restarts."""
    if a.shape[1] > 1:
        a = _next(a, torch.zeros_like(a[:, :1]), reverse)
    if keep is None:
        keep = torch.ones(1, g.shape[1], dtype=torch.bool, device=g.device)
    keep = _next(keep, torch.zeros_like(keep[:, :1]), reverse)
    G: Tensor = _Scan.apply(a.conj(), g, torch.zeros_like(start), keep, not reverse)  # type: ignore[no-untyped-call]
    return G
