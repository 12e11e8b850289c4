"""The short causal convolution of Mamba, Griffin and H3 as a module.

Gu, Dao, "Mamba", 2023, section 3.4; De et al., "Griffin", 2024, section 2.3; Fu et al., "Hungry
Hungry Hippos", 2023, whose shift SSM it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmcore import arrays, backend
from ssmcore._arguments import check_count, check_flag
from ssmcore._options import ParamGroup, hyperparameters
from ssmcore.blocks.activations import ACTIVATIONS, activate
from ssmcore.blocks.base import Block
from ssmcore.composition import Pass
from ssmcore.errors import check_choice
from ssmcore.primitives import implementation
from ssmcore.typing import Array, Params, State

__all__ = ["ShortConvolution"]


@hyperparameters
class ShortConvolution(Block):
    """y_t = f(bias + sum_k weight_k u_{t-K+1+k}), each channel for itself.

    Parameters: weight (K, H), the last tap for the current step; bias (H). No tap crosses a reset.
    State: inputs (K - 1, H), the last ones, oldest first; those before a reset are zero.

    Attributes
    ----------
    d_model : int
        Channels H.
    taps : int
        K.
    bias : bool
    activation : name of an activation f

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import ShortConvolution
    >>> conv = ShortConvolution(1, taps=2, bias=False)
    >>> conv({"weight": np.asarray([[2.0], [1.0]])}, np.ones((3, 1)))[:, 0]
    array([1., 3., 3.])
    """

    d_model: int
    taps: int = 4
    bias: bool = True
    activation: str = "identity"

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model, taps=self.taps)
        check_flag(self.name, bias=self.bias)
        check_choice(self.name, "activation", self.activation, ACTIVATIONS)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        weight = {"weight": (self.taps, self.d_model)}
        return {**weight, "bias": (self.d_model,)} if self.bias else weight

    def state_shapes(self) -> dict[str, Any]:
        """Return {"inputs": (K - 1, H)}."""
        return {"inputs": (self.taps - 1, self.d_model)}

    def _draw(self, rng: np.random.Generator) -> Params:
        bound = 1.0 / math.sqrt(self.taps)
        weight = {"weight": rng.uniform(-bound, bound, (self.taps, self.d_model))}
        return {**weight, "bias": rng.uniform(-bound, bound, self.d_model)} if self.bias else weight

    def param_groups(self) -> list[ParamGroup]:
        """weight: the global settings; bias: no decay."""
        weight = ParamGroup(("weight",), weight_decay=True)
        return [weight, ParamGroup(("bias",), weight_decay=False)] if self.bias else [weight]

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        xp = arrays.namespace(u)
        weight, bias = params["weight"], params.get("bias")
        if state is not None and self._native(u, weight, how):
            silu = self.activation == "silu"
            y, last = how.steps["short_convolution"](u, weight, bias, state["inputs"], silu)
            return y, {"inputs": last}
        x = xp.astype(u, weight.dtype, copy=False)
        before = None if state is None else state["inputs"]
        if how.reset is None:
            y, last = _plain(x, weight, bias, before)
        else:
            y, last = _restarting(x, weight, bias, before, how.reset)
        if how.lengths is not None and how.return_state:
            last = self._last_valid(x, before, how.lengths, how.reset)
        y = xp.astype(activate(self.activation, y), u.dtype, copy=False)
        return y, ({"inputs": compact(last, x)} if how.return_state else None)

    def _native(self, u: Array, weight: Array, how: Pass) -> bool:
        """Whether one step is one native call."""
        there = "short_convolution" in how.steps and self.activation in ("silu", "identity")
        return there and bool(u.dtype == weight.dtype)

    def _last_valid(
        self, x: Array, before: Array | None, lengths: Array, reset: Array | None
    ) -> Array:
        """Return the inputs before each sequence's end, those before its last reset as zero."""
        xp = arrays.namespace(x)
        past, count = _past(x, before, self.taps), self.taps - 1
        at = lengths[..., None] + arrays.arange(x, count, lengths.dtype)
        index = xp.broadcast_to(at[..., None], (*at.shape, x.shape[-1]))
        last = xp.take_along_axis(past, index, axis=-2)
        if reset is None:
            return last
        starts = _past(xp.astype(reset, x.dtype)[..., None], None, self.taps)[..., 0]
        return _since_reset(last, xp.take_along_axis(starts, at, axis=-1))


def compact(last: Array, x: Array) -> Array:
    """Return the end ``last`` of a joined array, not holding on to a much longer ``x``."""
    long = x.shape[-2] > last.shape[-2] + 1
    return arrays.namespace(x).astype(last, last.dtype, copy=True) if long else last


def _past(x: Array, before: Array | None, taps: int) -> Array:
    """Return (..., K - 1 + L, H): the inputs before the first step, then ``x``."""
    xp = arrays.namespace(x)
    if before is None:
        shape = (*x.shape[:-2], taps - 1, x.shape[-1])
        before = xp.zeros(shape, dtype=x.dtype, device=arrays.device(x))
    return xp.concat((before, x), axis=-2)


def _plain(
    x: Array, weight: Array, bias: Array | None, before: Array | None
) -> tuple[Array, Array]:
    if x.shape[-2] != 1:
        y, last = implementation("short_convolution", x, weight)(x, weight, bias, before)
        return y, last
    past = _past(x, before, weight.shape[0])
    y = backend.of(x).inner(past, weight, axis=-2)[..., None, :]
    return (y if bias is None else y + bias), past[..., 1:, :]


def _restarting(
    x: Array, weight: Array, bias: Array | None, before: Array | None, reset: Array
) -> tuple[Array, Array]:
    """As ``_plain``, no tap crossing the beginning of a document."""
    xp = arrays.namespace(x)
    taps, length = weight.shape[0], x.shape[-2]
    past = _past(x, before, taps)
    starts = _past(xp.astype(reset, x.dtype)[..., None], None, taps)
    y = weight[-1, :] * x
    keep = xp.ones_like(starts[..., :length, :], dtype=xp.bool)
    for lag in range(1, taps):
        first = taps - lag
        keep = keep & (starts[..., first : first + length, :] < 0.5)
        tap = past[..., first - 1 : first - 1 + length, :]
        y = y + weight[taps - 1 - lag, :] * xp.where(keep, tap, xp.zeros_like(tap))
    last = _since_reset(past[..., length:, :], starts[..., length:, 0])
    return (y if bias is None else y + bias), last


def _since_reset(last: Array, starts: Array) -> Array:
    """Return ``last`` (..., K - 1, H) with zero before its last start (..., K - 1)."""
    xp = arrays.namespace(last)
    from_here = xp.flip(xp.cumulative_sum(xp.flip(starts, axis=-1), axis=-1), axis=-1)
    later = (from_here - starts)[..., None] > 0.5
    return xp.where(later, xp.zeros_like(last), last)
