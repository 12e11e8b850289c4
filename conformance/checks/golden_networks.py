"""The tiny language models of transformers, their weights by ssmcore's names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import ssmcore as ssm
from ssmcore.blocks import GatedMLP, Hawk, LocalAttention, Mamba, Residual, RMSNorm

__all__ = ["MODELS", "answers", "weights"]

HERE = Path(__file__).parent / "golden"

NORM = RMSNorm(32, eps=1e-5)
GEMMA = RMSNorm(32, eps=1e-6, offset=1.0)
MLP = GatedMLP(32, 48)
HAWK = Residual(Hawk(32, heads=4), MLP, GEMMA, GEMMA)
LOCAL = Residual(LocalAttention(32, heads=4, head_dim=8, window=8), MLP, GEMMA, GEMMA)

MODELS = {
    "hf_mamba": ssm.networks.LanguageModel(
        64, Residual(Mamba(32, d_state=8, dt_rank=2), norm=NORM), 3, norm=NORM
    ),
    # transformers keeps sqrt(32) in bfloat16
    "hf_recurrentgemma": ssm.networks.LanguageModel(
        64, (HAWK, HAWK, LOCAL), 5, norm=GEMMA, embedding_scale=5.65625, soft_cap=1.5
    ),
}

RENAMED = {
    "hf_mamba": [
        (r"^backbone\.", ""),
        (r"^embeddings\.", "embedding."),
        (r"^norm_f\.weight", "norm.scale"),
        (r"\.norm\.weight", ".norm.scale"),
        (r"\.conv1d\.", ".conv."),
        (r"\.mixer\.(A_log|D|dt_proj\.\w+)$", r".mixer.ssm.\1"),
        (r"\.mixer\.x_proj\.weight", ".mixer.ssm.x_proj"),
    ],
    "hf_recurrentgemma": [
        (r"^model\.", ""),
        (r"^embed_tokens\.", "embedding."),
        (r"^final_norm\.weight", "norm.scale"),
        (r"\.temporal_pre_norm\.weight", ".norm.scale"),
        (r"\.channel_pre_norm\.weight", ".mlp_norm.scale"),
        (r"\.mlp_block\.(gate|up|down)_proj\.", r".mlp.\1."),
        (r"\.temporal_block\.", ".mixer."),
        (r"\.conv_1d\.", ".conv."),
        (r"\.rg_lru\.recurrent_param", ".rglru.a_param"),
        (r"\.rg_lru\.input_gate_weight", ".rglru.input_gate.w"),
        (r"\.rg_lru\.input_gate_bias", ".rglru.input_gate.b"),
        (r"\.rg_lru\.recurrent_gate_weight", ".rglru.a_gate.w"),
        (r"\.rg_lru\.recurrent_gate_bias", ".rglru.a_gate.b"),
    ],
}


def weights(name: str, dtype: str) -> dict[str, Any]:
    """Return the parameters by dotted name."""
    found = {}
    for key, x in load_file(HERE / name / "model.safetensors").items():
        taps = "conv" in key and key.endswith("weight")
        for pattern, new in RENAMED[name]:
            key = re.sub(pattern, new, key)
        found[key] = np.ascontiguousarray(x[:, 0, :].T if taps else x).astype(dtype)
    return found


def answers(name: str) -> dict[str, Any]:
    """Return tokens and logits of transformers."""
    return load_file(HERE / name / "io.safetensors")
