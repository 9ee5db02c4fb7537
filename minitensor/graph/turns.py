"""The numbers that a loop counts in the arguments of an op: "[:, t]", and "t = 0-6"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .model import Node

NUMBER = re.compile(r"-?\d+")
LETTERS = "tuvw"  # of loops in loops, the outermost first

Growth = tuple[int, list[int]]  # of a loop: how many turns, and by how much each number grows


def written(node: Node, turns: Sequence[Growth]) -> tuple[Node, list[str]]:
    """Return an op with letters for the numbers that loops around it count, and their ranges.

    The numbers are those of its attributes, in the order of their names.
    """
    place = iter(range(len(numbers(node.attributes))))
    found = [each for each in turns if any(each[1])]
    bases = [_base(node, found, number) for number in range(len(found))]

    def write(digits: str) -> str:
        at = next(place)
        rest, text = int(digits), ""
        for letter, (start, step), (_, growth) in zip(LETTERS, bases, found, strict=False):
            times = growth[at] // step
            rest -= times * start
            if times:
                factor = "" if abs(times) == 1 else f"{abs(times)}*"
                text += f"{'-' if times < 0 else '+' if text else ''}{factor}{letter}"
        if not text:
            return digits
        return f"{rest}{text}" if text[0] == "-" and rest else text + (f"{rest:+}" if rest else "")

    ranges = [
        f"{letter} = {_range(start, step, count)}"
        for letter, (start, step), (count, _) in zip(LETTERS, bases, found, strict=False)
    ]
    if not found:
        return node, []
    return replace(node, attributes=_rewritten(node.attributes, write)), ranges


def numbers(attributes: dict[str, Any]) -> list[int]:
    """Return all whole numbers in attributes, in the order of their names."""
    found: list[int] = []

    def note(digits: str) -> str:
        found.append(int(digits))
        return digits

    _rewritten(attributes, note)
    return found


def _base(node: Node, turns: Sequence[Growth], loop: int) -> tuple[int, int]:
    """Return the first value of a loop's letter, and its step: those of a number, if possible."""
    growth = turns[loop][1]
    at = next(at for at, step in enumerate(growth) if step)
    whole = all(step % growth[at] == 0 for step in growth)
    alone = len(turns) == 1 and whole
    return (numbers(node.attributes)[at], growth[at]) if alone else (0, 1)


def _range(start: int, step: int, count: int) -> str:
    """Write the values of a letter: "0-6", "6-0", "0, 2, ..., 8"."""
    last = start + step * (count - 1)
    if abs(step) == 1 and min(start, last) >= 0:
        return f"{start}-{last}"
    return f"{start}, {start + step}, ..., {last}" if count > 2 else f"{start}, {last}"


def _rewritten(value: Any, write: Callable[[str], str]) -> Any:
    """Return attributes with each whole number written anew; a number may become a text."""
    if isinstance(value, dict):
        return {key: _rewritten(value[key], write) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_rewritten(each, write) for each in value]
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value
    text = NUMBER.sub(lambda found: write(found[0]), str(value))
    return int(text) if isinstance(value, int) and NUMBER.fullmatch(text) else text
