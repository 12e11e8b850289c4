"""Gated linear units and gated MLPs.

Dauphin et al., "Language modeling with gated convolutional networks", 2017 (GLU); the half variants
are those of S5's code; the gated MLP that of De et al., "Griffin", 2024, section 2.1.
"""

from __future__ import annotations

from typing import ClassVar

from ssmcore._arguments import check_count, check_flag, check_positive
from ssmcore._options import hyperparameters
from ssmcore.blocks.activations import ACTIVATIONS, activate
from ssmcore.blocks.base import Block
from ssmcore.blocks.linear import Linear
from ssmcore.composition import Composed, Pass, Running
from ssmcore.errors import SSMError, check_choice
from ssmcore.typing import Array, Params, State

__all__ = ["GLU", "GatedMLP"]


@hyperparameters
class GLU(Block):
    """What follows a layer: z to y, with parts {"linear"}.

    "glu": [a, b] = linear(z), y = a sigmoid(b) (S4; full_glu of S5); "half_glu1": y = z
    sigmoid(linear(z)); "linear": y = linear(z).

    Attributes
    ----------
    d_model : int
        Channels of z.
    d_out : int or None
        Channels of y; None means d_model.
    variant : "glu", "half_glu1" or "linear"

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import GLU
    >>> glu = GLU(4)
    >>> params = glu.init(0)
    >>> params["linear"]["weight"].shape, glu(params, np.ones((3, 4), "float32")).shape
    ((8, 4), (3, 4))
    """

    d_model: int
    d_out: int | None = None
    variant: str = "glu"

    VARIANTS: ClassVar = ("glu", "half_glu1", "linear")

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model, d_out=self.d_output)
        check_choice(self.name, "variant", self.variant, self.VARIANTS)
        if self.variant == "half_glu1" and self.d_output != self.d_model:
            msg = f"{self.name}: d_out is {self.d_output}; expected d_model = {self.d_model}"
            raise SSMError(msg)

    @property
    def d_output(self) -> int:
        """Channels of the output."""
        return self.d_model if self.d_out is None else self.d_out

    def _compose(self) -> dict[str, Composed]:
        width = 2 * self.d_output if self.variant == "glu" else self.d_output
        return {"linear": Linear(self.d_model, width)}

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        run = Running(self, params, state, how)
        y = run("linear", u)
        if self.variant == "glu":
            y = y[..., : self.d_output] * activate("sigmoid", y[..., self.d_output :])
        elif self.variant == "half_glu1":
            y = u * activate("sigmoid", y)
        return y, run.after


@hyperparameters
class GatedMLP(Block):
    """y = down(f(gate(u)) up(u)).

    Attributes
    ----------
    d_model : int
        Channels H.
    d_hidden : int
        Channels between; 3 H in Griffin.
    activation : name of the activation f
    bias : bool
    gain : float
        Variance of the initial weights of ``down`` is gain / d_hidden; 2 / layers in Griffin.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import GatedMLP
    >>> mlp = GatedMLP(4, 12)
    >>> mlp(mlp.init(0), np.ones((3, 4), "float32")).shape
    (3, 4)
    """

    d_model: int
    d_hidden: int
    activation: str = "gelu_tanh"
    bias: bool = True
    gain: float = 1.0

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model, d_hidden=self.d_hidden)
        check_choice(self.name, "activation", self.activation, ACTIVATIONS)
        check_flag(self.name, bias=self.bias)
        check_positive(self.name, gain=self.gain)

    def _compose(self) -> dict[str, Composed]:
        into = Linear(self.d_model, self.d_hidden, self.bias, "normal")
        down = Linear(self.d_hidden, self.d_model, self.bias, "normal", self.gain)
        return {"gate": into, "up": into, "down": down}

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        run = Running(self, params, state, how)
        hidden = activate(self.activation, run("gate", u)) * run("up", u)
        return run("down", hidden), run.after
