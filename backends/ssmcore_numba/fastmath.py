"""Arithmetic that vectorises: fma, exp as 2^k (1 + m), one step of a compensated recurrence.

numba does not look at this file when it takes a kernel from its cache: touch the kernels' files
after an edit here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

__all__ = ["add_in_any_order", "advance", "exp_parts", "fma"]

SINGLE = 1.5 * 2**23 + 127
DOUBLE = 1.5 * 2**52 + 1023
"""Added to a small k, they leave it rounded to an integer, and k + bias in their lowest bits."""
LOG2E = 1 / np.log(2)


@intrinsic  # type: ignore[untyped-decorator]
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x y + z, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return x(x, x, x), generate


@intrinsic  # type: ignore[untyped-decorator]
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


@njit(fastmath={"reassoc"})  # type: ignore[untyped-decorator]
def add_in_any_order(x: Any, y: Any) -> Any:
    """Return x + y; a sum of these goes by the lanes of a vector, in the same order every time."""
    return x + y


def exp_parts(x: Any) -> tuple[Any, Any]:
    """Return (s, m) with exp(x) = s (1 + m), s a power of two, m to one rounding near x = 0.

    Exactly (1, 0) at 0, (0, .) where exp(x) is no normal number any more. Where it overflows
    s = inf; NaN gives m = NaN. Minimax polynomials on |f| <= ln(2) / 2, within 3.3e-9 and 3.9e-18.
    """
    raise NotImplementedError


def _single(x: Any) -> Any:
    x = LOW_S if x < LOW_S else x  # keeps NaN
    x = HIGH_S if x > HIGH_S else x
    t = fma(x, LOG2E_S, MAGIC_S)
    f = fma(MAGIC_S - t, LN2_S, x)
    r = fma(f, np.float32(0.00139500736258924), np.float32(0.00836871936917305))
    r = fma(f, r, np.float32(0.04166621342301369))
    r = fma(f, r, np.float32(0.1666652113199234))
    r = fma(f, r, np.float32(0.5))
    return _power_of_two(t), fma(f * f, r, f)


LOW_S, HIGH_S = np.float32(-88.1), np.float32(89)
MAGIC_S, LOG2E_S, LN2_S = np.float32(SINGLE), np.float32(LOG2E), np.float32(np.log(2))


def _double(x: Any) -> Any:
    x = LOW_D if x < LOW_D else x
    x = HIGH_D if x > HIGH_D else x
    t = fma(x, LOG2E, DOUBLE)
    f = fma(DOUBLE - t, LN2_D, x)
    r = fma(f, 2.5115892387797495e-08, 2.763010656110537e-07)
    r = fma(f, r, 2.75572229681831e-06)
    r = fma(f, r, 2.4801493603679172e-05)
    r = fma(f, r, 0.00019841269909261265)
    r = fma(f, r, 0.0013888888943003677)
    r = fma(f, r, 0.008333333333311373)
    r = fma(f, r, 0.0416666666665333)
    r = fma(f, r, 0.1666666666666669)
    r = fma(f, r, 0.500000000000001)
    return _power_of_two(t), fma(f * f, r, f)


LOW_D, HIGH_D, LN2_D = -709.2, 710.0, float(np.log(2))


@overload(exp_parts)  # type: ignore[untyped-decorator]
def _exp_parts(x: Any) -> Callable[[Any], Any] | None:
    return {types.float32: _single, types.float64: _double}.get(x)


@njit  # type: ignore[untyped-decorator]
def advance(s: Any, m: Any, h: Any, b: Any, c: Any) -> tuple[Any, Any]:
    """Return the state s (1 + m) h + b + c, and what its rounding lost: the next ``c``.

    The loss is exact where s h is the larger part (Fast2Sum), which is where it would pile up.
    """
    kept = s * h
    w = fma(m, kept, b + c)
    h = kept + w
    return h, (kept - h) + w
