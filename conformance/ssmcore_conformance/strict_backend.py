"""array_api_strict as a backend for tests: proves that the maths keeps to the standard."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ssmcore.backend import Backend

__all__ = ["BACKEND", "StrictBackend"]


class StrictBackend(Backend):
    """The strictest implementation of the standard; for tests only."""

    name = "array_api_strict"
    library = "array_api_strict"
    install = 'pip install "ssmcore[conformance]"'
    test_only = True

    @property
    def xp(self) -> Any:
        """The namespace itself."""
        return importlib.import_module("array_api_strict")

    def owns(self, x: object) -> bool:
        """Whether ``x`` is a strict array."""
        return type(x).__module__.split(".")[0] == self.library

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Return a NumPy copy."""
        return np.array(np.from_dlpack(x))


BACKEND = StrictBackend()
