"""Stubs, for type checkers and editors, of the functions and methods that the ops register.

    python -m tools.stubs          # write the .pyi files
    python -m tools.stubs --check  # exit code 1 if they are stale

Ops register their functions and methods when the library is imported, so no source file lists
them. The stubs are written from the library itself; a test keeps them true.
"""

from __future__ import annotations

import functools
import inspect
import keyword
import re
import sys
from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_overloads

import minitensor as mt
from minitensor.autograd.out import with_out
from minitensor.core import NAMESPACES, Tensor
from minitensor.nn import functional

PACKAGE = Path(mt.__file__).parent
HEADER = '''"""Written by tools.stubs from the library: do not edit."""

import builtins
import collections.abc
from typing import Any, Literal, overload

import numpy

from {package}autograd import RemovableHandle
from {package}core import Size
from {package}core import Tensor
from {package}devices import device as Device
from {package}dtype import dtype as Dtype
from {package}ops import return_types
from {package}random import Generator
'''
# How Python writes a type, and how a stub does.
SPELLINGS = {
    r"minitensor\.ops\.return_types\.": "return_types.",
    r"minitensor\.devices\.device\b": "Device",
    r"minitensor\.dtype\.dtype\b": "Dtype",
    r"minitensor\.[\w.]*\b(?=\w)": "",
    r"\bnumpy\.ndarray\b": "Tensor",  # of an op's rule on arrays
    r"\btyping\.": "",
}
# Functions whose result depends on the arguments, where no overloads in the source say how: the
# parameters after the tensor, and the result.
FLAGS = "sorted: bool = ..., *, dim: int | None = ..., "
OVERLOADS: dict[str, list[tuple[str, str]]] = {
    "unique": [
        ("sorted: bool = ..., *, dim: int | None = ...", "Tensor"),
        (FLAGS + "return_inverse: Literal[True]", "tuple[Tensor, Tensor]"),
        (FLAGS + "return_counts: Literal[True]", "tuple[Tensor, Tensor]"),
        (
            FLAGS + "return_inverse: Literal[True], return_counts: Literal[True]",
            "tuple[Tensor, Tensor, Tensor]",
        ),
        (
            "sorted: bool = ..., return_inverse: bool = ..., return_counts: bool = ..., "
            "dim: int | None = ...",
            "Any",
        ),
    ],
}
NUMPY_NAMES = {"dim": "axis", "keepdim": "keepdims"}
OPERATOR = re.compile(
    "__[ri]?(add|sub|mul|truediv|floordiv|mod|pow|matmul|and|or|xor|lshift|rshift)__|__(eq|ne|lt|le|gt|ge)__"
)
# Properties that are made by a lambda, which has no annotation.
PROPERTIES = {"device": "Device"} | dict.fromkeys(
    ["is_cpu", "is_cuda", "is_meta", "is_mps", "is_nested", "is_quantized", "is_sparse"], "bool"
)


def annotation(found: Any) -> str:
    """Return an annotation as a stub has it."""
    if found is Parameter.empty:
        return "Any"
    text = inspect.formatannotation(found)
    for pattern, spelling in SPELLINGS.items():
        text = re.sub(pattern, spelling, text)
    return text


def takes_out(function: Callable[..., Any]) -> bool:
    """Return True if `taking_out` made the function of another."""
    return "__signature__" in getattr(function, "__dict__", {})


def signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of an op's function, without the wrapper or the node it is hidden by."""
    if takes_out(function):
        return with_out(signature(function.__wrapped__))  # type: ignore[attr-defined]
    if isinstance(function, functools.partial):
        return without_inplace(signature(function.func))
    if not is_open(inspect.signature(function, follow_wrapped=False)):
        return inspect.signature(function, follow_wrapped=False, eval_str=True)
    if function.__name__.endswith("_"):  # in place: with the parameters of the plain method
        return without_inplace(signature(getattr(Tensor, function.__name__.removesuffix("_"))))
    inner = function.__wrapped__  # type: ignore[attr-defined]
    found = inspect.signature(inner, eval_str=True)
    if inner.__name__ != "forward":
        return found
    rest = list(found.parameters.values())[1:]  # after the node
    several = annotation(found.return_annotation).startswith("tuple")
    result = found.return_annotation if several else Tensor
    return found.replace(parameters=rest, return_annotation=result)


def overloads(function: Callable[..., Any]) -> list[inspect.Signature]:
    """Return the signatures that `typing.overload` declares, by the place in the source."""
    plain = inspect.unwrap(function)
    if not hasattr(plain, "__code__"):
        return []
    place: Any = SimpleNamespace(
        __module__=plain.__module__,
        __qualname__=plain.__code__.co_qualname,  # an op renames its function
    )
    return [inspect.signature(f, eval_str=True) for f in get_overloads(place)]


def without_inplace(found: inspect.Signature) -> inspect.Signature:
    """Return a signature without the argument `inplace`."""
    kept = [p for p in found.parameters.values() if p.name != "inplace"]
    return found.replace(parameters=kept)


def is_open(found: inspect.Signature) -> bool:
    """Return True if a function passes all its arguments on."""
    kinds = [p.kind for p in found.parameters.values()]
    return kinds[-2:] == [Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD]


def written(p: Parameter) -> str:
    """Return a parameter as a stub has it."""
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(p.kind.name, "")
    name = f"{p.name}_" if keyword.iskeyword(p.name) else p.name
    default = "" if p.default is Parameter.empty else " = ..."
    return f"{stars}{name}: {annotation(p.annotation)}{default}"


def takes_numpy_names(function: Callable[..., Any]) -> bool:
    """Return True if `numpy_names` wraps the function: it takes `axis` and `keepdims` too."""
    if takes_out(function):
        function = function.__wrapped__  # type: ignore[attr-defined]
    return getattr(getattr(function, "__code__", None), "co_name", "") == "named"


def requires_dim(found: inspect.Signature) -> bool:
    """Return True if `dim` has to be given."""
    return "dim" in found.parameters and found.parameters["dim"].default is Parameter.empty


def in_numpy_names(found: inspect.Signature) -> inspect.Signature:
    """Return a signature with `axis` and `keepdims`, as keywords, for `dim` and `keepdim`."""
    first, *rest = found.parameters.values()
    named = [
        p.replace(name=NUMPY_NAMES.get(p.name, p.name), kind=Parameter.KEYWORD_ONLY) for p in rest
    ]
    return found.replace(parameters=[first, *named])


def parameters(function: Callable[..., Any], found: inspect.Signature) -> list[str]:
    """Return the parameters as a stub has them."""
    parts: list[str] = []
    open_ = True  # to positional arguments
    for p in found.parameters.values():
        if p.kind is Parameter.KEYWORD_ONLY and open_:
            parts.append("*")
        open_ = open_ and p.kind is Parameter.POSITIONAL_OR_KEYWORD
        parts.append(written(p))
    if takes_numpy_names(function) and not requires_dim(found):
        given = [p for p in found.parameters.values() if p.name in NUMPY_NAMES]
        parts += ["*"] if open_ else []
        parts += [written(p.replace(name=NUMPY_NAMES[p.name], default=None)) for p in given]
    return parts


def defined(name: str, function: Callable[..., Any], method: bool = False) -> list[str]:
    """Return the lines that define a function, or a method, of that name."""
    declared = overloads(function)
    if takes_out(function):
        declared = [with_out(found) for found in declared]
    cases = declared or [signature(function)]
    if takes_numpy_names(function):
        cases += [in_numpy_names(found) for found in cases if requires_dim(found)]
    texts = [(parameters(function, found), annotation(found.return_annotation)) for found in cases]
    if name in OVERLOADS and not declared and texts[0][1] != "Tensor":
        first = texts[0][0][0]
        texts = [([first, rest] if rest else [first], result) for rest, result in OVERLOADS[name]]
    lines = []
    for parts, result in texts:
        if method:
            parts[0] = "self"
        lines += ["@overload"] if len(texts) > 1 else []
        lines.append(f"def {name}({', '.join(parts)}) -> {result}: ...")
    return lines


def method(name: str, value: Any) -> list[str]:
    """Return the lines that define a method or property of Tensor."""
    if isinstance(value, property):
        known = annotation(signature(value.fget).return_annotation)  # type: ignore[arg-type]
        result = PROPERTIES.get(name, known)
        setter = [f"@{name}.setter", f"def {name}(self, value: {result}) -> None: ..."]
        return ["@property", f"def {name}(self) -> {result}: ...", *(setter if value.fset else [])]
    if OPERATOR.fullmatch(name):
        ignored = "  # type: ignore[override]" if name in ("__eq__", "__ne__") else ""
        return [f"def {name}(self, other: Any) -> Tensor: ...{ignored}"]
    return defined(name, value, method=True)


def method_stubs() -> str:
    """Return the text of attached.pyi."""
    source = inspect.getsource(Tensor)
    own = set(re.findall(r"^    def (\w+)", source, re.MULTILINE))
    own |= set(re.findall(r"^    (\w+)(?:: [^=\n]+)? = ", source, re.MULTILINE))
    lines = []
    for name, value in sorted(vars(Tensor).items()):
        if name not in own and (callable(value) or isinstance(value, property)):
            lines += [f"    {line}" for line in method(name, value)]
    return "\n".join(["", "class Attached:", *lines]) + "\n"


def package_stubs() -> str:
    """Return the text of __init__.pyi."""
    imports: list[str] = []
    values = ["__version__: str"]
    functions: list[str] = []
    for name in dir(mt):
        value = getattr(mt, name)
        home = getattr(value, "__module__", None) or type(value).__module__
        code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
        if isinstance(value, ModuleType):
            above, _, stem = value.__name__.rpartition(".")
            imports.append(
                f"from {above.removeprefix('minitensor') or '.'} import {stem} as {name}"
            )
        elif value is None or isinstance(value, float):
            values.append(f"{name}: {'None' if value is None else 'builtins.float'}")
        elif isinstance(value, mt.dtype):
            values.append(f"{name}: Dtype")
        elif name in NAMESPACES["torch"] or (code and code.co_name != name) or takes_out(value):
            functions += defined(name, value)
        else:
            stem = home.removeprefix("minitensor")
            imports.append(f"from {stem} import {name} as {name}")
    return "\n".join([*imports, "", *values, "", *functions]) + "\n"


def functional_stubs() -> str:
    """Return the text of nn/functional.pyi."""
    lines = [line for name in dir(functional) for line in defined(name, getattr(functional, name))]
    return "\n".join(["", *lines]) + "\n"


def stub(text: str, package: str = ".") -> str:
    """Return a whole stub, with Python's types spelt out: the library has names like them."""
    for name in ("bool", "float", "int"):
        text = re.sub(rf"(?<=[:\[>|,] ){name}\b|(?<=\[){name}\b", f"builtins.{name}", text)
    header = HEADER.format(package=package)
    exported = re.findall(r" as (\w+)$", text, re.MULTILINE)
    lines = [
        line for line in header.splitlines(True) if line.split(" ")[-1].strip() not in exported
    ]
    return "".join(lines) + text


def stubs() -> dict[Path, str]:
    """Return the files and their contents."""
    return {
        PACKAGE / "attached.pyi": stub(method_stubs()),
        PACKAGE / "__init__.pyi": stub(package_stubs()),
        PACKAGE / "nn/functional.pyi": stub(functional_stubs(), ".."),
    }


def main() -> int:
    """Write or check the stubs; returns the exit code."""
    stale = [p for p, text in stubs().items() if not p.exists() or p.read_text("utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is stale: run python -m tools.stubs", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.write_text(stubs()[path], "utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
