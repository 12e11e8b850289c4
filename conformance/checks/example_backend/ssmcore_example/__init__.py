"""An ssmcore backend for the array library ``boxed``, with one primitive of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boxed
import numpy as np

from ssmcore.backend import Backend


class ExampleBackend(Backend):
    """``boxed`` arrays as ssmcore sees them."""

    name = "example"
    library = "boxed"
    install = "pip install ssmcore-example"

    @property
    def xp(self) -> Any:
        """The library's array API namespace."""
        return boxed.SPACE

    def owns(self, x: object) -> bool:
        """Whether ``x`` is an array of the library."""
        return isinstance(x, boxed.Box)

    def to_numpy(self, x: boxed.Box) -> np.ndarray[Any, Any]:
        """Return a NumPy copy of ``x``."""
        return np.array(x.value)

    ledger = Path(__file__).parent / "example.toml"

    def primitives(self) -> Mapping[str, Callable[..., Any]]:
        """The one primitive that is not left to ssmcore's reference."""
        return {"short_convolution": short_convolution}


def short_convolution(
    u: boxed.Box, weight: boxed.Box, bias: boxed.Box | None, state: boxed.Box | None
) -> tuple[boxed.Box, boxed.Box]:
    """See ssmcore.short_convolution: all windows at once, each times the taps."""
    x, taps = u.value, weight.value
    shape = (*x.shape[:-2], len(taps) - 1, x.shape[-1])
    past = np.concatenate((np.zeros(shape, x.dtype) if state is None else state.value, x), axis=-2)
    y = np.zeros_like(x)
    if x.shape[-2] > 0:
        windows = np.lib.stride_tricks.sliding_window_view(past, len(taps), axis=-2)
        y = np.einsum("...hk,kh->...h", windows, taps)
    if bias is not None:
        y = y + bias.value
    return boxed.Box(y), boxed.Box(past[..., x.shape[-2] :, :].copy())


BACKEND = ExampleBackend()
