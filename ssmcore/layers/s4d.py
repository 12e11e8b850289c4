"""S4D: diagonal state space layer.

Gu, Gupta, Goel, Re, "On the parameterization and initialization of diagonal state space models",
2022. x' = A x + B u, y = 2 Re(C x) + D u with A = diag(lambda), half of the conjugate pairs stored.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays
from ssmcore.discretization import apply_method
from ssmcore.errors import SSMError, check_choice
from ssmcore.initialization import log_uniform_timescale, nplr, s4d_eigenvalues
from ssmcore.layers._continuous import (
    check_copies,
    check_even,
    check_steps,
    complex_normal,
    half_spectrum,
    pairs,
    tiled,
)
from ssmcore.layers._options import ParamGroup, check_number, check_positive, hyperparameters
from ssmcore.layers.base import Layer
from ssmcore.systems import DiagonalSystem
from ssmcore.typing import Array, Params

__all__ = ["S4D"]


@hyperparameters
class S4D(Layer):
    """S4D: H diagonal systems, one per channel.

    lambda = -exp(A_log_real) + i A_imag, dt = dt_scale exp(log_dt),
    a = e^{dt lambda}, b = (e^{dt lambda} - 1)/lambda B (zoh), y = 2 Re(C x) + D u.

    Parameters: log_dt (H) or (H, N), A_log_real (S, N), A_imag (S, N), B (S, N, 2), C (H, N, 2),
    D (H), with N = d_state / 2 and S = n_ssm.

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        Real state size per channel, even; 32 pairs for the default 64.
    initialization : "lin", "inv", "inv2", "quad", "legs" or "real"
        Initial eigenvalues.
    discretization : "zoh" or "bilinear"
    n_ssm : int or None
        Separate copies of (A, B), tiled over the channels; None means one per channel.
    dt_min, dt_max : float
        Range of the log-uniform initial step size.
    dt_tie : bool
        One step size per channel; False gives each state its own.
    real_scale, imag_scale : float
        Factors on the initial real and imaginary parts.
    b_clip : float or None
        Bound on |Im B| for ``legs``, as in the original; None leaves B alone.
    dt_scale : float
        Factor on the step size: the input's sampling interval over that of training.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> layer = ssm.S4D(d_model=2, d_state=4)
    >>> layer(layer.init(0, dtype="float64"), np.ones((5, 2))).shape
    (5, 2)
    """

    d_state: int = 64
    initialization: str = "lin"
    discretization: str = "zoh"
    n_ssm: int | None = None
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_tie: bool = True
    real_scale: float = 1.0
    imag_scale: float = 1.0
    b_clip: float | None = 2.0
    dt_scale: float = 1.0

    INITS: ClassVar = ("lin", "inv", "inv2", "quad", "legs", "real")

    def _check_options(self) -> None:
        check_even(self.name, self.d_state)
        check_copies(self.name, self.n_ssm, self.d_model)
        check_steps(self.name, self.dt_min, self.dt_max, self.dt_scale)
        check_choice(self.name, "initialization", self.initialization, self.INITS)
        if self.b_clip is not None:
            check_positive(self.name, b_clip=self.b_clip)
        check_choice(self.name, "discretization", self.discretization, ("zoh", "bilinear"))
        check_positive(self.name, real_scale=self.real_scale)
        check_number(self.name, imag_scale=self.imag_scale)
        if self.dt_tie not in (True, False):
            msg = f"{self.name}: dt_tie is {self.dt_tie!r}; expected True or False"
            raise SSMError(msg)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        H, N = self.d_model, self.d_state // 2
        S = check_copies(self.name, self.n_ssm, H)
        return {
            "log_dt": (H,) if self.dt_tie else (H, N),
            "A_log_real": (S, N),
            "A_imag": (S, N),
            "B": (S, N, 2),
            "C": (H, N, 2),
            "D": (H,),
        }

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {"x_s4d": (H, N, 2)}."""
        return {self._state_name: (self.d_model, self.d_state // 2, 2)}

    def _draw(self, rng: np.random.Generator) -> Params:
        shapes = self.shapes()
        S, N = shapes["A_imag"]
        eigenvalues = s4d_eigenvalues(
            self.initialization,
            self.d_state,
            real_scale=self.real_scale,
            imag_scale=self.imag_scale,
        )
        B = np.ones(N)
        if self.initialization == "legs":
            B = nplr("legs", self.d_state, b_clip=self.b_clip).B
        return {
            "log_dt": log_uniform_timescale(rng, shapes["log_dt"], self.dt_min, self.dt_max),
            "A_log_real": np.tile(np.log(-eigenvalues.real), (S, 1)),
            "A_imag": np.tile(eigenvalues.imag, (S, 1)),
            "B": np.tile(pairs(B), (S, 1, 1)),
            "C": complex_normal(rng, (self.d_model, N)),
            "D": rng.standard_normal(self.d_model),
        }

    def param_groups(self) -> list[ParamGroup]:
        """Step size and dynamics: own small learning rate, no decay; C and D: the global ones."""
        return [
            ParamGroup(("log_dt", "A_log_real", "A_imag", "B"), weight_decay=False, lr=1e-3),
            ParamGroup(("C", "D"), weight_decay=True),
        ]

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> DiagonalSystem:
        copies = self.d_model // params["A_imag"].shape[0]
        dt = arrays.namespace(params["D"]).exp(params["log_dt"]) * self.dt_scale
        dt = dt[:, None] if self.dt_tie else dt
        a, gain = apply_method(tiled(half_spectrum(params), copies), dt, self.discretization)
        B = gain * tiled(arrays.join(params["B"]), copies)
        return DiagonalSystem(a, B, arrays.join(params["C"]), params["D"], pairs=True)

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return the stored eigenvalues of A_bar, (H, N) complex; their conjugates belong too."""
        self._check_params(params)
        return self._system(params, None, None).a
