"""The machine code of a kernel, by Numba's compiler, without what a kernel does not need.

Numba makes optimised machine code of every function that it compiles, also of those which a kernel
calls, although they are inlined there and optimised again. Here, functions are only translated to
LLVM's code. That of a kernel and of all it calls is linked, and optimised once, in half the time.
The code is LLVM's object code, which `kernels.calls` loads: Numba knows of no function to call from
Python, and makes none.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding

from .jit import compiler, core
from .simd import VECTOR_BYTES

llvm: Any = llvmlite.binding


@dataclass(frozen=True)
class ObjectCode:
    """Object code of a function.

    - symbol: the function's name in it.
    - needs: the names in it that are defined elsewhere.
    - movable: False if it holds addresses of this process.
    """

    code: bytes
    symbol: str
    needs: list[str]
    movable: bool


def compile_to_object_code(
    function: Callable[..., Any], kinds: Sequence[Any], options: dict[str, Any]
) -> ObjectCode:
    """Compile a function, by Numba, for arguments of these types of Numba's."""
    made = compiler().njit(**options)(function)
    with _only_translating(), _without_collecting_garbage():
        made.compile(tuple(kinds))
        (result,) = made.overloads.values()
        return ObjectCode(*result.library.emit(result.fndesc.llvm_func_name))


def _context() -> Any:
    """Return what Numba compiles for: this processor."""
    return core.registry.cpu_target.target_context


@contextlib.contextmanager
def _only_translating() -> Iterator[None]:
    """Let Numba translate functions to LLVM's code, and no more, while this is entered."""
    with core.compiler_lock.global_compiler_lock:
        context = _context()
        usual = context._internal_codegen
        context._internal_codegen = _translation()("minitensor")
        context.get_abi_sizeof = functools.cache(context.get_abi_sizeof)  # LLVM is slow to tell
        try:
            yield
        finally:
            context._internal_codegen = usual
            del context.get_abi_sizeof


@contextlib.contextmanager
def _without_collecting_garbage() -> Iterator[None]:
    """Let no garbage be collected while this is entered: a compiler's many objects are in use."""
    usual = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if usual:
            gc.enable()


@functools.cache
def _translation() -> Any:
    """Return the class of what Numba makes code by, which has no part that optimises functions."""

    class Library(core.codegen.CPUCodeLibrary):  # type: ignore[misc]
        """The code of a function, and later of all it calls."""

        def add_ir_module(self, module: Any) -> None:
            parsed = llvm.parse_assembly(core.cgutils.normalize_ir_text(str(module)))
            parsed.data_layout = self._codegen._data_layout
            self._final_module.link_in(parsed)

        def finalize(self) -> None:
            for library in dict.fromkeys(self._linking_libraries):
                self._final_module.link_in(library._get_module_for_linking(), preserve=True)
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            """Return 0: there is no function to call from Python."""
            self._ensure_finalized()
            if any(function.name == name for function in self.get_defined_functions()):
                raise NotImplementedError(
                    f"{self.name} is compiled by Numba for calls from Python: kernels call only "
                    "functions that are decorated with minitensor.kernels.jit.jit"
                )
            return 0

        def emit(self, symbol: str) -> tuple[bytes, str, list[str], bool]:
            """Return what `ObjectCode` is made of."""
            module, codegen = self._final_module, self._codegen
            for settings in (dict(cost="cheap", opt=0, loop_vectorize=False), {}):
                passes, builder = codegen._module_pass_manager(**settings)
                passes.run(module, builder)
            module.verify()
            self._finalize_dynamic_globals()
            code = codegen._tm.emit_object(module)
            return code, symbol, _needs(module), not self._dynamic_globals

    class Translation(core.codegen.JITCPUCodegen):  # type: ignore[misc]
        _library_class = Library

        def _customize_tm_features(self) -> str:
            """Let LLVM vectorise loops with vectors of up to VECTOR_BYTES (`kernels.simd`).

            By itself it does not use the 64-byte vectors of AVX-512 on Intel's processors, the
            first of which slowed down for them.
            """
            features = str(super()._customize_tm_features())
            if "+avx512f" in features:
                features += f",{'-' if VECTOR_BYTES == 64 else '+'}prefer-256-bit"
            return features

        def set_env(self, name: str, environment: Any) -> None:
            """Do nothing: only functions that use Python's objects need an environment."""

    return Translation


def _needs(module: Any) -> list[str]:
    """Return the symbols that a module uses and does not define."""
    named = Counter(re.findall(r'@"?([\w.$]+)', str(module)))
    return [
        v.name
        for kind in (module.functions, module.global_variables)
        for v in kind
        if v.is_declaration and not v.name.startswith("llvm.") and named[v.name] > 1
    ]  # one that is named once was inlined
