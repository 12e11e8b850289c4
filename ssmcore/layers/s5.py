"""S5: one diagonal multi-input multi-output system.

Smith, Warrington, Linderman, "Simplified state space layers for sequence modeling", 2023.
x' = Lambda x + B u, y = 2 Re(C x) + D u with half of the conjugate pairs (``conj_sym``).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays
from ssmcore._options import ParamGroup, check_count, hyperparameters
from ssmcore.discretization import apply_method
from ssmcore.errors import SSMError, check_choice
from ssmcore.initialization import (
    log_uniform_timescale,
    s5_hippo_blocks,
    s5_input_matrix,
    s5_output_matrix,
)
from ssmcore.layers._continuous import check_flag, check_steps
from ssmcore.layers.base import Layer
from ssmcore.systems import DiagonalSystem
from ssmcore.typing import Array, Params

__all__ = ["S5"]


@hyperparameters
class S5(Layer):
    """S5: one diagonal system from all channels to all channels.

    lambda = Lambda_re + i Lambda_im, dt = dt_scale exp(log_dt), per state;
    a = e^{dt lambda}, b = (e^{dt lambda} - 1)/lambda B (zoh); y = 2 Re(C x) + D u, without the 2
    when ``conj_sym`` is False. Parameters: log_dt (P), Lambda_re (P), Lambda_im (P), B (P, H, 2),
    C (H, P, 2), D (H); P = d_state / 2 with ``conj_sym``, else d_state.

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        Full state size before conjugate halving.
    blocks : int or None
        Blocks J of the block-diagonal HiPPO-N initialisation; must divide d_state. None means 8,
        as in the original, or 4, 2, 1 where d_state is not a multiple of that.
    conj_sym : bool
        Store half of the conjugate pairs.
    clip_eigs : bool
        Keep Re lambda <= -1e-4 in every call; without it nothing bounds Re lambda (as published).
    discretization : "zoh" or "bilinear"
    output_initialization : "trunc_standard_normal", "lecun_normal" or "complex_normal"
        How C is drawn.
    dt_min, dt_max : float
        Range of the log-uniform initial step size.
    dt_scale : float
        Factor on the step size (``step_rescale`` of the original).

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> layer = ssm.S5(d_model=2, d_state=8, blocks=2)
    >>> layer(layer.init(0, dtype="float64"), np.ones((5, 2))).shape
    (5, 2)
    """

    d_state: int = 256
    blocks: int | None = None
    conj_sym: bool = True
    clip_eigs: bool = False
    discretization: str = "zoh"
    output_initialization: str = "trunc_standard_normal"
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_scale: float = 1.0

    OUTPUTS: ClassVar = ("trunc_standard_normal", "lecun_normal", "complex_normal")

    def _parallel_mode(self, params: Params, u: Array) -> str:
        return "scan"

    def _check_options(self) -> None:
        check_flag(self.name, conj_sym=self.conj_sym, clip_eigs=self.clip_eigs)
        check_count(self.name, d_state=self.d_state)
        check_count(self.name, blocks=self._blocks)
        check_steps(self.name, self.dt_min, self.dt_max, self.dt_scale)
        check_choice(self.name, "discretization", self.discretization, ("zoh", "bilinear"))
        check_choice(self.name, "output_initialization", self.output_initialization, self.OUTPUTS)
        least = self._blocks * self._block_unit
        if self.d_state % least:
            msg = (
                f"{self.name}: d_state is {self.d_state}; expected a multiple of {least} for "
                f"{self._blocks} block(s)" + (" of conjugate pairs" if self.conj_sym else "")
            )
            raise SSMError(msg)

    @property
    def _block_unit(self) -> int:
        return 2 if self.conj_sym else 1

    @property
    def _blocks(self) -> int:
        if self.blocks is not None:
            return self.blocks
        fitting = (J for J in (8, 4, 2) if self.d_state % (J * self._block_unit) == 0)
        return next(fitting, 1)

    @property
    def _stored(self) -> int:
        return self.d_state // 2 if self.conj_sym else self.d_state

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        H, P = self.d_model, self._stored
        return {
            "log_dt": (P,),
            "Lambda_re": (P,),
            "Lambda_im": (P,),
            "B": (P, H, 2),
            "C": (H, P, 2),
            "D": (H,),
        }

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {"x_s5": (P, 2)}."""
        return {self._state_name: (self._stored, 2)}

    def _draw(self, rng: np.random.Generator) -> Params:
        Lambda, V, Vinv = s5_hippo_blocks(self.d_state, self._blocks, self.conj_sym)
        H = self.d_model
        return {
            "log_dt": log_uniform_timescale(rng, (self._stored,), self.dt_min, self.dt_max),
            "Lambda_re": Lambda.real,
            "Lambda_im": Lambda.imag,
            "B": arrays.split(s5_input_matrix(rng, Vinv, H)),
            "C": arrays.split(s5_output_matrix(rng, V, H, self.output_initialization)),
            "D": rng.standard_normal(H),
        }

    def param_groups(self) -> list[ParamGroup]:
        """B, Lambda, step size: own learning rate, no decay; C and D: the global settings."""
        dynamics = ("log_dt", "Lambda_re", "Lambda_im", "B")
        return [
            ParamGroup(dynamics, weight_decay=False, lr=1e-3),
            ParamGroup(("C", "D"), weight_decay=True),
        ]

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> DiagonalSystem:
        xp = arrays.namespace(params["D"])
        real = params["Lambda_re"]
        if self.clip_eigs:
            real = xp.where(real < -1e-4, real, xp.full_like(real, -1e-4))
        dt = xp.exp(params["log_dt"]) * self.dt_scale
        a, gain = apply_method(real + params["Lambda_im"] * 1j, dt, self.discretization)
        B = gain[:, None] * arrays.join(params["B"])
        return DiagonalSystem(a, B, arrays.join(params["C"]), params["D"], pairs=self.conj_sym)

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return the stored eigenvalues of A_bar, (P,) complex."""
        params = self._check_params(params)
        return self._system(params, None, None).a
