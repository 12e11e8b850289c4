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
from typing import TYPE_CHECKING, Any

from ssmcore import arrays
from ssmcore._library import Backend
from ssmcore._transfer import dtype_name, transfer
from ssmcore.errors import SSMError, check_choice
from ssmcore.typing import Array

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
    if len(given) == 1 and type(given[0]) in _owner_of_type:
        return _owner_of_type[type(given[0])]
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
