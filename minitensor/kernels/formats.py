"""The number formats of the matrix product: how panels hold elements, and how they are multiplied.

A panel is made of units, of which the microkernel multiplies one of A by one of B at a time. With
float32 and float64 a unit is an element. With bfloat16, the upper half of a float32, it is a pair
of elements that are neighbours in k, the dimension summed over: 32 bits, the first element in the
lower half. Operands are rounded to it, half to even, as they are laid out in panels; tensors and
sums are float32.

A kernel says which format it means by its exemplar: `Rounded` is float32 with panels of
bfloat16. Instructions and widths are in `kernels.simd`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from .jit import cgutils, extending, intrinsic, types
from .simd import (
    DOT,
    VECTOR_BYTES,
    emit_fma,
    emit_load,
    integer,
    lanes_of,
)

# mypy: allow-untyped-calls


def Rounded(dtype: Any) -> Any:
    """Return the type of an exemplar of float32 whose products round operands to bfloat16."""
    return _rounded_type()(dtype)


@functools.cache
def _rounded_type() -> Any:
    """Return the class of such types, made when Numba is there."""

    class Rounded(types.CPointer):  # type: ignore[misc]
        def __init__(self, dtype: Any) -> None:
            super().__init__(dtype)
            self.name = f"rounded {dtype}*"

    extending.register_model(Rounded)(extending.models.PointerModel)
    return Rounded


@dataclass(frozen=True)
class Format:
    """The number format of a matrix product.

    - name: without spaces.
    - element: the LLVM type of the elements of tensors and of sums.
    - unit: that of the panels' units, of which the microkernel multiplies one of A by one of B.
    - depth: the elements of a unit, which are neighbours in k, the dimension summed over.
    """

    name: str
    element: Any
    unit: Any
    depth: int

    def __str__(self) -> str:
        return self.name


_FORMATS = {
    "float32": Format("float32", ir.FloatType(), ir.FloatType(), 1),
    "float64": Format("float64", ir.DoubleType(), ir.DoubleType(), 1),
}
_BFLOAT16 = Format("bfloat16", ir.FloatType(), ir.IntType(32), 2)


def format_of(exemplar: Any) -> Format:
    """Return the number format of products for an exemplar's Numba type."""
    return _BFLOAT16 if isinstance(exemplar, _rounded_type()) else plain_format_of(exemplar)


def plain_format_of(exemplar: Any) -> Format:
    """Return the format of its elements as they are."""
    return _FORMATS[str(exemplar.dtype)]


@intrinsic
def rounded(context: Any, exemplar: Any) -> Any:
    """Return an exemplar whose products are rounded, of an exemplar of float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return Rounded(exemplar.dtype)(exemplar), generate


@intrinsic
def depth_of(context: Any, exemplar: Any) -> Any:
    """Return the number of elements in a unit of a panel."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return integer(format_of(signature.args[0]).depth)

    return types.int64(exemplar), generate


def emit_multiply_add(builder: Any, form: Format, a: Any, b: Any, total: Any) -> Any:
    """Emit total + a * b for two vectors of units."""
    if form.depth == 1:
        return emit_fma(builder, a, b, total)
    if DOT:
        kind, pairs = total.type, ir.VectorType(_Bfloat(), 2 * total.type.count)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind, pairs, pairs]), DOT
        )
        if "aarch64" in DOT:  # LLVM does not know the processor; llvmlite not the attribute
            set.add(builder.function.attributes, '"target-features"="+neon,+bf16"')
        return builder.call(function, [total, builder.bitcast(a, pairs), builder.bitcast(b, pairs)])
    # As x86's instruction: the second elements first, and numbers below the normal ones are zero.
    a, b = (_emit_widened(builder, x, total.type) for x in (a, b))
    for x, y in zip(a, b, strict=True):
        total = _emit_flushed(builder, emit_fma(builder, x, y, total))
    return total


class _Bfloat(ir.types.Type):
    """LLVM's bfloat, which llvmlite does not have."""

    def _to_string(self) -> str:
        return "bfloat"

    def as_pointer(self, addrspace: int = 0) -> Any:
        return ir.PointerType(addrspace=addrspace)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bfloat)

    def __hash__(self) -> int:
        return hash(_Bfloat)


def _emit_widened(builder: Any, units: Any, kind: Any) -> list[Any]:
    """Emit the second and the first bfloat16 of each unit, as vectors of float32."""
    upper = builder.and_(units, constants(units.type, 0xFFFF0000))
    lower = builder.shl(units, constants(units.type, 16))
    return [_emit_flushed(builder, builder.bitcast(x, kind)) for x in (upper, lower)]


def _emit_flushed(builder: Any, x: Any) -> Any:
    """Emit x with numbers below the normal ones set to zero, as the instruction does."""
    bits = ir.VectorType(ir.IntType(32), x.type.count)
    exponent = builder.and_(builder.bitcast(x, bits), constants(bits, 0x7F800000))
    small = builder.icmp_unsigned("==", exponent, constants(bits, 0))
    return builder.select(small, ir.Constant(x.type, None), x)


def constants(kind: Any, value: int) -> Any:
    """Return a vector of integers with `value` in all lanes."""
    return ir.Constant(kind, [value] * kind.count)


def emit_units(builder: Any, form: Format, address: Any) -> Any:
    """Emit the load of a vector of units, whose elements lie one after the other in memory."""
    lanes = lanes_of(form.element)
    if form.depth == 1:
        return emit_load(builder, ir.VectorType(form.element, lanes), address)
    halves = [
        emit_bfloat16(builder, emit_load(builder, ir.VectorType(form.element, lanes), at))
        for at in (address, builder.add(address, integer(VECTOR_BYTES)))
    ]
    both = ir.Constant(ir.VectorType(ir.IntType(32), 2 * lanes), list(range(2 * lanes)))
    joined = builder.shuffle_vector(*halves, both)
    return builder.bitcast(joined, ir.VectorType(form.unit, lanes))


def emit_bfloat16(builder: Any, x: Any) -> Any:
    """Emit a vector of float32 rounded to bfloat16, half to even, as a vector of their bits."""
    upper = _emit_upper(builder, x)
    shifted = builder.lshr(upper, constants(upper.type, 16))
    return builder.trunc(shifted, ir.VectorType(ir.IntType(16), x.type.count))


def emit_pairs(builder: Any, x: Any, y: Any, mask: Any) -> Any:
    """Emit a vector of units, first elements from x and second ones from y where a mask is set."""
    upper = builder.and_(_emit_upper(builder, y), constants(mask.type, 0xFFFF0000))
    lower = builder.lshr(_emit_upper(builder, x), constants(mask.type, 16))
    return builder.or_(builder.and_(upper, mask), lower)


def _emit_upper(builder: Any, x: Any) -> Any:
    """Emit the bits of float32 rounded to bfloat16 in their upper half; NaN stays NaN."""
    kind = ir.VectorType(ir.IntType(32), x.type.count)
    bits = builder.bitcast(x, kind)
    odd = builder.and_(builder.lshr(bits, constants(kind, 16)), constants(kind, 1))
    rounded = builder.add(bits, builder.add(odd, constants(kind, 0x7FFF)))
    quiet = builder.or_(bits, constants(kind, 0x00400000))
    return builder.select(builder.fcmp_unordered("uno", x, x), quiet, rounded)
