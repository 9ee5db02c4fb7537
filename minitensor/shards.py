"""Weights in several files, as Hugging Face names them, and the index of what lies in which.

    model-00001-of-00002.safetensors, model-00002-of-00002.safetensors, model.safetensors.index.json
    {"metadata": {"total_size": bytes}, "weight_map": {name of a tensor: name of its file}}

The files lie beside the index: it may name no other.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from .core import Tensor
from .files import parse_json, shown

INDEX = ".index.json"  # after the name that the whole would have


def split(arrays: dict[str, np.ndarray], most: float) -> list[dict[str, np.ndarray]]:
    """Return the arrays in parts of at most `most` bytes, or of one array that has more."""
    parts: list[dict[str, np.ndarray]] = []
    left = -1.0
    for name, array in arrays.items():
        if array.nbytes > left:
            parts.append({})
            left = most
        parts[-1][name] = array
        left -= array.nbytes
    return parts


def remove_others(path: Path, kept: Collection[str]) -> None:
    """Delete the files that an earlier write in several parts left beside `path`."""
    shards = re.compile(re.escape(path.stem) + r"-\d{5}-of-\d{5}" + re.escape(path.suffix))
    for file in list(path.parent.iterdir()):
        if shards.fullmatch(file.name) and file.name not in kept:
            file.unlink(missing_ok=True)
    if not kept:
        path.with_name(path.name + INDEX).unlink(missing_ok=True)


def read_index(
    text: bytes, folder: Path, read: Callable[[Path], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors that an index names, and the texts in it.

    - `read`: reads the tensors of one file.

    ValueError for an index that is damaged, or that says of a file what is not so.
    """
    try:
        index = parse_json(text)
    except ValueError as error:
        raise ValueError(f"it is not a safetensors file or an index: {error}") from None
    names, texts = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        raise ValueError(f"it is not an index: its weight_map is {shown(names)}")
    if not isinstance(texts, dict):
        raise ValueError(f"its metadata is {shown(texts)}")
    tensors: dict[str, Tensor] = {}
    for shard in dict.fromkeys(names.values()):
        try:
            found = read(_inside(folder, shard))
            for name in found:
                if names.get(name) != shard:
                    raise ValueError(f"it has {shown(name)}, and the index says otherwise")
        except OSError as error:
            raise ValueError(f"its file {shown(shard)}: {error.strerror or error}") from None
        except ValueError as error:
            raise ValueError(f"its file {shown(shard)}: {error}") from None
        tensors.update(found)
    missing = next((name for name in names if name not in tensors), None)
    if missing is not None:
        raise ValueError(f"its file {shown(names[missing])}: it lacks {shown(missing)}")
    texts = {key: text for key, text in texts.items() if isinstance(text, str)}
    return {name: tensors[name] for name in names}, texts


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder; ValueError for a name that leads elsewhere."""
    if re.search(r"[/\\:\0]", name) or name in ("", ".", ".."):
        raise ValueError("an index may only name files that lie beside it")
    if not stat.S_ISREG(os.stat(folder / name).st_mode):
        raise ValueError("it is not a regular file")
    return folder / name
