"""Vectors of LANES numbers as values in numba: a kernel keeps its sums in registers by name.

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

__all__ = ["LANES", "load", "minus_product", "narrow", "nothing", "plus_product", "store", "widen"]

LANES = 8
FUSED = ("contract",)

Generate = Callable[[Any, Any, Any, Any], Any]


class Vector(types.Type):  # type: ignore[misc]
    """LANES numbers of a real type."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


def _llvm(dtype: Any) -> ir.VectorType:
    element = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(element, LANES)


@register_model(Vector)
class _VectorModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _llvm(kind.dtype))


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return where vector number ``index`` of a contiguous array lies."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, _llvm(kind.dtype).as_pointer()), [index])


@intrinsic
def nothing(typing: Any, array: Any) -> tuple[Any, Generate]:
    """Return zeros of the type of an array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(_llvm(array.dtype), None)

    return Vector(array.dtype)(array), generate


@intrinsic
def load(typing: Any, array: Any, index: Any) -> tuple[Any, Generate]:
    """Return vector number ``index`` of a contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(context, builder, array, values[0], values[1])
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> tuple[Any, Generate]:
    """Make ``value`` vector number ``index`` of a contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(context, builder, array, values[0], values[1])
        builder.store(values[2], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def plus_product(typing: Any, z: Any, x: Any, y: Any) -> tuple[Any, Generate]:
    """Return z + x y, by one instruction where the processor has it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        z, x, y = values
        return builder.fadd(z, builder.fmul(x, y, flags=FUSED), flags=FUSED)

    return z(z, z, z), generate


@intrinsic
def minus_product(typing: Any, z: Any, x: Any, y: Any) -> tuple[Any, Generate]:
    """Return z - x y, by one instruction where the processor has it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        z, x, y = values
        return builder.fsub(z, builder.fmul(x, y, flags=FUSED), flags=FUSED)

    return z(z, z, z), generate


@intrinsic
def widen(typing: Any, x: Any) -> tuple[Any, Generate]:
    """Return x as float64."""
    wide = Vector(types.float64)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return values[0] if x == wide else builder.fpext(values[0], _llvm(types.float64))

    return wide(x), generate


@intrinsic
def narrow(typing: Any, x: Any, like: Any) -> tuple[Any, Generate]:
    """Return the float64 x in the type of the vector ``like``."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return values[0] if x == like else builder.fptrunc(values[0], _llvm(like.dtype))

    return like(x, like), generate
