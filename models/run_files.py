"""Read and check the files of a run: its progress, the state of its optimiser, its log.

Everything is compared with the output this run would write, before it changes anything.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import minitensor as mt
from minitensor import Tensor
from minitensor.files import parse_json, shown

from .command import InputError
from .task import Position
from .text import write_file

# The numbers that a record of each kind has at least.
RECORD = {
    "step": ("epoch", "step", "lr", "loss"),
    "epoch": ("epoch", "step", "lr", "train_loss", "valid_loss"),
}
# The state that Adam keeps for a parameter: True if it has the parameter's shape.
MOMENTS = {"step": False, "exp_avg": True, "exp_avg_sq": True}


def progress_from_json(text: str, position: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the progress of a run; `position` is the beginning. ValueError if it is none."""
    progress = parse_json(text)
    if not isinstance(progress, dict) or not isinstance(progress.get("data"), str):
        raise ValueError(f"its progress is {shown(progress)}")
    reached = progress.get("position")
    wrong = misfit(reached, position, ("epoch", "batch", "step"))
    if wrong or not isinstance(reached, dict):
        raise ValueError(f"its position{wrong}")
    for name, value in reached.items():
        if not value >= 0:
            raise ValueError(f"its position: {name} is {value}, expected at least 0")
    if (reached.get("tokens", 0) > 0) != (reached.get("batch", 0) > 0):
        raise ValueError("its position has tokens without batches, or batches without tokens")
    return progress


def check_training(
    progress: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    groups: Sequence[Mapping[str, Any]],
    parameters: Sequence[Tensor],
) -> None:
    """Raise ValueError unless a checkpoint holds everything that is needed to continue.

    `groups` are those of the optimiser of a new run.
    """
    wrong = misfit(progress.get("groups"), groups, ("params", "lr"))
    if wrong:
        raise ValueError(f"its groups{wrong}")
    for found, new in zip(progress["groups"], groups, strict=True):
        check_fixed(found, new)
    if "rng" not in tensors:
        raise ValueError("it has no state of the random numbers")
    try:
        mt.Generator().set_state(tensors["rng"].numpy())
    except RuntimeError as error:
        raise ValueError(f"the state of its random numbers: {error}") from error
    expected = {
        f"{number}.{key}": p.shape if whole else ()
        for number, p in enumerate(parameters)
        for key, whole in MOMENTS.items()
    }
    begun = {name.partition(".")[0] for name in tensors if name != "rng"}
    for name, t in tensors.items():
        if name == "rng":
            continue
        if name not in expected:
            raise ValueError(f"it has the unexpected tensor {shown(name)}")
        if tuple(t.shape) != tuple(expected[name]) or not t.is_floating_point():
            raise ValueError(
                f"{name} is {t.dtype} of shape {shown(tuple(t.shape))}, expected floating point of "
                f"shape {tuple(expected[name])}"
            )
    for number in begun:
        for key in MOMENTS:
            if f"{number}.{key}" not in tensors:
                raise ValueError(f"{number}.{key} is missing")


def check_fixed(found: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise ValueError for a value that never changes during a run but differs from a new run's."""
    for key, value in found.items():
        if key == "lr":
            if value < 0:
                raise ValueError(f"its groups: lr is {value}, expected at least 0")
        elif value != json.loads(json.dumps(new[key])):
            raise ValueError(
                f"its groups: {key} is {shown(value)}, by the settings {shown(new[key])}"
            )


def misfit(found: Any, like: Any, needed: Sequence[str] = ()) -> str:
    """Return where `found`, read from JSON, differs in form from `like`; "" if it does not.

    No key may be added, and those `needed` must be there; others may be missing in old files.
    """
    if isinstance(like, Mapping):
        if not isinstance(found, dict):
            return f" is {shown(found)}"
        for key in needed:
            if key not in found:
                return f": {key} is missing"
        for key, value in found.items():
            wrong = misfit(value, like[key]) if key in like else " is unknown"
            if wrong:
                return f": {shown(key)}{wrong}"
        return ""
    if isinstance(like, list | tuple):
        if not isinstance(found, list) or len(found) != len(like):
            return f" is {shown(found)}, expected {len(like)} values"
        return next(
            filter(None, (misfit(f, n, needed) for f, n in zip(found, like, strict=True))), ""
        )
    if type(like) is int or type(like) is float:
        whole = type(found) is int and abs(found) < 2**63
        real = type(like) is float and type(found) is float and math.isfinite(found)
        good = whole or real or found == like == math.inf
    else:
        good = type(found) is type(like)
    return "" if good else f" is {shown(found)}, expected something like {shown(like)}"


def read_records(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return all whole records in a log, and the number of damaged lines.

    An unfinished last line, without a line break, does not count as damaged.
    """
    records, damaged = [], 0
    *lines, last = data.split(b"\n")
    for line in [*lines, last]:
        record = read_record(line)
        if record:
            records.append(record)
        elif line.strip():
            # A record is flat, between two braces, so it can be found in a line damaged elsewhere.
            parts = map(read_record, re.findall(rb'\{"kind"[^{}]*\}', line))
            records += filter(None, parts)
            damaged += line is not last
    return records, damaged


def read_record(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line; None if there is none, or if a number of its kind is missing."""
    try:
        record = parse_json(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    numbers = [record.get(name) for name in RECORD.get(record["kind"], ("epoch", "step"))]
    if any(type(n) is not float and (type(n) is not int or abs(n) >= 2**63) for n in numbers):
        return None
    whole = [record["epoch"], record["step"]]
    return record if all(type(n) is int and n >= 0 for n in whole) else None


def read_log(path: Path, position: Position) -> list[dict[str, Any]]:
    """Read the records of a log up to a position.

    Damaged lines are left out, and a line on standard error counts them. InputError if the file
    cannot be read.
    """
    try:
        records, damaged = read_records(path.read_bytes() if path.exists() else b"")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if damaged:
        print(f"{path}: {damaged} damaged line{'s' * (damaged > 1)} left out", file=sys.stderr)
    return [r for r in records if r["step"] <= position.step and r["epoch"] <= position.epoch]


def write_log(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Rewrite the log, a line of JSON for each record; InputError if that fails."""
    write_file(path, "".join(json.dumps(record) + "\n" for record in records).encode())
