"""The source itself: imports point one way, little is imported, docstrings read plainly."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Who may import whom: a part may import parts of a lower level, and files of its own.
LEVELS = {
    "minitensor/names": -1,
    "minitensor/memory": 0,
    "minitensor/dtype": 0,
    "minitensor/devices": 0,
    "minitensor/files": 0,
    "minitensor/errors": 0,
    "minitensor/registry": 0,
    "minitensor/array": 1,
    "minitensor/random": 1,
    "minitensor/rounding": 1,
    "minitensor/kernels": 1,
    "minitensor/core": 2,
    "minitensor/autograd": 3,
    "minitensor/formatting": 3,
    "minitensor/sharing": 3,
    "minitensor/structure": 3,
    "minitensor/shards": 3,
    "minitensor/pytorch": 3,
    "minitensor/serialize": 4,
    "minitensor/ops": 4,
    "minitensor/creation": 4,
    "minitensor/notebook": 4,
    "minitensor/linalg": 5,
    "minitensor/sampling": 5,
    "minitensor/data": 5,
    "minitensor/nn": 6,
    "minitensor/optim": 6,
    "minitensor/distributions": 6,
    "minitensor/graph": 7,
    "minitensor/recording": 7,
    "minitensor/onnx": 8,
    "minitensor/replay": 8,
    "minitensor/testing": 8,
    "minitensor/compat": 9,
    "minitensor": 10,
    "minitensor/models": 11,  # both lie beside the package in a checkout, inside it once installed
    "minitensor/tools": 12,
}

CORE = {"numpy", "numba", "llvmlite", "graphviz", "safetensors"}
OPTIONAL = {
    "ml_dtypes",
    "tokenizers",
    "sacrebleu",
    "num2words",
    "tqdm",
    "matplotlib",
    "pygraphviz",
    "sklearn",
    "onnx",
    "torch",
    "treescope",
}


def part(module: str) -> str:
    """The entry of LEVELS that a dotted module belongs to."""
    names = module.split(".")
    if names[0] in ("models", "tools"):
        names = ["minitensor", *names]
    for length in (2, 1):
        found = "/".join(names[:length])
        if found in LEVELS:
            return found
    raise AssertionError(f"{module} has no level")


def modules() -> list[Path]:
    return sorted(
        p for top in ("minitensor", "models", "tools") for p in (ROOT / top).rglob("*.py")
    )


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@functools.cache
def imports(file: Path) -> list[tuple[str, bool]]:
    """The modules a file imports, absolute, and whether at its top level."""
    tree = parsed(file)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = file.relative_to(ROOT).with_suffix("").parts
    package = package[:-1]  # of the file itself, also for an __init__
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom) or id(node) in for_types:
            continue
        top = node in tree.body
        if isinstance(node, ast.Import):
            found += [(alias.name, top) for alias in node.names]
        else:
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            if (ROOT / stem.replace(".", "/")).is_dir():
                for alias in node.names:
                    below = f"{stem}.{alias.name}"
                    path = ROOT / below.replace(".", "/")
                    is_module = path.is_dir() or path.with_suffix(".py").exists()
                    found.append((below if is_module else stem, top))
            else:
                found.append((stem, top))
    return found


@pytest.mark.parametrize("file", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    own = part(".".join(file.relative_to(ROOT).with_suffix("").parts))
    for module, _ in imports(file):
        if module.split(".")[0] in ("minitensor", "models", "tools"):
            other = part(module)
            assert other == own or LEVELS[other] < LEVELS[own], f"{own} imports {other}"


def dotted(file: Path) -> str:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def circles(graph: dict[str, set[str]]) -> list[frozenset[str]]:
    """The groups of modules that lead to each other by their imports."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen, stack = set(), list(graph[start])
        while stack:
            here = stack.pop()
            if here not in seen:
                seen.add(here)
                stack += graph.get(here, ())
        reached[start] = seen
    groups = {
        frozenset({a, *(b for b in reached[a] if a in reached.get(b, ()))})
        for a in graph
        if a in reached[a]
    }
    return sorted(groups, key=sorted)


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}, "f": {"f"}}
    assert circles(graph) == [frozenset("abc"), frozenset("f")]


def test_no_files_import_each_other() -> None:
    graph = {dotted(file): {module for module, _ in imports(file)} for file in modules()}
    assert not (found := circles(graph)), [sorted(group) for group in found]


def test_the_core_is_small_and_imports_nothing_above_it() -> None:
    files = sorted((ROOT / "minitensor/core").rglob("*.py"))
    assert sum(len(file.read_text().splitlines()) for file in files) <= 1000
    below = {name for name, level in LEVELS.items() if level < LEVELS["minitensor/core"]}
    for file in files:
        inside = {module for module, _ in imports(file) if module.startswith("minitensor")}
        assert {part(module) for module in inside} <= below | {"minitensor/core"}


def test_the_core_is_read_in_the_order_that_it_says() -> None:
    """Its docstring lists all of its files; none is left out and none has gone."""
    tree = ast.parse((ROOT / "minitensor/core/__init__.py").read_text())
    listed = re.findall(r"^- `(\w+)`:", ast.get_docstring(tree) or "", re.MULTILINE)
    files = {file.stem for file in (ROOT / "minitensor/core").glob("*.py")} - {"__init__"}
    assert listed[:2] == ["tensor", "op"]
    assert sorted(listed) == sorted(files)


def test_attributes_of_the_tensor_come_through_one_door() -> None:
    for file in modules():
        assert not re.search(r"setattr\(Tensor\b|\bTensor\.\w+ = ", file.read_text()), file


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and docstring of a module and of each class and function in it."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "name", "the module"), ast.get_docstring(node) or ""


def test_docstrings_say_what_a_thing_does() -> None:
    """They begin with a verb or a noun ("Return True if ..."), not with a question word."""
    question = re.compile(r"(What|Whether|Where|How|Which|Who|Whose)\b", re.IGNORECASE)
    tests = sorted((ROOT / "tests").rglob("*.py"))
    found = [
        f"{file.relative_to(ROOT)}: {name}: {text.splitlines()[0]}"
        for file in [*modules(), *tests]
        for name, text in docstrings(file)
        if question.match(text)
    ]
    assert not found, found


@pytest.mark.parametrize("file", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_core_packages_are_imported(file: Path) -> None:
    for module, top in imports(file):
        name = module.split(".")[0]
        if name in sys.stdlib_module_names or name in ("minitensor", "models", "tools"):
            continue
        if name in CORE:
            continue
        assert name in OPTIONAL, f"{name} is no dependency of the project"
        if file.is_relative_to(ROOT / "minitensor"):
            assert not top, f"the optional {name} is imported at the top of {file.name}"


def test_import_is_clean_and_needs_nothing_optional() -> None:
    code = (
        "import sys\n"
        f"for name in {sorted(OPTIONAL)!r}: sys.modules[name] = None\n"
        "import minitensor\n"
        "assert minitensor.tensor([1.0]).item() == 1\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_the_stubs_are_those_of_the_library() -> None:
    from minitensor.tools.stubs import stubs

    for path, text in stubs().items():
        assert path.read_text() == text, "stale stubs: run python -m tools.stubs"


def test_every_name_of_the_pages_script_is_declared_once() -> None:
    """They are one script, in which a second function of a name replaces the first in silence."""
    from minitensor.graph.html import HERE, SCRIPTS

    texts = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    found = re.compile(r"^(?:async )?(?:const|let|function\*?|class) +(\w+)", re.MULTILINE)
    declared = Counter(name for text in texts for name in found.findall(text))
    assert len(declared) > 100
    assert [name for name, count in declared.items() if count > 1] == []
