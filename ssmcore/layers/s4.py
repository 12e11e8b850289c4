"""S4: structured state space layer, diagonal plus low rank.

Gu, Goel, Re, "Efficiently modeling long sequences with structured state spaces", 2022; the
Hurwitz form Lambda - P P* of Goel et al., "It's raw!", 2022. x' = A x + B u,
y = 2 Re(C x) + D u, A = diag(lambda) - P P*, half of the conjugate pairs stored, bilinear rule.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays
from ssmcore._options import check_count, hyperparameters
from ssmcore.initialization import NPLR, low_rank_correction, nplr, s4d_eigenvalues
from ssmcore.layers._continuous import check_copies
from ssmcore.layers._per_channel import PerChannel
from ssmcore.layers._spectrum import dense_eigenvalues
from ssmcore.systems import DPLRSystem
from ssmcore.typing import Array, Params

__all__ = ["S4"]

NORMAL_PLUS_LOW_RANK = (
    "legs", "legt", "lagt", "fout", "legsd", "foud", "fourier_decay", "fourier2"
)  # fmt: skip
DIAGONAL = ("diag-lin", "diag-inv", "diag-inv2", "diag-quad", "diag-legs", "diag-real")


@hyperparameters
class S4(PerChannel):
    """S4: H diagonal-plus-low-rank systems, one per channel.

    lambda = -exp(A_log_real) + i A_imag, A = diag(lambda) - P P*, dt = dt_scale exp(log_dt),
    A_bar = (I - dt/2 A)^-1 (I + dt/2 A), B_bar = (I - dt/2 A)^-1 dt B, y = 2 Re(C x) + D u.

    Parameters: log_dt (H) or (H, N), A_log_real (S, N), A_imag (S, N), P (rank, S, N, 2),
    B (S, N, 2), C (F, N, 2), D (F), with N = d_state / 2, S = n_ssm, F = channels H. C is the true
    output vector, whatever the sequence length. A is Hurwitz by construction. With a transform f
    other than the default, log_dt, A_log_real and A_imag hold f^-1 of their quantity.

    The system is formed and run in the widest float type the library offers, because the
    sensitivity of A_bar^L to rounding grows with L; inputs, outputs and states keep the dtype of
    the parameters. JAX without 64-bit types has float32 only: see the README for its error.

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        Real state size per channel, even.
    initialization : str
        "legs", "legt" (rank 2), "lagt", "fout", "legsd", "foud", "fourier_decay", "fourier2", see
        `ssmcore.initialization.hippo`; "diag-lin", "diag-inv", "diag-inv2", "diag-quad",
        "diag-legs", "diag-real", the spectra of S4D with P = 0 (P stays a parameter); or the
        sets "hippo" (legs, fout), "diag" (inv, lin), "all" (both), shared out over the copies.
    n_ssm : int or None
        Separate copies S of (A, P, B), tiled over the channels; None means one per channel.
    channels : int
        Outputs per channel: y is (..., L, channels H), channel-major. A and B are shared.
    dt_min, dt_max : float
        Range of the log-uniform initial step size.
    dt_tie : bool
        One step size per channel; False gives each state its own: x' = T (A x + B u) with
        T = diag(dt). The state is then T^-1/2 x.
    dt_transform, real_transform, imag_transform : str
        How dt, -Re lambda, Im lambda come from what is stored: "exp", "softplus", "relu"
        (max(x, 0) + 1e-4), "sigmoid", and, but for dt, "none". With real_transform="none" nothing
        keeps Re lambda negative.
    deterministic : bool
        Step sizes evenly spaced in the logarithm and C = V* e_0 instead of random ones.
    b_clip : float or None
        Bound on |Im B|, as in the original; None leaves B alone.
    dt_scale : float
        Factor on the step size: the input's sampling interval over that of training.
    rank : int
        Rank of the correction; "legt" needs 2.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> layer = ssm.S4(d_model=2, d_state=8)
    >>> layer(layer.init(0, dtype="float64"), np.ones((5, 2))).shape
    (5, 2)
    """

    initialization: str = "legs"
    rank: int = 1

    open_lengths = False

    INITS: ClassVar = (*NORMAL_PLUS_LOW_RANK, *DIAGONAL)
    SETS: ClassVar = {
        "hippo": ("legs", "fout"),
        "diag": ("diag-inv", "diag-lin"),
        "all": ("legs", "fout", "diag-inv", "diag-lin"),
    }

    def _check_options(self) -> None:
        super()._check_options()
        check_count(self.name, rank=self.rank)
        if self.initialization == "legt":
            low_rank_correction("legt", 2, self.rank)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        shapes = super().shapes()
        return shapes | {"P": (self.rank, *shapes["B"])}

    def _draw(self, rng: np.random.Generator) -> Params:
        share = check_copies(self.name, self.n_ssm, self.d_model) // len(self._members)
        forms = [form for name in self._members for form in [self._form(name)] * share]
        Lambda, B, e_0 = (
            np.stack(x) for x in zip(*((f.Lambda, f.B, f.V[0].conj()) for f in forms), strict=True)
        )
        P = np.stack([f.P for f in forms], axis=1)
        return {**self._start(rng, Lambda, B, e_0), "P": arrays.split(P)}

    def _form(self, name: str) -> NPLR:
        """Return (Lambda, P, B, V) of one copy."""
        if name.startswith("diag-"):
            form = nplr("legs", self.d_state, self.rank, b_clip=self.b_clip)
            B = form.B if name == "diag-legs" else np.ones_like(form.B)
            Lambda = s4d_eigenvalues(name.removeprefix("diag-"), self.d_state)
            return NPLR(
                Lambda, np.zeros_like(form.P), B, np.eye(*form.V.shape, dtype=np.complex128)
            )
        return nplr(name, self.d_state, self.rank, b_clip=self.b_clip)

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> DPLRSystem:
        xp = arrays.namespace(params["D"])
        wide = arrays.widest_real(params["D"])
        p = arrays.tree_map(lambda x: xp.astype(x, wide, copy=False), params)
        dt, Lambda, C = self._dt(p), self._Lambda(p), arrays.join(p["C"])
        P, B = self._rows(arrays.join(p["P"]), axis=1), self._rows(arrays.join(p["B"]))
        if not self.dt_tie:  # T^-1/2 (T A) T^1/2 = T Lambda - (T^1/2 P)(T^1/2 P)*
            root = xp.sqrt(dt)
            Lambda, P, B, C = dt * Lambda, root * P, root * B, C * root
            dt = xp.ones_like(dt[:, 0])
        return DPLRSystem(dt=dt, Lambda=Lambda, P=P, B=B, C=C, D=p["D"])

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return all d_state eigenvalues of A_bar per feature, (F, 2N) complex, sorted.

        Computed on the host in float64, for d_state up to 16 only: the diagonaliser of a HiPPO
        matrix has entries near 2^(4 d_state / 3) (S4, Lemma 3.2), so that beyond nothing of the
        result would be right. ``system(params).Lambda`` is the normal part at every size.

        Raises
        ------
        SSMError
            d_state above 16; called under ``jax.jit`` or another tracer.
        """
        params = self._check_params(params)
        return dense_eigenvalues(self.name, self._system(params, None, None).dense().A)
