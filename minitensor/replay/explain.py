"""The text that `compile(..., explain=True)` prints: the recording, the rules and the plan."""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..core import OPS
from ..errors import module_path
from ..graph.numbers import number
from ..ops.chain import Chain
from .graph import Call
from .left import left, name_of
from .plan import Pass, Step

if TYPE_CHECKING:
    from .compiled import Entry
    from .replayed import Plan


def explanation(entry: Entry) -> str:
    """Return what was recorded of a call, which rules applied and where, and what they left.

    Of a call that is not replayed it is the reason.
    """
    if entry.reason:
        return f"compile: runs as it is: {entry.reason}"
    before, after = entry.recorded, entry.graph.calls
    found: defaultdict[str, list[Call]] = defaultdict(list)
    for call in before:
        found[_block(call)].append(call)
    rules: defaultdict[str, list[str]] = defaultdict(list)
    for fired in entry.fired:
        rules[fired.rule].append(fired.line)
    for call in after:
        if call.op is Chain:
            steps = [OPS[name].op_name for name, *_ in call.kwargs["program"].steps]
            rules[f"chain of {', '.join(steps)}"].append(call.line)
    lines = [f"compile: recorded {_count(len(before), 'op')}"]
    ops = {block: _tally(map(name_of, calls)) for block, calls in found.items()}
    lines += _rows({block: (ops[block], [c.line for c in found[block]]) for block in found})
    applied = _count(sum(map(len, rules.values())), "time")
    applied = f"applied {applied}, {len(before)} ops became {len(after)}"
    lines.append(f"rules: {applied if rules else 'none applied'}")
    lines += _rows({f"{len(at)}x {rule}": ("", at) for rule, at in rules.items()})
    unfused = {f"{len(at)}x {ops}": (why, at) for (ops, why), at in left(entry.graph).items()}
    lines += ["not fused:", *_rows(unfused)] if unfused else []
    return "\n".join(lines)


def plan_explanation(plan: Plan) -> str:
    """Return what a plan runs, in kernels and in Python, and the memory that it needs."""
    assert plan.forward is not None
    lines = [f"compile: replayed, forward: {_program(plan.forward)}"]
    if plan.backward is not None:
        lines.append(f"  backward: {_program(plan.backward)}")
    moved = {"inputs": plan.forward.movable[: plan.forward.coming]}
    moved["outputs"] = plan.forward.movable[plan.forward.coming :]
    if plan.backward is not None:
        moved["gradients"] = plan.backward.movable[plan.backward.coming :]
    sizes = [f"{name} {number(sum(m.size for m in all), 'B')}" for name, all in moved.items()]
    leaves = {id(t): t for t in plan.graph.tensors.values()}.values()
    sizes.append(f"parameters and constants {number(sum(t._array.nbytes for t in leaves), 'B')}")
    if plan.layouts:
        frozen = sum(each.panels.nbytes for each in plan.layouts)
        sizes.append(f"weights laid out once {number(frozen, 'B')}")
    lines.append(
        f"  memory: arena {number(plan.arena.size, 'B')}; outside of it {', '.join(sizes)}"
    )
    return "\n".join(lines)


def _block(call: Call) -> str:
    """Return the path of the module that ran a call, down to the first number: layers.*."""
    path = re.sub(r"(?<![^.])\d+(?![^.])", "*", module_path(call.modules))
    start, numbered, _ = path.partition("*")
    if numbered:
        return start + numbered
    return path.partition(".")[0] or "in no module"


def _tally(names: Iterable[str]) -> str:
    return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in Counter(names).items())


def _program(program: Pass) -> str:
    kernels = _count(program.native, "kernel")
    steps = _tally(item.name for item in program._items if isinstance(item, Step))
    return f"{kernels}, and in Python {_count(program.steps, 'op')}: {steps}" if steps else kernels


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _rows(rows: dict[str, tuple[str, list[str]]]) -> Iterator[str]:
    """Yield a line for each row: its name, a text, and lines of code, "gpt.py:154,155"."""
    wide = min(max(map(len, rows), default=0), 40)
    later = f"\n{'':{wide + 4}}"
    for name, (text, lines) in rows.items():
        files: defaultdict[str, set[int]] = defaultdict(set)
        for file, _, line in (each.rpartition(":") for each in lines if each):
            files[file].add(int(line))
        told = [f"{file}:{','.join(map(str, sorted(at)))}" for file, at in files.items()]
        parts = (
            [*textwrap.wrap(text, 76), *told] if len(text) > 76 else [f"{text}  {' '.join(told)}"]
        )
        yield f"  {name:{wide}}  {later.join(parts).strip()}".rstrip()
