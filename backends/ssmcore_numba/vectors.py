"""Vectors of LANES numbers as values in numba: a kernel keeps its sums in registers by name.

A complex vector is two real ones, the real parts and the imaginary parts.
Of plain loops LLVM turns only the innermost one into vector instructions; the sums of the others go
through memory at every turn. numba takes a kernel from its cache by the contents of its own file:
after an edit here, put the new digest that the tests tell into the kernels' files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import PrimitiveModel
from numba.extending import intrinsic, register_model

__all__ = [
    "LANES",
    "conjugate",
    "load",
    "load_at",
    "load_one",
    "minus_product",
    "narrow",
    "nothing",
    "plus",
    "plus_product",
    "product",
    "store",
    "store_at",
    "to_be_read",
    "to_be_written",
    "widen",
]

LANES = 8
FUSED = ("contract",)

Generate = Callable[[Any, Any, Any, Any], Any]


class Vector(types.Type):  # type: ignore[misc]
    """LANES numbers of one type, or as many as said."""

    def __init__(self, dtype: Any, lanes: int = LANES) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


def _llvm(dtype: Any, lanes: int = LANES) -> ir.Type:
    if isinstance(dtype, types.Complex):
        return ir.LiteralStructType([_llvm(dtype.underlying_float, lanes)] * 2)
    return ir.VectorType(ir.FloatType() if dtype == types.float32 else ir.DoubleType(), lanes)


def _wide(dtype: Any) -> Any:
    return types.complex128 if isinstance(dtype, types.Complex) else types.float64


def _each(builder: Any, kind: Any, operate: Callable[..., Any], *values: Any) -> Any:
    """Return what ``operate`` gives of real vectors, or of the parts of complex ones."""
    if not isinstance(kind.dtype, types.Complex):
        return operate(*values)
    parts = [operate(*(builder.extract_value(v, k) for v in values)) for k in (0, 1)]
    return _paired(builder, *parts)


def _paired(builder: Any, re: Any, im: Any) -> Any:
    pair = ir.Constant(ir.LiteralStructType([re.type, im.type]), ir.Undefined)
    return builder.insert_value(builder.insert_value(pair, re, 0), im, 1)


def _shuffled(builder: Any, left: Any, right: Any, order: Any) -> Any:
    """Return the elements of two vectors behind each other, by their numbers in ``order``."""
    places = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order))
    return builder.shuffle_vector(left, right, places)


@register_model(Vector)
class _VectorModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _llvm(kind.dtype, kind.lanes))


@intrinsic
def nothing(typing: Any, array: Any) -> tuple[Any, Generate]:
    """Return zeros of the type of an array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(_llvm(array.dtype), None)  # which is zero, in both parts

    return Vector(array.dtype)(array), generate


def _load(lanes: int, unit: int) -> Any:
    @intrinsic
    def load(typing: Any, array: Any, at: Any) -> tuple[Any, Generate]:
        """Return the vector that begins ``at`` so many units into a contiguous array."""

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            place, align = _place(context, builder, array, values, lanes, unit)
            value = builder.load(place, align=align)
            if not isinstance(array.dtype, types.Complex):
                return value
            parts = [_shuffled(builder, value, value, range(k, 2 * lanes, 2)) for k in (0, 1)]
            return _paired(builder, *parts)

        return Vector(array.dtype, lanes)(array, types.intp), generate

    return load


def _store(unit: int) -> Any:
    @intrinsic
    def store(typing: Any, array: Any, at: Any, value: Any) -> tuple[Any, Generate]:
        """Make ``value`` the vector that begins ``at`` so many units into a contiguous array."""

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            vector = values[2]
            if isinstance(array.dtype, types.Complex):
                order = [k + value.lanes * part for k in range(value.lanes) for part in (0, 1)]
                re, im = (builder.extract_value(vector, k) for k in (0, 1))
                vector = _shuffled(builder, re, im, order)
            place, align = _place(context, builder, array, values, value.lanes, unit)
            builder.store(vector, place, align=align)
            return context.get_dummy_value()

        return types.void(array, types.intp, value), generate

    return store


load, store = _load(LANES, LANES), _store(LANES)  # vector number ...
load_at, store_at = _load(LANES, 1), _store(1)  # the vector from element ... on
load_one = _load(1, 1)  # element ... alone


def _expect(writes: bool) -> Any:
    @intrinsic
    def expect(typing: Any, array: Any, first: Any) -> tuple[Any, Generate]:
        """Have the memory of element ``first`` brought near, which may lie outside the array."""

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
            prefetch = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
            data = context.make_array(array)(context, builder, values[0]).data
            place = builder.bitcast(builder.gep(data, [values[1]]), pointer)
            options = (writes, 3, 1)  # to be kept in all caches; data, not instructions
            builder.call(prefetch, [place, *(ir.Constant(number, int(x)) for x in options)])
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return expect


to_be_read, to_be_written = _expect(False), _expect(True)


def _place(
    context: Any, builder: Any, array: Any, values: Any, lanes: int, unit: int
) -> tuple[Any, int]:
    """Return where a vector begins so many ``unit`` numbers into an array, and its alignment.

    A complex one lies there as one twice as long, real and imaginary parts in turn.
    """
    complex_ = isinstance(array.dtype, types.Complex)
    real = array.dtype.underlying_float if complex_ else array.dtype
    data = context.make_array(array)(context, builder, values[0]).data
    first = builder.gep(data, [builder.mul(values[1], ir.Constant(values[1].type, unit))])
    kind = _llvm(real, 2 * lanes if complex_ else lanes)
    return builder.bitcast(first, kind.as_pointer()), real.bitwidth // 8


@intrinsic
def plus(typing: Any, x: Any, y: Any) -> tuple[Any, Generate]:
    """Return x + y."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _each(builder, x, lambda x, y: builder.fadd(x, y, flags=FUSED), *values)

    return x(x, x), generate


@intrinsic
def conjugate(typing: Any, x: Any) -> tuple[Any, Generate]:
    """Return the complex conjugate of x."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if not isinstance(x.dtype, types.Complex):
            return values[0]
        re, im = (builder.extract_value(values[0], k) for k in (0, 1))
        return _paired(builder, re, builder.fneg(im))

    return x(x), generate


def _plus(builder: Any, z: Any, x: Any, y: Any) -> Any:
    return builder.fadd(z, builder.fmul(x, y, flags=FUSED), flags=FUSED)


def _minus(builder: Any, z: Any, x: Any, y: Any) -> Any:
    return builder.fsub(z, builder.fmul(x, y, flags=FUSED), flags=FUSED)


@intrinsic
def product(typing: Any, x: Any, y: Any) -> tuple[Any, Generate]:
    """Return x y as 0 + x y: one instruction too, which takes in no addition that comes after."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        zero = ir.Constant(_llvm(x.dtype, x.lanes), None)
        return _plus_product(builder, x, zero, *values)

    return x(x, x), generate


@intrinsic
def plus_product(typing: Any, z: Any, x: Any, y: Any) -> tuple[Any, Generate]:
    """Return z + x y, by one instruction where the processor has it; by four if complex."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _plus_product(builder, z, *values)

    return z(z, z, z), generate


def _plus_product(builder: Any, kind: Any, z: Any, x: Any, y: Any) -> Any:
    if not isinstance(kind.dtype, types.Complex):
        return _plus(builder, z, x, y)
    (z_r, x_r, y_r), (z_i, x_i, y_i) = (
        [builder.extract_value(v, k) for v in (z, x, y)] for k in (0, 1)
    )
    re = _minus(builder, _plus(builder, z_r, x_r, y_r), x_i, y_i)
    im = _plus(builder, _plus(builder, z_i, x_r, y_i), x_i, y_r)
    return _paired(builder, re, im)


@intrinsic
def minus_product(typing: Any, z: Any, x: Any, y: Any) -> tuple[Any, Generate]:
    """Return z - x y of real vectors, by one instruction where the processor has it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _minus(builder, *values)

    return z(z, z, z), generate


@intrinsic
def widen(typing: Any, x: Any) -> tuple[Any, Generate]:
    """Return x in double precision."""
    wide = Vector(_wide(x.dtype), x.lanes)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        extend = lambda v: builder.fpext(v, _llvm(types.float64, x.lanes))  # noqa: E731
        return values[0] if x == wide else _each(builder, x, extend, *values)

    return wide(x), generate


@intrinsic
def narrow(typing: Any, x: Any, like: Any) -> tuple[Any, Generate]:
    """Return x, which is in double precision, in the type of the vector ``like``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        truncate = lambda v: builder.fptrunc(v, _llvm(types.float32, x.lanes))  # noqa: E731
        return values[0] if x == like else _each(builder, x, truncate, values[0])

    return like(x, like), generate
