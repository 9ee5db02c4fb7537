"""The types of what the ops attach, for type checkers and editors.

    python -m tools.stubs          # write minitensor/__init__.pyi and minitensor/attached.pyi
    python -m tools.stubs --check  # exit code 1 if they are not what would be written

Ops attach their functions and methods when the library is imported, so no source file lists them.
Both files are written from the library itself; a test keeps them true.
"""

from __future__ import annotations

import inspect
import keyword
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import minitensor as mt
import minitensor.testing  # part of the library, though imported late
from minitensor.core import NAMESPACES, OPS, Tensor

PACKAGE = Path(mt.__file__).parent
HEADER = '''"""Written by tools.stubs from the library: do not edit."""

from typing import Any

import numpy as np
'''
# Python calls an operator with one argument, whatever else the function takes.
OPERATORS = {"__add__", "__sub__", "__truediv__"}
KNOWN = {"Tensor", "Any", "int", "float", "bool", "str", "tuple", "list", "None", "np", "ndarray"}


def annotation(found: Any) -> str:
    """An annotation as it can stand in a stub: made of known names, or Any."""
    if found is inspect.Parameter.empty:
        return "Any"
    text = found if isinstance(found, str) else getattr(found, "__name__", "Any")
    text = text.replace("np.ndarray", "Tensor")
    words = set(re.findall(r"[A-Za-z_]+", text))
    return text if words <= KNOWN else "Any"


def signature(function: Callable[..., Any], method: bool) -> str:
    """The parameters and the result of an op's public function."""
    found = inspect.signature(function, follow_wrapped=False)
    inner = getattr(function, "__wrapped__", None)
    parameters = list(found.parameters.values())
    if inner and [p.kind.name for p in parameters] == ["VAR_POSITIONAL", "VAR_KEYWORD"]:
        found = inspect.signature(inner)
        parameters = list(found.parameters.values())
        if inner.__name__ == "forward":  # an op's rule: its first parameter is the op
            parameters = parameters[1:]
    parts = []
    if method:
        parts.append("self")
        if parameters and parameters[0].kind.name.startswith("POSITIONAL"):
            parameters = parameters[1:]
    starred = False
    for p in parameters:
        name = f"{p.name}_" if keyword.iskeyword(p.name) else p.name
        kind = p.kind.name
        if kind == "KEYWORD_ONLY" and not starred:
            parts.append("*")
            starred = True
        if kind == "VAR_POSITIONAL":
            name, starred = f"*{name}", True
        elif kind == "VAR_KEYWORD":
            name = f"**{name}"
        default = "" if p.default is inspect.Parameter.empty else " = ..."
        parts.append(f"{name}: {annotation(p.annotation)}{default}")
    result = annotation(found.return_annotation)
    if inner and inner.__name__ == "forward" and result == "Any":
        result = "Tensor"  # of a forward rule on arrays
    return f"({', '.join(parts)}) -> {result}"


def attached_methods() -> dict[str, Any]:
    """What is a method or property of Tensor without standing in its class body, by name."""
    source = inspect.getsource(Tensor)
    own = set(re.findall(r"^    def (\w+)", source, re.MULTILINE))
    own |= set(re.findall(r"^    (\w+)(?:: [^=\n]+)? = ", source, re.MULTILINE))
    return {
        name: value
        for name, value in sorted(vars(Tensor).items())
        if name not in own and (callable(value) or isinstance(value, property))
    }


def method_stubs() -> str:
    """The text of attached.pyi."""
    lines = [HEADER, "from .core import Tensor", "", "class Attached:"]
    for name, value in attached_methods().items():
        if isinstance(value, property):
            kind = annotation(inspect.signature(value.fget or repr).return_annotation)
            lines += ["    @property", f"    def {name}(self) -> {kind}: ..."]
            if value.fset is not None:
                lines += [
                    f"    @{name}.setter",
                    f"    def {name}(self, value: {kind}) -> None: ...",
                ]
        elif name in ("__eq__", "__ne__"):  # object has them too
            ignored = "  # type: ignore[override]"
            lines.append(f"    def {name}(self, other: Any) -> Tensor: ...{ignored}")
        elif name in OPERATORS:
            lines.append(f"    def {name}(self, other: Any) -> Tensor: ...")
        else:
            lines.append(f"    def {name}{signature(value, method=True)}: ...")
    return "\n".join(lines) + "\n"


def package_stubs() -> str:
    """The text of __init__.pyi."""
    modules: list[str] = []
    classes: list[str] = []
    functions: list[str] = []
    values: list[str] = []
    for name, value in sorted(vars(mt).items()):
        if name.startswith("_") or name in ("Any", "annotations", "NAMESPACES", "models", "tools"):
            continue
        if isinstance(value, ModuleType):
            modules.append(f"from . import {name} as {name}")
        elif name in NAMESPACES["torch"]:
            functions.append(f"def {name}{signature(value, method=False)}: ...")
        elif isinstance(value, np.dtype):
            values.append(f"{name}: np.dtype[Any]")
        else:
            source = getattr(value, "__module__", None) or type(value).__module__
            target = classes if source.startswith("minitensor.") else values
            stem = source.removeprefix("minitensor")
            known = hasattr(sys.modules[source], name)
            target.append(
                f"from {stem} import {name} as {name}" if known and stem else f"{name}: Any"
            )
    parts = [*modules, *classes, "", *values, "", *functions]
    return HEADER + "\n" + "\n".join(parts) + "\n"


def shadowed(text: str) -> str:
    """The text with Python's types spelt out: the library has names like them."""
    for name in ("bool", "float", "int"):
        text = re.sub(rf"(?<=[:\[>|] ){name}\b|(?<=\[){name}\b", f"builtins.{name}", text)
    return text.replace("from typing import Any\n", "import builtins\nfrom typing import Any\n")


def stubs() -> dict[Path, str]:
    """The files and what belongs in them."""
    assert OPS
    return {
        PACKAGE / "attached.pyi": shadowed(method_stubs()),
        PACKAGE / "__init__.pyi": shadowed(package_stubs()),
    }


def main() -> int:
    """Write or check the stubs; returns the exit code."""
    stale = [p for p, text in stubs().items() if not p.exists() or p.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is stale: run python -m tools.stubs", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.write_text(stubs()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
