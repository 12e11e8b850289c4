"""LRU: linear recurrent unit.

Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De, "Resurrecting recurrent neural networks for
long sequences", 2023. x_t = lambda x_{t-1} + gamma (B u_t), y_t = Re(C x_t) + D u_t: discrete from
the start, complex without conjugate pairs, hence without a factor 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmcore import arrays
from ssmcore._options import (
    ParamGroup,
    check_count,
    check_number,
    check_positive,
    hyperparameters,
)
from ssmcore.errors import SSMError
from ssmcore.initialization import ring
from ssmcore.layers.base import Layer
from ssmcore.systems import DiagonalSystem
from ssmcore.typing import Array, Params

__all__ = ["LRU"]


@hyperparameters
class LRU(Layer):
    """LRU: one discrete diagonal system from all channels to all channels.

    lambda = exp(-exp(nu_log) + i exp(theta_log)), |lambda| < 1 always; gamma = exp(gamma_log);
    x_t = lambda x_{t-1} + gamma (B u_t), y_t = Re(C x_t) + D u_t. Parameters: nu_log, theta_log,
    gamma_log (N), B (N, H, 2), C (H, N, 2), D (H).

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        Complex states N.
    r_min, r_max : float
        Ring of the initial |lambda|, uniform in area.
    max_phase : float
        Largest initial angle in rad; 6.28 as published.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> layer = ssm.LRU(d_model=2, d_state=4)
    >>> layer(layer.init(0, dtype="float64"), np.ones((5, 2))).shape
    (5, 2)
    """

    d_state: int = 64
    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 6.28

    def _parallel_mode(self, params: Params, u: Array) -> str:
        return "scan"

    def _check_options(self) -> None:
        check_count(self.name, d_state=self.d_state)
        check_positive(self.name, max_phase=self.max_phase)
        check_number(self.name, r_min=self.r_min, r_max=self.r_max)
        if not 0.0 <= self.r_min < self.r_max <= 1.0:
            msg = (
                f"{self.name}: r_min, r_max are {self.r_min!r}, {self.r_max!r}; "
                "expected 0 <= r_min < r_max <= 1"
            )
            raise SSMError(msg)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        H, N = self.d_model, self.d_state
        return {
            "nu_log": (N,),
            "theta_log": (N,),
            "gamma_log": (N,),
            "B": (N, H, 2),
            "C": (H, N, 2),
            "D": (H,),
        }

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {"x_lru": (N, 2)}."""
        return {self._state_name: (self.d_state, 2)}

    def _draw(self, rng: np.random.Generator) -> Params:
        H, N = self.d_model, self.d_state
        nu_log, theta_log, gamma_log = ring(rng, N, self.r_min, self.r_max, self.max_phase)
        return {
            "nu_log": nu_log,
            "theta_log": theta_log,
            "gamma_log": gamma_log,
            "B": rng.standard_normal((N, H, 2)) / math.sqrt(2 * H),
            "C": rng.standard_normal((H, N, 2)) / math.sqrt(N),
            "D": rng.standard_normal(H),
        }

    def param_groups(self) -> list[ParamGroup]:
        """Dynamics and B: half the global learning rate, no decay; C and D: the global settings."""
        dynamics = ("nu_log", "theta_log", "gamma_log", "B")
        return [
            ParamGroup(dynamics, weight_decay=False, lr_scale=0.5),
            ParamGroup(("C", "D"), weight_decay=True),
        ]

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> DiagonalSystem:
        xp = arrays.namespace(params["D"])
        modulus = xp.exp(-xp.exp(params["nu_log"]))
        theta = xp.exp(params["theta_log"])
        a = modulus * xp.cos(theta) + modulus * xp.sin(theta) * 1j
        B = xp.exp(params["gamma_log"])[:, None] * arrays.join(params["B"])
        return DiagonalSystem(a, B, arrays.join(params["C"]), params["D"], pairs=False)

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return the eigenvalues of A_bar, (N,) complex."""
        params = self._check_params(params)
        return self._system(params, None, None).a
