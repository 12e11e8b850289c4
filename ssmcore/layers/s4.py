"""S4: structured state space layer, diagonal plus low rank.

Gu, Goel, Re, "Efficiently modeling long sequences with structured state spaces", 2022; the
Hurwitz form Lambda - P P* of Goel et al., "It's raw!", 2022. x' = A x + B u,
y = 2 Re(C x) + D u, A = diag(lambda) - P P*, half of the conjugate pairs stored, bilinear rule.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays
from ssmcore.errors import check_choice
from ssmcore.initialization import log_uniform_timescale, nplr
from ssmcore.layers._continuous import (
    check_copies,
    check_even,
    check_steps,
    complex_normal,
    half_spectrum,
    pairs,
    tiled,
)
from ssmcore.layers._options import ParamGroup, check_count, check_positive, hyperparameters
from ssmcore.layers._spectrum import dense_eigenvalues
from ssmcore.layers.base import Layer
from ssmcore.systems import DPLRSystem
from ssmcore.typing import Array, Params

__all__ = ["S4"]


@hyperparameters
class S4(Layer):
    """S4: H diagonal-plus-low-rank systems, one per channel.

    lambda = -exp(A_log_real) + i A_imag, A = diag(lambda) - P P*, dt = dt_scale exp(log_dt),
    A_bar = (I - dt/2 A)^-1 (I + dt/2 A), B_bar = (I - dt/2 A)^-1 dt B, y = 2 Re(C x) + D u.

    Parameters: log_dt (H), A_log_real (S, N), A_imag (S, N), P (rank, S, N, 2), B (S, N, 2),
    C (H, N, 2), D (H), with N = d_state / 2 and S = n_ssm. C is the true output vector, whatever
    the sequence length. A is Hurwitz by construction.

    The system is formed and run in the widest float type the library offers, because the
    sensitivity of A_bar^L to rounding grows with L; inputs, outputs and states keep the dtype of
    the parameters. JAX without 64-bit types has float32 only: see the README for its error.

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        Real state size per channel, even.
    rank : int
        Rank of the correction; "legt" needs 2.
    initialization : "legs", "legt", "lagt" or "fout"
    n_ssm : int or None
        Separate copies of (A, P, B), tiled over the channels; None means one per channel.
    dt_min, dt_max : float
        Range of the log-uniform initial step size.
    deterministic : bool
        Step sizes evenly spaced in the logarithm and C = V* e_0 instead of random ones.
    b_clip : float or None
        Bound on |Im B|, as in the original; None leaves B alone.
    dt_scale : float
        Factor on the step size: the input's sampling interval over that of training.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> layer = ssm.S4(d_model=2, d_state=8)
    >>> layer(layer.init(0, dtype="float64"), np.ones((5, 2))).shape
    (5, 2)
    """

    d_state: int = 64
    rank: int = 1
    initialization: str = "legs"
    n_ssm: int | None = None
    dt_min: float = 1e-3
    dt_max: float = 0.1
    deterministic: bool = False
    b_clip: float | None = 2.0
    dt_scale: float = 1.0

    INITS: ClassVar = ("legs", "legt", "lagt", "fout")

    def _check_options(self) -> None:
        check_even(self.name, self.d_state)
        check_count(self.name, rank=self.rank)
        check_copies(self.name, self.n_ssm, self.d_model)
        check_steps(self.name, self.dt_min, self.dt_max, self.dt_scale)
        check_choice(self.name, "initialization", self.initialization, self.INITS)
        if self.b_clip is not None:
            check_positive(self.name, b_clip=self.b_clip)
        if self.initialization == "legt":
            nplr("legt", 2, self.rank)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        H, N = self.d_model, self.d_state // 2
        S = check_copies(self.name, self.n_ssm, H)
        return {
            "log_dt": (H,),
            "A_log_real": (S, N),
            "A_imag": (S, N),
            "P": (self.rank, S, N, 2),
            "B": (S, N, 2),
            "C": (H, N, 2),
            "D": (H,),
        }

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {"x_s4": (H, N, 2)}."""
        return {self._state_name: (self.d_model, self.d_state // 2, 2)}

    def _draw(self, rng: np.random.Generator) -> Params:
        H, N = self.d_model, self.d_state // 2
        S = check_copies(self.name, self.n_ssm, H)
        form = nplr(self.initialization, self.d_state, self.rank, b_clip=self.b_clip)
        decay = np.maximum(-form.Lambda.real, 1e-4)  # LegT, LagT, FouT: 0, which exp cannot reach
        return {
            "log_dt": np.linspace(np.log(self.dt_min), np.log(self.dt_max), H)
            if self.deterministic
            else log_uniform_timescale(rng, (H,), self.dt_min, self.dt_max),
            "A_log_real": np.tile(np.log(decay), (S, 1)),
            "A_imag": np.tile(form.Lambda.imag, (S, 1)),
            "P": np.tile(pairs(form.P)[:, None], (1, S, 1, 1)),
            "B": np.tile(pairs(form.B), (S, 1, 1)),
            "C": np.tile(pairs(np.conj(form.V[0])), (H, 1, 1))
            if self.deterministic
            else complex_normal(rng, (H, N)),
            "D": rng.standard_normal(H),
        }

    def param_groups(self) -> list[ParamGroup]:
        """Step size and dynamics: own small learning rate, no decay; C and D: the global ones."""
        dynamics = ("log_dt", "A_log_real", "A_imag", "P", "B")
        return [
            ParamGroup(dynamics, weight_decay=False, lr=1e-3),
            ParamGroup(("C", "D"), weight_decay=True),
        ]

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> DPLRSystem:
        xp = arrays.namespace(params["D"])
        wide = arrays.widest_real(params["D"])
        p = arrays.tree_map(lambda x: xp.astype(x, wide, copy=False), params)
        copies = self.d_model // p["A_imag"].shape[0]
        return DPLRSystem(
            dt=xp.exp(p["log_dt"]) * self.dt_scale,
            Lambda=tiled(half_spectrum(p), copies),
            P=tiled(arrays.join(p["P"]), copies, axis=1),
            B=tiled(arrays.join(p["B"]), copies),
            C=arrays.join(p["C"]),
            D=p["D"],
        )

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return all d_state eigenvalues of A_bar per channel, (H, 2N) complex, sorted.

        Computed on the host in float64, for d_state up to 16 only: the diagonaliser of a HiPPO
        matrix has entries near 2^(4 d_state / 3) (S4, Lemma 3.2), so that beyond nothing of the
        result would be right. ``system(params).Lambda`` is the normal part at every size.

        Raises
        ------
        SSMError
            d_state above 16; called under ``jax.jit`` or another tracer.
        """
        self._check_params(params)
        return dense_eigenvalues(self.name, self._system(params, None, None).dense().A)
