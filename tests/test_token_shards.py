"""Tokens larger than memory: shards, and blocks sampled from them in parts."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from minitensor.data import BlockSampler, TokenShards, TokenShardWriter
from minitensor.data.tokens import permuted

# Shards


def write(folder: Path, vocab_size: int = 1000, shards: int = 4, size: int = 50) -> np.ndarray:
    tokens = np.random.default_rng(0).integers(vocab_size, size=shards * size)
    writer = TokenShardWriter(folder, vocab_size, {"of": "a text"})
    for part in tokens.reshape(shards, size):
        writer.add(part, pieces=1)
    writer.finish()
    return tokens


def test_tokens_come_back_whatever_shard_they_are_in(tmp_path: Path) -> None:
    tokens, found = write(tmp_path), TokenShards(tmp_path)
    assert len(found) == len(tokens)
    assert found.metadata == {"of": "a text"}
    assert found[7] == tokens[7]
    assert found[-1] == tokens[-1]
    for index in (
        slice(None),
        slice(45, 160, 3),
        np.array([[3, 199], [50, 49]]),
        np.arange(60, 70),
    ):
        assert np.array_equal(found[index], tokens[index])
        assert found[index].dtype == np.int64
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again[:], tokens)
    assert len(pickle.dumps(found)) < 500
    for wrong in (200, -201, np.array([3, 200]), np.array([-1])):
        with pytest.raises(IndexError, match="is out of range"):
            found[wrong]
    with pytest.raises(TypeError, match="expected integers"):
        found[np.zeros(2)]


@pytest.mark.parametrize(("size", "dtype"), [(65536, "uint16"), (65537, "uint32")])
def test_tokens_take_two_bytes_where_they_can(size: int, dtype: str, tmp_path: Path) -> None:
    writer = TokenShardWriter(tmp_path, size)
    writer.add(np.array([0, size - 1]))
    with pytest.raises(ValueError, match=f"token {size} is not one of {size}"):
        writer.add(np.array([size]))
    with pytest.raises(ValueError, match="token -1 is not"):
        writer.add(np.array([-1]))
    writer.finish()
    assert np.load(tmp_path / "tokens-00000.npy").dtype == dtype
    assert TokenShards(tmp_path)[:].tolist() == [0, size - 1]


def damage(what: str, folder: Path) -> str:
    """Damage a folder; return the name of the file."""
    shard, index = folder / "tokens-00002.npy", folder / "index.json"
    if what == "short":
        os.truncate(shard, shard.stat().st_size - 2)
    elif what == "header":
        shard.write_bytes(b"x" + shard.read_bytes()[1:])
    elif what == "missing":
        shard.unlink()
    elif what == "empty":
        shard.write_bytes(b"")
    elif what == "archive":
        with shard.open("wb") as file:
            np.savez(file, a=np.arange(3))
    elif what == "foreign":
        np.save(shard, np.zeros(50, np.float32))
    elif what == "longer":
        np.save(shard, np.zeros(51, np.uint16))
    elif what == "index":
        index.write_text(index.read_text()[:-20])
        return index.name
    elif what == "escape":
        index.write_text(index.read_text().replace("tokens-00002.npy", "../../secret.npy"))
        return index.name
    return shard.name


@pytest.mark.parametrize(
    "what",
    ["short", "header", "missing", "empty", "archive", "foreign", "longer", "index", "escape"],
)
def test_damage_is_refused_by_name_and_mended(what: str, tmp_path: Path) -> None:
    write(tmp_path)
    name = damage(what, tmp_path)
    with pytest.raises(ValueError, match=name):
        TokenShards(tmp_path)
    writer = TokenShardWriter(tmp_path, 1000, {"of": "a text"})
    assert len(writer.shards) == (0 if name == "index.json" else 2)


def test_changed_content_is_found_by_verify_and_by_the_next_write(tmp_path: Path) -> None:
    write(tmp_path)
    TokenShards(tmp_path).verify()
    shard = tmp_path / "tokens-00001.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"tokens-00001\.npy is damaged"):
        TokenShards(tmp_path).verify()
    assert len(TokenShardWriter(tmp_path, 1000, {"of": "a text"}).shards) == 1
    assert not TokenShardWriter(tmp_path, 1000, {"of": "another"}).shards


def test_a_folder_of_which_others_write_is_not_whole_from_the_first_moment(tmp_path: Path) -> None:
    writer = TokenShardWriter(tmp_path, 10, {"text": "one"})
    writer.add(np.arange(5))
    writer.finish()
    assert TokenShardWriter(tmp_path, 10, {"text": "one"}).shards == writer.shards
    assert len(TokenShards(tmp_path)) == 5
    TokenShardWriter(tmp_path, 10, {"text": "two"})
    with pytest.raises(ValueError, match="not all tokens are written"):
        TokenShards(tmp_path)


def test_what_is_not_finished_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TokenShards(tmp_path)
    write(tmp_path)
    writer = TokenShardWriter(tmp_path, 1000, {"of": "new"})
    writer.add(np.arange(10))
    with pytest.raises(ValueError, match=r"index\.json: not all tokens are written yet"):
        TokenShards(tmp_path)
    writer.finish()
    assert TokenShards(tmp_path)[:].tolist() == list(range(10))
    assert len(list(tmp_path.glob("*.npy"))) == 1  # those of the other text are gone


# Sampling


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 65, 1000])
def test_the_order_of_blocks_has_each_once(count: int) -> None:
    keys = np.arange(6, dtype=np.uint64)
    order = permuted(np.arange(count), count, keys)
    assert sorted(order.tolist()) == list(range(count))
    part = np.arange(count)[::3]
    assert np.array_equal(permuted(part, count, keys), order[::3])  # each is computed alone


def test_orders_are_random() -> None:
    """Neighbours in order are as far apart as chance has it, and orders of other keys differ."""
    random = np.random.default_rng(0)
    orders = []
    for _ in range(20):
        keys = random.integers(1 << 63, size=6, dtype=np.uint64)
        orders.append(permuted(np.arange(2000), 2000, keys))
    distances = np.abs(np.diff(orders, axis=1)).mean(1) / 2000
    assert np.abs(distances - 1 / 3).max() < 0.03
    where = np.histogram2d(np.tile(np.arange(2000), 20), np.concatenate(orders), bins=10)[0]
    assert ((where - 400) ** 2 / 400).sum() < 150  # chi squared, of 81 degrees of freedom
    assert len({tuple(order[:5]) for order in orders}) == 20


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_parts_of_ranks_are_the_whole_batch(world: int) -> None:
    whole = BlockSampler(1003, 10, 7, seed=3)
    ranks = [BlockSampler(1003, 10, 7, seed=3, num_replicas=world, rank=r) for r in range(world)]
    for epoch in (0, 1):
        for sampler in (whole, *ranks):
            sampler.set_epoch(epoch)
        assert {len(sampler) for sampler in ranks} == {len(whole)}
        for number, batch in enumerate(whole):
            parts = [sampler[number] for sampler in ranks]
            assert all(np.array_equal(batch[r::world], part) for r, part in enumerate(parts))
            assert np.array_equal(np.sort(np.concatenate(parts)), np.sort(batch))


def test_a_pass_has_every_block_once_and_goes_on_at_a_position() -> None:
    sampler = BlockSampler(1003, 10, 7)
    passes = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 15
        places = np.concatenate(batches)
        assert (np.diff(np.sort(places)) == 10).all()
        assert len(places) == 99
        assert 0 <= places.min() <= places.max() + 10 < 1003
        for position in (0, 4, 14):
            assert np.array_equal(sampler[position], batches[position])
        passes.append(places.tolist())
    assert passes[0] == passes[2] != passes[1]
    with pytest.raises(IndexError, match="batch 15 is out of range"):
        sampler[15]
    with pytest.raises(ValueError, match="rank 2 is not one of 2"):
        BlockSampler(100, 10, 1, num_replicas=2, rank=2)
    with pytest.raises(ValueError, match="below the number of tokens"):
        BlockSampler(10, 10, 1)
