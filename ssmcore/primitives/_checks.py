"""Checks on the arguments of primitives: one clear error before any work."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmcore import arrays, backend
from ssmcore.errors import SSMError
from ssmcore.typing import Array

__all__ = [
    "broadcasts_to",
    "check_array",
    "check_devices",
    "check_dt",
    "check_initial",
    "check_kind",
    "check_precision",
    "check_reset",
    "check_shape",
    "readable",
]

OPTIONAL = ("D", "bias", "initial", "state")
ALLOWED = ("float32", "float64", "complex64", "complex128")


def check_array(owner: str, name: str, x: object) -> None:
    """Raise SSMError unless ``x`` is an array; ``arrays.namespace`` skips numbers and None."""
    if not (hasattr(x, "dtype") and hasattr(x, "shape")):
        msg = f"{owner}: {name} is {type(x).__name__} {x!r:.50}; expected an array"
        raise SSMError(msg)
    backend.of(x)


def readable(x: Array) -> bool:
    """Whether the values of ``x`` can be looked at without waiting for a device or a compiler."""
    return backend.of(x).concrete(x) and "cpu" in str(arrays.device(x)).lower()


def check_precision(
    owner: str, allowed: tuple[str, ...] = ALLOWED, /, **given: Array | None
) -> None:
    """Raise SSMError unless all arrays have ``allowed`` dtypes, and all the same precision.

    What is OPTIONAL may be None.
    """
    named = {name: x for name, x in given.items() if x is not None or name not in OPTIONAL}
    for name, x in named.items():
        check_array(owner, name, x)
    arrays.namespace(*named.values())
    check_devices(owner, **named)
    for name, x in named.items():
        if backend.dtype_name(x) not in allowed:
            msg = (
                f"{owner}: {name} has dtype {backend.dtype_name(x)}; expected one of "
                f"{', '.join(allowed)}; convert it first (nothing is converted silently)"
            )
            raise SSMError(msg)
    single = [backend.dtype_name(x) in ("float32", "complex64") for x in named.values()]
    if any(single) and not all(single):
        found = ", ".join(f"{name} {backend.dtype_name(x)}" for name, x in named.items())
        msg = f"{owner}: arrays of one precision expected, got {found}; convert one of them"
        raise SSMError(msg)


def check_devices(owner: str, **given: Array | None) -> None:
    """Raise SSMError unless arrays of one library, or None, are on one device if they must be."""
    named = {name: x for name, x in given.items() if x is not None}
    if not backend.of(*named.values()).one_device:
        return
    found = {name: arrays.device(x) for name, x in named.items()}
    if any(device != found[next(iter(found))] for device in found.values()):
        places = ", ".join(f"{name} on {device}" for name, device in found.items())
        msg = (
            f"{owner}: arrays on one device expected, got {places}; "
            "move them together with ssmcore.move(tree, device=...)"
        )
        raise SSMError(msg)


def check_kind(owner: str, kind: str, **given: Array | None) -> None:
    """Raise SSMError unless all arrays are of ``kind``, "real" or "complex"."""
    for name, x in given.items():
        if x is not None and arrays.is_complex(x) != (kind == "complex"):
            msg = f"{owner}: {name} has dtype {backend.dtype_name(x)}; expected {kind} numbers"
            raise SSMError(msg)


def check_shape(owner: str, name: str, x: Array, expected: str, ok: bool) -> None:
    """Raise SSMError naming the shape found and the one expected unless ``ok``."""
    if not ok:
        msg = f"{owner}: {name} has shape {tuple(x.shape)}; expected {expected}"
        raise SSMError(msg)


def check_reset(
    owner: str, reset: Array | None, u: Array, shape: tuple[int, ...] | None = None
) -> None:
    """Raise SSMError unless ``reset`` is boolean, of u's library, and broadcasts to (..., L).

    That is ``shape``, or without it u's but the last axis.
    """
    if reset is None:
        return
    check_array(owner, "reset", reset)
    xp = arrays.namespace(reset, u)
    check_devices(owner, reset=reset, u=u)
    if reset.dtype != xp.bool:
        msg = f"{owner}: reset has dtype {backend.dtype_name(reset)}; expected bool"
        raise SSMError(msg)
    target = tuple(u.shape[:-1]) if shape is None else shape
    ok = reset.ndim >= 1 and reset.shape[-1] == target[-1] and _broadcasts(reset.shape, target)
    check_shape(owner, "reset", reset, f"(..., L) = {target}", ok)


def check_dt(owner: str, name: str, dt: Array) -> None:
    """Raise SSMError if a step size that is ``readable`` is negative or not finite."""
    arrays.namespace(dt)
    if not readable(dt):
        return
    values = backend.to_numpy(dt)  # its own operations would be traced inside jax.jit
    wrong = ~((values >= 0) & (values < np.inf))
    if wrong.any():
        bad = values[wrong][0].item()
        msg = f"{owner}: {name} has the value {bad!r}; expected finite step sizes of at least 0"
        raise SSMError(msg)


def check_initial(owner: str, initial: Array | None, expected: tuple[int, ...]) -> None:
    """Raise SSMError unless ``initial`` has exactly the shape of one state per sequence."""
    if initial is not None:
        ok = tuple(initial.shape) == expected
        if not ok:  # torch.compile follows no str() of sizes that it leaves open
            check_shape(owner, "initial", initial, str(expected), ok)


def _broadcasts(shape: Any, target: tuple[int, ...]) -> bool:
    if len(shape) > len(target):
        return False
    pairs = zip(reversed(tuple(shape)), reversed(target), strict=False)
    return all(s in (1, t) for s, t in pairs)


def broadcasts_to(x: Array, target: tuple[int, ...]) -> bool:
    """Whether ``x`` broadcasts to exactly ``target``."""
    return _broadcasts(x.shape, target)
