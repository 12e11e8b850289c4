"""Which primitives have kernels, on the devices that are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ssmcore_torch._cauchy import dplr_kernel
from ssmcore_torch._diagonal import diagonal_scan
from ssmcore_torch._linear import linear_scan
from ssmcore_torch._ops import KERNELS
from ssmcore_torch._selective import selective_scan
from ssmcore_torch._short import short_convolution

__all__ = ["PRIMITIVES"]

OF_LIBRARY: dict[str, tuple[Callable[..., Any], ...]] = {
    "numba": (linear_scan, diagonal_scan, selective_scan),
    "triton": (linear_scan, selective_scan, short_convolution, dplr_kernel),
}

PRIMITIVES = {"short_convolution": short_convolution} | {
    run.__name__: run
    for device, library in KERNELS.items()
    if device == "cpu" or torch.cuda.device_count() > 0
    for run in OF_LIBRARY[library]
}
"""By name; each asks for the device of its tensors itself. Short convolutions need no library."""
