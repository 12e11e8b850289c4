"""The blocks and networks under test: small, every option once, and inputs that reach all of it."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

import ssmcore as ssm
from ssmcore import arrays, blocks, networks
from ssmcore.module import Module

__all__ = ["BLOCKS", "MODULES", "NETWORKS", "L", "Scenario", "scenario", "state_of"]

Numbers = np.ndarray[Any, Any]
L, ROWS, H, VOCAB = 11, 3, 4, 7

LOCAL = blocks.LocalAttention(8, heads=4, window=4, kv_heads=2, rotary=1.0)
S5 = ssm.S5(H, d_state=4)
BLOCKS: dict[str, Module] = {
    "Linear": blocks.Linear(H, 3),
    "LayerNorm": blocks.LayerNorm(H),
    "RMSNorm": blocks.RMSNorm(H, offset=1.0),
    "BatchNorm": blocks.BatchNorm(H),
    "ShortConvolution": blocks.ShortConvolution(H, activation="silu"),
    "ShortConvolution of one tap": blocks.ShortConvolution(H, taps=1, bias=False),
    "GLU": blocks.GLU(H, 3),
    "GLU half": blocks.GLU(H, variant="half_glu1"),
    "GatedMLP": blocks.GatedMLP(H, 6),
    "S4 block": blocks.SSMBlock(ssm.S4D(H, d_state=4), dropout=0.1),
    "S5 block": blocks.SSMBlock(
        S5, "batch", prenorm=False, activation="gelu_tanh", glu="half_glu2"
    ),
    "LRU block": blocks.SSMBlock(ssm.LRU(H, d_state=4), "none", activation="relu", glu="linear"),
    "H3": blocks.H3(H, d_state=4, taps=5),
    "H3 with heads": blocks.H3(H, d_state=4, taps=3, head_dim=2),
    "Mamba": blocks.Mamba(H, d_state=3),
    "Mamba with biases": blocks.Mamba(H, d_state=3, expand=1.5, bias=True, conv_bias=False),
    "Hawk": blocks.Hawk(H, d_rnn=6, heads=2),
    "LocalAttention in bands": LOCAL,
    "LocalAttention at once": blocks.LocalAttention(H, heads=1, window=9, rotary=0.5, bias=True),
    "LocalAttention of one step": blocks.LocalAttention(H, heads=2, window=1, rotary=0.0),
    "Griffin block": blocks.Residual(LOCAL, blocks.GatedMLP(8, 6), dropout=0.1),
}
NETWORKS: dict[str, Module] = {
    "Mamba LM": networks.mamba(VOCAB, H, 2, d_state=3),
    "Griffin LM": networks.griffin(VOCAB, 8, 4, heads=2, window=4, d_hidden=6, soft_cap=2.0),
    "own head": networks.LanguageModel(VOCAB, BLOCKS["S4 block"], 2, norm="none", tied=False),
    "classifier": networks.SequenceClassifier(2, 3, BLOCKS["S5 block"], 2, norm="batch"),
    "classifier of tokens": networks.SequenceClassifier(
        VOCAB, 3, blocks.Residual(blocks.Mamba(H, d_state=2)), 1, "embedding", "rms", "max"
    ),
    "classifier of pairs": networks.SequenceClassifier(
        2, 3, BLOCKS["S4 block"], 1, pooling="last", documents=2
    ),
    "answers at every step": networks.SequenceClassifier(2, 3, BLOCKS["H3"], 1, pooling="none"),
}
MODULES = BLOCKS | NETWORKS


class Scenario(NamedTuple):
    """A module, parameters off their initial values, inputs and masks, all NumPy."""

    module: Module
    params: dict[str, Any]
    u: Numbers
    reset: Numbers | None
    lengths: Numbers

    @property
    def pooled(self) -> bool:
        """Whether the output has no time axis."""
        return getattr(self.module, "pooling", "none") != "none"

    @property
    def batch(self) -> tuple[int, ...]:
        return tuple(self.lengths.shape)


@cache
def scenario(name: str, dtype: str = "float64", seed: int = 0, length: int = L) -> Scenario:
    """Return the case ``name`` with random resets and lengths; row 0 has no step, row 1 all."""
    module, rng = MODULES[name], np.random.default_rng([seed, length])
    params = arrays.tree_map(
        lambda x: (x + 0.2 * np.abs(rng.standard_normal(x.shape))).astype(dtype),
        module.init(seed, dtype="float64"),
    )
    batch = (ROWS, 2) if getattr(module, "documents", 1) == 2 else (ROWS,)
    if module.tokens:
        u = rng.integers(0, VOCAB, (*batch, length))
    else:
        u = rng.standard_normal((*batch, length, module._d_input)).astype(dtype)
    lengths = rng.integers(1, length + 1, batch) if length else np.zeros(batch, int)
    if length:
        lengths[0], lengths[1] = 0, length
    found = Scenario(module, params, u, None, lengths)
    return found if found.pooled else found._replace(reset=rng.random((*batch, length)) < 0.2)


def state_of(s: Scenario, dtype: str = "float64") -> dict[str, Any]:
    """Return a state in the middle of a document: that after some steps of other inputs."""
    before = np.flip(s.u, axis=-1 if s.module.tokens else -2)
    _, state = s.module(s.params, before, return_state=True)
    found: dict[str, Any] = state
    return found
