"""The layers, blocks and networks of ssmcore as frozen pytrees."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import ssmcore
from ssmcore import blocks, networks
from ssmcore._wrapping import unwrapped
from ssmcore.systems import System
from ssmcore.typing import Array, State
from ssmcore_jax._module import Module, Named

__all__ = [
    "GLU",
    "H3",
    "LRU",
    "LSSL",
    "RGLRU",
    "S4",
    "S4D",
    "S5",
    "S6",
    "BatchNorm",
    "Bidirectional",
    "Dropout",
    "Embedding",
    "GatedMLP",
    "Hawk",
    "LanguageModel",
    "Layer",
    "LayerNorm",
    "Linear",
    "LocalAttention",
    "Mamba",
    "Module",
    "RMSNorm",
    "Residual",
    "SSMBlock",
    "SequenceClassifier",
    "ShortConvolution",
    "Stack",
]


class Layer(Module):
    """Any ssmcore layer as a pytree: what ``Module`` does, and the system behind it.

    Arguments as of ``Module``, with a layer as the definition; kept as ``.layer``.

    Examples
    --------
    A layer with parameters that are there already:

    >>> import ssmcore
    >>> import ssmcore_jax as ssm
    >>> core = ssmcore.LRU(d_model=2, d_state=4)
    >>> ssm.Layer(core, core.init(0, backend="numpy"))
    Layer(LRU(d_model=2, d_state=4, r_min=0.0, r_max=1.0, max_phase=6.28))
    """

    TAKES: ClassVar[type] = ssmcore.Layer

    definition: ssmcore.Layer

    @property
    def layer(self) -> ssmcore.Layer:
        """The hyper-parameters: the definition."""
        return self.definition

    def system(
        self, u: Array | None = None, reset: Array | None = None, state: State | None = None
    ) -> System:
        """Return the discrete system; S6 and RGLRU need the input u (..., L, H)."""
        return self.layer.system(self.params, u, reset, state)

    def eigenvalues(self, u: Array | None = None) -> Array:
        """Return the eigenvalues of A_bar; S6 and RGLRU need the input u (..., L, H)."""
        return self.layer.eigenvalues(self.params, u)


class LRU(Named, Layer, of=ssmcore.LRU):
    """LRU as a pytree."""


class LSSL(Named, Layer, of=ssmcore.LSSL):
    """LSSL as a pytree."""


class RGLRU(Named, Layer, of=ssmcore.RGLRU):
    """RGLRU as a pytree."""


class S4(Named, Layer, of=ssmcore.S4):
    """S4 as a pytree."""


class S4D(Named, Layer, of=ssmcore.S4D):
    """S4D as a pytree."""


class S5(Named, Layer, of=ssmcore.S5):
    """S5 as a pytree."""


class S6(Named, Layer, of=ssmcore.S6):
    """S6 as a pytree."""


class Bidirectional(Named, Layer, of=ssmcore.Bidirectional):
    """Bidirectional as a pytree."""

    @classmethod
    def of(
        cls,
        layer: Any,
        *,
        share: str = "nothing",
        combine: str = "sum",
        skip_current: bool = False,
        seed: Any = 0,
        device: Any = None,
        dtype: Any = "float32",
    ) -> Bidirectional:
        """Wrap ``layer``, a pytree or an ssmcore layer: its hyper-parameters, drawn anew."""
        core = ssmcore.Bidirectional.of(
            unwrapped(layer), share=share, combine=combine, skip_current=skip_current
        )
        options = {name: getattr(core, name) for name in inspect.signature(type(core)).parameters}
        return cls(**options, seed=seed, device=device, dtype=dtype)


class GLU(Named, of=blocks.GLU):
    """GLU as a pytree."""


class H3(Named, of=blocks.H3):
    """H3 as a pytree."""


class BatchNorm(Named, of=blocks.BatchNorm):
    """BatchNorm as a pytree."""


class Dropout(Named, of=blocks.Dropout):
    """Dropout as a pytree."""


class Embedding(Named, of=blocks.Embedding, input="jnp.asarray([1, 0, 6])"):
    """Embedding as a pytree."""


class GatedMLP(Named, of=blocks.GatedMLP):
    """GatedMLP as a pytree."""


class Hawk(Named, of=blocks.Hawk):
    """Hawk as a pytree."""


class LayerNorm(Named, of=blocks.LayerNorm):
    """LayerNorm as a pytree."""


class Linear(Named, of=blocks.Linear):
    """Linear as a pytree."""


class LocalAttention(Named, of=blocks.LocalAttention, input="jnp.ones((3, 8))", shape=(3, 8)):
    """LocalAttention as a pytree."""


class Mamba(Named, of=blocks.Mamba):
    """Mamba as a pytree."""


class RMSNorm(Named, of=blocks.RMSNorm):
    """RMSNorm as a pytree."""


class Residual(Named, of=blocks.Residual):
    """Residual as a pytree."""


class SSMBlock(Named, of=blocks.SSMBlock):
    """SSMBlock as a pytree."""


class ShortConvolution(Named, of=blocks.ShortConvolution):
    """ShortConvolution as a pytree."""


class Stack(Named, of=blocks.Stack):
    """Stack as a pytree."""


class LanguageModel(Named, of=networks.LanguageModel, input="jnp.asarray([1, 0, 6])", shape=(3, 7)):
    """LanguageModel as a pytree."""


class SequenceClassifier(Named, of=networks.SequenceClassifier, shape=(3,)):
    """SequenceClassifier as a pytree."""
