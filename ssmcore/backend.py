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
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmcore import arrays
from ssmcore._transfer import dtype_name, transfer
from ssmcore.errors import SSMError, check_choice
from ssmcore.typing import Array, Namespace

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "Backend",
    "available",
    "default",
    "dtype_name",
    "failures",
    "is_open",
    "load",
    "move",
    "names",
    "of",
    "register",
    "to_numpy",
]

GROUP = "ssmcore.backends"
DTYPES = ("float32", "float64")
REQUIRED = ("name", "library", "install", "owns")


class Backend:
    """One array library: its namespace, its conversions, and the primitives it replaces.

    Subclass it, name an instance in the entry point group ``ssmcore.backends``, and every layer,
    primitive and proof of ssmcore runs on the library. Only ``name``, ``library``, ``install`` and
    ``owns`` must be given, ``xp`` where array-api-compat does not know the library, and
    ``to_numpy`` where ``numpy.asarray`` does not take its arrays; ``primitives`` lists native
    replacements of the reference primitives, ``elementwise`` those of scalar functions; ``word`` is
    the integer dtype whose arithmetic random bits use; ``open_transforms``: its FFTs take lengths
    that an export leaves open; ``ledger`` is a file of known failures for
    the conformance suite.
    """

    name: str
    library: str
    install: str
    test_only = False
    gradients = False
    word = "uint32"
    open_transforms = False
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
    if not isinstance(name, str) or name not in _registered:
        check_choice("ssmcore", "backend", name, names())
        _registered[name] = _loaded(_entry_points()[name])
    return _registered[name]


def _loaded(point: EntryPoint) -> Backend:
    """Return what an entry point names; whatever its import raises becomes one SSMError."""
    try:
        found = point.load()
    except (Exception, SystemExit) as error:
        msg = (
            f"backend {point.name!r} cannot be loaded from {point.value!r}: "
            f"{type(error).__name__}: {error}; repair or uninstall the package that brings it"
        )
        raise SSMError(msg) from error
    if isinstance(found, type) or not all(hasattr(found, part) for part in REQUIRED):
        msg = (
            f"backend {point.name!r}: {point.value!r} is {found!r:.50}; expected an instance of "
            f"ssmcore.backend.Backend with {', '.join(REQUIRED)}"
        )
        raise SSMError(msg)
    backend: Backend = found
    if backend.name != point.name:
        msg = (
            f"backend {point.name!r}: {point.value!r} has the name {backend.name!r}; "
            "expected that of the entry point"
        )
        raise SSMError(msg)
    return backend


def failures() -> dict[str, str]:
    """Return the backends whose entry point cannot be loaded, each with the reason.

    Examples
    --------
    >>> from ssmcore import backend
    >>> "numpy" in backend.failures()
    False
    """
    found = {}
    for name in names():
        try:
            _entry(name)
        except SSMError as error:
            found[name] = str(error)
    return found


def installed(name: str) -> bool:
    """Whether the library of backend ``name`` can be found (it is not imported)."""
    library = _entry(name).library.partition(".")[0]  # find_spec imports what is before a dot
    return library in sys.modules or importlib.util.find_spec(library) is not None


def load(name: str) -> Backend:
    """Return backend ``name``; SSMError if it is unknown, cannot be loaded or has no library.

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
    """Return the names of the backends that load and whose library is installed."""
    broken = failures()
    loaded = [n for n in names() if n not in broken]
    return [n for n in loaded if installed(n) and (test_only or not _entry(n).test_only)]


def of(*given: Array) -> Backend:
    """Return the one backend that owns all arrays ``given`` (None is ignored)."""
    owners = {id(b): b for b in (_owner(x) for x in given if x is not None)}
    if len(owners) == 1:
        return next(iter(owners.values()))
    if not owners:
        msg = f"expected an array, got {', '.join(map(repr, given)) or 'nothing'}"
        raise SSMError(msg)
    arrays.namespace(*given)
    msg = f"expected arrays of one library, got those of {[b.name for b in owners.values()]}"
    raise SSMError(msg)


def is_open(x: Array, size: Any) -> bool:
    """Whether the library of ``x``, while it exports, leaves ``size`` of an axis open."""
    return not isinstance(size, int) and of(x).leaves_open(size)


def known(kind: type) -> bool:
    """Whether arrays of class ``kind`` have been seen before."""
    return kind in _owner_of_type


def _owner(x: Array) -> Backend:
    kind = type(x)
    if kind not in _owner_of_type:
        _owner_of_type[kind] = _find_owner(x)
    return _owner_of_type[kind]


def _find_owner(x: Array) -> Backend:
    root = type(x).__module__.split(".")[0]
    order = sorted(names(), key=lambda n: (not root.startswith(n), n not in _registered))
    broken = failures()
    for name in order:
        if name not in broken and installed(name) and _entry(name).owns(x):
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


@functools.cache
def native() -> bool:
    """Whether backends may run native kernels; with SSMCORE_NATIVE=0 the references run."""
    value = os.environ.get("SSMCORE_NATIVE", "1")
    check_choice("ssmcore", "value of SSMCORE_NATIVE", value, ("0", "1"))
    return value == "1"


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
        Something that is no dense array of a known library.

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

    Copies go by DLPack where an array of real floats lies on the device that the target library
    uses by default, else through the host. The result never shares memory with the input.

    Parameters
    ----------
    tree
        A real array or nested dict of them; half precision too where both libraries have it
        (NumPy has no bfloat16).
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
        Unknown backend or dtype; a dtype that the library has not, or has switched off; an array
        without dense values (sparse, or on torch's meta device) bound for another library.

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

    def moved(x: Array) -> Array:
        source = of(x)
        out = transfer(x, source, target or source, device, dtype)
        of(out)  # remembered now, so that a compiler never traces the search for the owner
        return out

    return arrays.tree_map(moved, tree)
