"""Calls of native code by its address from Python, and the engines that hold such code.

Numba's compiler is not needed here, only LLVM, which loads in a fifth of the time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir

llvm: Any = llvmlite.binding
WORD, PLACE = ir.IntType(64), ir.IntType(8).as_pointer()
_FASTCALL = 0x80  # METH_FASTCALL: arguments come as an array
# Held while LLVM works: a child that is forked meanwhile would wait for LLVM's lock for ever.
working = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=working.acquire, after_in_parent=working.release, after_in_child=working.release
    )
_kept: list[Any] = []  # engines own their code, and Python does not copy a method's definition


def load_code(code: bytes, symbol: str) -> int:
    """Load object code that lives as long as this process; return the address of a symbol.

    Each has an engine of its own, so symbols cannot collide.
    """
    engine = new_engine("")
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return int(engine.get_function_address(symbol))


def new_engine(text: str) -> Any:
    """Return a new engine with the code of a module, given as LLVM's text."""
    with contextlib.suppress(RuntimeError):  # recent versions need no call, and refuse it
        llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), target)
    _kept.append(engine)
    return engine


def emit_call(builder: Any, address: Any, args: Any) -> None:
    """Emit a call of the function that Numba compiled at an address.

    In its calling convention, two places precede the arguments: for the result, which is None, and
    for an error. There is none: kernels do not raise.
    """
    with builder.goto_entry_block():
        places = [builder.alloca(PLACE) for _ in range(2)]
    kind = ir.FunctionType(ir.IntType(32), [x.type for x in (*places, *args)])
    builder.call(builder.inttoptr(address, kind.as_pointer()), [*places, *args])


@functools.cache
def caller(count: int) -> Callable[..., int]:
    """Return a function `call(address, *integers)`, which calls code with `count` integers.

    It is a built-in function of Python, called in 50 ns, and frees the GIL meanwhile. Nothing is
    checked: all arguments must be integers, and all of them must be there.
    """
    module = ir.Module()
    kind = ir.FunctionType(PLACE, [PLACE, PLACE.as_pointer(), WORD])  # self, arguments, number
    function = ir.Function(module, kind, "call")
    builder = ir.IRBuilder(function.append_basic_block())

    def python(name: str, result: Any, *args: Any) -> Any:
        """Emit a call of a function of Python's C API."""
        kind = ir.FunctionType(result, [x.type for x in args])
        found = module.globals.get(name) or ir.Function(module, kind, name)
        return builder.call(found, args)

    integers = [
        python("PyLong_AsLongLong", WORD, builder.load(builder.gep(function.args[1], [WORD(i)])))
        for i in range(1 + count)
    ]
    state = python("PyEval_SaveThread", PLACE)
    emit_call(builder, integers[0], integers[1:])
    python("PyEval_RestoreThread", ir.VoidType(), state)
    builder.ret(python("PyLong_FromLongLong", PLACE, WORD(0)))
    with working:
        engine = new_engine(str(module))
        engine.finalize_object()
        return _python_function(engine.get_function_address("call"))


class _Definition(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("code", ctypes.c_void_p), ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )  # fmt: skip


def _python_function(address: int) -> Callable[..., int]:
    """Return the function of Python's C API at an address as a built-in function."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
    definition = _Definition(b"call", address, _FASTCALL, None)
    _kept.append(definition)
    made: Callable[..., int] = make(ctypes.addressof(definition), None, None)
    return made
