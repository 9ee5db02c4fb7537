"""Damage to files, by a seed: to their bytes, to JSON in them, to the header of safetensors.

JSON is damaged as a tree, so that what comes out is well formed and means something else: this is
what reaches beyond the first check of a reader.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any


def raw(text: str) -> str:
    """Return a mark that `dump` replaces by this text, unquoted."""
    return f"@@{text.encode('utf-8', 'surrogatepass').hex()}@@"


EXTREMES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 16.0, 0.5, -0.0, 10**4, 10**7, 10**9, 2**31, 2**63 - 1,
    2**63, 2**64, -(2**63), 10**30, 10**400, "", "x", "16", "\0", "\n", "a\u2028b", "é" * 3000,
    "x" * 5000,
    [], {}, [0], [[]], {"": 0}, {"dict": 3}, {"tensor": "x"}, [-1], [2**62, 4], [0] * 33, [1] * 99,
    "F32", "I32", "BF16", "F8_E4M3", "BOOL", "tanh", "__metadata__", "ties", "structure", "pairs",
    raw("NaN"), raw("Infinity"), raw("-Infinity"), raw("1e400"), raw("9" * 5000), raw("1E-400"),
    raw('"\\ud800"'), raw('{"a": 1, "a": 2}'), raw("-"), raw("01"), raw("'x'"), raw(""),
]  # fmt: skip


def dump(tree: Any) -> str:
    """JSON of a tree."""
    return re.sub('"@@([0-9a-f]*)@@"', lambda m: bytes.fromhex(m[1]).decode(), json.dumps(tree))


def damage_tree(text: str | bytes, noise: Random) -> str:
    """JSON in which one to three places are damaged."""
    tree = [json.loads(text)]
    for _ in range(noise.choice((1, 1, 1, 2, 3))):
        damage_place(tree, noise)
    return dump(tree[0])


def is_deep(value: Any) -> bool:
    """Return True for a container with values in it, or for the text of one in JSON."""
    return bool(value) and (isinstance(value, dict | list) or str(value)[:1] in "{[")


def damage_place(tree: list[Any], noise: Random) -> None:
    """Damage a value somewhere below `tree`."""
    holder: Any = tree
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and noise.random() < 0.9:
        holder = holder[key]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = max(noise.choices(keys, k=3), key=lambda k, h=holder: is_deep(h[k]))  # type: ignore[misc]
    value = holder[key]
    if isinstance(value, str) and value[:1] in ("{", "[") and noise.random() < 0.9:
        try:
            holder[key] = damage_tree(value, noise)
            return
        except (ValueError, RecursionError):
            pass
    kind = noise.randrange(8)
    if kind <= 2:
        holder[key] = copy.deepcopy(noise.choice(EXTREMES))
    elif kind == 3 and holder is not tree:
        del holder[key]
    elif kind == 4 and isinstance(holder, dict):
        name = noise.choice(["", key, key + "x", "x", "\ud800", "__metadata__", "ties"])
        if name == key:  # twice
            holder[key] = raw(f"{dump(value)}, {json.dumps(key)}: {dump(noise.choice(EXTREMES))}")
        else:
            holder[name] = holder.pop(key)
    elif kind == 5:
        depth = noise.choice((2, 60, 70, 200, 5000))
        begin, end = noise.choice((("[", "]"), ('{"dict": ', "}"), ('{"tuple": [', "]}")))
        holder[key] = raw(begin * depth + dump(value) + end * depth)
    elif kind == 6 and type(value) in (int, float):
        changed = (value + 1, value - 1, -value, value * 2, value * 10**6, 0.5, str(value))
        holder[key] = noise.choice(changed)
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(noise.choice([value, *holder, *EXTREMES])))
    else:
        holder[noise.choice(list(holder))] = copy.deepcopy(value)


def damage_bytes(data: bytes, other: bytes, noise: Random) -> bytes:
    """The bytes with bits flipped, parts inserted, taken out, zeroed, exchanged, or the end cut."""
    found = bytearray(data)
    for _ in range(noise.choice((1, 1, 1, 2, 4))):
        at = noise.randrange(len(found) + 1)
        at = min(at, noise.choice((8, 200, 2000, len(found)))) if noise.random() < 0.5 else at
        kind, length = noise.randrange(8), noise.choice((1, 1, 2, 8, 100))
        if kind <= 1 and found:
            found[min(at, len(found) - 1)] ^= 1 << noise.randrange(8)
        elif kind == 2:
            found[at:at] = noise.randbytes(length)
        elif kind == 3:
            del found[at : at + length]
        elif kind == 4:
            del found[at:]
        elif kind == 5:
            found[at : at + length] = bytes(len(found[at : at + length]))
        elif kind == 6:
            begin = noise.randrange(len(other) + 1)
            found[at : at + noise.choice((0, length))] = other[begin : begin + length * 4]
        else:
            found[at:] = other[min(at, len(other)) :]
    return bytes(found)


def damage_json(data: bytes, other: bytes, noise: Random) -> bytes:
    """JSON with its tree damaged."""
    return damage_tree(data, noise).encode("utf-8", "surrogatepass")


def damage_lines(data: bytes, other: bytes, noise: Random) -> bytes:
    """Lines of JSON, one of which is damaged."""
    lines = data.split(b"\n")
    at = noise.randrange(len(lines))
    if lines[at]:
        lines[at] = damage_json(lines[at], b"", noise)
    return b"\n".join(lines)


def exchange(header: dict[str, Any], noise: Random) -> dict[str, Any]:
    """A header that is well formed, with a tensor under another name, type or shape."""
    names = [name for name in header if name != "__metadata__"]
    first, second = noise.choice(names), noise.choice(names)
    one, two = header[first], header[second]
    kind = noise.randrange(4)
    if kind == 0:
        one["dtype"] = noise.choice(("I32", "F32", "U8", "F16", "BF16", "BOOL", "F8_E5M2", "I64"))
    elif kind == 1:
        one["shape"] = noise.choice((one["shape"][::-1], [1, *one["shape"]], [*one["shape"], 1]))
    elif kind == 2:
        header[first], header[second] = two, one
    else:
        header[noise.choice((second + "x", "__metadata__ ", "training.0.step"))] = header.pop(first)
    return header


def damage_header(data: bytes, other: bytes, noise: Random) -> bytes:
    """A safetensors file with its header's JSON damaged, and its length as it then is."""
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].decode()
    kind = noise.random()
    if kind < 0.6:  # the texts, which are few among many tensors
        header = json.loads(text)
        header["__metadata__"] = raw(damage_tree(dump(header["__metadata__"]), noise))
        text = dump(header)
    elif kind < 0.8:
        text = dump(exchange(json.loads(text), noise))
    else:
        text = damage_tree(text, noise)
    content = text.encode("utf-8", "surrogatepass")
    if noise.random() < 0.9:
        length = len(content)
    return length.to_bytes(8, "little") + content + data[8 + int.from_bytes(data[:8], "little") :]


def damage_packed(data: bytes, other: bytes, noise: Random) -> bytes:
    """A .gz file whose contents are damaged."""
    contents = damage_bytes(gzip.decompress(data), gzip.decompress(other), noise)
    return gzip.compress(contents, noise.choice((0, 6)), mtime=0)


def damage_archive(data: bytes, other: bytes, noise: Random) -> bytes:
    """A zip archive of PyTorch's that is right, around a pickle that is damaged."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = damage_bytes(content, other, noise)
            new.writestr(name, content)
    return file.getvalue()


Damage = Callable[[bytes, bytes, Random], bytes]


def damage(data: bytes, other: bytes, ways: tuple[Damage, ...], noise: Random) -> bytes:
    """The file `data`, damaged in one of the ways; `other` is another of its kind."""
    way = noise.choice((damage_bytes, *ways, *ways))
    return way(data, other, noise)
