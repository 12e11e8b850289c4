"""What an array library must say of itself to be a backend; ``ssmcore.backend`` finds those."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ssmcore.errors import SSMError
from ssmcore.typing import Array, Namespace

__all__ = ["Backend"]


class Backend:
    """One array library: its namespace, its conversions, and the primitives it replaces.

    Subclass it, name an instance in the entry point group ``ssmcore.backends``, and every layer,
    primitive and proof of ssmcore runs on the library. Only ``name``, ``library``, ``install`` and
    ``owns`` must be given, ``xp`` where array-api-compat does not know the library, and
    ``to_numpy`` where ``numpy.asarray`` does not take its arrays; ``primitives`` lists native
    replacements of the reference primitives, ``elementwise`` those of scalar functions; ``word`` is
    the integer dtype whose arithmetic random bits use; ``open_transforms``: its FFTs take lengths
    that an export leaves open; ``one_device``: kernels read the memory of all their arguments where
    the first one is; ``ledger`` is a file of known failures for the conformance suite.
    """

    name: str
    library: str
    install: str
    test_only = False
    gradients = False
    word = "uint32"
    open_transforms = False
    one_device = False
    ledger: Path | None = None

    @property
    def xp(self) -> Namespace:
        """The array API namespace of the library."""
        return importlib.import_module(f"array_api_compat.{self.library}")

    def owns(self, x: object) -> bool:
        """Whether ``x`` is an array of this library."""
        raise TypeError(self)

    def version(self) -> str:
        """The version of the installed library; "unknown" if no distribution has its name."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(self.library)
        except PackageNotFoundError:
            return "unknown"

    def devices(self) -> list[str]:
        """The devices that can be used now, the default one first."""
        return ["cpu"]

    def processor(self) -> str:
        """Return the kind of processor that is known to run everything, else "cpu"."""
        return "cpu"

    def primitives(self) -> Mapping[str, Callable[..., Any]]:
        """Native implementations by primitive name; what is missing runs as the reference."""
        return {}

    def elementwise(self) -> Mapping[str, Callable[[Array], Array]]:
        """Native scalar functions: those of ``ssmcore.blocks.activations``, and softplus."""
        return {}

    def remarks(self) -> list[str]:
        """Sentences on which code runs here, for ``ssmcore doctor``."""
        return []

    def from_numpy(self, x: np.ndarray[Any, Any], device: Any = None) -> Array:
        """Return a copy of ``x`` in this library on ``device``, dtype unchanged."""
        return self.xp.asarray(x, device=device, copy=True)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Return ``x`` as a NumPy array, dtype unchanged."""
        return np.asarray(x)

    def concrete(self, x: Array) -> bool:
        """Whether the values of ``x`` can be looked at now (not while tracing)."""
        return True

    def leaves_open(self, size: Any) -> bool:
        """Whether ``size`` of an axis stands for many numbers, as while a program is exported."""
        return False

    def fuses_steps(self, x: Array) -> bool:
        """Whether beside ``x`` a selective scan of one step is one native kernel."""
        return False

    def steps(self, x: Array) -> Mapping[str, Callable[..., Any]]:
        """What a network does between its products for one step, by name, beside ``x``.

        Of ``rms_norm``, ``short_convolution``, ``s6`` and ``gate``, where each is one native call;
        no gradients are asked for. See ``ssmcore_numba.steps``.
        """
        return {}

    def product(self, u: Array, weight: Array) -> Array:
        """Return u weight^T, (..., H) and (K, H) to (..., K)."""
        return u @ self.xp.matrix_transpose(weight)

    def inner(self, x: Array, y: Array, axis: int) -> Array:
        """Return the sum of x y over ``axis``, of real numbers, in their full precision."""
        return self.xp.sum(x * y, axis=axis)

    def check_values(self, x: Array) -> None:
        """Raise SSMError where ``x`` is no dense array of values that could be copied."""

    def stop_gradient(self, x: Array) -> Array:
        """Return ``x`` as a constant to automatic differentiation."""
        return x

    def wait(self, x: Array) -> Array:
        """Return ``x`` once the work that makes it is done; at once where calls wait anyway."""
        return x

    def differentiates(self, *given: Array) -> bool:
        """Whether derivatives by ``given`` are being recorded, as far as one can tell."""
        return False

    def fold(
        self, step: Callable[..., tuple[Any, Array]], carry: Any, inputs: Mapping[str, Array]
    ) -> tuple[Any, Array]:
        """Run ``carry, y_t = step(carry, {name: x[t]})`` over axis 0; return carry and stacked y.

        The only control flow a library may replace: it runs mode ``"recurrence"``.
        """
        length = next(iter(inputs.values())).shape[0]
        outputs = []
        for t in range(length):
            carry, y = step(carry, {name: x[t, ...] for name, x in inputs.items()})
            outputs.append(y)
        return carry, self.xp.stack(outputs, axis=0)

    def checkpoint(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``fn``, whose inner values are computed again for a gradient and not kept."""
        return fn

    def without_gradients(self) -> AbstractContextManager[Any]:
        """Return a context in which nothing is recorded for derivatives."""
        return nullcontext()

    def compile(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``fn`` compiled by the library where that is the way it is used."""
        return fn

    def forget_compiled(self) -> None:
        """Let go of compiled programs where the library keeps them."""

    def value_and_grad(self, fn: Callable[[Any], Array], tree: Any) -> tuple[Array, Any]:
        """Return ``fn(tree)``, a real scalar, and its gradient with the shape of ``tree``."""
        msg = f"backend {self.name!r} has no automatic differentiation; use 'torch' or 'jax'"
        raise SSMError(msg)

    def enable_float64(self) -> None:
        """Switch on 64-bit types for this process where the library hides them."""

    def has_float64(self) -> bool:
        """Whether 64-bit types are on now."""
        return True
