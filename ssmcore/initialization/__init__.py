"""Where the parameters of every model start: HiPPO, diagonal spectra, rings, timescales.

Pure NumPy in float64 and complex128. A random draw takes a `numpy.random.Generator`, so one seed
gives the same numbers on every backend.
"""

from __future__ import annotations

from ssmcore.initialization.diagonal import (
    s4d_eigenvalues,
    s4d_input_vector,
    s5_hippo_blocks,
    s5_input_matrix,
    s5_output_matrix,
)
from ssmcore.initialization.hippo import NPLR, hippo, low_rank_correction, nplr
from ssmcore.initialization.ring import rglru_a_param, ring
from ssmcore.initialization.timescale import (
    inverse_softplus,
    log_uniform_timescale,
    softplus_bias,
)

__all__ = [
    "NPLR",
    "hippo",
    "inverse_softplus",
    "log_uniform_timescale",
    "low_rank_correction",
    "nplr",
    "rglru_a_param",
    "ring",
    "s4d_eigenvalues",
    "s4d_input_vector",
    "s5_hippo_blocks",
    "s5_input_matrix",
    "s5_output_matrix",
    "softplus_bias",
]
