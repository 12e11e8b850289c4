"""The block of S4, S5 and LRU: norm, layer, activation, gated linear unit, dropout, residual.

Gu, Goel, Re, "Efficiently modeling long sequences with structured state spaces", 2022, appendix;
Smith, Warrington, Linderman, "Simplified state space layers", 2023; Orvieto et al., "Resurrecting
recurrent neural networks for long sequences", 2023; around Mamba: Amo Alonso, Sieber, Zeilinger,
"State space models as foundation models", 2024.
"""

from __future__ import annotations

from typing import ClassVar

from ssmcore._arguments import check_flag
from ssmcore._options import hyperparameters
from ssmcore.blocks.activations import ACTIVATIONS, activate
from ssmcore.blocks.base import Block
from ssmcore.blocks.dropout import Dropout
from ssmcore.blocks.gated import GLU
from ssmcore.blocks.linear import Linear
from ssmcore.blocks.norms import norm_named
from ssmcore.composition import Composed, Pass, Running
from ssmcore.errors import SSMError, check_choice
from ssmcore.module import Module
from ssmcore.typing import Array, Params, State

__all__ = ["SSMBlock"]


@hyperparameters
class SSMBlock(Block):
    """y = u + drop(glu(drop(f(layer(norm(u)))))); ``prenorm`` False norms the sum instead.

    Parts: norm, layer, output.

    Attributes
    ----------
    layer : Module
        Any layer, or mixer such as Mamba.
    norm : Module, or "layer", "batch", "rms" or "none"
    prenorm : bool
    activation : name of the activation f
    glu : "glu", "half_glu1", "half_glu2", "linear" or "none"
        As GLU, of z = drop(f(x)), x the output of the layer; "half_glu2": x sigmoid(linear(z)).
    dropout : float
        Rate of both dropouts.
    tie_dropout : bool
        One mask for all steps.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> block = ssm.blocks.SSMBlock(ssm.S4D(4))
    >>> block(block.init(0), np.ones((6, 4), "float32")).shape
    (6, 4)
    """

    layer: Module
    norm: Module | str = "layer"
    prenorm: bool = True
    activation: str = "gelu"
    glu: str = "glu"
    dropout: float = 0.0
    tie_dropout: bool = False

    GLUS: ClassVar = (*GLU.VARIANTS, "half_glu2", "none")

    def _check_options(self) -> None:
        if not isinstance(self.layer, Module) or self.layer.tokens:
            msg = f"{self.name}: layer is {self.layer!r:.80}; expected a layer such as S4D(4)"
            raise SSMError(msg)
        check_flag(self.name, prenorm=self.prenorm)
        check_choice(self.name, "activation", self.activation, ACTIVATIONS)
        check_choice(self.name, "glu", self.glu, self.GLUS)
        if self.glu in ("none", "half_glu1", "half_glu2") and self.layer.d_output != self.d_model:
            msg = (
                f"{self.name}: the layer gives {self.layer.d_output} channels, of {self.d_model}; "
                "expected glu='glu' or 'linear', which bring them back"
            )
            raise SSMError(msg)

    @property
    def d_model(self) -> int:
        """Channels of input and output."""
        width: int = self.layer.d_model  # type: ignore[attr-defined]
        return width

    def _compose(self) -> dict[str, Composed]:
        norm = norm_named(self.name, self.norm, self.d_model)
        parts: dict[str, Composed] = {} if norm is None else {"norm": norm}
        parts["layer"] = self.layer
        width = self.layer.d_output
        if self.glu == "half_glu2":
            parts["output"] = Linear(width)
        elif self.glu != "none":
            parts["output"] = GLU(width, self.d_model, self.glu)
        if self.dropout:
            parts["inner_dropout"] = Dropout(width, self.dropout, self.tie_dropout)
            parts["dropout"] = Dropout(self.d_model, self.dropout, self.tie_dropout)
        return parts

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        run = Running(self, params, state, how)
        x = run("layer", run.optional("norm", u) if self.prenorm else u)
        z = run.optional("inner_dropout", activate(self.activation, x))
        if self.glu == "half_glu2":
            z = x * activate("sigmoid", run("output", z))
        else:
            z = run.optional("output", z)
        y = u + run.optional("dropout", z)
        return (y if self.prenorm else run.optional("norm", y)), run.after
