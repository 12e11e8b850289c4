"""CuPy as an ssmcore backend."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import array_api_compat
import numpy as np

from ssmcore.backend import Backend, native
from ssmcore.typing import Namespace
from ssmcore_cupy.cauchy import dplr_kernel
from ssmcore_cupy.convolution import short_convolution
from ssmcore_cupy.diagonal import diagonal_scan
from ssmcore_cupy.launch import Launch, RawLaunch
from ssmcore_cupy.linear import linear_scan
from ssmcore_cupy.selective import selective_scan

__all__ = ["BACKEND", "CupyBackend"]


class CupyBackend(Backend):
    """CuPy: CUDA arrays with NumPy's interface; imported on first use only.

    ``module``, ``namespace`` and ``launch`` stand in for ``cupy``, ``array_api_compat.cupy`` and
    what launches kernels; given by tests that run this path without a GPU.
    """

    name = "cupy"
    library = "cupy"
    install = 'pip install "ssmcore[cupy]"'
    one_device = True

    def __init__(
        self,
        module: Any = None,
        namespace: Namespace | None = None,
        launch: Launch | None = None,
    ) -> None:
        self._module = module
        self._namespace = namespace
        self._launch = launch

    @property
    def cupy(self) -> Any:
        """The library itself."""
        return self._module or importlib.import_module("cupy")

    @property
    def xp(self) -> Namespace:
        """The array API namespace of CuPy."""
        return self._namespace or importlib.import_module("array_api_compat.cupy")

    def owns(self, x: object) -> bool:
        """Whether ``x`` is a CuPy array."""
        if self._module is not None:
            return isinstance(x, self._module.ndarray)
        return bool(array_api_compat.is_cupy_array(x))

    def version(self) -> str:
        """The version of CuPy, whichever of its wheels is installed."""
        return str(self.cupy.__version__)

    @functools.cached_property
    def _native(self) -> Mapping[str, Callable[..., Any]]:
        launch = self._launch or RawLaunch(self.cupy)
        kernels: dict[str, Callable[..., Any]] = {
            "linear_scan": linear_scan,
            "diagonal_scan": diagonal_scan,
            "selective_scan": selective_scan,
            "short_convolution": short_convolution,
            "dplr_kernel": dplr_kernel,
        }
        return {name: functools.partial(run, launch) for name, run in kernels.items()}

    def fuses_steps(self, x: Any) -> bool:
        """Where the kernels run."""
        return "selective_scan" in self.primitives()

    def primitives(self) -> Mapping[str, Callable[..., Any]]:
        """What runs as CUDA C; compiled by CuPy at the first call."""
        return self._native if native() else {}

    def devices(self) -> list[str]:
        """The CUDA devices that answer; none is an error that says so."""
        return [f"cuda:{i}" for i in range(self.cupy.cuda.runtime.getDeviceCount())]

    def from_numpy(self, x: np.ndarray[Any, Any], device: Any = None) -> Any:
        """Return a CuPy array with a copy of ``x`` on ``device`` (an index or cupy.cuda.Device)."""
        with self.cupy.cuda.Device(device):
            return self.cupy.array(x, copy=True)

    def wait(self, x: Any) -> Any:
        """Return ``x`` when all work on the current device is done."""
        self.cupy.cuda.Device().synchronize()
        return x

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Return a NumPy copy on the host."""
        out: np.ndarray[Any, Any] = self.cupy.asnumpy(x)
        return out


BACKEND = CupyBackend()
