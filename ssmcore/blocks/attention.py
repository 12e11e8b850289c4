"""Local multi-query attention of Griffin, over a window that moves with the current step.

De, Smith, Fernando, et al., "Griffin: mixing gated linear recurrences with local attention for
efficient language models", 2024, section 2.3; Beltagy et al., "Longformer", 2020; Shazeer, "Fast
transformer decoding", 2019.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ssmcore import arrays, backend
from ssmcore._arguments import check_count, check_flag, check_number, check_positive
from ssmcore._open import leading, windows
from ssmcore._options import hyperparameters
from ssmcore.blocks.base import Block
from ssmcore.blocks.linear import Linear
from ssmcore.blocks.rotary import UNIT, carried, latest_start, steps_since_start, turned
from ssmcore.composition import Composed, Pass, Running
from ssmcore.errors import SSMError
from ssmcore.typing import Array, Params, State

__all__ = ["LocalAttention"]

LONGEST = 2**30
"""Steps that 32-bit indices count in a window and a sequence beside it."""


@hyperparameters
class LocalAttention(Block):
    """y = o_proj(softmax(q k^T / sqrt(E)) v) over the last ``window`` steps of the document.

    Parts: q_proj (heads E), k_proj, v_proj (kv_heads E), o_proj. State: keys, values (window - 1,
    kv_heads, E), oldest first, and position (2): 1024 a + b steps since the document began.

    Attributes
    ----------
    d_model : int
        Channels H.
    heads : int
    window : int
        Steps looked at, the current one included (transformers' convention; the code of Griffin
        looks at one more than it says); at most 2^30. A state has keys and values of all of them.
    kv_heads : int
        Heads of keys and values; must divide heads.
    head_dim : int or None
        E; None means d_model / heads.
    rotary : float
        Share of a head's channels that are turned by the position.
    rope_base : float
    bias, output_bias : bool
        Of q_proj, k_proj, v_proj, and of o_proj.
    output_gain : float
        Variance of o_proj's initial weights is output_gain / (heads E); 2 / layers in Griffin.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import LocalAttention
    >>> attention = LocalAttention(8, heads=2, window=4)
    >>> attention(attention.init(0), np.ones((6, 8), "float32")).shape
    (6, 8)
    """

    d_model: int
    heads: int
    window: int
    kv_heads: int = 1
    head_dim: int | None = None
    rotary: float = 0.5
    rope_base: float = 10000.0
    bias: bool = False
    output_bias: bool = True
    output_gain: float = 1.0

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model, heads=self.heads, window=self.window)
        check_count(self.name, kv_heads=self.kv_heads)
        check_flag(self.name, bias=self.bias, output_bias=self.output_bias)
        check_positive(self.name, rope_base=self.rope_base, output_gain=self.output_gain)
        check_number(self.name, rotary=self.rotary)
        if self.heads % self.kv_heads:
            msg = f"{self.name}: kv_heads is {self.kv_heads}; expected a divisor of {self.heads}"
            raise SSMError(msg)
        if self.head_dim is None and self.d_model % self.heads:
            msg = f"{self.name}: heads is {self.heads}; expected a divisor of {self.d_model}"
            raise SSMError(msg)
        check_count(self.name, head_dim=self.width)
        if self.window > LONGEST:
            size = 8 * self.window * self.kv_heads * self.width
            msg = (
                f"{self.name}: window is {self.window}, and a state of as many keys and values "
                f"takes {size:.3g} bytes a sequence; expected at most {LONGEST} steps"
            )
            raise SSMError(msg)
        if not 0.0 <= self.rotary <= 1.0 or self._turned % 2:
            msg = (
                f"{self.name}: rotary is {self.rotary!r}; expected a share of head_dim = "
                f"{self.width} that is an even number of channels"
            )
            raise SSMError(msg)

    @property
    def width(self) -> int:
        """Channels E of a head."""
        return self.d_model // self.heads if self.head_dim is None else self.head_dim

    @property
    def _turned(self) -> int:
        return int(self.rotary * self.width)

    def _compose(self) -> dict[str, Composed]:
        H, E = self.d_model, self.width
        shared = Linear(H, self.kv_heads * E, self.bias, "normal")
        return {
            "q_proj": Linear(H, self.heads * E, self.bias, "normal"),
            "k_proj": shared,
            "v_proj": shared,
            "o_proj": Linear(self.heads * E, H, self.output_bias, "normal", self.output_gain),
        }

    def state_shapes(self) -> dict[str, Any]:
        """Return {"keys", "values": (window - 1, kv_heads, E), "position": (2,)}."""
        past = (self.window - 1, self.kv_heads, self.width)
        return {"keys": past, "values": past, "position": (2,)}

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        xp = arrays.namespace(u)
        run = Running(self, params, None, how)
        work = how.dtype or u.dtype

        def heads(name: str, count: int) -> Array:
            x = xp.astype(run(name, u), work, copy=False)
            return xp.reshape(x, (*x.shape[:-1], count, self.width))

        q, v = heads("q_proj", self.heads), heads("v_proj", self.kv_heads)
        k = heads("k_proj", self.kv_heads)
        start = None if how.reset is None else latest_start(how.reset)
        position = None if state is None else state["position"]
        if self._turned:
            a, b = steps_since_start(q[..., 0, 0], u.shape[-2], position, start)
            q, k = (turned(x, a, b, self._turned, self.rope_base) for x in (q, k))
        y = self._attended(q / math.sqrt(self.width), k, v, state, start)
        y = run("o_proj", xp.astype(y, u.dtype, copy=False))
        return y, (self._after(k, v, state, start, how) if how.return_state else None)

    def _attended(
        self, q: Array, k: Array, v: Array, state: State | None, start: Array | None
    ) -> Array:
        """Return the weighted values (..., L, heads E)."""
        xp, L, W = arrays.namespace(q), q.shape[-3], self.window
        if L == 0:
            return xp.reshape(q, (*q.shape[:-2], self.heads * self.width))
        none = xp.zeros(L, dtype=xp.int32, device=arrays.device(q))
        document = none if start is None else start + 1
        if backend.is_open(q, L) or L > 2 * W:
            return self._banded(q, k, v, state, document)
        keys = Keys(k, v, document)
        keys = keys if state is None else keys.after(self._past(state, W - 1))
        age = arrays.arange(q, L, xp.int32)[:, None] - (
            arrays.arange(q, keys.k.shape[-3], xp.int32) - (keys.k.shape[-3] - L)
        )
        near = (age >= 0) & (age < W)
        allowed = near & (keys.document[..., None, :] == document[..., :, None])
        return self._weighted(q, keys.k, keys.v, allowed)

    def _banded(self, q: Array, k: Array, v: Array, state: State | None, document: Array) -> Array:
        """As ``_attended``, by blocks of W steps that look at themselves and the block before."""
        xp, L, W = arrays.namespace(q), q.shape[-3], self.window
        many = backend.is_open(q, L)
        blocks = L // W + 2 if many else -(-L // W)  # more than one, not to be broadcast
        extra = 2 * W if many else blocks * W - L
        q, k, v = (_padded(x, extra, -3) for x in (q, k, v))
        document = _padded(document, extra, -1)
        keys = Keys(k, v, document).after(self._past(state, W, k))

        def pairs(x: Array, axis: int) -> Array:
            if many:
                return windows(x, axis, blocks, W, 2 * W)
            x = xp.reshape(x, (*x.shape[:axis], blocks + 1, W, *x.shape[axis % x.ndim + 1 :]))
            x = arrays.moveaxis(x, axis - 1, 0)
            return arrays.moveaxis(xp.concat((x[:-1, ...], x[1:, ...]), axis=axis), 0, axis - 1)

        def cut(x: Array, axis: int) -> Array:
            if many:
                return windows(x, axis, blocks, W, W)
            return xp.reshape(x, (*x.shape[:axis], blocks, W, *x.shape[axis % x.ndim + 1 :]))

        age = arrays.arange(q, W, xp.int32)[:, None] + W - arrays.arange(q, 2 * W, xp.int32)
        same = pairs(keys.document, -1)[..., None, :] == cut(document, -1)[..., :, None]
        allowed = (age >= 0) & (age < W) & same
        y = self._weighted(cut(q, -3), pairs(keys.k, -3), pairs(keys.v, -3), allowed)
        return leading(xp.reshape(y, (*y.shape[:-3], -1, y.shape[-1])), L, -2)

    def _weighted(self, q: Array, k: Array, v: Array, allowed: Array) -> Array:
        """Return softmax(q k^T) v for q (..., T, heads, E), k, v (..., S, kv_heads, E)."""
        xp = arrays.namespace(q)
        T, groups, E = q.shape[-3], self.heads // self.kv_heads, self.width
        q = xp.reshape(q, (*q.shape[:-2], self.kv_heads, groups, E))
        q = arrays.moveaxis(q, -4, -2)
        lead = q.shape[:-3]
        flat = xp.reshape(q, (*lead, groups * T, E))
        k, v = arrays.moveaxis(k, -3, -2), arrays.moveaxis(v, -3, -2)
        scores = xp.reshape(flat @ xp.matrix_transpose(k), (*lead, groups, T, k.shape[-2]))
        never = xp.full((), -math.inf, dtype=scores.dtype, device=arrays.device(scores))
        scores = xp.where(allowed[..., None, None, :, :], scores, never)
        most = backend.of(scores).stop_gradient(xp.max(scores, axis=-1, keepdims=True))
        weights = xp.exp(scores - most)
        weights = weights / xp.sum(weights, axis=-1, keepdims=True)
        y = xp.reshape(weights, (*lead, groups * T, k.shape[-2])) @ v
        y = arrays.moveaxis(xp.reshape(y, (*lead, groups, T, E)), -2, -4)
        return xp.reshape(y, (*y.shape[:-3], self.heads * E))

    def _past(self, state: State | None, count: int, like: Array | None = None) -> Keys:
        """Return ``count`` keys and values from before the first step; document -1: none.

        ``count`` is what a state holds, or one more.
        """
        if state is None:
            assert like is not None
            xp = arrays.namespace(like)
            none = xp.zeros_like(like[..., :1, :, :])
            none = xp.broadcast_to(none, (*none.shape[:-3], count, *none.shape[-2:]))
            document = -xp.ones(count, dtype=xp.int32, device=arrays.device(like))
            return Keys(none, none, document)
        k, v, position = state["keys"], state["values"], state["position"]
        xp = arrays.namespace(k)
        begun = UNIT * position[..., 0:1] + position[..., 1:2]
        age = count - arrays.arange(k, count, k.dtype)
        one = xp.ones(count, dtype=xp.int32, device=arrays.device(k))
        document = xp.where((age <= begun) & (age < self.window), 0 * one, -one)
        extra = count - k.shape[-3]
        return Keys(_padded(k, extra, -3, first=True), _padded(v, extra, -3, first=True), document)

    def _after(
        self, k: Array, v: Array, state: State | None, start: Array | None, how: Pass
    ) -> State:
        """Return the state after the last valid step."""
        xp, L, P = arrays.namespace(k), k.shape[-3], self.window - 1
        batch = k.shape[:-3]
        if state is None:
            none = xp.zeros((*batch, P, *k.shape[-2:]), dtype=k.dtype, device=arrays.device(k))
            zero = xp.zeros((*batch, 2), dtype=k.dtype, device=arrays.device(k))
            state = {"keys": none, "values": none, "position": zero}
        pasts = {"keys": (state["keys"], k), "values": (state["values"], v)}
        joined = {name: xp.concat(pair, axis=-3) for name, pair in pasts.items()}
        a, b = state["position"][..., 0], state["position"][..., 1]
        if how.lengths is None:
            own = backend.is_open(k, L) or L > 1
            kept = {n: xp.astype(x[..., L:, :, :], x.dtype, copy=own) for n, x in joined.items()}
            end = xp.zeros_like(b) + L
        else:
            at = how.lengths[..., None] + arrays.arange(k, P, how.lengths.dtype)
            kept = {n: xp.take_along_axis(x, _like(at, x), axis=-3) for n, x in joined.items()}
            end = xp.astype(how.lengths, b.dtype)
        b = b + end
        if start is not None and L:
            last = xp.astype(start[..., -1], b.dtype)
            a, b = xp.where(last < 0, a, xp.zeros_like(a)), xp.where(last < 0, b, end - last)
            age = P - arrays.arange(k, P, k.dtype)
            own = (age <= (UNIT * a + b)[..., None])[..., None, None]
            kept = {name: xp.where(own, x, xp.zeros_like(x)) for name, x in kept.items()}
        return {**kept, "position": xp.stack(carried(a, b), axis=-1)}


class Keys(NamedTuple):
    """Keys, values (..., S, kv_heads, E) and the document (..., S) each belongs to."""

    k: Array
    v: Array
    document: Array

    def after(self, past: Keys) -> Keys:
        """Return those of ``past``, then these."""
        xp = arrays.namespace(self.k)
        k = xp.concat((past.k, self.k), axis=-3)
        v = xp.concat((past.v, self.v), axis=-3)
        lead = max(past.document.shape[:-1], self.document.shape[:-1], key=len)
        both = (past.document, self.document)
        wide = [xp.broadcast_to(x, (*lead, x.shape[-1])) for x in both]
        return Keys(k, v, xp.concat(wide, axis=-1))


def _padded(x: Array, count: int, axis: int, first: bool = False) -> Array:
    """Return ``x`` with ``count`` zeros behind it along ``axis``, or before it."""
    if count == 0:
        return x
    xp, shape = arrays.namespace(x), list(x.shape)
    shape[axis] = count
    zeros = xp.zeros(tuple(shape), dtype=x.dtype, device=arrays.device(x))
    return xp.concat((zeros, x) if first else (x, zeros), axis=axis)


def _like(at: Array, x: Array) -> Array:
    """Return indices ``at`` (..., P) for the time axis of x (..., S, heads, E)."""
    xp = arrays.namespace(at)
    return xp.broadcast_to(at[..., None, None], (*at.shape, *x.shape[-2:]))
