"""Tokens of a text larger than memory: in files that are mapped and read where they lie.

A folder holds shards, NumPy files of token numbers (n,) uint16 or uint32, and an index, which is
written anew after each of them:

    tokens-00000.npy, tokens-00001.npy, ...
    index.json: {"format": ..., "vocab_size": V, "dtype": ..., "complete": whether it is all,
                 "metadata": {...}, "shards": [{"file": ..., "tokens": n, "sha256": ...}, ...]}

What is in the index is whole and on the disk: a job that is killed loses no more than a shard.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_write, parse_json, shown
from .sampler import Sampler

INDEX = "index.json"
FORMAT = "minitensor tokens 1"


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the smaller of uint16 and uint32 that has all numbers below `vocab_size`."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


class TokenShards:
    """The tokens of a folder as one array (n,) that is never in memory as a whole.

    - `folder`: what a `TokenShardWriter` has finished.

    `len(tokens)`, `tokens[7]`, `tokens[7:9]` and `tokens[numbers]`, with an array of numbers of any
    shape, are as of an array of int64; what they return is a copy. `vocab_size` and `metadata` are
    the writer's.

    Raises FileNotFoundError for a folder without an index, ValueError, naming the file, for an
    index or a shard that is damaged, too short or of another kind. The content of shards is read by
    `verify` alone.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = read_index(self.folder)
        if not index["complete"]:
            raise ValueError(
                f"{self.folder / INDEX}: not all tokens are written yet: go on with it"
            )
        self.vocab_size: int = index["vocab_size"]
        self.dtype = token_dtype(self.vocab_size)
        self.metadata: dict[str, Any] = index["metadata"]
        self.shards: list[dict[str, Any]] = index["shards"]
        self._arrays = [open_shard(self.folder, shard, self.dtype) for shard in self.shards]
        self._ends = np.cumsum([len(array) for array in self._arrays], dtype=np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenShards, (self.folder,)  # another process maps the files itself

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._arrays else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self[np.arange(*index.indices(len(self)))]
        numbers = np.asarray(index)
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"TokenShards: expected integers, got {numbers.dtype}")
        numbers = numbers.astype(np.int64, copy=False)
        if not numbers.size:
            return np.empty(numbers.shape, np.int64)
        least, most = int(numbers.min()), int(numbers.max())
        if least < 0 and numbers.ndim == 0:
            return self[int(index) + len(self)] if least >= -len(self) else self._none(least)
        if least < 0 or most >= len(self):
            return self._none(least if least < 0 else most)
        first, last = np.searchsorted(self._ends, [least, most], side="right")
        if first == last:
            found = self._arrays[first][numbers - (self._ends[first - 1] if first else 0)]
            return int(found) if numbers.ndim == 0 else found.astype(np.int64)
        out, shard = (
            np.empty(numbers.shape, np.int64),
            np.searchsorted(self._ends, numbers, side="right"),
        )
        for number in np.unique(shard):
            here = shard == number
            start = self._ends[number - 1] if number else 0
            out[here] = self._arrays[number][numbers[here] - start]
        return out

    def _none(self, number: int) -> Any:
        raise IndexError(f"token {number} is out of range: {self.folder} has {len(self)}")

    def verify(self) -> None:
        """Read all shards; ValueError, naming the file, if one is not what was written."""
        for shard in self.shards:
            check_content(self.folder, shard)


class TokenShardWriter:
    """Write tokens into a folder, a shard at a time; what another began is continued.

    - `folder`: made if it is missing.
    - `vocab_size`: all tokens are below.
    - `metadata`: what the tokens are of, to be kept as JSON.

    `shards` has an entry for each shard that is there already, with what `add` was given, up to the
    first that is damaged. Shards of tokens with other metadata are replaced.
    """

    def __init__(
        self, folder: str | Path, vocab_size: int, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.dtype = token_dtype(vocab_size)
        self.index: dict[str, Any] = {
            "format": FORMAT,
            "vocab_size": vocab_size,
            "dtype": self.dtype.name,
            "complete": False,
            "metadata": dict(metadata or {}),
            "shards": [],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            before = read_index(self.folder)
        except (FileNotFoundError, ValueError):
            before = self.index
        alike = all(before[key] == self.index[key] for key in ("vocab_size", "metadata"))
        for shard in before["shards"] if alike else ():
            try:
                open_shard(self.folder, shard, self.dtype)
                check_content(self.folder, shard)
            except ValueError:
                break
            self.shards.append(shard)
        if self.shards != before["shards"]:  # so that no index tells of tokens that are replaced
            self._write_index()

    @property
    def shards(self) -> list[dict[str, Any]]:
        """The entries of the shards that are written."""
        shards: list[dict[str, Any]] = self.index["shards"]
        return shards

    def __len__(self) -> int:
        """Return the number of tokens that are written."""
        return sum(shard["tokens"] for shard in self.shards)

    def add(self, tokens: np.ndarray, **facts: Any) -> None:
        """Write a shard; `facts` are kept with it in the index.

        - `tokens`: (n,) integers; ValueError if one is not below `vocab_size`.
        """
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ValueError(
                f"TokenShardWriter.add: expected integers (n,), got {tokens.dtype} of shape "
                f"{tokens.shape}"
            )
        most, least = (int(tokens.max()), int(tokens.min())) if tokens.size else (0, 0)
        if least < 0 or most >= self.index["vocab_size"]:
            raise ValueError(
                f"TokenShardWriter.add: token {least if least < 0 else most} is not one of "
                f"{self.index['vocab_size']}"
            )
        tokens = np.ascontiguousarray(tokens, self.dtype)
        name = f"tokens-{len(self.shards):05}.npy"
        with atomic_write(self.folder / name) as file:
            np.save(file, tokens)
        digest = hashlib.sha256(tokens.data).hexdigest()
        self.shards.append({"file": name, "tokens": tokens.size, "sha256": digest, **facts})
        self._write_index()

    def finish(self) -> None:
        """Note that these are all tokens, and delete the shards of others."""
        self.index["complete"] = True
        self._write_index()
        for file in list(self.folder.glob("tokens-*.npy")):
            if file.name not in {shard["file"] for shard in self.shards}:
                file.unlink(missing_ok=True)

    def _write_index(self) -> None:
        with atomic_write(self.folder / INDEX) as file:
            file.write(json.dumps(self.index, indent=1).encode())


def read_index(folder: Path) -> dict[str, Any]:
    """Read the index of a folder; ValueError, naming it, if it is damaged."""
    path = folder / INDEX
    try:
        index = parse_json(path.read_bytes())
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        size = index.get("vocab_size")
        if type(size) is not int or not 0 < size <= 1 << 32:
            raise ValueError(f"its vocab_size is {shown(size)}")
        if index.get("dtype") != token_dtype(size).name:
            raise ValueError(f"its dtype is {shown(index.get('dtype'))}")
        if type(index.get("complete")) is not bool or not isinstance(index.get("metadata"), dict):
            raise ValueError("it lacks complete or metadata")
        shards = index.get("shards")
        if not isinstance(shards, list):
            raise ValueError(f"its shards are {shown(shards)}")
        for number, shard in enumerate(shards):
            if not isinstance(shard, dict) or shard.get("file") != f"tokens-{number:05}.npy":
                raise ValueError(f"its shard {number} is {shown(shard)}")
            count = shard.get("tokens")
            if type(count) is not int or count < 0 or not isinstance(shard.get("sha256"), str):
                raise ValueError(f"its shard {number} is {shown(shard)}")
    except ValueError as error:
        raise ValueError(f"{path} is not the index of a folder of tokens: {error}") from error
    return index


def open_shard(folder: Path, shard: Mapping[str, Any], dtype: np.dtype[Any]) -> np.ndarray:
    """Map a shard; ValueError, naming the file, if it is not of this size and type."""
    path = folder / shard["file"]
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if mapped.dtype != dtype or mapped.shape != (shard["tokens"],):
        raise ValueError(
            f"{path} has {mapped.dtype} of shape {mapped.shape}, by the index it should be {dtype} "
            f"of shape ({shard['tokens']},)"
        )
    return np.asarray(mapped)


def check_content(folder: Path, shard: Mapping[str, Any]) -> None:
    """Read a shard; ValueError, naming the file, if its content is not what was written."""
    path = folder / shard["file"]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while part := file.read(1 << 20):
            digest.update(part)
    if digest.hexdigest() != shard["sha256"]:
        raise ValueError(f"{path} is damaged: its content is not what was written")


# Sampling


class BlockSampler(Sampler[np.ndarray], Sequence[np.ndarray]):
    """Yield batches of places in a row of tokens, at which blocks of `length` begin.

    A pass takes the blocks that lie side by side, each once, in random order; where the first one
    begins differs from pass to pass. Batch i is computed from the seed, the pass and i alone: there
    is no order to be kept in memory, and to continue at a position is to ask for `sampler[i]`.

    - `total`: the number of tokens. After each block one more must follow: the next one.
    - `length`: of a block; ValueError unless `total` is larger.
    - `batch_size`: blocks of a batch; the last batch may have fewer.
    - `seed`: gives the order together with the epoch; call `set_epoch` before each pass.
    - `num_replicas`, `rank`: of so many processes, which one this is. Its part of a batch is every
      `num_replicas`-th place from `rank` on; the parts together are the batch of a single process.

    Source: Black, Rogaway, "Ciphers with Arbitrary Finite Domains", 2002: a Feistel network gives
    the order.
    """

    ROUNDS = 6

    def __init__(
        self,
        total: int,
        length: int,
        batch_size: int,
        *,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        if not 0 < length < total or batch_size < 1:
            raise ValueError(
                "BlockSampler: expected a positive length below the number of tokens, and a "
                f"positive batch_size, got {length}, {total} and {batch_size}"
            )
        if not 0 <= rank < num_replicas:
            raise ValueError(f"BlockSampler: rank {rank} is not one of {num_replicas}")
        self.total, self.length, self.batch_size = total, length, batch_size
        self.seed, self.num_replicas, self.rank = seed, num_replicas, rank
        # One less than there is room for, so that the first block can begin anywhere.
        self.blocks = max(1, (total - 1) // length - 1)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Plan pass number `epoch`."""
        self.epoch = epoch
        random = np.random.default_rng((self.seed, epoch))
        self.first = int(random.integers(self.total - self.blocks * self.length))
        self._keys = random.integers(1 << 63, size=self.ROUNDS, dtype=np.uint64)

    def __len__(self) -> int:
        return -(-self.blocks // self.batch_size)

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"batch {index} is out of range: there are {len(self)}")
        start = index % len(self) * self.batch_size
        stop = min(start + self.batch_size, self.blocks)
        numbers = np.arange(start + self.rank, stop, self.num_replicas)
        return self.first + self.length * permuted(numbers, self.blocks, self._keys)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))


def permuted(numbers: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """Return where a random order of 0, 1, ... count - 1 has each of the `numbers`: (n,) -> (n,).

    A number is two digits, (a, b), of which each is moved in turn by a random function of the
    other. Where that leads to `count` or more, which is rare, it is done again.
    """
    base = math.isqrt(count - 1) + 1
    out = numbers.astype(np.int64)
    todo = np.arange(out.size)
    while todo.size:
        high, low = np.divmod(out[todo], base)
        for key in keys:
            high, low = low, (high + _scrambled(low, key, base)) % base
        out[todo] = high * base + low
        todo = todo[out[todo] >= count]
    return out


def _scrambled(x: np.ndarray, key: np.uint64, base: int) -> np.ndarray:
    """Return a random function of x, below `base`: the finaliser of splitmix64."""
    x = x.astype(np.uint64) + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(base)).astype(np.int64)
