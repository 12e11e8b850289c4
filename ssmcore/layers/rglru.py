"""RG-LRU: the real-gated linear recurrent unit of Griffin and Hawk.

De, Smith, Fernando, et al., "Griffin: mixing gated linear recurrences with local attention for
efficient language models", 2024, section 2.4. h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t u_t), y = h.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmcore import arrays, backend, engine
from ssmcore._checks import Place
from ssmcore._options import (
    ParamGroup,
    check_count,
    check_number,
    check_positive,
    hyperparameters,
)
from ssmcore.errors import SSMError, check_choice
from ssmcore.initialization import rglru_a_param
from ssmcore.initialization.ring import A_INITIALIZATIONS
from ssmcore.layers._continuous import check_flag
from ssmcore.layers.base import Layer
from ssmcore.time_varying import TimeVaryingSystem
from ssmcore.typing import Array, Params, State

__all__ = ["RGLRU"]


@hyperparameters
class RGLRU(Layer):
    """RG-LRU: one real state per channel, with gates from the input.

    r_t = sigmoid(a_gate(u_t)), i_t = sigmoid(input_gate(u_t)), log a_t = -c r_t softplus(a_param),
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t u_t, y_t = h_t. Parameters: a_param (H),
    input_gate.w, a_gate.w (heads, H/heads, H/heads), input_gate.b, a_gate.b (heads, H/heads).
    a_param is -Lambda of the paper. 1 - a^2 is formed from log a without cancellation.

    Attributes
    ----------
    d_model : int
        Channels H.
    heads : int
        Blocks of the block-diagonal gates; must divide d_model.
    c : float
        Exponent of the gate.
    a_initialization : "a", "a^c", "grid" or "exp"
        What lies in [min_rad, max_rad] at first: a (RecurrentGemma), a^c (the paper), a^c evenly;
        or a grid of its own, see ``ssmcore.initialization.rglru_a_param``.
    min_rad, max_rad : float
        Range of that quantity.
    gradient_cap : float or None
        Bound on the derivative of the root with respect to 1 - a^2, 1000 in Griffin's code; None
        leaves it alone but at a = 1, where it is 0.
    root_offset : float
        Added to 1 - a^2 under the root; 1e-6 in Hawk's re-implementations, which have no
        first-step reset.
    first_step_reset : bool
        At the first step of a fresh sequence, as after every reset, take the whole gated input:
        h = i_t u_t (Griffin's code). A carried state switches it off. False changes the first
        step alone: a ``reset`` takes the whole gated input even so, as in Griffin's code, and
        sequences packed by resets then differ from separate ones.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> layer = ssm.RGLRU(d_model=4, heads=2)
    >>> layer(layer.init(0, dtype="float64"), np.ones((5, 4))).shape
    (5, 4)
    """

    heads: int = 1
    c: float = 8.0
    a_initialization: str = "a"
    min_rad: float = 0.9
    max_rad: float = 0.999
    gradient_cap: float | None = 1000.0
    root_offset: float = 0.0
    first_step_reset: bool = True

    time_varying = True

    def _check_options(self) -> None:
        check_count(self.name, heads=self.heads)
        check_positive(self.name, c=self.c)
        check_choice(self.name, "a_initialization", self.a_initialization, A_INITIALIZATIONS)
        if self.d_model % self.heads:
            msg = (
                f"{self.name}: heads is {self.heads}; expected a divisor of d_model "
                f"= {self.d_model}"
            )
            raise SSMError(msg)
        check_flag(self.name, first_step_reset=self.first_step_reset)
        if self.gradient_cap is not None:
            check_positive(self.name, gradient_cap=self.gradient_cap)
        check_number(
            self.name, min_rad=self.min_rad, max_rad=self.max_rad, root_offset=self.root_offset
        )
        if self.root_offset < 0:
            msg = (
                f"{self.name}: root_offset is {self.root_offset!r}; expected a number of at least 0"
            )
            raise SSMError(msg)
        if not 0.0 < self.min_rad < self.max_rad < 1.0:
            msg = (
                f"{self.name}: min_rad, max_rad are {self.min_rad!r}, {self.max_rad!r}; "
                "expected 0 < min_rad < max_rad < 1"
            )
            raise SSMError(msg)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        width = self.d_model // self.heads
        gate = {"w": (self.heads, width, width), "b": (self.heads, width)}
        return {"a_param": (self.d_model,), "input_gate": gate, "a_gate": dict(gate)}

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {"h": (H,), "fresh": ()}; fresh is 1 before the first step and 0 after."""
        return {"h": (self.d_model,), "fresh": ()}

    def _initial(self, place: Place, batch: tuple[int, ...]) -> State:
        state = super()._initial(place, batch)
        return {**state, "fresh": state["fresh"] + 1.0}

    def _draw(self, rng: np.random.Generator) -> Params:
        width = self.d_model // self.heads
        gates = {
            name: {
                "w": rng.standard_normal((self.heads, width, width)) / math.sqrt(width),
                "b": np.zeros((self.heads, width)),
            }
            for name in ("input_gate", "a_gate")
        }
        a_param = rglru_a_param(
            rng, self.d_model, self.c, self.a_initialization, self.min_rad, self.max_rad
        )
        return {"a_param": a_param, **gates}

    def param_groups(self) -> list[ParamGroup]:
        """a_param and the biases: no decay; the gates' weights: the global settings."""
        return [
            ParamGroup(("a_param", "input_gate.b", "a_gate.b"), weight_decay=False),
            ParamGroup(("input_gate.w", "a_gate.w"), weight_decay=True, keep_float32=False),
        ]

    def _gate(self, gate: Params, u: Array) -> Array:
        """Return sigmoid(w u + b) with a block-diagonal w, (..., H)."""
        xp = arrays.namespace(u)
        blocks = xp.reshape(u, (*u.shape[:-1], self.heads, 1, self.d_model // self.heads))
        mixed = (blocks @ gate["w"])[..., 0, :] + gate["b"]
        return arrays.sigmoid(xp.reshape(mixed, u.shape))

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> TimeVaryingSystem:
        xp = arrays.namespace(params["a_param"], u)
        decay = self.c * arrays.softplus(params["a_param"])
        log_a = -decay * self._gate(params["a_gate"], u)
        a = xp.exp(log_a)
        multiplier = _root(self.root_offset - xp.expm1(2.0 * log_a), self.gradient_cap)
        if fresh is not None:
            first = fresh[..., None]
            a = xp.where(first, xp.zeros_like(a), a)
            multiplier = xp.where(first, xp.ones_like(a), multiplier)
        B = multiplier * self._gate(params["input_gate"], u)
        return TimeVaryingSystem(a[..., None], B[..., None], xp.ones_like(B)[..., None], None)

    def _run(
        self,
        params: Params,
        u: Array,
        state: State,
        mode: str,
        reset: Array | None,
        lengths: Array | None,
        return_state: bool,
    ) -> tuple[Array, State | None]:
        xp = arrays.namespace(u)
        valid = engine.valid_steps(lengths, u)
        u = engine.hide_padding(u, valid)
        starts = self._restarts(u, state, reset)
        system = self._system(params, u, starts)
        y, h = engine.run(system, u, state["h"][..., None], mode, starts, lengths, return_state)
        if h is None:
            return y, None
        fresh = state["fresh"]
        if valid is not None:
            begun = xp.astype(xp.any(valid, axis=-1), fresh.dtype)
            fresh = fresh * (1.0 - begun)
        elif u.shape[-2]:
            fresh = xp.zeros_like(fresh)
        return y, {"h": h[..., 0], "fresh": fresh}

    def _restarts(self, u: Array, state: State, reset: Array | None) -> Array | None:
        """Return which steps restart the state, the first one of a fresh sequence among them."""
        xp = arrays.namespace(u)
        if not self.first_step_reset:
            return reset
        at_start = arrays.arange(u, u.shape[-2], xp.int32) == 0
        first = at_start & (state["fresh"] > 0.5)[..., None]
        return first if reset is None else first | reset

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return the eigenvalues a_t for input u (..., L, H): (..., L, H) real.

        Those of the gates: a restart, at the first step too, is not in them.
        """
        self.system(params, u)  # for its checks
        assert u is not None
        params = self._check_params(params)
        return self._system(params, self._widened(params, u), None).a[..., 0]


def _root(x: Array, cap: float | None) -> Array:
    """Return sqrt(x) for x >= 0, with a derivative of at most ``cap``; without, 0 at x = 0.

    Below x = 1 / (4 cap^2), where the derivative 1 / (2 sqrt(x)) would pass the cap, the line
    cap x carries the derivative and a constant the value.
    """
    xp = arrays.namespace(x)
    tiny = float(xp.finfo(x.dtype).smallest_normal)
    least = tiny if cap is None else max(tiny, 0.25 / cap**2)
    root = xp.sqrt(xp.where(x > least, x, xp.full_like(x, least)))
    if cap is None:
        return root
    fixed = backend.of(x).stop_gradient(x)
    line = cap * x + (xp.sqrt(xp.where(fixed > 0, fixed, xp.zeros_like(fixed))) - cap * fixed)
    return xp.where(x > least, root, line)
