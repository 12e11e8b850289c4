"""ssmcore on PyTorch: the same names, with layers, blocks and networks as ``torch.nn.Module``.

torch is imported with the first module that is asked for, not with this package.

Examples
--------
>>> import torch
>>> import ssmcore_torch as ssm
>>> layer = ssm.S5(d_model=4, d_state=16, seed=0)
>>> optimizer = torch.optim.AdamW(layer.param_groups(), lr=1e-3, weight_decay=0.05)
>>> loss = layer(torch.ones(2, 10, 4)).square().mean()
>>> loss.backward()
>>> optimizer.step()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssmcore import (
    ParamGroup,
    SSMError,
    causal_convolution,
    diagonal_kernel,
    diagonal_scan,
    discretize,
    dplr_kernel,
    linear_scan,
    move,
    selective_scan,
    short_convolution,
    to_numpy,
)
from ssmcore_torch._backend import TorchBackend

if TYPE_CHECKING:
    from ssmcore_torch.modules import (
        GLU,
        H3,
        LRU,
        LSSL,
        RGLRU,
        S4,
        S4D,
        S5,
        S6,
        BatchNorm,
        Bidirectional,
        Dropout,
        Embedding,
        GatedMLP,
        Hawk,
        LanguageModel,
        Layer,
        LayerNorm,
        Linear,
        LocalAttention,
        Mamba,
        Module,
        Residual,
        RMSNorm,
        SequenceClassifier,
        ShortConvolution,
        SSMBlock,
        Stack,
    )
else:

    def __getattr__(name: str) -> Any:
        """Import torch with the first module; SSMError, with the install hint, without torch."""
        import importlib

        from ssmcore import backend

        if name not in MODULES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        backend.load("torch")
        return getattr(importlib.import_module("ssmcore_torch.modules"), name)


__all__ = [
    "BACKEND",
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
    "ParamGroup",
    "RMSNorm",
    "Residual",
    "SSMBlock",
    "SSMError",
    "SequenceClassifier",
    "ShortConvolution",
    "Stack",
    "causal_convolution",
    "diagonal_kernel",
    "diagonal_scan",
    "discretize",
    "dplr_kernel",
    "linear_scan",
    "move",
    "selective_scan",
    "short_convolution",
    "to_numpy",
]

MODULES = (
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
)

BACKEND = TorchBackend()


def __dir__() -> list[str]:
    return __all__
