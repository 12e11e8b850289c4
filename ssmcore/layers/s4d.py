"""S4D: diagonal state space layer.

Gu, Gupta, Goel, Re, "On the parameterization and initialization of diagonal state space models",
2022. x' = A x + B u, y = 2 Re(C x) + D u with A = diag(lambda), half of the conjugate pairs stored.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays, backend, modes
from ssmcore._options import check_number, check_positive, hyperparameters
from ssmcore.discretization import apply_method
from ssmcore.errors import SSMError, check_choice
from ssmcore.initialization import nplr, s4d_eigenvalues, s4d_input_vector
from ssmcore.layers._continuous import check_copies, check_flag
from ssmcore.layers._per_channel import PerChannel
from ssmcore.layers._transforms import transform
from ssmcore.systems import DiagonalSystem
from ssmcore.typing import Array, Params

__all__ = ["S4D"]


@hyperparameters
class S4D(PerChannel):
    """S4D: H diagonal systems, one per channel.

    lambda = -exp(A_log_real) + i A_imag, dt = dt_scale exp(log_dt),
    a = e^{dt lambda}, b = (e^{dt lambda} - 1)/lambda B (zoh), y = 2 Re(C x) + D u.

    Parameters: log_dt (H) or (H, N), A_log_real (S, N), A_imag (S, N), B (S, N, 2), C (F, N, 2),
    D (F), with N = d_state / 2, S = n_ssm, F = channels H. With ``is_real`` all is real: no A_imag,
    B (S, N), C (F, N), N = d_state, y = C x + D u. With a transform f other than the default,
    log_dt, A_log_real and A_imag hold f^-1 of their quantity.

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        Real state size per channel, even; 32 pairs for the default 64.
    initialization : "lin", "inv", "inv2", "quad", "legs", "real", "rand" or "diag"
        Initial eigenvalues, see `ssmcore.initialization.s4d_eigenvalues`; "diag" is the set of
        inv and lin, shared out over the copies.
    n_ssm : int or None
        Separate copies S of (A, B), tiled over the channels; None means one per channel.
    channels : int
        Outputs per channel: y is (..., L, channels H), channel-major. A and B are shared.
    dt_min, dt_max : float
        Range of the log-uniform initial step size.
    dt_tie : bool
        One step size per channel; False gives each state its own.
    dt_transform, real_transform, imag_transform : str
        How dt, -Re lambda, Im lambda come from what is stored: "exp", "softplus", "relu"
        (max(x, 0) + 1e-4), "sigmoid", and, but for dt, "none". With real_transform="none" nothing
        keeps Re lambda negative.
    deterministic : bool
        Step sizes evenly spaced in the logarithm and C = V* e_0 instead of random ones; V is the
        identity but for "legs".
    b_clip : float or None
        Bound on |Im B| for "legs", as in the original; None leaves B alone.
    dt_scale : float
        Factor on the step size: the input's sampling interval over that of training.
    discretization : "zoh" or "bilinear"
    b_initialization : "constant", "random", "alternating", "unit-cw" or "unit-ccw"
        Initial B, see `ssmcore.initialization.s4d_input_vector`; "legs" has its own.
    real_scale, imag_scale : float
        Factors on the initial real and imaginary parts.
    real_random, imag_random : bool
        Random initial parts instead of the fixed ones.
    is_real : bool
        Real eigenvalues, states and output vectors, without a factor 2; needs "real".

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> layer = ssm.S4D(d_model=2, d_state=4)
    >>> layer(layer.init(0, dtype="float64"), np.ones((5, 2))).shape
    (5, 2)
    """

    initialization: str = "lin"
    discretization: str = "zoh"
    b_initialization: str = "constant"
    real_scale: float = 1.0
    imag_scale: float = 1.0
    real_random: bool = False
    imag_random: bool = False
    is_real: bool = False

    INITS: ClassVar = ("lin", "inv", "inv2", "quad", "legs", "real", "rand")
    SETS: ClassVar = {"diag": ("inv", "lin")}

    def _check_options(self) -> None:
        super()._check_options()
        if self.discretization == "dss":
            msg = (
                f"{self.name}: discretization is 'dss', which normalises the kernel by a sum over "
                "the sequence: no state space system has it; expected 'zoh' or 'bilinear'"
            )
            raise SSMError(msg)
        check_choice(self.name, "discretization", self.discretization, ("zoh", "bilinear"))
        s4d_input_vector(self.b_initialization, 2, rng=np.random.default_rng(0))
        check_positive(self.name, real_scale=self.real_scale)
        check_number(self.name, imag_scale=self.imag_scale)
        check_flag(self.name, real_random=self.real_random, imag_random=self.imag_random)
        check_flag(self.name, is_real=self.is_real)
        if self.is_real and self.initialization != "real":
            msg = (
                f"{self.name}: is_real is True with initialization {self.initialization!r}; "
                "expected initialization 'real'"
            )
            raise SSMError(msg)

    @property
    def _stored(self) -> int:
        return self.d_state if self.is_real else self.d_state // 2

    def _parallel_mode(self, params: Params, u: Array) -> str:
        library = backend.of(u)
        if library.leaves_open(u.shape[-2]):
            return "convolution" if library.open_transforms else "scan"
        way = modes.key(library, u, *(x for _, x in arrays.leaves(params)))
        known = [n for n in u.shape[:-2] if not library.leaves_open(n)]
        shape = (math.prod(known), u.shape[-2], self.d_model * self.channels, self._stored)
        return modes.faster_mode(way, shape)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        shapes = super().shapes()
        if self.is_real:
            del shapes["A_imag"]
            shapes |= {"B": shapes["B"][:-1], "C": shapes["C"][:-1]}
        return shapes

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {"x_s4d": (F, N, 2)}, or (F, N) when ``is_real``."""
        states = super().state_shapes()
        return {k: s[:-1] for k, s in states.items()} if self.is_real else states

    def _draw(self, rng: np.random.Generator) -> Params:
        share = check_copies(self.name, self.n_ssm, self.d_model) // len(self._members)
        copies = [copy for name in self._members for copy in self._copies(name, share, rng)]
        Lambda, B, e_0 = (np.stack(x) for x in zip(*copies, strict=True))
        params = self._start(rng, Lambda, B, e_0)
        if self.is_real:
            del params["A_imag"]
            unit = 1.0 if self.deterministic else np.sqrt(2.0)  # variance 1 in one part
            params |= {"B": params["B"][..., 0], "C": params["C"][..., 0] * unit}
        return params

    def _copies(self, name: str, share: int, rng: np.random.Generator) -> list[Any]:
        """Return ``share`` copies of an initialisation, each with its own random numbers."""
        random = self.real_random or self.imag_random or self.b_initialization == "random"
        if random or name == "rand":
            return [self._copy(name, rng) for _ in range(share)]
        return [self._copy(name, rng)] * share

    def _copy(self, name: str, rng: np.random.Generator) -> tuple[Any, Any, Any]:
        """Return Lambda, B and V* e_0 (N) of one copy."""
        size = 2 * self._stored
        Lambda = s4d_eigenvalues(
            name,
            size,
            real_scale=self.real_scale,
            imag_scale=self.imag_scale,
            real_random=self.real_random,
            imag_random=self.imag_random,
            rng=rng,
        )
        if name == "legs":
            form = nplr("legs", size, b_clip=self.b_clip)
            return Lambda, form.B, form.V[0].conj()
        B = s4d_input_vector(self.b_initialization, size, rng=rng)
        return Lambda, B, np.eye(1, self._stored, dtype=complex)[0]

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> DiagonalSystem:
        dt = self._dt(params)
        dt = dt[:, None] if self.dt_tie else dt
        Lambda, B, C = self._continuous(params)
        a, gain = apply_method(Lambda, dt, self.discretization)
        return DiagonalSystem(a, gain * B, C, params["D"], pairs=not self.is_real)

    def _continuous(self, params: Params) -> tuple[Array, Array, Array]:
        """Return lambda, B, C (F, N), real when ``is_real``."""
        if self.is_real:
            decay = transform(params["A_log_real"], self.real_transform)
            return self._rows(-decay), self._rows(params["B"]), params["C"]
        return self._Lambda(params), self._rows(arrays.join(params["B"])), arrays.join(params["C"])

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return the stored eigenvalues of A_bar, (F, N); if complex, their conjugates too."""
        params = self._check_params(params)
        return self._system(params, None, None).a
