"""What S4 and S4D share: one continuous system a channel, and how it is stored and started."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays
from ssmcore._options import ParamGroup, check_count, check_positive, hyperparameters
from ssmcore.errors import SSMError, check_choice
from ssmcore.initialization import log_uniform_timescale
from ssmcore.layers._continuous import (
    check_copies,
    check_even,
    check_flag,
    check_steps,
    complex_normal,
    tiled,
)
from ssmcore.layers._transforms import TRANSFORMS, inverse, transform
from ssmcore.layers.base import Layer
from ssmcore.typing import Array, Params

__all__ = ["PerChannel"]


@hyperparameters
class PerChannel(Layer):
    """Options and parameters that S4 and S4D have in common; see there.

    F = channels H features leave the layer: feature f reads input channel f mod H and row f mod S
    of the n_ssm = S copies of (A, B).
    """

    d_state: int = 64
    initialization: str = ""
    n_ssm: int | None = None
    channels: int = 1
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_tie: bool = True
    dt_transform: str = "exp"
    real_transform: str = "exp"
    imag_transform: str = "none"
    deterministic: bool = False
    b_clip: float | None = 2.0
    dt_scale: float = 1.0

    INITS: ClassVar[tuple[str, ...]] = ()
    SETS: ClassVar[dict[str, tuple[str, ...]]] = {}

    def _check_options(self) -> None:
        check_even(self.name, self.d_state)
        check_count(self.name, channels=self.channels)
        copies = check_copies(self.name, self.n_ssm, self.d_model)
        check_steps(self.name, self.dt_min, self.dt_max, self.dt_scale)
        check_choice(self.name, "initialization", self.initialization, (*self.INITS, *self.SETS))
        if copies % len(self._members):
            msg = (
                f"{self.name}: n_ssm is {copies}; expected a multiple of {len(self._members)}, for "
                f"initialization {self.initialization!r} is {' and '.join(self._members)}"
            )
            raise SSMError(msg)
        check_choice(self.name, "dt_transform", self.dt_transform, TRANSFORMS[:-1])
        check_choice(self.name, "real_transform", self.real_transform, TRANSFORMS)
        check_choice(self.name, "imag_transform", self.imag_transform, TRANSFORMS)
        check_flag(self.name, dt_tie=self.dt_tie, deterministic=self.deterministic)
        if self.b_clip is not None:
            check_positive(self.name, b_clip=self.b_clip)

    @property
    def d_output(self) -> int:
        """Channels of the output, ``channels`` H."""
        return self.channels * self.d_model

    @property
    def _members(self) -> tuple[str, ...]:
        """The initialisations that share the copies."""
        return self.SETS.get(self.initialization, (self.initialization,))

    @property
    def _stored(self) -> int:
        """States stored a feature, N."""
        return self.d_state // 2

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        H, F, N = self.d_model, self.d_output, self._stored
        S = check_copies(self.name, self.n_ssm, H)
        return {
            "log_dt": (H,) if self.dt_tie else (H, N),
            "A_log_real": (S, N),
            "A_imag": (S, N),
            "B": (S, N, 2),
            "C": (F, N, 2),
            "D": (F,),
        }

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of x, (F, N, 2)."""
        return {self._state_name: (self.d_output, self._stored, 2)}

    def param_groups(self) -> list[ParamGroup]:
        """Step size and dynamics: own small learning rate, no decay; C and D: the global ones."""
        dynamics = tuple(name for name in self.shapes() if name not in ("C", "D"))
        return [
            ParamGroup(dynamics, weight_decay=False, lr=1e-3),
            ParamGroup(("C", "D"), weight_decay=True),
        ]

    def _start(
        self, rng: np.random.Generator, Lambda: Any, B: Any, e_0: Any
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return initial parameters for Lambda, B, V* e_0 (S, N), in float64 NumPy."""
        F, N = self.d_output, self._stored
        return {
            "log_dt": self._start_log_dt(rng),
            "A_log_real": inverse("A_log_real", -Lambda.real, self.real_transform),
            "A_imag": inverse("A_imag", Lambda.imag, self.imag_transform),
            "B": arrays.split(B),
            "C": np.tile(arrays.split(e_0), (F // len(e_0), 1, 1))
            if self.deterministic
            else complex_normal(rng, (F, N)),
            "D": rng.standard_normal(F),
        }

    def _start_log_dt(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        shape = self.shapes()["log_dt"]
        if self.deterministic:
            steps = np.linspace(np.log(self.dt_min), np.log(self.dt_max), self.d_model)
            log_dt = np.broadcast_to(steps if self.dt_tie else steps[:, None], shape)
        else:
            log_dt = log_uniform_timescale(rng, shape, self.dt_min, self.dt_max)
        kind = self.dt_transform
        return log_dt if kind == "exp" else inverse("log_dt", np.exp(log_dt), kind)

    def _dt(self, params: Params) -> Array:
        """Return the step sizes, (F,) or (F, N)."""
        return self._rows(transform(params["log_dt"], self.dt_transform) * self.dt_scale)

    def _Lambda(self, params: Params) -> Array:
        """Return lambda = -f(A_log_real) + i g(A_imag), (F, N)."""
        real = transform(params["A_log_real"], self.real_transform)
        return self._rows(transform(params["A_imag"], self.imag_transform) * 1j - real)

    def _rows(self, x: Array, axis: int = 0) -> Array:
        """Repeat ``x`` along ``axis`` to F rows: feature f uses row f mod its size."""
        return tiled(x, self.d_output // x.shape[axis], axis)
