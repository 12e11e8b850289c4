"""What the array API standard lacks: complex pairs, stable scalar functions, error-free products.

Everything here is written once against the standard and is differentiable wherever the library
differentiates. Nothing changes dtype, device or namespace unless its name says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import array_api_compat

from ssmcore.errors import SSMError
from ssmcore.typing import Array, Namespace

__all__ = [
    "arange",
    "complex_dtype",
    "conj",
    "device",
    "expm1",
    "index_dtype",
    "is_complex",
    "is_tree",
    "join",
    "leaves",
    "like",
    "moveaxis",
    "namespace",
    "nest",
    "real_dtype",
    "sigmoid",
    "softplus",
    "split",
    "tree_map",
    "two_product",
    "two_sum",
    "widen",
    "widest_real",
]


_of_type: dict[Any, Namespace] = {}
"""What array-api-compat says of a class of arrays, which it takes some microseconds to."""


def namespace(*arrays: Array) -> Namespace:
    """Return the one namespace of ``arrays`` (None is ignored); mixed libraries raise SSMError."""
    kind = type(arrays[0]) if arrays else None
    if kind in _of_type and all(type(a) is kind for a in arrays[1:]):
        return _of_type[kind]
    given = [a for a in arrays if a is not None]
    try:
        found = array_api_compat.array_namespace(*given)
        if len(arrays) == 1:
            _of_type[kind] = found
        return found
    except TypeError:
        kinds = sorted({f"{type(a).__module__.split('.')[0]}.{type(a).__name__}" for a in given})
        msg = (
            f"expected arrays of one library, got {', '.join(kinds)}; "
            "move them together with ssmcore.move(tree, backend=...)"
        )
        raise SSMError(msg) from None


def device(x: Array) -> Any:
    """Return the device of ``x`` in its library's own terms."""
    return array_api_compat.device(x)


def is_complex(x: Array) -> bool:
    """Whether ``x`` has a complex dtype."""
    return bool(namespace(x).isdtype(x.dtype, "complex floating"))


def real_dtype(xp: Namespace, dtype: Any) -> Any:
    """Return the real dtype of the same precision as ``dtype``."""
    if dtype == xp.complex64:
        return xp.float32
    return xp.float64 if dtype == xp.complex128 else dtype


def complex_dtype(xp: Namespace, dtype: Any) -> Any:
    """Return the complex dtype of the same precision as ``dtype``."""
    if dtype == xp.float32:
        return xp.complex64
    return xp.complex128 if dtype == xp.float64 else dtype


def widest_real(x: Array) -> Any:
    """Return the widest real floating dtype the library of ``x`` offers on the device of ``x``.

    float64 everywhere except where there is none (JAX without 64-bit types, Apple GPUs).
    """
    xp = namespace(x)
    offered = xp.__array_namespace_info__().dtypes(kind="real floating", device=None)
    no_double = "mps" in str(device(x))
    return xp.float64 if "float64" in offered and not no_double else xp.float32


def widen(x: Array) -> Array:
    """Return ``x``, real or complex, in the widest precision its library offers on its device."""
    xp, real = namespace(x), widest_real(x)
    return xp.astype(x, complex_dtype(xp, real) if is_complex(x) else real, copy=False)


def arange(like: Array, stop: int, dtype: Any) -> Array:
    """Return 0, 1, ..., stop-1 with ``dtype`` on the device of ``like``."""
    return namespace(like).arange(stop, dtype=dtype, device=device(like))


def index_dtype(x: Array) -> Any:
    """Return the integer dtype that the library of ``x`` indexes with."""
    return namespace(x).__array_namespace_info__().default_dtypes(device=None)["indexing"]


def like(x: Array, value: Any, dtype: Any = None) -> Array:
    """Return ``value`` (host numbers) as an array beside ``x``: its library, device and dtype."""
    return namespace(x).asarray(value, dtype=dtype or x.dtype, device=device(x))


def join(pair: Array) -> Array:
    """Return the complex array of a real ``pair`` (..., 2) = (re, im)."""
    return pair[..., 0] + pair[..., 1] * 1j


def conj(z: Array) -> Array:
    """Return the conjugate of a complex array; torch.func.vmap has no rule for ``xp.conj``."""
    xp = namespace(z)
    return xp.real(z) - xp.imag(z) * 1j


def moveaxis(x: Array, source: int, destination: int) -> Array:
    """Return ``x`` with one axis moved; torch.func.vmap has no rule for ``xp.moveaxis``."""
    order = list(range(x.ndim))
    order.insert(destination % x.ndim, order.pop(source))
    return namespace(x).permute_dims(x, tuple(order))


def split(z: Array) -> Array:
    """Return the real pair (..., 2) = (re, im) of a complex array."""
    xp = namespace(z)
    return xp.stack((xp.real(z), xp.imag(z)), axis=-1)


def softplus(x: Array) -> Array:
    """Return log(1 + e^x) without overflow, exact to rounding at both ends.

    Examples
    --------
    >>> import numpy as np
    >>> softplus(np.asarray([-50.0, 0.0, 800.0]))
    array([1.92874985e-22, 6.93147181e-01, 8.00000000e+02])
    """
    xp = namespace(x)
    return xp.logaddexp(x, xp.zeros_like(x))


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + e^-x) without overflow, exact to rounding at both ends."""
    xp = namespace(x)
    zero = xp.zeros_like(x)
    e = xp.exp(xp.where(x < 0, x, zero))
    return xp.where(x < 0, e / (1.0 + e), 1.0 / (1.0 + xp.exp(-xp.where(x < 0, zero, x))))


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return s = fl(a + b) and the exact rounding error e, so that s + e = a + b (Knuth).

    Neither may be a constant under ``jax.jit``: XLA folds (c + x) - c.
    """
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Return p = fl(a b) and the exact rounding error e, so that p + e = a b (Dekker, Veltkamp).

    Real ``a``, ``b`` of one dtype, float32 or float64. Exact while nothing over- or underflows.
    The derivative of e is zero, that of p the usual one. The select around the product keeps
    compilers (XLA on the CPU does) from contracting ``x - a * b`` into one fused operation that
    never sees the rounding.
    """
    xp = namespace(a)
    factor = float(2 ** math.ceil(-math.log2(xp.finfo(a.dtype).eps) / 2 + 1) + 1)
    a_high, b_high = factor * a, factor * b
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    p = a * b
    p = xp.where(xp.abs(p) < math.inf, p, 2.0 * p)
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def expm1(z: Array) -> Array:
    """Return e^z - 1 without cancellation, real or complex.

    For z = x + iy: expm1(x) cos y - 2 sin^2(y/2) + i e^x sin y.
    """
    xp = namespace(z)
    if not is_complex(z):
        return xp.expm1(z)
    x, y = xp.real(z), xp.imag(z)
    s = xp.sin(0.5 * y)
    return (xp.expm1(x) * xp.cos(y) - 2.0 * s * s) + xp.exp(x) * xp.sin(y) * 1j


def is_tree(tree: Any) -> bool:
    """Whether ``tree`` is a mapping of any kind, torch's ParameterDict among them."""
    return hasattr(tree, "items")


def tree_map(fn: Callable[[Array], Any], tree: Any) -> Any:
    """Apply ``fn`` to every array of a nested mapping, keeping its keys."""
    if is_tree(tree):
        return {key: tree_map(fn, value) for key, value in tree.items()}
    return fn(tree)


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Array]]:
    """Yield (dotted name, array) of a nested mapping, in its order."""
    if not is_tree(tree):
        yield prefix, tree
        return
    for key, value in tree.items():
        yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))


def nest(pairs: Iterable[tuple[str, Array]]) -> dict[str, Any]:
    """Return the nested dict of ``pairs`` (dotted name, array): the inverse of ``leaves``."""
    nested: dict[str, Any] = {}
    for name, value in pairs:
        *parents, last = name.split(".")
        node: Any = nested
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or last in node:
            msg = f"name {name!r} clashes with another; expected a name to be array or group"
            raise SSMError(msg)
        node[last] = value
    return nested
