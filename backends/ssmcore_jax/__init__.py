"""ssmcore on JAX: the same names, with layers, blocks and networks as frozen pytrees.

JAX is imported with the first module that is asked for, not with this package.

Examples
--------
>>> import jax
>>> import jax.numpy as jnp
>>> import ssmcore_jax as ssm
>>> layer = ssm.S5(d_model=4, d_state=16, seed=0)
>>> grads = jax.jit(jax.grad(lambda layer, u: (layer(u) ** 2).mean()))(layer, jnp.ones((10, 4)))
>>> layer = jax.tree.map(lambda p, g: p - 1e-3 * g, layer, grads)
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
from ssmcore_jax._backend import JaxBackend

if TYPE_CHECKING:
    from ssmcore_jax.modules import (
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
        """Import JAX with the first module; SSMError, with the install hint, without JAX."""
        import importlib

        from ssmcore import backend

        if name not in MODULES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        backend.load("jax")
        return getattr(importlib.import_module("ssmcore_jax.modules"), name)


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

BACKEND = JaxBackend()


def __dir__() -> list[str]:
    return __all__
