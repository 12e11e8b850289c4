"""S6: the selective state space layer of Mamba.

Gu, Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023, Algorithm 2.
h_t = e^{dt_t A} h_{t-1} + dt_t B_t u_t, y_t = C_t h_t + D u_t, with dt, B, C from the input.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmcore import arrays, backend
from ssmcore._options import ParamGroup, check_count, check_positive, hyperparameters
from ssmcore.composition import Pass
from ssmcore.errors import check_choice
from ssmcore.initialization import softplus_bias
from ssmcore.layers._continuous import check_steps
from ssmcore.layers.base import Layer
from ssmcore.time_varying import SelectiveSystem
from ssmcore.typing import Array, Params, State

__all__ = ["S6"]


@hyperparameters
class S6(Layer):
    """S6: per channel N real states, with step size, B and C chosen by the input.

    (dt_low, B_t, C_t) = x_proj u_t; dt_t = dt_scale softplus(dt_proj.weight dt_low + dt_proj.bias);
    A = -exp(A_log); h_t = e^{dt_t A} h_{t-1} + dt_t B_t u_t ("mamba"); y_t = C_t h_t + D u_t.
    Parameters: A_log (H, N), D (H), x_proj (R + 2N, H), dt_proj.weight (H, R), dt_proj.bias (H).

    Attributes
    ----------
    d_model : int
        Channels H (the inner width of a Mamba block).
    d_state : int
        States N per channel.
    dt_rank : int or None
        R; None means ceil(d_model / 16).
    discretization : "mamba" or "zoh"
        Euler rule for B, as in Mamba's code, or the exact hold of its paper.
    a_initialization : "real" or "half"
        A = -(1, ..., N), or -1/2 for every state.
    dt_min, dt_max : float
        Range of the log-uniform initial step size.
    dt_init_floor : float
        Least initial step size.
    dt_initialization : "random" or "constant"
        dt_proj.weight uniform within, or equal to, R^-1/2 dt_init_scale.
    dt_init_scale : float
        ``dt_scale`` of the original, a factor on dt_proj.weight at initialisation.
    dt_scale : float
        Factor on the step size in every call.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> layer = ssm.S6(d_model=4)
    >>> layer(layer.init(0, dtype="float64"), np.ones((5, 4))).shape
    (5, 4)
    """

    d_state: int = 16
    dt_rank: int | None = None
    discretization: str = "mamba"
    a_initialization: str = "real"
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_init_floor: float = 1e-4
    dt_initialization: str = "random"
    dt_init_scale: float = 1.0
    dt_scale: float = 1.0

    time_varying = True

    def _check_options(self) -> None:
        check_count(self.name, d_state=self.d_state, dt_rank=self._rank)
        check_steps(self.name, self.dt_min, self.dt_max, self.dt_scale)
        check_positive(
            self.name, dt_init_floor=self.dt_init_floor, dt_init_scale=self.dt_init_scale
        )
        check_choice(self.name, "discretization", self.discretization, ("mamba", "zoh"))
        check_choice(self.name, "a_initialization", self.a_initialization, ("real", "half"))
        check_choice(self.name, "dt_initialization", self.dt_initialization, ("random", "constant"))

    @property
    def _rank(self) -> int:
        return -(-self.d_model // 16) if self.dt_rank is None else self.dt_rank

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        H, N, R = self.d_model, self.d_state, self._rank
        return {
            "A_log": (H, N),
            "D": (H,),
            "x_proj": (R + 2 * N, H),
            "dt_proj": {"weight": (H, R), "bias": (H,)},
        }

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {"x_s6": (H, N)}."""
        return {self._state_name: (self.d_model, self.d_state)}

    def _draw(self, rng: np.random.Generator) -> Params:
        H, N, R = self.d_model, self.d_state, self._rank
        decay = np.arange(1.0, N + 1) if self.a_initialization == "real" else np.full(N, 0.5)
        bound = self.dt_init_scale / math.sqrt(R)
        return {
            "A_log": np.tile(np.log(decay), (H, 1)),
            "D": np.ones(H),
            "x_proj": rng.uniform(-1.0, 1.0, (R + 2 * N, H)) / math.sqrt(H),
            "dt_proj": {
                "weight": rng.uniform(-bound, bound, (H, R))
                if self.dt_initialization == "random"
                else np.full((H, R), bound),
                "bias": softplus_bias(rng, (H,), self.dt_min, self.dt_max, self.dt_init_floor),
            },
        }

    def param_groups(self) -> list[ParamGroup]:
        """A_log, D and the step size's bias: no decay; the projections: the global settings."""
        return [
            ParamGroup(("A_log", "D", "dt_proj.bias"), weight_decay=False),
            ParamGroup(("x_proj", "dt_proj.weight"), weight_decay=True, keep_float32=False),
        ]

    def _mode(self, mode: str, params: Params, u: Array, reset: Array | None) -> str:
        """Return what "auto" means: on GPUs a single step is a fused scan too, as one kernel."""
        if mode == "auto" and self.discretization == "mamba" and backend.of(u).fuses_steps(u):
            return "scan"
        return super()._mode(mode, params, u, reset)

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> SelectiveSystem:
        xp = arrays.namespace(params["D"], u)
        N, R = self.d_state, self._rank
        dtype = params["D"].dtype  # a torch.autocast around it all lowers products
        chosen, low = (xp.astype(x, dtype, copy=False) for x in self._chosen(params, u))
        delta = _softplus(low + params["dt_proj"]["bias"])
        delta = delta if self.dt_scale == 1.0 else delta * self.dt_scale
        return SelectiveSystem(
            delta=delta,
            A=-xp.exp(params["A_log"]),
            B=chosen[..., R : R + N],
            C=chosen[..., R + N :],
            D=params["D"],
            method=self.discretization,
        )

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        native = how.steps.get("s6")
        fits = self.discretization == "mamba" and self.dt_scale == 1.0
        if native is None or state is None or not fits or u.dtype != params["D"].dtype:
            return super()._apply(params, u, state, how)
        chosen, low = self._chosen(params, u)
        rest = (params["dt_proj"]["bias"], params["A_log"], params["D"])
        y, after = native(u, chosen, low, *rest, state[self._state_name])
        return y, {self._state_name: after}

    def _chosen(self, params: Params, u: Array) -> tuple[Array, Array]:
        """Return (dt_low, B, C) in one array (..., L, R + 2N), and dt_proj dt_low."""
        product = backend.of(u).product
        chosen = product(u, params["x_proj"])
        return chosen, product(chosen[..., : self._rank], params["dt_proj"]["weight"])

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
        alone = u.shape[-2] == 1 and lengths is None and mode == "recurrence"
        if alone and self.discretization == "mamba":
            return self._one(params, u, state[self._state_name], reset)
        return super()._run(params, u, state, mode, reset, lengths, return_state)

    def _one(
        self, params: Params, u: Array, h: Array, reset: Array | None
    ) -> tuple[Array, State | None]:
        """Run one step without the engine.

        As h + (e^{dt A} - 1) h: what rounding e^{dt A} to 1 takes from a slow state would add up.
        """
        xp = arrays.namespace(u)
        system = self._system(params, u, None)
        if reset is not None:
            h = xp.where(reset[..., None], xp.zeros_like(h), h)
        delta = system.delta[..., 0, :, None]
        drive = delta * u[..., 0, :, None] * system.B
        h = h + (xp.expm1(delta * system.A) * h + drive)
        y = backend.of(h).inner(h, system.C, axis=-1)[..., None, :] + system.D * u
        return y, {self._state_name: h}

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return the eigenvalues of A_bar_t for input u (..., L, H): (..., L, H, N) real."""
        system: SelectiveSystem = self.system(params, u)  # type: ignore[assignment]
        return system.a


def _softplus(x: Array) -> Array:
    """Return softplus, by the library's own kernel where it has one."""
    return backend.of(x).elementwise().get("softplus", arrays.softplus)(x)
