"""Arithmetic that vectorises: fma, 2^x as 2^k (1 + f q), one step of a compensated recurrence.

numba takes a kernel from its cache by the contents of its own file: after an edit here, put the new
digest that the tests tell into the kernels' files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

__all__ = [
    "LOG2E",
    "add_in_any_order",
    "advance",
    "any_exp2",
    "exp2",
    "fma",
    "largest_exponent",
    "silu",
    "softplus",
    "widest_vectors",
]

LOG2E = float(1 / np.log(2))
SINGLE = 1.5 * 2**23 + 127
DOUBLE = 1.5 * 2**52 + 1023
"""Added to a small x they leave it rounded to an integer k, and k + bias in the lowest bits."""


Array = Any


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x y + z, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return x(x, x, x), generate


@intrinsic
def widest_vectors(typing: Any) -> Any:
    """Have the loops of the function that calls this use the widest vectors of the processor.

    On processors with AVX-512 LLVM takes half as wide ones else, which suits code with few of them.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.function.attributes.update(['"prefer-vector-width"="512"'])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _power_of_two(typing: Any, t: Any) -> Any:
    """Return the number whose exponent bits are the lowest bits of ``t``, and nothing else."""
    bits, shift, real = (
        (32, 23, ir.FloatType()) if t == types.float32 else (64, 52, ir.DoubleType())
    )

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole = ir.IntType(bits)
        moved = builder.shl(builder.bitcast(values[0], whole), ir.Constant(whole, shift))
        return builder.bitcast(moved, real)

    return t(t), generate


@njit(fastmath={"reassoc"})
def add_in_any_order(x: Any, y: Any) -> Any:
    """Return x + y; a sum of these goes by the lanes of a vector, in the same order every time."""
    return x + y


def exp2(x: Any) -> tuple[Any, Any, Any]:
    """Return (s, f, q) with 2^x = s (1 + f q), s a power of two, for |x| <= ``largest_exponent``.

    |f| <= 1/2. s f q is 2^x - 1 to a few roundings near x = 0, and exactly 0 there. The minimax
    polynomials q leave 3.3e-9 and 3.9e-18 of 2^f.
    """
    raise NotImplementedError


def _single(x: Any) -> Any:
    t = x + MAGIC
    f = x - (t - MAGIC)
    q = fma(f, np.float32(0.00139500736258924 * LN2**6), np.float32(0.00836871936917305 * LN2**5))
    q = fma(f, q, np.float32(0.04166621342301369 * LN2**4))
    q = fma(f, q, np.float32(0.1666652113199234 * LN2**3))
    q = fma(f, q, np.float32(LN2**2 / 2))
    q = fma(f, q, np.float32(LN2))
    return _power_of_two(t), f, q


MAGIC, LN2 = np.float32(SINGLE), float(np.log(2))


def _double(x: Any) -> Any:
    t = x + DOUBLE
    f = x - (t - DOUBLE)
    q = fma(f, 2.5115892387797495e-08 * LN2**11, 2.763010656110537e-07 * LN2**10)
    q = fma(f, q, 2.75572229681831e-06 * LN2**9)
    q = fma(f, q, 2.4801493603679172e-05 * LN2**8)
    q = fma(f, q, 0.00019841269909261265 * LN2**7)
    q = fma(f, q, 0.0013888888943003677 * LN2**6)
    q = fma(f, q, 0.008333333333311373 * LN2**5)
    q = fma(f, q, 0.0416666666665333 * LN2**4)
    q = fma(f, q, 0.1666666666666669 * LN2**3)
    q = fma(f, q, 0.500000000000001 * LN2**2)
    q = fma(f, q, LN2)
    return _power_of_two(t), f, q


@overload(exp2)
def _exp2(x: Any) -> Callable[[Any], Any] | None:
    return {types.float32: _single, types.float64: _double}.get(x)


@njit
def largest_exponent(like: Array) -> float:
    """Return up to which |x| ``exp2`` takes numbers of the type of ``like``."""
    return 126.0 if like.itemsize == 4 else 1022.0


def any_exp2(x: Any) -> tuple[Any, Any, Any]:
    """``exp2`` for every x: s = 0 where 2^x is no normal number, inf from 2^127.5 or 2^1023.5 on.

    Below these k is small enough for s to be a number: inf times a negative f would make it none.
    """
    raise NotImplementedError


def _any_single(x: Any) -> Any:
    x = LOW if x < LOW else x  # NaN stays
    return exp2(INFINITE if x >= HIGH else x)


LOW, HIGH, INFINITE = np.float32(-127), np.float32(127.5), np.float32(128.25)


def _any_double(x: Any) -> Any:
    x = -1023.0 if x < -1023.0 else x
    return exp2(1024.25 if x >= 1023.5 else x)


@overload(any_exp2)
def _any_exp2(x: Any) -> Callable[[Any], Any] | None:
    return {types.float32: _any_single, types.float64: _any_double}.get(x)


@njit
def advance(s: Any, f: Any, q: Any, h: Any, b: Any) -> tuple[Any, Any]:
    """Return the state s (1 + f q) h + b and what its rounding lost, to be part of the next b.

    The loss is exact where s h is the larger part (Fast2Sum), which is where it would pile up.
    """
    kept = s * h
    w = fma(kept * f, q, b)
    h = kept + w
    return h, (kept - h) + w


@njit(error_model="numpy")
def silu(x: Any) -> Any:
    """Return x / (1 + e^-x)."""
    s, f, q = any_exp2(-x * type(x)(LOG2E))
    return x / (type(x)(1) + fma(s * f, q, s))


@njit(error_model="numpy")
def softplus(x: Any) -> Any:
    """Return log(1 + e^x) = max(x, 0) + log1p(e^-|x|), the last by 2 atanh(e / (2 + e))."""
    s, f, q = any_exp2(-abs(x) * type(x)(LOG2E))
    e = fma(s * f, q, s)
    r = e / (type(x)(2) + e)
    total = type(x)(0)
    for k in range(TERMS, -1, -1):
        total = fma(total, r * r, type(x)(1 / (2 * k + 1)))
    return max(x, type(x)(0)) + type(x)(2) * r * total


TERMS = 16
"""r <= 1/3: what is left out is less than 3^-34 / 35 of the sum, 2e-18."""
