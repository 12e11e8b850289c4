"""Products with a weight matrix: linear maps and embeddings, the parameters that may be half wide.

A product runs in the dtype of its weight and comes back in that of the activations.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays, backend
from ssmcore._arguments import check_count, check_flag, check_number, check_positive
from ssmcore._options import ParamGroup, hyperparameters
from ssmcore.blocks.base import Block
from ssmcore.composition import Pass
from ssmcore.errors import check_choice
from ssmcore.typing import Array, Params, State

__all__ = ["Embedding", "Linear", "product"]


def product(u: Array, weight: Array) -> Array:
    """Return u weight^T in the dtype of ``u``, formed in the dtype of ``weight``."""
    xp, library = arrays.namespace(u), backend.of(u)
    narrow = u if u.dtype == weight.dtype else xp.astype(u, weight.dtype)
    y = library.product(narrow, weight)  # narrower than its arguments under torch.autocast
    return y if y.dtype == u.dtype else xp.astype(y, u.dtype)


@hyperparameters
class Linear(Block):
    """y = W u + b. Parameters: weight (d_out, H), bias (d_out).

    Attributes
    ----------
    d_model : int
        Channels H of the input.
    d_out : int or None
        Channels of the output; None means d_model.
    bias : bool
    initialization : "uniform", "normal" or "zeros"
        weight uniform in +-sqrt(gain / H), or normal with variance gain / H; the bias is then
        uniform in +-1 / sqrt(H), or zero.
    gain : float

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import Linear
    >>> map_ = Linear(3, 2)
    >>> map_(map_.init(0), np.ones((5, 3), "float32")).shape
    (5, 2)
    """

    d_model: int
    d_out: int | None = None
    bias: bool = True
    initialization: str = "uniform"
    gain: float = 1.0

    HALF_PRECISION: ClassVar[bool] = True

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model, d_out=self.d_output)
        check_flag(self.name, bias=self.bias)
        check_positive(self.name, gain=self.gain)
        choices = ("uniform", "normal", "zeros")
        check_choice(self.name, "initialization", self.initialization, choices)

    @property
    def d_output(self) -> int:
        """Channels of the output."""
        return self.d_model if self.d_out is None else self.d_out

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        weight = {"weight": (self.d_output, self.d_model)}
        return {**weight, "bias": (self.d_output,)} if self.bias else weight

    def _draw(self, rng: np.random.Generator) -> Params:
        shape, fan_in = (self.d_output, self.d_model), self.d_model
        bias = np.zeros(self.d_output)
        if self.initialization == "uniform":
            weight = rng.uniform(-1.0, 1.0, shape) * math.sqrt(self.gain / fan_in)
            if self.bias:
                bias = rng.uniform(-1.0, 1.0, self.d_output) / math.sqrt(fan_in)
        elif self.initialization == "normal":
            weight = rng.standard_normal(shape) * math.sqrt(self.gain / fan_in)
        else:
            weight = np.zeros(shape)
        return {"weight": weight, "bias": bias} if self.bias else {"weight": weight}

    def param_groups(self) -> list[ParamGroup]:
        """weight: the global settings; bias: no decay; both may be in half precision."""
        weight = ParamGroup(("weight",), weight_decay=True, keep_float32=False)
        if not self.bias:
            return [weight]
        return [weight, ParamGroup(("bias",), weight_decay=False, keep_float32=False)]

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        y = product(u, params["weight"])
        if self.bias:
            y = y + arrays.namespace(u).astype(params["bias"], u.dtype, copy=False)
        return y, None


@hyperparameters
class Embedding(Block):
    """y = scale weight[token] for tokens (..., L). Parameters: weight (vocab, H).

    Attributes
    ----------
    vocab : int
        Number of tokens; they are 0, ..., vocab - 1.
    d_model : int
        Channels H of the output.
    scale : float
        sqrt(H) in Griffin.
    std : float
        Standard deviation of the normal initial weights.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import Embedding
    >>> table = Embedding(10, 3)
    >>> table(table.init(0), np.asarray([1, 9])).shape
    (2, 3)
    """

    vocab: int
    d_model: int
    scale: float = 1.0
    std: float = 0.02

    HALF_PRECISION: ClassVar[bool] = True
    TOKENS: ClassVar[bool] = True

    def _check_options(self) -> None:
        check_count(self.name, vocab=self.vocab, d_model=self.d_model)
        check_number(self.name, scale=self.scale)
        check_positive(self.name, std=self.std)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        return {"weight": (self.vocab, self.d_model)}

    def _draw(self, rng: np.random.Generator) -> Params:
        return {"weight": rng.standard_normal((self.vocab, self.d_model)) * self.std}

    def param_groups(self) -> list[ParamGroup]:
        """weight: the global settings; it may be in half precision."""
        return [ParamGroup(("weight",), weight_decay=True, keep_float32=False)]

    @property
    def _vocabulary(self) -> int:
        return self.vocab

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        xp, weight = arrays.namespace(u), params["weight"]
        index = xp.reshape(xp.astype(u, arrays.index_dtype(u), copy=False), (-1,))
        rows = xp.take(weight, index, axis=0)
        y = xp.reshape(rows, (*u.shape, self.d_model))
        return (y if self.scale == 1.0 else y * self.scale), None
