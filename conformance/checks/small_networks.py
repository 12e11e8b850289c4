"""Small networks with everything a module class must handle, and inputs for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from checks.small_layers import numbers

import ssmcore as ssm
from ssmcore import blocks, networks
from ssmcore.module import Module

__all__ = ["CLASSIFIER", "DROPPING", "GRIFFIN", "MAMBA", "NETWORKS", "inputs", "wide"]

MAMBA = networks.LanguageModel(7, blocks.Residual(blocks.Mamba(4, d_state=3)), n_layers=2)
GRIFFIN = networks.griffin(7, 8, 3, heads=2, window=4)
CLASSIFIER = networks.SequenceClassifier(
    4, 5, blocks.SSMBlock(ssm.S5(8, d_state=8), norm="batch"), n_layers=2
)
DROPPING = blocks.Stack((blocks.SSMBlock(ssm.LRU(4, d_state=4), norm="batch", dropout=0.25),) * 2)
NETWORKS: dict[str, Module] = {"mamba": MAMBA, "griffin": GRIFFIN, "classifier": CLASSIFIER}


def inputs(definition: Module) -> Any:
    """Return tokens or numbers (2, 9, ...) in NumPy."""
    if definition.tokens:
        return np.random.default_rng(0).integers(0, 7, (2, 9))
    return numbers("float32")


def wide(u: Any) -> Any:
    """Return numbers in float64, tokens as they are."""
    return u if u.dtype.kind == "i" else u.astype("float64")
