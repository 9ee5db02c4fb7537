"""LLVM vector code, emitted where LLVM's own vectoriser does not find it: the common part.

`VECTOR_BYTES` is the width of a vector and `MR` the height of the microkernel's tile
(`kernels.microkernel`). Both follow the processor: 64 bytes and 32 registers with AVX-512, 32 and
16 with AVX2, else 16 bytes. MINITENSOR_SIMD=avx512, avx2, sse or neon overrides the choice.

`BFLOAT16` is True if products of float32 are faster with their operands rounded to bfloat16. They
are on AMD's processors with AVX-512 BF16, by a factor of two. Intel's have the same instruction at
half the speed of multiply-adds of float32, or none. MINITENSOR_SIMD=avx512+bf16, avx2+bf16,
sse+bf16 or neon+bf16 sets it; without the instruction the same bits are computed from multiply-adds
of float32, slowly. ARM's instruction (bfdot, used on Linux) rounds its sums otherwise, to odd.

The functions `emit_*` append instructions to an LLVM block. `load`, `store` and `itemsize_of` are
Numba intrinsics, which a jitted kernel calls like functions. Their `exemplar` is any array or
pointer, of which only the dtype matters; addresses and strides are integers, in bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from .jit import cgutils, emitted, intrinsic, types

# mypy: allow-untyped-calls

_SHAPES = {"avx512": (64, 12), "avx2": (32, 6), "sse": (16, 6), "neon": (16, 12)}


def _choose() -> str:
    """Return the instruction set that MINITENSOR_SIMD names, or else the fastest one there is."""
    if chosen := os.environ.get("MINITENSOR_SIMD"):
        if chosen.removesuffix("+bf16") not in _SHAPES:
            raise ValueError(
                f"MINITENSOR_SIMD={chosen}: choose one of {', '.join(_SHAPES)}, or that with +bf16"
            )
        return chosen
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "neon"
    if _FEATURES.get("avx512f"):
        fast = _FEATURES.get("avx512bf16") and llvm.get_host_cpu_name().startswith("znver")
        return "avx512+bf16" if fast else "avx512"
    return "avx2" if _FEATURES.get("avx2") and _FEATURES.get("fma") else "sse"


def _arm_has_bfdot() -> bool:
    """Return True on Linux on an ARM processor with BF16, which LLVM does not tell."""
    if sys.platform != "linux" or platform.machine() != "aarch64":
        return False
    at_hwcap2, hwcap2_bf16 = 26, 1 << 14
    return bool(ctypes.CDLL(None).getauxval(at_hwcap2) & hwcap2_bf16)


_FEATURES = llvm.get_host_cpu_features()
SIMD = _choose()
BFLOAT16 = SIMD.endswith("+bf16")
VECTOR_BYTES, MR = _SHAPES[SIMD.removesuffix("+bf16")]
# The instruction that multiplies vectors of bfloat16, or "" if there is none.
DOT = ""
if VECTOR_BYTES == 64 and _FEATURES.get("avx512bf16"):
    DOT = "llvm.x86.avx512bf16.dpbf16ps.512"
elif SIMD.startswith("neon") and _arm_has_bfdot():
    DOT = "llvm.aarch64.neon.bfdot.v4f32.v8bf16"

I64 = ir.IntType(64)


def element_type(exemplar: Any) -> Any:
    """Return the LLVM type of the elements of an exemplar's Numba type."""
    return {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}[exemplar.dtype]


def lanes_of(element: Any) -> int:
    """Return the number of elements in a vector."""
    return VECTOR_BYTES // (4 if isinstance(element, ir.FloatType) else 8)


def emit_load(builder: Any, kind: Any, address: Any) -> Any:
    """Emit the load of a value of the type `kind`, with no alignment."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def emit_store(builder: Any, value: Any, address: Any) -> None:
    """Emit the store of a value, with no alignment."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def emit_prefetch(builder: Any, address: Any, write: bool = False) -> None:
    """Emit a hint that the memory at an address, of whatever kind, is read or written soon."""
    place, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place, flag, flag, flag])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [builder.inttoptr(address, place), flag(int(write)), flag(3), flag(1)])


def integer(value: int) -> Any:
    """Return a constant int64."""
    return ir.Constant(I64, value)


def emit_broadcast(builder: Any, value: Any, lanes: int) -> Any:
    """Emit a vector with `value` in all lanes."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(
        one,
        ir.Constant(vector, ir.Undefined),
        ir.Constant(ir.VectorType(ir.IntType(32), lanes), None),
    )


def emit_call(builder: Any, args: Any, body: Any, *parameters: Any) -> None:
    """Call a function of integers, whose code `body(*parameters, builder, *args)` emits once.

    A call compiles faster than the same code inlined at each place.
    """
    module = builder.module
    name = "_".join(("minitensor", body.__name__, *map(str, parameters)))
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * len(args)), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        inside = ir.IRBuilder(function.append_basic_block())
        body(*parameters, inside, *function.args)
        inside.ret_void()
    builder.call(function, args)


def emit_choice(builder: Any, choice: Any, args: Any, cases: Any) -> None:
    """Call, as `emit_call` does, the (body, *parameters) that `cases` has for an integer.

    It has one for every value of the integer.
    """
    end, never = builder.append_basic_block("end"), builder.append_basic_block("never")
    switch = builder.switch(choice, never)
    for number, body in cases.items():
        case = builder.append_basic_block("case")
        switch.add_case(integer(number), case)
        with builder.goto_block(case):
            emit_call(builder, args, *body)
            builder.branch(end)
    builder.position_at_end(never)
    builder.unreachable()
    builder.position_at_end(end)


def emit_fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Emit x * y + z, rounded once, or twice with SSE, which has no FMA: everywhere in one way."""
    if SIMD.startswith("sse"):
        return builder.fadd(builder.fmul(x, y), z)
    kind = x.type
    name = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
    element = kind.element if name else kind
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * 3),
        f"llvm.fma.{name}f{32 if isinstance(element, ir.FloatType) else 64}",
    )
    return builder.call(function, [x, y, z])


@contextlib.contextmanager
def emit_loop(builder: Any, count: Any, *carried: Any) -> Iterator[tuple[list[Any], list[Any]]]:
    """Emit a loop of `count` iterations, at least one, around the code emitted in this block.

    Yields the loop-carried values and an empty list, to be filled with their next values. After the
    block that list holds their last values.
    """
    before = builder.block
    body, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(body)
    builder.position_at_end(body)
    phis = [builder.phi(x.type) for x in (count, *carried)]
    following: list[Any] = []
    yield phis[1:], following
    left = builder.sub(phis[0], integer(1))
    builder.cbranch(builder.icmp_signed(">", left, integer(0)), body, after)
    for phi, first, then in zip(phis, (count, *carried), (left, *following), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, builder.block)
    builder.position_at_end(after)


def prefetch(address: int) -> None:
    """Hint that the cache line at an address, of whatever kind, is read or written soon."""


@emitted(prefetch)
def _prefetch(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit_prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def itemsize_of(context: Any, exemplar: Any) -> Any:
    """Return the bytes of an element."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return integer(VECTOR_BYTES // lanes_of(element_type(signature.args[0])))

    return types.int64(exemplar), generate


@intrinsic
def load(context: Any, exemplar: Any, address: Any) -> Any:
    """Return the element at `address`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit_load(builder, element_type(signature.args[0]), args[1])

    return exemplar.dtype(exemplar, types.int64), generate


@intrinsic
def store(context: Any, exemplar: Any, value: Any, address: Any) -> Any:
    """Store `value` at `address`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit_store(builder, args[1], args[2])
        return context.get_dummy_value()

    return types.void(exemplar, exemplar.dtype, types.int64), generate
