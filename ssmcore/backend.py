"""Array libraries as backends: found by entry point, loaded only when needed.

Requirements this file obeys: a library that is absent never breaks an import; one that is
present but broken raises; a library is loaded only when it is named or when one of its arrays
arrives; third-party backends come through the same door (entry point group
``ssmcore.backends``) as the built-in ones.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from ssmcore import arrays
from ssmcore.errors import SSMError, check_choice
from ssmcore.typing import Array, Namespace

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Backend", "available", "default", "load", "move", "names", "of", "register", "to_numpy"]

GROUP = "ssmcore.backends"
DTYPES = ("float32", "float64")


class Backend:
    """One array library: its namespace, its conversions, and the primitives it replaces.

    Subclass it, name an instance in the entry point group ``ssmcore.backends``, and every layer,
    primitive and proof of ssmcore runs on the library. Only ``name``, ``library``, ``install`` and
    ``owns`` must be given; ``primitives`` lists native replacements of the reference primitives.
    """

    name: str
    library: str
    install: str
    test_only = False
    gradients = False

    @property
    def xp(self) -> Namespace:
        """The array API namespace of the library."""
        return importlib.import_module(f"array_api_compat.{self.library}")

    def owns(self, x: object) -> bool:
        """Whether ``x`` is an array of this library."""
        raise TypeError(self)

    def version(self) -> str:
        """The version of the installed library."""
        from importlib.metadata import version

        return version(self.library)

    def devices(self) -> list[str]:
        """The devices that can be used now, the default one first."""
        return ["cpu"]

    def primitives(self) -> Mapping[str, Callable[..., Any]]:
        """Native implementations by primitive name; what is missing runs as the reference."""
        return {}

    def from_numpy(self, x: np.ndarray[Any, Any], device: Any = None) -> Array:
        """Return a copy of ``x`` in this library on ``device``, dtype unchanged."""
        return self.xp.asarray(x, device=device, copy=True)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Return ``x`` as a NumPy array, dtype unchanged."""
        return np.asarray(x)

    def concrete(self, x: Array) -> bool:
        """Whether the values of ``x`` can be looked at now (not while tracing)."""
        return True

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

    def compile(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``fn`` compiled by the library where that is the way it is used."""
        return fn

    def value_and_grad(self, fn: Callable[[Any], Array], tree: Any) -> tuple[Array, Any]:
        """Return ``fn(tree)``, a real scalar, and its gradient with the shape of ``tree``."""
        msg = f"backend {self.name!r} has no automatic differentiation; use 'torch' or 'jax'"
        raise SSMError(msg)

    def enable_float64(self) -> None:
        """Switch on 64-bit types for this process where the library hides them."""

    def has_float64(self) -> bool:
        """Whether 64-bit types are on now."""
        return True


_registered: dict[str, Backend] = {}
_owner_of_type: dict[type, Backend] = {}


@functools.cache
def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # 50 ms that ``import ssmcore`` need not cost

    return {ep.name: ep for ep in entry_points(group=GROUP)}


def names() -> list[str]:
    """Return the names of all known backends, installed library or not.

    Examples
    --------
    >>> from ssmcore import backend
    >>> "numpy" in backend.names()
    True
    """
    return list(dict.fromkeys([*_registered, *_entry_points()]))


def register(backend: Backend) -> None:
    """Add ``backend`` for this process; it wins over an entry point of the same name."""
    _registered[backend.name] = backend
    _owner_of_type.clear()


def _entry(name: str) -> Backend:
    """Return the backend object of ``name`` without looking for its library."""
    if name not in _registered:
        check_choice("ssmcore", "backend", name, names())
        _registered[name] = _entry_points()[name].load()
    return _registered[name]


def installed(name: str) -> bool:
    """Whether the library of backend ``name`` can be found (it is not imported)."""
    library = _entry(name).library
    return library in sys.modules or importlib.util.find_spec(library) is not None


def load(name: str) -> Backend:
    """Return backend ``name``; unknown names and absent libraries raise SSMError.

    Examples
    --------
    >>> from ssmcore import backend
    >>> backend.load("numpy").devices()
    ['cpu']
    """
    backend = _entry(name)
    if not installed(name):
        msg = (
            f"backend {name!r} needs the library {backend.library!r}, which is not installed; "
            f"install it with: {backend.install}"
        )
        raise SSMError(msg)
    return backend


def available(*, test_only: bool = False) -> list[str]:
    """Return the names of the backends whose library is installed."""
    return [n for n in names() if installed(n) and (test_only or not _entry(n).test_only)]


def of(*given: Array) -> Backend:
    """Return the one backend that owns all arrays ``given`` (None is ignored)."""
    owners = {id(b): b for b in (_owner(x) for x in given if x is not None)}
    if len(owners) == 1:
        return next(iter(owners.values()))
    arrays.namespace(*given)
    msg = f"expected arrays of one library, got those of {[b.name for b in owners.values()]}"
    raise SSMError(msg)


def _owner(x: Array) -> Backend:
    kind = type(x)
    if kind not in _owner_of_type:
        _owner_of_type[kind] = _find_owner(x)
    return _owner_of_type[kind]


def _find_owner(x: Array) -> Backend:
    root = type(x).__module__.split(".")[0]
    order = sorted(names(), key=lambda n: (not root.startswith(n), n not in _registered))
    for name in order:
        if installed(name) and _entry(name).owns(x):
            return _entry(name)
    msg = (
        f"expected an array of a known library ({', '.join(names())}), "
        f"got {type(x).__module__}.{type(x).__qualname__}; convert it first"
    )
    raise SSMError(msg)


@functools.cache
def default() -> str:
    """Return the default backend: SSMCORE_BACKEND as it was at import, or ``"numpy"``."""
    name = os.environ.get("SSMCORE_BACKEND")
    if not name:
        return "numpy"
    check_choice("ssmcore", "backend (from SSMCORE_BACKEND)", name, names())
    return name


def to_numpy(tree: Any) -> Any:
    """Return ``tree`` in NumPy, dtypes unchanged.

    Parameters
    ----------
    tree
        An array of any library and dtype, or a nested dict of them.

    Returns
    -------
    The same tree of NumPy arrays; what is NumPy already is not copied.

    Raises
    ------
    SSMError
        Something that is no array of a known library.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore import to_numpy
    >>> to_numpy({"D": np.ones(2)})
    {'D': array([1., 1.])}
    """
    return arrays.tree_map(lambda x: of(x).to_numpy(x), tree)


def move(
    tree: Any, *, backend: str | None = None, device: Any = None, dtype: str | None = None
) -> Any:
    """Return a copy of ``tree`` in another library, on another device, in another dtype.

    Copies go by DLPack between libraries that share a device, else through the host. The
    result never shares memory with the input.

    Parameters
    ----------
    tree
        A real array or nested dict of them.
    backend
        Name of the target backend; None keeps the library.
    device
        Target device in the target library's terms; None keeps the device within a library and
        means its default device across libraries.
    dtype
        ``"float32"``, ``"float64"``, or None to keep each dtype.

    Returns
    -------
    The same tree of new arrays.

    Raises
    ------
    SSMError
        Unknown backend or dtype; float64 where the library has it switched off.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore import move
    >>> move({"D": np.ones(2)}, backend="numpy", dtype="float32")["D"].dtype
    dtype('float32')
    """
    if dtype is not None:
        check_choice("move", "dtype", dtype, DTYPES)
    target = None if backend is None else load(backend)
    return arrays.tree_map(lambda x: _placed(x, target or of(x), device, dtype), tree)


def _placed(x: Array, target: Backend, device: Any, dtype: str | None) -> Array:
    """Move ``x``; what a library says of a device it cannot use becomes one SSMError."""
    try:
        return _move(x, target, device, dtype)
    except SSMError:
        raise
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if device is None:
            raise
        msg = (
            f"device {device!r} asked of backend {target.name!r}, which has {target.devices()}; "
            f"the library says: {error}"
        )
        raise SSMError(msg) from error


def _move(x: Array, target: Backend, device: Any, dtype: str | None) -> Array:
    source = of(x)
    name = dtype or dtype_name(x)
    if name in ("float64", "complex128") and not target.has_float64():
        msg = (
            f"{name} asked of backend {target.name!r}, whose 64-bit types are off; switch them on "
            'before any array is made (JAX: jax.config.update("jax_enable_x64", True)) '
            'or ask for dtype="float32"'
        )
        raise SSMError(msg)
    if dtype is not None and arrays.is_complex(x):
        msg = f"dtype {dtype!r} asked of a complex array; expected real ones, complex as (re, im)"
        raise SSMError(msg)
    if not hasattr(target.xp, name):
        msg = f"backend {target.name!r} has no dtype {name!r}; ask for dtype='float32'"
        raise SSMError(msg)
    if source is target:
        out = target.xp.astype(x, getattr(target.xp, name), copy=True)
        return out if device is None else array_api_compat.to_device(out, device)
    out = target.xp.astype(_cross(x, source, target, device), getattr(target.xp, name), copy=False)
    of(out)  # remembered now, so that a compiler never traces the search for the owner
    return out


def _cross(x: Array, source: Backend, target: Backend, device: Any) -> Array:
    """Copy between libraries: by DLPack when both can, else through the host."""
    if device is None and "numpy" not in (source.name, target.name):
        try:
            return target.xp.asarray(target.xp.from_dlpack(x), copy=True)
        except (
            AttributeError,
            BufferError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
        ):
            pass  # no shared device, gradients attached or a dtype without DLPack: by the host
    return target.from_numpy(source.to_numpy(x), device)


def dtype_name(x: Array) -> str:
    """Return the standard's name of the dtype of ``x``, such as ``"float32"``."""
    return str(x.dtype).rsplit(".", 1)[-1]
