"""The Mamba mixer: a selective state space layer behind a short convolution, gated.

Gu, Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023, section 3.4.
"""

from __future__ import annotations

from ssmcore._arguments import check_count, check_flag, check_positive
from ssmcore._options import hyperparameters
from ssmcore.blocks.activations import activate
from ssmcore.blocks.base import Block
from ssmcore.blocks.convolution import ShortConvolution
from ssmcore.blocks.linear import Linear
from ssmcore.composition import Composed, Pass, Running
from ssmcore.layers.s6 import S6
from ssmcore.typing import Array, Params, State

__all__ = ["Mamba"]


@hyperparameters
class Mamba(Block):
    """(x, z) = in_proj(u), x = silu(conv(x)), y = out_proj(ssm(x) silu(z)).

    Parts: in_proj (H to 2D), conv (K taps), ssm (S6 of width D), out_proj (D to H), with
    D = expand H.

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        States N per inner channel.
    d_conv : int
        Taps K.
    expand : float
    dt_rank : int or None
        Rank R of the step size; None means ceil(H / 16).
    conv_bias, bias : bool
        Whether the convolution, and both projections, have a bias.
    output_gain : float
        Factor on the variance of out_proj's initial weights; 1 / layers in Mamba's models.
    dt_min, dt_max, dt_init_floor, dt_init_scale, dt_initialization
        As in S6.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import Mamba
    >>> mamba = Mamba(4)
    >>> mamba(mamba.init(0), np.ones((6, 4), "float32")).shape
    (6, 4)
    """

    d_model: int
    d_state: int = 16
    d_conv: int = 4
    expand: float = 2
    dt_rank: int | None = None
    conv_bias: bool = True
    bias: bool = False
    output_gain: float = 1.0
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_init_floor: float = 1e-4
    dt_init_scale: float = 1.0
    dt_initialization: str = "random"

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model)
        check_positive(self.name, expand=self.expand, output_gain=self.output_gain)
        check_count(self.name, **{"expand d_model": self.d_inner})
        check_flag(self.name, conv_bias=self.conv_bias, bias=self.bias)
        self._ssm()

    @property
    def d_inner(self) -> int:
        """Inner width D."""
        return int(self.expand * self.d_model)

    def _ssm(self) -> S6:
        rank = -(-self.d_model // 16) if self.dt_rank is None else self.dt_rank
        return S6(
            self.d_inner,
            d_state=self.d_state,
            dt_rank=rank,
            dt_min=self.dt_min,
            dt_max=self.dt_max,
            dt_init_floor=self.dt_init_floor,
            dt_init_scale=self.dt_init_scale,
            dt_initialization=self.dt_initialization,
        )

    def _compose(self) -> dict[str, Composed]:
        D = self.d_inner
        return {
            "in_proj": Linear(self.d_model, 2 * D, self.bias),
            "conv": ShortConvolution(D, self.d_conv, self.conv_bias, "silu"),
            "ssm": self._ssm(),
            "out_proj": Linear(D, self.d_model, self.bias, gain=self.output_gain),
        }

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        run = Running(self, params, state, how)
        both = run("in_proj", u)
        x, z = both[..., : self.d_inner], both[..., self.d_inner :]
        y = run("ssm", run("conv", x))
        gate = how.steps.get("gate", _gate)
        return run("out_proj", gate(y, z)), run.after


def _gate(y: Array, z: Array) -> Array:
    return y * activate("silu", z)
