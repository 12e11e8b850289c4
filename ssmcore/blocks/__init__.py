"""What the papers build around a layer: norms, products, gates, mixers, residual blocks."""

from ssmcore.blocks.attention import LocalAttention
from ssmcore.blocks.base import Block
from ssmcore.blocks.convolution import ShortConvolution
from ssmcore.blocks.dropout import Dropout
from ssmcore.blocks.gated import GLU, GatedMLP
from ssmcore.blocks.h3 import H3
from ssmcore.blocks.hawk import Hawk
from ssmcore.blocks.linear import Embedding, Linear
from ssmcore.blocks.mamba import Mamba
from ssmcore.blocks.norms import BatchNorm, LayerNorm, RMSNorm
from ssmcore.blocks.residual import Residual, Stack
from ssmcore.blocks.ssm_block import SSMBlock

__all__ = [
    "GLU",
    "H3",
    "BatchNorm",
    "Block",
    "Dropout",
    "Embedding",
    "GatedMLP",
    "Hawk",
    "LayerNorm",
    "Linear",
    "LocalAttention",
    "Mamba",
    "RMSNorm",
    "Residual",
    "SSMBlock",
    "ShortConvolution",
    "Stack",
]
