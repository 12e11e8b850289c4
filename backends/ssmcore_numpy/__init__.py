"""NumPy as an ssmcore backend."""

from __future__ import annotations

import array_api_compat
import numpy as np

from ssmcore.backend import Backend

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


BACKEND = NumpyBackend()
