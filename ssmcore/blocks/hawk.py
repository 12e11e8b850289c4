"""The recurrent block of Hawk and Griffin: RG-LRU behind a short convolution, gated.

De, Smith, Fernando, et al., "Griffin: mixing gated linear recurrences with local attention for
efficient language models", 2024, section 2.3.
"""

from __future__ import annotations

from ssmcore._arguments import check_count, check_positive
from ssmcore._options import hyperparameters
from ssmcore.blocks.activations import ACTIVATIONS, activate
from ssmcore.blocks.base import Block
from ssmcore.blocks.convolution import ShortConvolution
from ssmcore.blocks.linear import Linear
from ssmcore.composition import Composed, Pass, Running
from ssmcore.errors import check_choice
from ssmcore.layers.rglru import RGLRU
from ssmcore.typing import Array, Params, State

__all__ = ["Hawk"]


@hyperparameters
class Hawk(Block):
    """y = linear_out(rglru(conv(linear_x(u))) f(linear_y(u))).

    Parts: linear_y, linear_x (H to D), conv (K taps), rglru (width D), linear_out (D to H), all
    with biases.

    Attributes
    ----------
    d_model : int
        Channels H.
    d_rnn : int or None
        Width D of the recurrence; None means d_model.
    heads : int
        Blocks of the gates of RG-LRU.
    d_conv : int
        Taps K.
    activation : name of the activation f
    output_gain : float
        Variance of linear_out's initial weights is output_gain / D; 2 / layers in Griffin.
    a_initialization : str
        As in RGLRU.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import Hawk
    >>> hawk = Hawk(4, heads=2)
    >>> hawk(hawk.init(0), np.ones((6, 4), "float32")).shape
    (6, 4)
    """

    d_model: int
    d_rnn: int | None = None
    heads: int = 1
    d_conv: int = 4
    activation: str = "gelu_tanh"
    output_gain: float = 1.0
    a_initialization: str = "a"

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model, d_rnn=self.d_inner)
        check_choice(self.name, "activation", self.activation, ACTIVATIONS)
        check_positive(self.name, output_gain=self.output_gain)

    @property
    def d_inner(self) -> int:
        """Width D of the recurrence."""
        return self.d_model if self.d_rnn is None else self.d_rnn

    def _compose(self) -> dict[str, Composed]:
        H, D = self.d_model, self.d_inner
        into = Linear(H, D, initialization="normal")
        return {
            "linear_y": into,
            "linear_x": into,
            "conv": ShortConvolution(D, self.d_conv),
            "rglru": RGLRU(D, heads=self.heads, a_initialization=self.a_initialization),
            "linear_out": Linear(D, H, initialization="normal", gain=self.output_gain),
        }

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        run = Running(self, params, state, how)
        gate = activate(self.activation, run("linear_y", u))
        x = run("rglru", run("conv", run("linear_x", u)))
        return run("linear_out", x * gate), run.after
