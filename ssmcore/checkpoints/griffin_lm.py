"""Griffin language models in transformers' layout (``model_type`` "recurrent_gemma").

De et al., "Griffin", 2024 (arXiv:2402.19427). Read from the configuration alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssmcore.blocks import GatedMLP, Hawk, LocalAttention, Residual, RMSNorm
from ssmcore.checkpoints.fields import Fields
from ssmcore.checkpoints.tensors import from_bits, to_bits
from ssmcore.errors import SSMError, check_choice
from ssmcore.module import Module
from ssmcore.networks import LanguageModel

__all__ = ["NAMES", "from_transformers", "to_transformers"]

_MIXER = {
    "rglru.a_param": "rg_lru.recurrent_param",
    "rglru.input_gate.w": "rg_lru.input_gate_weight",
    "rglru.input_gate.b": "rg_lru.input_gate_bias",
    "rglru.a_gate.w": "rg_lru.recurrent_gate_weight",
    "rglru.a_gate.b": "rg_lru.recurrent_gate_bias",
}
for _part in ("linear_x", "linear_y", "linear_out", "q_proj", "k_proj", "v_proj", "o_proj"):
    _MIXER |= {f"{_part}.{x}": f"{_part}.{x}" for x in ("weight", "bias")}
_MIXER |= {f"conv.{x}": f"conv_1d.{x}" for x in ("weight", "bias")}
_MLP = {f"{k}.{x}": f"{k}_proj.{x}" for k in ("gate", "up", "down") for x in ("weight", "bias")}
NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.scale": "model.final_norm.weight",
    "head.weight": "lm_head.weight",
    "layers.N.norm.scale": "model.layers.N.temporal_pre_norm.weight",
    "layers.N.mlp_norm.scale": "model.layers.N.channel_pre_norm.weight",
    **{f"layers.N.mixer.{k}": f"model.layers.N.temporal_block.{v}" for k, v in _MIXER.items()},
    **{f"layers.N.mlp.{k}": f"model.layers.N.mlp_block.{v}" for k, v in _MLP.items()},
}
"""Names here to names there; N is the number of the layer."""

ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "linear": "identity",
}
_KINDS = {"recurrent": "recurrent", "attention": "attention"}


def from_transformers(where: str, config: Mapping[str, Any]) -> LanguageModel:
    """Return the model that transformers' configuration describes."""
    harmless = ["attention_dropout", "w_init_variance_scale", "embeddings_scale_by_sqrt_dim"]
    fields = Fields(where, config, harmless)
    H, n_layers = fields.whole("hidden_size", 2560), fields.whole("num_hidden_layers", 26)
    gain = fields.number("final_w_init_variance_scale", 2.0 / n_layers)
    inner = fields.whole("intermediate_size", 7680, least=2)
    activation = fields.choice("hidden_activation", "gelu_pytorch_tanh", ACTIVATIONS)
    norm = RMSNorm(H, eps=fields.number("rms_norm_eps", 1e-6), offset=1.0)
    mlp = GatedMLP(H, inner // 2, activation, gain=gain)
    heads = fields.whole("num_attention_heads", 10)
    width = _or_none(fields, "lru_width", H)
    if width % heads:
        fields.refuse("lru_width", f"a multiple of num_attention_heads = {heads}")
    taps, attention = fields.whole("conv1d_width", 4), _attention(fields, H, heads)
    mixers: dict[str, Callable[[], Module]] = {
        "recurrent": lambda: Hawk(
            H, width, heads=heads, d_conv=taps, activation=activation, output_gain=gain
        ),
        "attention": lambda: LocalAttention(H, heads, **attention, output_gain=gain),
    }
    blocks = tuple(Residual(mixers[kind](), mlp, norm, norm) for kind in _pattern(fields))
    cap = config.get("logits_soft_cap", 30.0)
    model = LanguageModel(
        fields.whole("vocab_size", 256000),
        blocks,
        n_layers,
        norm=norm,
        tied=fields.flag("tie_word_embeddings", True),
        embedding_scale=embedding_scale(H),
        embedding_std=math.sqrt(1.0 / H),
        soft_cap=None if cap is None else fields.number("logits_soft_cap", 30.0),
    )
    fields.known.add("logits_soft_cap")
    fields.finish()
    return model


def embedding_scale(H: int) -> float:
    """Return sqrt(H) rounded to bfloat16, as RecurrentGemma defines it.

    Examples
    --------
    >>> embedding_scale(2560)
    50.5
    """
    return float(from_bits(to_bits(np.asarray(math.sqrt(H)))))


def _or_none(fields: Fields, name: str, default: int) -> int:
    """Return a whole number, ``default`` also for null."""
    fields.known.add(name)
    return default if fields.config.get(name) is None else fields.whole(name)


def _attention(fields: Fields, H: int, heads: int) -> dict[str, Any]:
    """Return the options of the attention, read even where no layer has one."""
    rope = fields.inner("rope_parameters")
    if not rope.config and fields.config.get("rope_scaling"):
        rope = fields.inner("rope_scaling")
    fields.fixed("rope_scaling", None, fields.config.get("rope_scaling"))
    theta = fields.number("rope_theta", 10000.0)
    factor = fields.number("partial_rotary_factor", 0.5, zero=True)
    rope.choice("type", "default", {"default": None})
    rope.choice("rope_type", "default", {"default": None})
    base, share = (
        rope.number("rope_theta", theta),
        rope.number("partial_rotary_factor", factor, zero=True),
    )
    rope.finish()
    return {
        "window": fields.whole("attention_window_size", 2048),
        "kv_heads": _or_none(fields, "num_key_value_heads", heads),
        "head_dim": _or_none(fields, "head_dim", H // heads),
        "rotary": share,
        "rope_base": base,
        "bias": fields.flag("attention_bias", False),
    }


def _pattern(fields: Fields) -> tuple[str, ...]:
    kinds = fields.config.get("block_types", ["recurrent", "recurrent", "attention"])
    fields.known.add("block_types")
    fields.fixed("_block_types", None, kinds)
    if not isinstance(kinds, list | tuple) or not kinds:
        fields.refuse("block_types", 'a list of "recurrent" and "attention"')
    for kind in kinds:
        check_choice(fields.where, "one of block_types", kind, _KINDS)
    return tuple(kinds)


def to_transformers(model: LanguageModel) -> dict[str, Any]:
    """Return transformers' configuration of a model made of Griffin's blocks."""
    blocks: Any = model.block if isinstance(model.block, tuple) else (model.block,)
    hawk = next((b.mixer for b in blocks if isinstance(b.mixer, Hawk)), None)
    attention = next((b.mixer for b in blocks if isinstance(b.mixer, LocalAttention)), None)
    H, mlp = model.d_model, blocks[0].mlp
    heads = blocks[0].mixer.heads
    activation = next(k for k, v in ACTIVATIONS.items() if v == mlp.activation)
    if model.soft_cap is None:
        msg = "soft_cap is None; transformers' recurrent_gemma always caps: expected a number"
        raise SSMError(msg)
    return {
        "architectures": ["RecurrentGemmaForCausalLM"],
        "model_type": "recurrent_gemma",
        "vocab_size": model.vocab,
        "hidden_size": H,
        "intermediate_size": 2 * mlp.d_hidden,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": heads,
        **({} if attention is None else _of_attention(attention)),
        **({} if hawk is None else {"lru_width": hawk.d_inner, "conv1d_width": hawk.d_conv}),
        "hidden_activation": activation,
        "rms_norm_eps": blocks[0].parts()["norm"].eps,
        "logits_soft_cap": model.soft_cap,
        "block_types": ["recurrent" if isinstance(b.mixer, Hawk) else "attention" for b in blocks],
        "tie_word_embeddings": model.tied,
        "final_w_init_variance_scale": mlp.gain,
    }


def _of_attention(attention: LocalAttention) -> dict[str, Any]:
    return {
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.width,
        "attention_window_size": attention.window,
        "attention_bias": attention.bias,
        "attention_dropout": 0.0,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": attention.rope_base,
            "partial_rotary_factor": attention.rotary,
        },
    }
