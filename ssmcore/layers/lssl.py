"""LSSL: linear state space layer with a dense transition, the ancestor; slow and exact.

Gu, Johnson, Goel, Saab, Dao, Rudra, Re, "Combining recurrent, convolutional, and continuous-time
models with linear state-space layers", 2021. x' = A x + B u, y = C x + D u.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays
from ssmcore._options import ParamGroup, check_count, check_number, hyperparameters
from ssmcore.discretization import discretize_dense
from ssmcore.errors import SSMError, check_choice
from ssmcore.initialization import hippo, log_uniform_timescale
from ssmcore.initialization.hippo import DENSE, REAL_PART
from ssmcore.layers._continuous import check_flag, check_steps, tiled
from ssmcore.layers._spectrum import dense_eigenvalues
from ssmcore.layers.base import Layer
from ssmcore.systems import DenseSystem
from ssmcore.typing import Array, Params

__all__ = ["LSSL"]

DRAWN = ("random", "diagonal")
"""Initialisations without a measure."""


@hyperparameters
class LSSL(Layer):
    """LSSL: H dense systems, one per channel, by the generalised bilinear rule.

    A_bar = (I - alpha dt A)^-1 (I + (1 - alpha) dt A), B_bar = (I - alpha dt A)^-1 dt B,
    y = C x + D u.

    Parameters: log_dt (H), A (N, N), B (N), C (F, N), D (F), F = channels H; with ``per_feature``
    A (H, N, N) and B (H, N). Runs in the widest float type the library offers, as S4 does.

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        State size N per channel.
    initialization : str
        A measure of ``ssmcore.initialization.hippo``; "random", A of variance 1 / N^2, or
        "diagonal", A = -diag(e^x), both with B and x standard normal.
    alpha : float
        0.5 bilinear, 0 forward Euler, 1 backward Euler.
    per_feature : bool
        Own A and B for each channel instead of one for all.
    learn : bool
        Whether A and the step sizes are meant to be trained; False puts them into a group with
        learning rate 0, as the original's default does.
    channels : int
        Outputs per channel: y is (..., L, channels H), channel-major. A and B are shared.
    dt_min, dt_max : float
        Range of the log-uniform initial step size.
    dt_scale : float
        Factor on the step size.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> layer = ssm.LSSL(d_model=2, d_state=4)
    >>> layer(layer.init(0, dtype="float64"), np.ones((5, 2))).shape
    (5, 2)
    """

    d_state: int = 64
    initialization: str = "legs"
    alpha: float = 0.5
    per_feature: bool = False
    learn: bool = False
    channels: int = 1
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_scale: float = 1.0

    open_lengths = False

    INITS: ClassVar = (*REAL_PART, *DENSE, *DRAWN)

    def _check_options(self) -> None:
        check_count(self.name, d_state=self.d_state, channels=self.channels)
        check_steps(self.name, self.dt_min, self.dt_max, self.dt_scale)
        check_choice(self.name, "initialization", self.initialization, self.INITS)
        check_flag(self.name, per_feature=self.per_feature, learn=self.learn)
        check_number(self.name, alpha=self.alpha)
        if not 0.0 <= self.alpha <= 1.0:
            msg = f"{self.name}: alpha is {self.alpha!r}; expected 0 to 1"
            raise SSMError(msg)
        if self.initialization not in DRAWN:
            hippo(self.initialization, self.d_state)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        H, F, N = self.d_model, self.d_output, self.d_state
        own = (H,) if self.per_feature else ()
        return {"log_dt": (H,), "A": (*own, N, N), "B": (*own, N), "C": (F, N), "D": (F,)}

    @property
    def d_output(self) -> int:
        """Channels of the output, ``channels`` H."""
        return self.channels * self.d_model

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {"x_lssl": (F, N)}."""
        return {self._state_name: (self.d_output, self.d_state)}

    def _draw(self, rng: np.random.Generator) -> Params:
        shapes = self.shapes()
        log_dt = log_uniform_timescale(rng, shapes["log_dt"], self.dt_min, self.dt_max)
        A, B = self._transition(rng)
        return {
            "log_dt": log_dt,
            "A": np.broadcast_to(A, shapes["A"]),
            "B": np.broadcast_to(B, shapes["B"]),
            "C": rng.standard_normal(shapes["C"]),
            "D": rng.standard_normal(shapes["D"]),
        }

    def _transition(self, rng: np.random.Generator) -> tuple[Any, Any]:
        """Return A (N, N) and B (N)."""
        N = self.d_state
        if self.initialization == "random":
            return rng.standard_normal((N, N)) / N, rng.standard_normal(N)
        if self.initialization == "diagonal":
            return -np.diag(np.exp(rng.standard_normal(N))), rng.standard_normal(N)
        return hippo(self.initialization, N)

    def param_groups(self) -> list[ParamGroup]:
        """A and step size: frozen or slow, no decay; the rest: the global settings."""
        rates = (1e-4, 1e-3) if self.learn else (0.0, 0.0)
        return [
            ParamGroup(("A", "B"), weight_decay=False, lr=rates[0]),
            ParamGroup(("log_dt",), weight_decay=False, lr=rates[1]),
            ParamGroup(("C", "D"), weight_decay=True),
        ]

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> DenseSystem:
        xp = arrays.namespace(params["D"])
        wide = arrays.widest_real(params["D"])
        p = arrays.tree_map(lambda x: xp.astype(x, wide, copy=False), params)
        dt = xp.exp(p["log_dt"]) * self.dt_scale
        N = self.d_state
        A = xp.broadcast_to(p["A"], (self.d_model, N, N))
        B = xp.broadcast_to(p["B"], (self.d_model, N))
        A_bar, B_bar = discretize_dense(A, B, dt, "bilinear", alpha=self.alpha)
        A_bar, B_bar = (tiled(x, self.channels) for x in (A_bar, B_bar))
        return DenseSystem(A_bar, B_bar, p["C"], p["D"])

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return the eigenvalues of A_bar per feature, (F, N) complex, sorted.

        Computed on the host in float64; exact for a triangular A (LegS, LagT), else for d_state
        up to 16 only, see ``S4.eigenvalues``.

        Raises
        ------
        SSMError
            A is not triangular and d_state is above 16; called under a tracer.
        """
        params = self._check_params(params)
        return dense_eigenvalues(self.name, self._system(params, None, None).A)
