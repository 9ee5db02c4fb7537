"""Storage of compiled code in the cache (`kernels.cache`), without pickle.

Native functions are called by their address. The object code of each is loaded into an LLVM engine
of its own, so symbols cannot collide, and without Numba's compiler, which takes long to start.

Functions compiled for Python (`jit`) are stored if Python has called them; one called by another is
compiled into that one. Beside their object code there is the bitcode, for functions that are
compiled later and call them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba.core.compiler_lock
import numba.core.environment
import numba.core.event
import numba.core.funcdesc
import numba.core.registry
import numba.core.runtime
import numpy as np

from .cache import Facts, announce, read, write

llvm: Any = llvmlite.binding
core: Any = numba.core
types: Any = numba.types
_BEGAN = time.time()
_HERE = Path(__file__).parent
_IMPORT = re.compile(
    r"^from (\.|minitensor\.kernels(?:\.|(?= )))(?:(\w+) import| ?import (.+)$)", re.MULTILINE
)
_SETTINGS = ["OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT"]
_SETTINGS += ["USING_SVML"]


class _Listener(core.event.Listener):
    """Announces the first compilation of a kernel, and knows when the compiler runs."""

    depth = 0  # compiler passes that run, nested; guarded by the compiler's lock
    announced = False

    def on_start(self, event: Any) -> None:
        self.depth += 1
        if not self.announced and event.data["module"].startswith("minitensor"):
            self.announced = True
            announce()

    def on_end(self, event: Any) -> None:
        self.depth -= 1


_listener = _Listener()
core.event.register("numba:run_pass", _listener)
_context = core.registry.cpu_target.target_context


@contextlib.contextmanager
def vectors_of(size: int) -> Iterator[None]:
    """Let LLVM vectorise loops with vectors of up to `size` bytes while this is entered.

    By itself it does not use the 64-byte vectors of AVX-512 on Intel's processors, the first of
    which slowed down for them. `kernels.simd` chooses the size.
    """
    codegen = _context.codegen()
    with core.compiler_lock.global_compiler_lock:
        usual = codegen._tm
        codegen._tm = _target(size)
        try:
            yield
        finally:
            codegen._tm = usual


@functools.cache
def _target(size: int) -> Any:
    """Return Numba's target, but that it uses vectors of up to `size` bytes."""
    codegen = _context.codegen()
    options: dict[str, Any] = {"opt": core.config.OPT}
    codegen._customize_tm_options(options)
    if "+avx512f" in options["features"]:
        options["features"] += ",-prefer-256-bit" if size == 64 else ",+prefer-256-bit"
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(**options)


def facts(function: Callable[..., Any], signature: Any, options: dict[str, Any]) -> Facts:
    """Return all facts that a function's code depends on, the cache key; empty if not known."""
    sources = _digest(Path(function.__code__.co_filename))
    if not sources or function.__closure__:
        return {}
    triple, processor, features = _context.codegen().magic_tuple()
    return {
        "function": f"{function.__module__}.{function.__qualname__}",
        "line": str(function.__code__.co_firstlineno),
        "signature": str(signature),
        "options": json.dumps(options, default=sorted, sort_keys=True),
        "sources": sources,
        "simd": os.environ.get("MINITENSOR_SIMD", ""),
        "numba": f"{numba.__version__} {[getattr(core.config, name, None) for name in _SETTINGS]}",
        "llvmlite": llvmlite.__version__,
        "numpy": np.__version__,
        "python": sys.version,
        "system": triple,
        "processor": f"{processor} {features}",
    }


@functools.cache
def _digest(file: Path) -> str:
    """Return a digest of a file and the kernel files it imports; "" if one changed since import."""
    digest = hashlib.sha256()
    try:
        for source in sorted(_sources(file)):
            times = source.stat()
            if max(times.st_mtime, times.st_ctime) > _BEGAN:
                return ""  # it changed after it was imported
            digest.update(hashlib.sha256(source.read_bytes()).digest())
    except OSError:
        return ""
    return digest.hexdigest()


def _sources(file: Path) -> set[Path]:
    found: set[Path] = set()
    left = [file]
    while left:
        source = left.pop()
        if source in found:
            continue
        found.add(source)
        for place, name, names in _IMPORT.findall(source.read_text(errors="replace")):
            folder = source.parent if place == "." else _HERE
            modules = [name] if name else [n.split()[0] for n in names.split(",")]
            left += [folder / f"{module}.py" for module in modules]
    return found


# Native functions


def load(facts: Facts) -> int:
    """Return the address of a native function from the cache; 0 if there is none."""
    found = read(facts) if facts else None
    if found is None or not _known(found[0]["needs"]):
        return 0
    header, code = found
    target = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    lmm = core.config.USE_LLVMLITE_MEMORY_MANAGER
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target, use_lmm=lmm)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(header["symbol"]))


_engines: list[Any] = []  # they own the code


def keep(facts: Facts, made: Any) -> None:
    """Cache a native function made by numba.cfunc."""
    if facts and (needs := _needs(made._library)) is not None:
        code = made._library.serialize_using_object_code()[2][0]
        write(facts, {"symbol": made.native_name, "needs": needs}, code)


def _needs(library: Any) -> list[str] | None:
    """Return the external symbols of the code; None if it cannot run in another process."""
    module = library._final_module
    named = Counter(re.findall(r'@"?([\w.$]+)', str(module)))
    declared = [
        v.name
        for kind in (module.functions, module.global_variables)
        for v in kind
        if v.is_declaration and not v.name.startswith("llvm.")
    ]
    needs = [name for name in declared if named[name] > 1]  # the others were inlined
    return needs if _known(needs) and not library.has_dynamic_globals else None


def _known(names: list[str]) -> bool:
    """Return True if all symbols exist; LLVM aborts the process if one does not."""
    if not all(map(llvm.address_of_symbol, names)):
        core.runtime.rtsys.initialize(_context)
    return all(map(llvm.address_of_symbol, names))


# Functions compiled for Python


class Overloads:
    """A cache of compiled code for a dispatcher, with the methods of Numba's own cache."""

    cache_path = None

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._function, self._options = function, options

    def enable(self) -> None:
        """Do nothing: the cache is always enabled."""

    disable = flush = enable

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the cached function of this signature, as if just compiled; None without one."""
        facts = self._facts(signature)
        found = read(facts) if facts else None
        if found is None or not _known(found[0]["needs"]):
            return None
        header, body = found
        arguments, _ = core.sigutils.normalize_signature(signature)
        returns = _type(header["returns"])
        description = core.funcdesc.PythonFunctionDescriptor(
            native=True,
            modname=self._function.__module__,
            qualname=self._function.__qualname__,
            unique_name=header["library"],
            doc="",
            typemap=None,
            restype=returns,
            calltypes=None,
            args=tuple(f"arg{i}" for i in range(len(arguments))),
            kws=(),
            mangler=lambda *_, **__: header["symbol"],
            argtypes=arguments,
            env_name=header["environment"],
        )
        globals_ = core.environment.Environment.from_fndesc(description)
        code = (body[: header["code"]], body[header["code"] :])
        library = context.codegen().unserialize_library((header["library"], "object", code))
        return core.compiler.compile_result(
            target_context=context,
            typing_context=context.typing_context,
            library=library,
            environment=globals_,
            entry_point=context.get_executable(library, description, globals_),
            fndesc=description,
            signature=core.typing.signature(returns, *arguments),
            objectmode=False,
            lifted=(),
            reload_init=[],
        )

    def save_overload(self, signature: Any, made: Any) -> None:
        """Cache a compiled function, if it is simple enough."""
        facts, returns = self._facts(signature), _spelled(made.signature.return_type)
        if not facts or _type(returns) != made.signature.return_type or made.environment.consts:
            return
        if made.objectmode or made.lifted or (needs := _needs(made.library)) is None:
            return
        name, _, (code, bitcode) = made.library.serialize_using_object_code()
        header = {
            "library": name,
            "symbol": made.fndesc.mangled_name,
            "environment": made.fndesc.env_name,
            "returns": returns,
            "needs": needs,
            "code": len(code),
        }
        write(facts, header, code + bitcode)

    def _facts(self, signature: Any) -> Facts:
        if _listener.depth > 0:  # another function calls this
            return {}
        return facts(self._function, signature, self._options)


def _spelled(kind: Any) -> Any:
    """Return the name of a type, or a list of names for a tuple."""
    return [_spelled(k) for k in kind] if isinstance(kind, types.BaseTuple) else kind.name


def _type(spelled: Any) -> Any:
    """Return the type of a name from `_spelled`, if it is a simple one."""
    if isinstance(spelled, list):
        return types.Tuple([_type(s) for s in spelled])
    return getattr(types, spelled, None)
