"""NumPy as an ssmcore backend."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import array_api_compat
import numpy as np

from ssmcore.backend import Backend, native

__all__ = ["BACKEND", "NumpyBackend"]


class NumpyBackend(Backend):
    """NumPy: always there, float64, no automatic differentiation."""

    name = "numpy"
    library = "numpy"
    install = "pip install numpy"

    def owns(self, x: object) -> bool:
        """Whether ``x`` is a NumPy array or scalar; ``np.matrix``, whose ``*`` differs, is none."""
        array = bool(array_api_compat.is_numpy_array(x)) and not isinstance(x, np.matrix)
        return array or isinstance(x, np.generic)

    def primitives(self) -> Mapping[str, Callable[..., Any]]:
        """Numba's kernels, where numba is installed."""
        return _native()

    def steps(self, x: object) -> Mapping[str, Callable[..., Any]]:
        """Numba's kernels, where numba is installed."""
        return _steps() if self.primitives() else {}


@functools.cache
def _steps() -> Mapping[str, Callable[..., Any]]:
    from ssmcore_numba import steps

    return {name: getattr(steps, name) for name in steps.__all__}


@functools.cache
def _native() -> Mapping[str, Callable[..., Any]]:
    if not (native() and importlib.util.find_spec("numba")):
        return {}
    from ssmcore_numpy import _primitives

    return {name: getattr(_primitives, name) for name in _primitives.__all__}


BACKEND = NumpyBackend()
