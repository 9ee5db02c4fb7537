"""The table of PyTorch's names in the README: what is there, what is not, what differs on purpose.

    python -m tools.surface           # write the table, from the library as it is
    python -m tools.surface --check   # exit code 1 if it would change
    python -m tools.surface --names   # also list PyTorch's names again, which needs PyTorch

PyTorch's public names are kept in `pytorch_names.txt`, so that the table can be made without it.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

from minitensor.tools.differences import MEANT
from minitensor.tools.read import marked

ROOT = Path(__file__).resolve().parent.parent  # also by the link in the package
README = ROOT / "README.md"
NAMES = Path(__file__).parent / "pytorch_names.txt"
USED = Path(__file__).parent / "used_names.txt"  # that public code uses most
MARK = "names of PyTorch"

# PyTorch's namespaces, and ours.
SPACES: dict[str, str] = {
    "torch": "minitensor",
    "torch.Tensor": "minitensor.Tensor",
    "torch.nn": "minitensor.nn",
    "torch.nn.functional": "minitensor.nn.functional",
    "torch.nn.init": "minitensor.nn.init",
    "torch.nn.utils": "minitensor.nn.utils",
    "torch.nn.utils.rnn": "minitensor.nn.utils.rnn",
    "torch.nn.utils.parametrizations": "minitensor.nn.utils.parametrizations",
    "torch.nn.utils.parametrize": "minitensor.nn.utils.parametrize",
    "torch.optim": "minitensor.optim",
    "torch.optim.lr_scheduler": "minitensor.optim.lr_scheduler",
    "torch.utils.data": "minitensor.data",
    "torch.autograd": "minitensor.autograd",
    "torch.distributions": "minitensor.distributions",
    "torch.linalg": "minitensor.linalg",
    "torch.testing": "minitensor.testing",
}


def namespace(path: str) -> Any:
    """Return the module or class of a dotted path."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        package, _, name = path.rpartition(".")
        return getattr(namespace(package), name)


def names_of(space: str, library: Any = None) -> list[str]:
    """Return the public names of one of PyTorch's namespaces: there, or here with a `library`.

    Modules, and what the namespace merely imports from elsewhere, are left out.
    """
    found = namespace(space if library is None else SPACES[space])
    return [name for name in dir(found) if name[0] != "_" and not _foreign(getattr(found, name))]


def _foreign(value: Any) -> bool:
    if isinstance(value, ModuleType | functools.partial):
        return isinstance(value, ModuleType)
    home = getattr(value, "__module__", None)
    outside = ("typing", "collections", "warnings", "enum", "dataclasses", "functools", "builtins")
    return isinstance(home, str) and home.split(".")[0] in (*outside, "typing_extensions")


@functools.cache
def pytorch_names() -> dict[str, list[str]]:
    """Return PyTorch's public names by namespace, as they are kept in the file."""
    found = {}
    for block in NAMES.read_text("utf-8").split("\n\n")[1:]:
        space, _, names = block.partition(":")
        found[space] = names.split()
    return found


def write_names() -> None:
    """List PyTorch's names again."""
    import torch

    blocks = [f"PyTorch {torch.__version__.partition('+')[0]}: its public names"]
    for space in SPACES:
        text = f"{space}: {' '.join(names_of(space))}"
        blocks.append(textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False))
    NAMES.write_text("\n\n".join(blocks) + "\n", "utf-8", newline="\n")


def is_there(name: str) -> bool:
    """Return True if a name of PyTorch's is found here, with what `minitensor.compat` adds."""
    here: Any = importlib.import_module("minitensor")
    for part in name.replace("utils.data", "data").split("."):
        try:
            here = getattr(here, part)
        except (AttributeError, NotImplementedError):  # the second says what cannot be had
            return False
    return True


def table() -> str:
    """Return the table, as Markdown."""
    counts: dict[str, list[int]] = {}
    for space, theirs in pytorch_names().items():
        both = set(names_of(space, "minitensor")) & set(theirs)
        count = counts.setdefault(re.sub(r"(utils)\..*(?<!data)$", r"\1", space), [0, 0])
        count[0] += len(both)
        count[1] += len(theirs)
    cells = [f"`{space}` | {mine} of {all_}" for space, (mine, all_) in counts.items()]
    cells += [" |"] * (len(cells) % 2)
    half = len(cells) // 2
    rows = ["| namespace | names here | namespace | names here |", "| --- | --- | --- | --- |"]
    rows += [f"| {a} | {b} |" for a, b in zip(cells[:half], cells[half:], strict=True)]
    used = USED.read_text("utf-8").partition("\n")[2].split()
    missing = [name for name in used if not is_there(name)]
    told = f"All {len(used)} names that public transformer code uses most are here."
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        told = f"Of the {len(used)} names that public code uses most, these are missing: {listed}."
    lines = [
        *rows,
        "",
        *textwrap.wrap(told, 120, break_on_hyphens=False),
        "",
        "What both have differs on purpose in these points, and in the corners of single functions",
        "that [tools/differences.py](tools/differences.py) lists:",
        "",
    ]
    for reason in dict.fromkeys(d.reason for d in MEANT):
        lines += textwrap.wrap(f"- {reason}", 120, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def updated(text: str) -> str:
    """Return the README with the table made again."""
    before, _, after = marked(text, MARK)
    return before + table() + after


def main() -> int:
    """Write or check the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.surface", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--names", action="store_true", help="list PyTorch's names again first")
    options = parser.parse_args()
    if options.names:
        write_names()
    text = README.read_text("utf-8")
    new = updated(text)
    if options.check:
        if new != text:
            print("README.md is out of date: run python -m tools.surface", file=sys.stderr)
        return int(new != text)
    README.write_text(new, "utf-8", newline="\n")
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
