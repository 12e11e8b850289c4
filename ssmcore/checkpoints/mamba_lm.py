"""Mamba language models, in transformers' layout (``model_type`` "mamba") and in mamba_ssm's.

Gu, Dao, "Mamba", 2023 (arXiv:2312.00752). Read from the configurations alone: weights come later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssmcore.blocks import LayerNorm, Mamba, Residual, RMSNorm
from ssmcore.checkpoints.fields import Fields
from ssmcore.networks import LanguageModel

__all__ = ["NAMES", "from_mamba_ssm", "from_transformers", "to_mamba_ssm", "to_transformers"]

_MIXER = {
    "in_proj.weight": "in_proj.weight",
    "in_proj.bias": "in_proj.bias",
    "conv.weight": "conv1d.weight",
    "conv.bias": "conv1d.bias",
    "ssm.x_proj": "x_proj.weight",
    "ssm.dt_proj.weight": "dt_proj.weight",
    "ssm.dt_proj.bias": "dt_proj.bias",
    "ssm.A_log": "A_log",
    "ssm.D": "D",
    "out_proj.weight": "out_proj.weight",
    "out_proj.bias": "out_proj.bias",
}
NAMES = {
    "embedding.weight": "backbone.embeddings.weight",
    "norm.scale": "backbone.norm_f.weight",
    "norm.bias": "backbone.norm_f.bias",
    "head.weight": "lm_head.weight",
    "layers.N.norm.scale": "backbone.layers.N.norm.weight",
    "layers.N.norm.bias": "backbone.layers.N.norm.bias",
    **{f"layers.N.mixer.{k}": f"backbone.layers.N.mixer.{v}" for k, v in _MIXER.items()},
}
"""Names here to names there; N is the number of the layer."""

_HARMLESS = (
    "initializer_range",
    "residual_in_fp32",
    "fused_add_norm",
    "pad_vocab_size_multiple",
    "use_mambapy",
    "use_associative_scan",
)


def from_transformers(where: str, config: Mapping[str, Any]) -> LanguageModel:
    """Return the model that transformers' configuration describes."""
    fields = Fields(where, config, _HARMLESS)
    H, n_layers = fields.whole("hidden_size", 768), fields.whole("num_hidden_layers", 32)
    expand = fields.number("expand", 2)
    inner = fields.whole("intermediate_size", int(expand * H))
    rescaled = fields.flag("rescale_prenorm_residual", False)
    rank = config.get("time_step_rank", "auto")
    fields.choice("hidden_act", "silu", {"silu": "silu", "swish": "silu"})
    mixer = Mamba(
        H,
        d_state=fields.whole("state_size", 16),
        d_conv=fields.whole("conv_kernel", 4),
        expand=_expand(expand, inner, H),
        dt_rank=None if rank == "auto" else fields.whole("time_step_rank"),
        conv_bias=fields.flag("use_conv_bias", True),
        bias=fields.flag("use_bias", False),
        output_gain=1.0 / n_layers if rescaled else 1.0,
        dt_min=fields.number("time_step_min", 0.001),
        dt_max=fields.number("time_step_max", 0.1),
        dt_init_floor=fields.number("time_step_floor", 1e-4),
        dt_init_scale=fields.number("time_step_scale", 1.0),
        dt_initialization=_initialization(fields, "time_step_init_scheme"),
    )
    norm = RMSNorm(H, eps=fields.number("layer_norm_epsilon", 1e-5))
    vocab, tied = fields.whole("vocab_size", 50280), fields.flag("tie_word_embeddings", True)
    fields.known.add("time_step_rank")
    fields.fixed("d_model", H)  # what the published conversions kept of mamba_ssm's fields
    fields.fixed("d_inner", inner)
    fields.fixed("n_layer", n_layers)
    fields.fixed("rms_norm", True)
    fields.fixed("ssm_cfg", {}, None)
    fields.finish()
    return LanguageModel(vocab, Residual(mixer, norm=norm), n_layers, norm=norm, tied=tied)


def _expand(expand: float, inner: int, H: int) -> float:
    """Return the factor that gives ``inner`` channels, ``expand`` where that does."""
    return expand if int(expand * H) == inner else (inner + 0.5) / H


def _initialization(fields: Fields, name: str) -> str:
    choices = {"random": "random", "constant": "constant"}
    return str(fields.choice(name, "random", choices))


def to_transformers(model: LanguageModel) -> dict[str, Any]:
    """Return transformers' configuration of a model made of Mamba blocks."""
    block, mixer = _block(model)
    H, n_layers = model.d_model, model.n_layers
    return {
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "vocab_size": model.vocab,
        "hidden_size": H,
        "num_hidden_layers": n_layers,
        "state_size": mixer.d_state,
        "conv_kernel": mixer.d_conv,
        "expand": int(mixer.expand) if float(mixer.expand).is_integer() else mixer.expand,
        "intermediate_size": mixer.d_inner,
        "time_step_rank": _rank(mixer),
        "use_conv_bias": mixer.conv_bias,
        "use_bias": mixer.bias,
        "hidden_act": "silu",
        "layer_norm_epsilon": block.parts()["norm"].eps,
        "tie_word_embeddings": model.tied,
        "rescale_prenorm_residual": False,  # transformers would rescale what it loads
        "residual_in_fp32": True,
        "time_step_min": mixer.dt_min,
        "time_step_max": mixer.dt_max,
        "time_step_floor": mixer.dt_init_floor,
        "time_step_scale": mixer.dt_init_scale,
        "time_step_init_scheme": mixer.dt_initialization,
    }


def _block(model: LanguageModel) -> tuple[Any, Any]:
    """Return the first block and its mixer; AttributeError or KeyError where there is none."""
    block: Any = model.block[0] if isinstance(model.block, tuple) else model.block
    return block, block.mixer


def _rank(mixer: Mamba) -> int:
    return -(-mixer.d_model // 16) if mixer.dt_rank is None else mixer.dt_rank


def from_mamba_ssm(where: str, config: Mapping[str, Any]) -> LanguageModel:
    """Return the model that mamba_ssm's configuration describes (its Mamba layers alone)."""
    fields = Fields(where, config, ["residual_in_fp32", "fused_add_norm", "attn_cfg"])
    H, n_layers = fields.whole("d_model", 2560), fields.whole("n_layer", 64)
    vocab, multiple = fields.whole("vocab_size", 50277), fields.whole("pad_vocab_size_multiple", 8)
    fields.fixed("d_intermediate", 0)
    fields.fixed("attn_layer_idx", [], None)
    tied = fields.flag("tie_embeddings", True)
    norm = RMSNorm(H, eps=1e-5) if fields.flag("rms_norm", True) else LayerNorm(H, eps=1e-5)
    mixer = _mamba_ssm_mixer(fields.inner("ssm_cfg"), H, n_layers)
    fields.finish()
    padded = -(-vocab // multiple) * multiple
    return LanguageModel(padded, Residual(mixer, norm=norm), n_layers, norm=norm, tied=tied)


def _mamba_ssm_mixer(fields: Fields, H: int, n_layers: int) -> Mamba:
    fields.known.add("use_fast_path")
    fields.choice("layer", "Mamba1", {"Mamba1": None})
    rank = fields.config.get("dt_rank", "auto")
    mixer = Mamba(
        H,
        d_state=fields.whole("d_state", 16),
        d_conv=fields.whole("d_conv", 4),
        expand=fields.number("expand", 2),
        dt_rank=None if rank == "auto" else fields.whole("dt_rank"),
        conv_bias=fields.flag("conv_bias", True),
        bias=fields.flag("bias", False),
        output_gain=1.0 / n_layers,
        dt_min=fields.number("dt_min", 0.001),
        dt_max=fields.number("dt_max", 0.1),
        dt_init_floor=fields.number("dt_init_floor", 1e-4),
        dt_init_scale=fields.number("dt_scale", 1.0),
        dt_initialization=_initialization(fields, "dt_init"),
    )
    fields.known.add("dt_rank")
    fields.finish()
    return mixer


def to_mamba_ssm(model: LanguageModel) -> dict[str, Any]:
    """Return mamba_ssm's configuration of a model made of Mamba blocks."""
    block, mixer = _block(model)
    return {
        "d_model": model.d_model,
        "d_intermediate": 0,
        "n_layer": model.n_layers,
        "vocab_size": model.vocab,
        "ssm_cfg": {
            "layer": "Mamba1",
            "d_state": mixer.d_state,
            "d_conv": mixer.d_conv,
            "expand": mixer.expand,
            "dt_rank": _rank(mixer),
            "dt_min": mixer.dt_min,
            "dt_max": mixer.dt_max,
            "dt_init": mixer.dt_initialization,
            "dt_scale": mixer.dt_init_scale,
            "dt_init_floor": mixer.dt_init_floor,
            "conv_bias": mixer.conv_bias,
            "bias": mixer.bias,
        },
        "attn_layer_idx": [],
        "attn_cfg": {},
        "rms_norm": isinstance(block.parts()["norm"], RMSNorm),
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
        "tie_embeddings": model.tied,
    }
