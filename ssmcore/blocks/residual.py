"""Residual blocks, and stacks of blocks.

Gu, Dao, "Mamba", 2023 (norm, mixer); De et al., "Griffin", 2024, section 2.1 (and norm, MLP).
"""

from __future__ import annotations

from ssmcore._options import hyperparameters
from ssmcore.blocks.base import Block
from ssmcore.blocks.dropout import Dropout
from ssmcore.blocks.norms import norm_named
from ssmcore.composition import Composed, Pass, Running
from ssmcore.errors import SSMError
from ssmcore.module import Module
from ssmcore.typing import Array, Params, State

__all__ = ["Residual", "Stack"]


@hyperparameters
class Residual(Block):
    """x = u + mixer(norm(u)); with an MLP y = x + mlp(mlp_norm(x)), else y = x.

    Parts: norm, mixer, and with an MLP mlp_norm, mlp.

    Attributes
    ----------
    mixer : Module
        What mixes along time: Mamba, Hawk, LocalAttention, H3, a layer.
    mlp : Module or None
    norm, mlp_norm : Module, or "rms", "layer", "batch" or "none"
    dropout : float
        Rate of the dropout before each sum.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import Mamba, Residual
    >>> block = Residual(Mamba(4))
    >>> block(block.init(0), np.ones((6, 4), "float32")).shape
    (6, 4)
    """

    mixer: Module
    mlp: Module | None = None
    norm: Module | str = "rms"
    mlp_norm: Module | str = "rms"
    dropout: float = 0.0

    def _check_options(self) -> None:
        for name in ("mixer", "mlp"):
            part = getattr(self, name)
            if part is None and name == "mlp":
                continue
            if not isinstance(part, Module) or part.tokens:
                msg = f"{self.name}: {name} is {part!r:.80}; expected a module such as Mamba(4)"
                raise SSMError(msg)
            if (part._d_input, part.d_output) != (self.d_model, self.d_model):
                msg = (
                    f"{self.name}: {name} takes {part._d_input} channels to {part.d_output}; "
                    f"expected {self.d_model} to {self.d_model}"
                )
                raise SSMError(msg)

    @property
    def d_model(self) -> int:
        """Channels of input and output."""
        return self.mixer._d_input

    def _compose(self) -> dict[str, Composed]:
        found: dict[str, Composed | None] = {
            "norm": norm_named(self.name, self.norm, self.d_model),
            "mixer": self.mixer,
        }
        if self.dropout:
            found["dropout"] = Dropout(self.d_model, self.dropout)
        if self.mlp is not None:
            found["mlp_norm"] = norm_named(self.name, self.mlp_norm, self.d_model)
            found["mlp"] = self.mlp
            if self.dropout:
                found["mlp_dropout"] = Dropout(self.d_model, self.dropout)
        return {name: part for name, part in found.items() if part is not None}

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        run = Running(self, params, state, how)
        x = run("mixer", run.optional("norm", u))
        x = u + run.optional("dropout", x)
        if self.mlp is None:
            return x, run.after
        y = run("mlp", run.optional("mlp_norm", x))
        return x + run.optional("mlp_dropout", y), run.after


@hyperparameters
class Stack(Block):
    """One block after the other. Parts: "0", "1", ...

    Attributes
    ----------
    blocks : tuple of Module

    Examples
    --------
    >>> from ssmcore.blocks import Linear, Stack
    >>> sorted(Stack((Linear(2), Linear(2))).shapes())
    ['0', '1']
    """

    blocks: tuple[Module, ...]

    def _check_options(self) -> None:
        good = isinstance(self.blocks, tuple) and self.blocks
        if not (good and all(isinstance(block, Module) for block in self.blocks)):
            msg = f"{self.name}: blocks is {self.blocks!r:.80}; expected a tuple of modules"
            raise SSMError(msg)
        for i, (one, two) in enumerate(zip(self.blocks, self.blocks[1:], strict=False)):
            if one.d_output != two._d_input or two.tokens:
                msg = (
                    f"{self.name}: block {i} gives {one.d_output} channels, block {i + 1} takes "
                    f"{two._d_input}; expected the same"
                )
                raise SSMError(msg)

    @property
    def d_model(self) -> int:
        """Channels of the input."""
        return self.blocks[0]._d_input

    @property
    def d_output(self) -> int:
        """Channels of the output."""
        return self.blocks[-1].d_output

    @property
    def tokens(self) -> bool:
        """Whether the input is integer tokens (..., L)."""
        return self.blocks[0].tokens

    @property
    def _vocabulary(self) -> int:
        return self.blocks[0]._vocabulary

    def _compose(self) -> dict[str, Composed]:
        return {str(i): block for i, block in enumerate(self.blocks)}

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        run = Running(self, params, state, how)
        for name in self._parts:
            u = run(name, u)
        return u, run.after
