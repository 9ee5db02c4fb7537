"""Weights in several files with an index, as Hugging Face keeps large models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from conftest import needs_torch

import minitensor as mt
from minitensor.serialize import CheckpointError, load_file, save_file

INDEX = "model.safetensors.index.json"


def state() -> dict[str, mt.Tensor]:
    return {name: mt.full((25,), float(n)) for n, name in enumerate(("a.w", "a.b", "c", "d"))}


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A folder of four tensors of 100 bytes in two files."""
    mt.save(state(), tmp_path / "model.safetensors", max_shard_size=200)
    return tmp_path


def test_the_names_are_those_of_hugging_face(sharded: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert files(sharded) == [*names, INDEX]
    index = json.loads((sharded / INDEX).read_text())
    assert index["metadata"]["total_size"] == 400
    assert index["weight_map"] == dict(zip(state(), [names[0]] * 2 + [names[1]] * 2, strict=True))
    assert set(safetensors.numpy.load_file(sharded / names[0])) == {"a.w", "a.b"}


@pytest.mark.parametrize("what", [INDEX, "."])
def test_an_index_and_a_folder_are_read(sharded: Path, what: str) -> None:
    found = mt.load(sharded / what)
    assert list(found) == list(state())
    assert all(found[name].tolist() == t.tolist() for name, t in state().items())
    assert list(load_file(sharded / what)[0]) == list(state())


def test_a_folder_of_one_file_is_read(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "model.safetensors")
    assert set(mt.load(tmp_path)) == set(state())


def test_structure_and_ties_are_kept(tmp_path: Path) -> None:
    x = mt.ones(50)
    mt.save({"model": {"x": x, "y": [x, 3]}, "z": mt.zeros(50)}, tmp_path / "m.safetensors",
            max_shard_size="200B")  # fmt: skip
    found = mt.load(tmp_path / "m.safetensors.index.json")
    assert found["model"]["x"] is found["model"]["y"][0]
    assert found["model"]["y"][1] == 3
    assert len(files(tmp_path)) == 3


def test_a_tensor_larger_than_the_limit_has_a_file_of_its_own(tmp_path: Path) -> None:
    mt.save({"a": mt.ones(1), "b": mt.ones(100), "c": mt.ones(1)}, tmp_path / "m.safetensors",
            max_shard_size="100B")  # fmt: skip
    assert len(files(tmp_path)) == 4


def test_files_of_an_earlier_save_are_deleted(sharded: Path) -> None:
    path = sharded / "model.safetensors"
    (sharded / "model-1.safetensors").touch()
    (sharded / "other-00001-of-00002.safetensors").touch()
    others = ["model-1.safetensors", "other-00001-of-00002.safetensors"]
    mt.save(state(), path, max_shard_size=100)
    numbered = [f"model-{n:05}-of-00004.safetensors" for n in range(1, 5)]
    assert files(sharded) == sorted([*numbered, INDEX, *others])
    mt.save(state(), path, max_shard_size="1GB")
    assert files(sharded) == sorted(["model.safetensors", *others])
    mt.save(state(), path, max_shard_size=200)
    assert "model.safetensors" not in files(sharded)
    assert list(mt.load(sharded)) == list(state())


@pytest.mark.parametrize(
    ("size", "words"), [("2 apples", "expected bytes"), (0, "expected bytes"), (True, "bytes")]
)
def test_sizes_that_are_none(size: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        mt.save(state(), tmp_path / "m.safetensors", max_shard_size=size)


def test_only_safetensors_come_in_several_files(tmp_path: Path) -> None:
    for name in ("x.pt", "x"):
        with pytest.raises(ValueError, match=r"\.safetensors"):
            mt.save(state(), tmp_path / name, max_shard_size="1MB")
    assert files(tmp_path) == []


def change(folder: Path, **changes: Any) -> None:
    index = json.loads((folder / INDEX).read_text())
    for name, shard in changes.items():
        if shard is None:
            del index["weight_map"][name]
        else:
            index["weight_map"][name] = shard
    (folder / INDEX).write_text(json.dumps(index))


def name_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "p")
    change(folder, e="p")


FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
WRONG: dict[str, tuple[Any, str]] = {
    "missing": (lambda f: (f / FIRST).unlink(), f"its file '{FIRST}': No such file"),
    "cut": (lambda f: (f / FIRST).write_bytes((f / FIRST).read_bytes()[:-1]), "incomplete"),
    "another's": (lambda f: save_file({"x": mt.ones(1)}, f / FIRST), "it has 'x', and the index"),
    "elsewhere": (lambda f: change(f, c=FIRST), f"'{SECOND}': it has 'c', and the index"),
    "not named": (lambda f: change(f, c=None), "it has 'c', and the index"),
    "not there": (lambda f: change(f, e=SECOND), f"'{SECOND}': it lacks 'e'"),
    "above": (lambda f: change(f, e="../x.safetensors"), "only name files that lie beside it"),
    "absolute": (lambda f: change(f, e="/etc/passwd"), "only name files that lie beside it"),
    "drive": (lambda f: change(f, e="C:x"), "only name files that lie beside it"),
    "backslash": (lambda f: change(f, e="..\\x"), "only name files that lie beside it"),
    "empty name": (lambda f: change(f, e=""), "only name files that lie beside it"),
    "folder": (lambda f: change(f, e=".."), "only name files that lie beside it"),
    "zero": (lambda f: change(f, e="a\0b"), "only name files that lie beside it"),
    "half a pair": (lambda f: change(f, e="\ud800"), "its file '\\ud800'"),
    "long": (lambda f: change(f, e="x" * 9999), "its file"),
    "itself": (lambda f: change(f, e=INDEX), "it is not a safetensors file"),
    "no regular file": (name_a_pipe, "not a regular file"),
    "numbers": (lambda f: change(f, e=3), "its weight_map is"),
    "no map": (lambda f: (f / INDEX).write_text('{"weight_map": []}'), "its weight_map is"),
    "no object": (lambda f: (f / INDEX).write_text('{"a":'), "not a safetensors file or an index"),
    "twice": (
        lambda f: (f / INDEX).write_text(f'{{"weight_map": {{"c": "{FIRST}", "c": "{SECOND}"}}}}'),
        "the key 'c' occurs twice",
    ),
    "metadata": (
        lambda f: (f / INDEX).write_text('{"metadata": 3, "weight_map": {}}'),
        "its metadata is 3",
    ),
}


@pytest.mark.skipif(os.name == "nt", reason="pipes are POSIX's")
@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_index_is_refused_in_one_sentence(sharded: Path, name: str) -> None:
    spoil, words = WRONG[name]
    spoil(sharded)
    with pytest.raises(CheckpointError) as error:
        mt.load(sharded)
    message = str(error.value)
    assert words in message
    assert message.startswith(f"cannot read {sharded / INDEX}: ")
    assert len(message) < 300 + len(str(sharded))
    assert message.isprintable()


def test_a_folder_or_stream_without_weights(tmp_path: Path, sharded: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty has no model\.safetensors: "):
        mt.load(tmp_path / "empty")
    with (
        (sharded / INDEX).open("rb") as file,
        pytest.raises(CheckpointError, match="load it by its path"),
    ):
        mt.load(file)


def test_an_index_of_files_of_pytorch_is_read(tmp_path: Path) -> None:
    mt.save({"a": mt.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    mt.save({"b": mt.zeros(2)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    names = {k: f"pytorch_model-0000{n}-of-00002.bin" for n, k in ((1, "a"), (2, "b"))}
    path = tmp_path / "pytorch_model.bin.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert {k: t.tolist() for k, t in mt.load(path).items()} == {"a": [1, 1], "b": [0, 0]}
    mt.save([mt.ones(2)], tmp_path / names["a"])
    with pytest.raises(CheckpointError, match="it is not a state dict"):
        mt.load(path)


@needs_torch
def test_hugging_face_reads_and_writes_such_folders(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=8, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0.0
    )
    theirs = transformers.GPT2LMHeadModel(config)
    theirs.save_pretrained(tmp_path / "a", max_shard_size="3KB")
    assert len(files(tmp_path / "a")) > 4
    weights = mt.load(tmp_path / "a")
    for name, t in theirs.state_dict().items():
        assert name == "lm_head.weight" or weights[name].tolist() == t.tolist()
    (tmp_path / "b").mkdir()
    mt.save(weights, tmp_path / "b" / "model.safetensors", max_shard_size="3kB")
    (tmp_path / "b" / "config.json").write_text((tmp_path / "a" / "config.json").read_text())
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "b")
    for name, t in theirs.state_dict().items():
        assert again.state_dict()[name].tolist() == t.tolist()
