"""Deep state space models, written once against the array API standard.

Layers are hyper-parameters, parameters are plain dicts of real arrays of any supported library:

>>> import numpy as np
>>> import ssmcore as ssm
>>> layer = ssm.S4D(d_model=4, d_state=8)
>>> params = layer.init(0, dtype="float64")
>>> y = layer(params, np.ones((16, 4)))
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING

from ssmcore import backend as _backend
from ssmcore.backend import move, to_numpy
from ssmcore.discretization import discretize
from ssmcore.errors import SSMError
from ssmcore.layers import (
    LRU,
    LSSL,
    RGLRU,
    S4,
    S4D,
    S5,
    S6,
    Bidirectional,
    Layer,
    ParamGroup,
)
from ssmcore.primitives import (
    causal_convolution,
    diagonal_kernel,
    diagonal_scan,
    dplr_kernel,
    linear_scan,
    selective_scan,
    short_convolution,
)

__all__ = [
    "LRU",
    "LSSL",
    "RGLRU",
    "S4",
    "S4D",
    "S5",
    "S6",
    "Bidirectional",
    "Layer",
    "ParamGroup",
    "SSMError",
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

__version__ = "0.1.0"

if _TYPE_CHECKING:
    from ssmcore import blocks as blocks
    from ssmcore import checkpoints as checkpoints
    from ssmcore import generation as generation
    from ssmcore import networks as networks
    from ssmcore import random as random
    from ssmcore import verify as verify
else:

    def __getattr__(name: str) -> object:
        """Import a part that few need when it is first asked for."""
        if name not in ("blocks", "checkpoints", "generation", "networks", "random", "verify"):
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        return _importlib.import_module(f"{__name__}.{name}")


_backend.default()
