"""Norms: over channels (LayerNorm, RMSNorm), or over batch and time (BatchNorm).

Ba, Kiros, Hinton, "Layer normalization", 2016; Zhang, Sennrich, "Root mean square layer
normalization", 2019; Ioffe, Szegedy, "Batch normalization", 2015. All run in the dtype of their
parameters, and are rounded to that of the activations once.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays, backend
from ssmcore._arguments import check_count, check_number, check_positive
from ssmcore._options import ParamGroup, hyperparameters
from ssmcore.blocks.base import Block
from ssmcore.composition import Pass
from ssmcore.errors import SSMError, check_choice
from ssmcore.module import Module
from ssmcore.typing import Array, Params, State

__all__ = ["BatchNorm", "LayerNorm", "RMSNorm", "norm_named"]


@hyperparameters
class LayerNorm(Block):
    """y = scale (u - mean) / sqrt(var + eps) + bias, mean and var over channels.

    Parameters: scale, bias (H).

    Attributes
    ----------
    d_model : int
        Channels H.
    eps : float
        1e-5 in torch, 1e-6 in flax.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import LayerNorm
    >>> norm = LayerNorm(2)
    >>> norm(norm.init(0), np.asarray([[1.0, 3.0]], "float32")).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    d_model: int
    eps: float = 1e-5

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model)
        check_positive(self.name, eps=self.eps)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        return {"scale": (self.d_model,), "bias": (self.d_model,)}

    def _draw(self, rng: np.random.Generator) -> Params:
        return {"scale": np.ones(self.d_model), "bias": np.zeros(self.d_model)}

    def param_groups(self) -> list[ParamGroup]:
        """scale and bias: no decay."""
        return [ParamGroup(("scale", "bias"), weight_decay=False)]

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        xp = arrays.namespace(u)
        x = xp.astype(u, params["scale"].dtype, copy=False)
        x = x - xp.mean(x, axis=-1, keepdims=True)
        x = x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        y = x * params["scale"] + params["bias"]
        return xp.astype(y, u.dtype, copy=False), None


@hyperparameters
class RMSNorm(Block):
    """y = (offset + scale) u / sqrt(mean u^2 + eps), the mean over channels.

    Parameters: scale (H), initially 1 - offset.

    Attributes
    ----------
    d_model : int
        Channels H.
    eps : float
        1e-6 in Griffin, 1e-5 in Mamba.
    offset : float
        1 in Griffin.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import RMSNorm
    >>> norm = RMSNorm(2, offset=1.0)
    >>> norm(norm.init(0), np.asarray([[1.0, 7.0]], "float32")).round(3)
    array([[0.2, 1.4]], dtype=float32)
    """

    d_model: int
    eps: float = 1e-6
    offset: float = 0.0

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model)
        check_positive(self.name, eps=self.eps)
        check_number(self.name, offset=self.offset)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        return {"scale": (self.d_model,)}

    def _draw(self, rng: np.random.Generator) -> Params:
        return {"scale": np.full(self.d_model, 1.0 - self.offset)}

    def param_groups(self) -> list[ParamGroup]:
        """scale: no decay."""
        return [ParamGroup(("scale",), weight_decay=False)]

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        scale = params["scale"]
        if "rms_norm" in how.steps and u.dtype == scale.dtype:
            return how.steps["rms_norm"](u, scale, self.eps, self.offset), None
        xp = arrays.namespace(u)
        x = xp.astype(u, scale.dtype, copy=False)
        x = x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        y = x * (scale if self.offset == 0.0 else scale + self.offset)
        return xp.astype(y, u.dtype, copy=False), None


@hyperparameters
class BatchNorm(Block):
    """y = scale (u - mean) / sqrt(var + eps) + bias, each channel for itself.

    mean and var are the running ones, or with ``training`` those of the batch over all steps that
    are not padding. Then running = (1 - momentum) running + momentum batch is returned, with the
    unbiased variance, as in torch; nothing is changed in place. Parameters: scale, bias, mean,
    var (H); the last two are not trained.

    Attributes
    ----------
    d_model : int
        Channels H.
    eps : float
    momentum : float
        Weight of the new batch; flax's momentum is 1 minus this.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import BatchNorm
    >>> norm = BatchNorm(1)
    >>> params = norm.init(0)
    >>> y, new = norm(params, np.asarray([[1.0], [3.0]], "float32"), training=True)
    >>> y[:, 0].round(3), norm.with_statistics(params, new)["mean"]
    (array([-1.,  1.], dtype=float32), array([0.2], dtype=float32))
    """

    d_model: int
    eps: float = 1e-5
    momentum: float = 0.1

    STATISTICS: ClassVar[tuple[str, ...]] = ("mean", "var")

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model)
        check_positive(self.name, eps=self.eps)
        check_number(self.name, momentum=self.momentum)
        if not 0.0 <= self.momentum <= 1.0:
            msg = f"{self.name}: momentum is {self.momentum!r}; expected a number in [0, 1]"
            raise SSMError(msg)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        return {name: (self.d_model,) for name in ("scale", "bias", "mean", "var")}

    def _draw(self, rng: np.random.Generator) -> Params:
        one, zero = np.ones(self.d_model), np.zeros(self.d_model)
        return {"scale": one, "bias": zero, "mean": zero, "var": one}

    def param_groups(self) -> list[ParamGroup]:
        """scale and bias: no decay; mean and var: not trained."""
        return [
            ParamGroup(("scale", "bias"), weight_decay=False),
            ParamGroup(("mean", "var"), weight_decay=False, lr=0.0),
        ]

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        xp = arrays.namespace(u)
        x = xp.astype(u, params["scale"].dtype, copy=False)
        mean, var, after = params["mean"], params["var"], None
        if how.training:
            mean, var, after = self._of_batch(params, x, how.valid)
        y = (x - mean) / xp.sqrt(var + self.eps) * params["scale"] + params["bias"]
        return xp.astype(y, u.dtype, copy=False), after

    def _of_batch(
        self, params: Params, x: Array, valid: Array | None
    ) -> tuple[Array, Array, State]:
        """Return mean and biased variance of the batch, and the new running statistics."""
        xp = arrays.namespace(x)
        over = tuple(range(x.ndim - 1))
        weight = xp.ones_like(x[..., :1])
        if valid is not None:
            weight = xp.astype(valid[..., None], x.dtype)
            x = xp.where(valid[..., None], x, xp.zeros_like(x))
        count = xp.sum(weight)
        some = xp.clip(count, min=1.0)
        mean = xp.sum(x, axis=over) / some
        spread = weight * (x - mean) ** 2
        var = xp.sum(spread, axis=over) / some
        fixed = backend.of(x).stop_gradient
        unbiased = var * some / xp.clip(count - 1.0, min=1.0)
        m = self.momentum * xp.clip(count, max=1.0)  # an empty batch says nothing
        new = {
            "mean": params["mean"] + m * (fixed(mean) - params["mean"]),
            "var": params["var"] + m * (fixed(unbiased) - params["var"]),
        }
        return mean, var, {name: fixed(x) for name, x in new.items()}


NORMS: dict[str, type[LayerNorm] | type[RMSNorm] | type[BatchNorm]] = {
    "layer": LayerNorm,
    "rms": RMSNorm,
    "batch": BatchNorm,
}


def norm_named(owner: str, norm: object, width: int) -> Module | None:
    """Return a norm of ``width`` channels by its name, one that is given, or None for "none"."""
    if isinstance(norm, Module):
        if norm.d_output != width or norm.tokens:
            msg = f"{owner}: norm is {norm!r:.80}; expected one of {width} channels"
            raise SSMError(msg)
        return norm
    check_choice(owner, "norm", norm, (*NORMS, "none"))
    return None if norm == "none" else NORMS[str(norm)](width)
