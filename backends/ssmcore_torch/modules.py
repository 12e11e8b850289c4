"""The layers, blocks and networks of ssmcore as ``torch.nn.Module``."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch

import ssmcore
from ssmcore import blocks, networks
from ssmcore._wrapping import unwrapped
from ssmcore.systems import System
from ssmcore.typing import State
from ssmcore_torch._module import Module, Named

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
    """Any ssmcore layer as a module: what ``Module`` does, and the system behind it.

    Arguments as of ``Module``, with a layer as the definition; kept as ``.layer``.

    Examples
    --------
    A layer with parameters that are there already:

    >>> import ssmcore
    >>> import ssmcore_torch as ssm
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
        self,
        u: torch.Tensor | None = None,
        reset: torch.Tensor | None = None,
        state: State | None = None,
    ) -> System:
        """Return the discrete system; S6 and RGLRU need the input u (..., L, H)."""
        return self.layer.system(self.params, u, reset, state)

    def eigenvalues(self, u: torch.Tensor | None = None) -> torch.Tensor:
        """Return the eigenvalues of A_bar; S6 and RGLRU need the input u (..., L, H)."""
        out: torch.Tensor = self.layer.eigenvalues(self.params, u)
        return out


class LRU(Named, Layer, of=ssmcore.LRU):
    """LRU as a module."""


class LSSL(Named, Layer, of=ssmcore.LSSL):
    """LSSL as a module."""


class RGLRU(Named, Layer, of=ssmcore.RGLRU):
    """RGLRU as a module."""


class S4(Named, Layer, of=ssmcore.S4):
    """S4 as a module."""


class S4D(Named, Layer, of=ssmcore.S4D):
    """S4D as a module."""


class S5(Named, Layer, of=ssmcore.S5):
    """S5 as a module."""


class S6(Named, Layer, of=ssmcore.S6):
    """S6 as a module."""


class Bidirectional(Named, Layer, of=ssmcore.Bidirectional):
    """Bidirectional as a module."""

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
        """Wrap ``layer``, a module or an ssmcore layer: its hyper-parameters, drawn anew."""
        core = ssmcore.Bidirectional.of(
            unwrapped(layer), share=share, combine=combine, skip_current=skip_current
        )
        options = {name: getattr(core, name) for name in inspect.signature(type(core)).parameters}
        return cls(**options, seed=seed, device=device, dtype=dtype)


class GLU(Named, of=blocks.GLU):
    """GLU as a module."""


class H3(Named, of=blocks.H3):
    """H3 as a module."""


class BatchNorm(Named, of=blocks.BatchNorm):
    """BatchNorm as a module."""


class Dropout(Named, of=blocks.Dropout):
    """Dropout as a module."""


class Embedding(Named, of=blocks.Embedding, input="torch.tensor([1, 0, 6])"):
    """Embedding as a module."""


class GatedMLP(Named, of=blocks.GatedMLP):
    """GatedMLP as a module."""


class Hawk(Named, of=blocks.Hawk):
    """Hawk as a module."""


class LayerNorm(Named, of=blocks.LayerNorm):
    """LayerNorm as a module."""


class Linear(Named, of=blocks.Linear):
    """Linear as a module."""


class LocalAttention(Named, of=blocks.LocalAttention, input="torch.ones(3, 8)", shape=(3, 8)):
    """LocalAttention as a module."""


class Mamba(Named, of=blocks.Mamba):
    """Mamba as a module."""


class RMSNorm(Named, of=blocks.RMSNorm):
    """RMSNorm as a module."""


class Residual(Named, of=blocks.Residual):
    """Residual as a module."""


class SSMBlock(Named, of=blocks.SSMBlock):
    """SSMBlock as a module."""


class ShortConvolution(Named, of=blocks.ShortConvolution):
    """ShortConvolution as a module."""


class Stack(Named, of=blocks.Stack):
    """Stack as a module."""


class LanguageModel(
    Named, of=networks.LanguageModel, input="torch.tensor([1, 0, 6])", shape=(3, 7)
):
    """LanguageModel as a module."""


class SequenceClassifier(Named, of=networks.SequenceClassifier, shape=(3,)):
    """SequenceClassifier as a module."""
