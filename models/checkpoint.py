"""Read the checkpoints of training runs: weights, settings, progress, and what the task adds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minitensor.files import shown
from minitensor.serialize import CheckpointError, load_file

from .config import TRAINING, weights_of
from .run_files import progress_from_json
from .settings import settings_from_json
from .task import Checkpoint, Position, Task

Reader = Callable[[str], Any]  # of a text in a header; ValueError for a damaged one
TRANSLATION = '"translation"'  # the task of checkpoints that do not name one


def read_checkpoint(path: str | Path, task: type[Task]) -> Checkpoint:
    """Read a checkpoint of a task's run; CheckpointError, naming the file, if it is another's."""
    tensors, header = load_file(path)
    content, settings, progress = read_header(path, header, task)
    weights = weights_of(tensors)
    training = {k.removeprefix(TRAINING): t for k, t in tensors.items() if k not in weights}
    checkpoint = Checkpoint(Path(path), weights, content, settings, progress, training)
    task.check(checkpoint)
    return checkpoint


def read_header(
    path: str | Path, header: dict[str, str], task: type[Task]
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Read a checkpoint's header: the task's own texts, settings, progress."""
    kind = header.get("task", TRANSLATION)
    if kind != json.dumps(task.kind) and "settings" in header:
        raise CheckpointError(
            f"{path} is a checkpoint of another task, {shown(kind)}, not of a {task.kind} run"
        )
    readers: dict[str, Reader] = {
        **task.readers,
        "settings": lambda text: settings_from_json(text, task.settings_class),
        "progress": lambda text: progress_from_json(text, asdict(Position())),
    }
    found = read_texts(path, header, readers, f"{task.kind} run")
    return found, found.pop("settings"), found.pop("progress")


def read_texts(
    path: str | Path, header: Mapping[str, str], readers: Mapping[str, Reader], kind: str
) -> dict[str, Any]:
    """Read the texts of a header, each by its reader; CheckpointError if it is not of this kind."""
    found = {}
    for name, read in readers.items():
        try:
            if name not in header:
                raise ValueError("there is none")
            found[name] = read(header[name])
        except ValueError as error:
            raise CheckpointError(
                f"{path} is not a checkpoint of a {kind}: {name}: {error}"
            ) from error
    return found
