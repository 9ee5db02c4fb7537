"""The reading path of CONTRIBUTING.md with its line counts, and the ops of one training step.

    python -m tools.read           # count again, and write both tables into CONTRIBUTING.md
    python -m tools.read --check   # exit code 1 if they would change

A row of the path names files and, after each, the classes and functions of it to read:
`minitensor/core/op.py` `Op` `Op.apply`; a file alone is read whole. All lines count, also blank
ones and comments.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from pathlib import Path

import minitensor as mt
from minitensor.core import OPS
from minitensor.models.transformer import Transformer, TransformerConfig

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "CONTRIBUTING.md"


def definitions(tree: ast.Module) -> dict[str, tuple[int, int]]:
    """Return the first and the last line of each class, function and `Class.method` of a file."""
    found: dict[str, tuple[int, int]] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for item in body:
            if isinstance(item, ast.ClassDef | ast.FunctionDef):
                first = min([item.lineno, *(d.lineno for d in item.decorator_list)])
                found[prefix + item.name] = (first, item.end_lineno or first)
            if isinstance(item, ast.ClassDef):
                visit(item.body, f"{prefix}{item.name}.")

    visit(tree.body, "")
    return found


def lines_of(row: str) -> int:
    """Return the number of lines that a row of the path names; ValueError if one is missing."""
    total = 0
    for place in re.finditer(r"`([\w/]+\.py)`(?:\]\([^)]*\))?((?:,? `[\w.]+`)*)", row):
        file = ROOT / place[1]
        if not file.exists():
            raise ValueError(f"CONTRIBUTING.md: there is no {place[1]}")
        text = file.read_text("utf-8")
        names = re.findall(r"`([\w.]+)`", place[2])
        known = definitions(ast.parse(text))
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"CONTRIBUTING.md: {place[1]} has no {', '.join(missing)}")
        chosen: set[int] = set()
        for name in names:
            first, last = known[name]
            chosen.update(range(first, last + 1))
        total += len(chosen) if names else len(text.splitlines())
    return total


def counted(path: str) -> str:
    """Return the table of the path with its last column recounted."""
    rows, total = [], 0
    for row in path.strip().splitlines():
        cells = row.strip().strip("|").split("|")
        if cells[0].strip().isdigit():
            lines = lines_of(row)
            total += lines
            cells[-1] = f" {lines} "
        elif cells[0].strip() == "":
            cells[-1] = f" {total} "
        rows.append(f"|{'|'.join(cells)}|")
    return "\n".join(rows)


def training_ops() -> str:
    """Return a table of the ops that one training step of the Transformer runs."""
    config = TransformerConfig(
        11, 13, d_model=8, nhead=2, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=16
    )
    model = Transformer(config)
    src, tgt = mt.randint(3, 11, (2, 5)), mt.randint(3, 13, (2, 4))
    mask = model.generate_square_subsequent_mask(4)

    def loss() -> mt.Tensor:
        logits = model(src, model.shift_right(tgt), tgt_mask=mask)
        return mt.nn.functional.cross_entropy(logits.flatten(0, 1), tgt.flatten())

    graph = mt.graph.trace(loss)
    runs = Counter(node.op for node in graph.nodes.values() if node.direction == "forward")
    rows = ["| op | runs | in | rule |", "| --- | --- | --- | --- |"]
    by_name = {op.op_name: op for op in reversed(OPS.values())}  # the first of a name
    for name, count in runs.items():
        if name not in by_name:  # `detach` gives the same memory, and no op runs
            continue
        op = by_name[name]
        rule = " ".join((op.__doc__ or "").split("\n\n")[0].split()).replace("|", r"\|")
        file = op.__module__.replace(".", "/") + ".py"
        rows.append(f"| `{name}` | {count} | `{file}` | {rule} |")
    return "\n".join(rows)


def marked(text: str, mark: str) -> tuple[str, str, str]:
    """Return `text` before, between and after <!-- mark --> and <!-- end of mark -->."""
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    table, end, after = rest.partition(f"<!-- end of {mark} -->")
    return before + begin, table, end + after


def updated(text: str) -> str:
    """Return CONTRIBUTING.md with both tables made again."""
    before, path, after = marked(text, "path")
    between, _, end = marked(after, "ops")
    return f"{before}{counted(path)}\n{between}{training_ops()}\n{end}"


def main() -> int:
    """Write or check the tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.read", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    text = GUIDE.read_text("utf-8")
    new = updated(text)
    if options.check:
        if new != text:
            print("CONTRIBUTING.md is out of date: run python -m tools.read", file=sys.stderr)
        return int(new != text)
    GUIDE.write_text(new, "utf-8", newline="\n")
    print(marked(new, "path")[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
