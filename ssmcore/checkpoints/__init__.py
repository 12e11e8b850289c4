"""Checkpoints: ssmcore's own format, and readers for those of the original implementations.

A reader is a pure function from a dict of arrays to a :class:`Reading`: the model, the options to
build it with, and its parameters in NumPy float64.
"""

from ssmcore.checkpoints.configs import module_config, module_from_config
from ssmcore.checkpoints.files import flatten, load, save, unflatten
from ssmcore.checkpoints.griffin import read_rglru, reset_from_positions
from ssmcore.checkpoints.lru import read_lru
from ssmcore.checkpoints.mamba import read_mamba_mixer, selective_scan_arguments
from ssmcore.checkpoints.pretrained import load_pretrained, stored_dtype
from ssmcore.checkpoints.reading import Reading
from ssmcore.checkpoints.s4 import read_s4, read_s4d_standalone
from ssmcore.checkpoints.s5 import read_s5
from ssmcore.checkpoints.tokens import special_tokens
from ssmcore.checkpoints.writing import save_pretrained

__all__ = [
    "Reading",
    "flatten",
    "load",
    "load_pretrained",
    "module_config",
    "module_from_config",
    "read_lru",
    "read_mamba_mixer",
    "read_rglru",
    "read_s4",
    "read_s4d_standalone",
    "read_s5",
    "reset_from_positions",
    "save",
    "save_pretrained",
    "selective_scan_arguments",
    "special_tokens",
    "stored_dtype",
    "unflatten",
]
