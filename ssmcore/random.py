"""Random numbers from an explicit key, the same on every library.

Counter-based: number i of a key is a fixed function of key and i, so nothing is carried along. A
key is two 32-bit words (k0, k1); word i is mix(mix(i xor k0) + k1) with ``mix`` the hash of two
multiplications of Wellons (hash prospector, 2018: shifts 16, 15, 15). Good enough for dropout and
sampling, not for secrets.

>>> from ssmcore import random
>>> import numpy as np
>>> random.uniform(7, (3,), np.zeros(0, "float32"))
array([0.05976647, 0.9673518 , 0.3524273 ], dtype=float32)
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from ssmcore import arrays, backend
from ssmcore._arguments import plain
from ssmcore.errors import SSMError
from ssmcore.typing import Array

__all__ = ["Key", "bernoulli", "bits", "check_key", "fold_in", "uniform"]

Key: TypeAlias = Any
"""A whole number of at least 0, a pair of them, or an integer array () or (2,)."""

MASK = 0xFFFFFFFF
FIRST, SECOND = 0x21F0AAAD, 0x735A2D97
GOLDEN = 0x1E3779B9


def check_key(owner: str, key: Key) -> None:
    """Raise SSMError unless ``key`` is None or a key."""
    if key is None:
        return
    if isinstance(key, tuple):
        good = len(key) == 2 and all(_is_count(word) for word in key)
    elif hasattr(key, "dtype") and hasattr(key, "shape"):
        good = _is_integral(key) and tuple(key.shape) in ((), (2,))
    else:
        good = _is_count(key)
    if not good:
        msg = (
            f"{owner}: key is {key!r:.50}; expected a whole number of at least 0, or an integer "
            "array () or (2,), such as jax.random.key_data of a key of jax.random"
        )
        raise SSMError(msg)


def _is_integral(key: Any) -> bool:
    try:
        return isinstance(key, np.integer) or bool(
            arrays.namespace(key).isdtype(key.dtype, "integral")
        )
    except TypeError:  # a dtype beyond the standard, such as jax.random's of keys
        return False


def fold_in(key: Key, data: Any) -> Key:
    """Return a new key from a key and a number, such as that of a training step.

    Parameters
    ----------
    key : Key
    data : whole number of at least 0, or an integer array ()

    Returns
    -------
    Key: a pair of numbers where both are numbers, else an integer array (2,).

    Examples
    --------
    >>> from ssmcore import random
    >>> random.fold_in(7, 0) == random.fold_in(7, 1)
    False
    """
    check_key("fold_in", key)
    check_key("fold_in data", data)
    like = next((x for x in (key, data) if _is_array(x)), None)
    (k0, k1), (d0, d1) = _words(key, like), _words(data, like)
    first = _mix(_low(_mix(k0 ^ d0) + k1))
    second = _mix(_low(_mix(_low((k1 ^ d1) + GOLDEN)) + _mix(first ^ d0)))
    if like is None:
        return first, second
    return arrays.namespace(like).concat((first, second))


def bits(key: Key, shape: tuple[int, ...], like: Array) -> Array:
    """Return ``shape`` random whole numbers in [0, 2^32), beside the array ``like``.

    In uint32, or int64 where the library has no arithmetic for that (torch).
    """
    check_key("bits", key)
    xp = arrays.namespace(like)
    count = math.prod(shape)
    if count > MASK:
        msg = f"bits: shape {shape} has {count} numbers; expected fewer than 2^32 for one key"
        raise SSMError(msg)
    k0, k1 = _words(key, like)
    counter = xp.arange(count, dtype=_word(like), device=arrays.device(like))
    return xp.reshape(_mix(_low(_mix(counter ^ k0) + k1)), shape)


def uniform(key: Key, shape: tuple[int, ...], like: Array) -> Array:
    """Return ``shape`` numbers uniform in [0, 1), multiples of 2^-24, in the dtype of ``like``.

    Half precision gives float32: a number rounded up to 1 is none of them.
    """
    xp = arrays.namespace(like)
    dtype = like.dtype if backend.dtype_name(like) in ("float32", "float64") else xp.float32
    return xp.astype(bits(key, shape, like) >> 8, dtype) * 2.0**-24


def bernoulli(key: Key, p: float, shape: tuple[int, ...], like: Array) -> Array:
    """Return ``shape`` booleans that are True with probability ``p``, to 2^-24."""
    return (bits(key, shape, like) >> 8) < round(p * 2**24)


def _is_count(x: Any) -> bool:
    x = plain(x)
    return isinstance(x, int) and not isinstance(x, bool) and x >= 0


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype") and not isinstance(x, np.generic)


def _word(like: Array) -> Any:
    """Return the dtype that words have in the library of ``like``."""
    return getattr(arrays.namespace(like), backend.of(like).word)


def _words(key: Key, like: Array | None) -> tuple[Any, Any]:
    """Return the two words of a key: numbers, or arrays (1,) beside ``like``."""
    if not _is_array(key):
        low, high = key if isinstance(key, tuple) else (plain(key), plain(key) >> 32)
        low, high = low & MASK, high & MASK
        if like is None:
            return low, high
        return arrays.like(like, [low], _word(like)), arrays.like(like, [high], _word(like))
    xp, word = arrays.namespace(key), _word(key)
    if key.ndim == 0:
        low = _low(xp.astype(xp.reshape(key, (1,)), word))
        return low, xp.zeros_like(low)
    words = _low(xp.astype(key, word))
    return words[0:1], words[1:2]


def _low(x: Any) -> Any:
    """Return the low 32 bits; words of 32 bits have no others (and JAX no such number as MASK)."""
    return x & MASK if isinstance(x, int) or str(x.dtype).endswith("64") else x


def _mix(x: Any) -> Any:
    """Return a bijective hash of 32-bit words: of a number, or of an array in its word dtype.

    The multipliers are below 2^31, so that no product overflows 64 bits with sign.
    """
    x = x ^ (x >> 16)
    x = _low(x * FIRST)
    x = x ^ (x >> 15)
    x = _low(x * SECOND)
    return x ^ (x >> 15)
