"""The house itself: imports point one way, and nothing is imported that the core does not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Who may import whom: a part may import those of a lower level, and its own.
LEVELS = {
    "minitensor/kernels": 0,
    "minitensor/memory": 0,
    "minitensor/dtype": 0,
    "minitensor/devices": 0,
    "minitensor/files": 0,
    "minitensor/names": 0,
    "minitensor/random": 2,
    "minitensor/formatting": 2,
    "minitensor/core": 2,
    "minitensor/autograd": 2,
    "minitensor/ops": 3,
    "minitensor/creation": 4,
    "minitensor/sampling": 4,
    "minitensor/serialize": 4,
    "minitensor/nn": 5,
    "minitensor/optim": 5,
    "minitensor/data": 5,
    "minitensor/graph": 5,
    "minitensor/testing": 6,
    "minitensor": 6,
    "minitensor/models": 7,  # both lie beside the package in a checkout, inside it once installed
    "minitensor/tools": 8,
}
CORE = {"numpy", "numba", "llvmlite", "graphviz", "safetensors"}
OPTIONAL = {
    "tokenizers",
    "sacrebleu",
    "num2words",
    "tqdm",
    "matplotlib",
    "pygraphviz",
    "torch",
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
    raise AssertionError(f"{module} is not in the house")


def modules() -> list[Path]:
    return sorted(
        p for top in ("minitensor", "models", "tools") for p in (ROOT / top).rglob("*.py")
    )


def imports(file: Path) -> list[tuple[str, bool]]:
    """The modules a file imports, absolute, and whether at its top level."""
    tree = ast.parse(file.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    package = file.relative_to(ROOT).with_suffix("").parts
    package = package[:-1]  # of the file itself, also for an __init__
    found = []
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        top = node in tree.body
        if isinstance(node, ast.Import):
            found += [(alias.name, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
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
            assert other == own or LEVELS[other] <= LEVELS[own], f"{own} imports {other}"


def test_the_tensor_does_not_import_the_ops() -> None:
    assert not [m for m, _ in imports(ROOT / "minitensor/core/tensor.py") if "ops" in m.split(".")]


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
