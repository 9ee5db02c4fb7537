"""Checkpoints: what is saved comes back, damage is told, the old file survives failures."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from conftest import needs_torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitensor
from minitensor import optim
from minitensor.dtype import DTYPES
from minitensor.serialize import CheckpointError, atomic_write, load, load_file, save, save_file
from minitensor.tensor import Tensor, wrap


def same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.requires_grad == b.requires_grad
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, float):
        assert a == b or (math.isnan(a) and math.isnan(b))
    else:
        assert a == b


scalars = (
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=5)
)
arrays = st.builds(
    lambda shape, dtype, seed: np.asarray(np.random.RandomState(seed).rand(*shape) * 9).astype(
        dtype
    ),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 9),
)
objects = st.recursive(
    scalars | arrays | arrays.map(wrap) | st.sampled_from(DTYPES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.dictionaries(st.tuples(st.integers(), st.text(max_size=2)), inner, max_size=2)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(objects)
def test_what_is_saved_comes_back(obj: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        save(obj, path)
        same(load(path), obj)
        assert os.listdir(folder) == ["x"]


def test_strided_and_differentiable_tensors(tmp_path: Path) -> None:
    x = minitensor.arange(12.0).reshape(3, 4).t()
    y = minitensor.ones(2, requires_grad=True)
    save([x, y, y * 2], tmp_path / "x")
    a, b, c = load(tmp_path / "x")
    assert a.tolist() == x.tolist()
    assert b.requires_grad
    assert b.is_leaf
    assert c.requires_grad
    assert c.is_leaf
    a.numpy()[:] = 0  # the memory is ours to write


def test_shared_tensors_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    x = minitensor.ones(100, 100)
    save(dict(a=x, b=[x, x.detach()], c=x[:1], d=x.clone()), tmp_path / "x")
    assert 2 * x.nbytes < (tmp_path / "x").stat().st_size < 3 * x.nbytes
    found = load(tmp_path / "x")
    assert found["a"] is found["b"][0] is found["b"][1]
    assert found["c"].shape == (1, 100)
    assert found["d"] is not found["a"]


def test_named_tensors_and_texts(tmp_path: Path) -> None:
    x, y = minitensor.ones(3), minitensor.zeros(2)
    save_file({"x": x, "y": y, "again": x.detach()}, tmp_path / "x", {"note": "hello"})
    tensors, texts = load_file(tmp_path / "x")
    assert texts == {"note": "hello"}
    assert tensors.keys() == {"x", "y", "again"}
    assert tensors["again"] is tensors["x"]
    assert load(tmp_path / "x")["y"].tolist() == [0, 0]
    save_file({}, tmp_path / "x")
    assert load_file(tmp_path / "x") == ({}, {})


def test_empty_tensors_are_not_tied(tmp_path: Path) -> None:
    save([minitensor.zeros(0), minitensor.zeros(0)], tmp_path / "x")
    a, b = load(tmp_path / "x")
    assert a is not b


def test_names_are_a_state_dict_to_others(tmp_path: Path) -> None:
    state = {
        "layers.0.weight": minitensor.ones(2, 3),
        "layers": {"0": {"weight": minitensor.zeros(1)}},
    }
    state["__metadata__"] = minitensor.zeros(2)
    save(state, tmp_path / "x")
    found = safetensors.numpy.load_file(tmp_path / "x")
    assert found["layers.0.weight"].shape == (2, 3)
    same(load(tmp_path / "x"), state)


@needs_torch
def test_files_of_others(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    theirs = {"a.b": torch.randn(2, 3), "c": torch.arange(3)}
    save_file(theirs, tmp_path / "x")
    mine = load(tmp_path / "x", map_location="cpu")
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(mine[key].numpy(), value.numpy())
    save(mine, tmp_path / "y")
    for key, value in load_file(tmp_path / "y").items():
        assert torch.equal(value, theirs[key])


def test_files_in_memory() -> None:
    buffer = io.BytesIO()
    save({"x": minitensor.ones(3)}, buffer)
    buffer.seek(0)
    assert load(buffer)["x"].tolist() == [1, 1, 1]


def test_a_training_continues(tmp_path: Path) -> None:
    def start() -> tuple[Tensor, Any, Any]:
        p = minitensor.ones(3, requires_grad=True)
        o = optim.AdamW([p], lr=0.1)
        return p, o, optim.lr_scheduler.StepLR(o, 2)

    def steps(p: Tensor, o: Any, s: Any) -> None:
        for _ in range(3):
            p.grad = minitensor.rand(3)
            o.step()
            s.step()

    p, o, s = start()
    steps(p, o, s)
    state = dict(p=p.detach(), o=o.state_dict(), s=s.state_dict(), rng=minitensor.get_rng_state())
    save(state, tmp_path / "x")
    steps(p, o, s)
    q, o2, s2 = start()
    state = load(tmp_path / "x")
    q.numpy(force=True)[...] = state["p"].numpy()
    o2.load_state_dict(state["o"])
    s2.load_state_dict(state["s"])
    minitensor.set_rng_state(state["rng"])
    steps(q, o2, s2)
    assert q.tolist() == p.tolist()


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save(1, path)
    with pytest.raises(TypeError, match=r"function at a\.1"):
        save({"a": [1, test_files_in_memory]}, path)
    with pytest.raises(TypeError, match="complex128"):
        save({"a": np.ones(1, complex)}, path)
    assert load(path) == 1


def test_wrong_files(tmp_path: Path) -> None:
    good = tmp_path / "good"
    save({"x": minitensor.ones(100), "y": 3}, good)
    data = good.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    cases = {
        "incomplete": [data[:-1], data[:start], data[: start - 5], data[:9], data[:3], b""],
        "not a safetensors file": [b"hello world, how are you?", b"\xff" * 100],
        "added to": [data + b"more"],
        "pickle": [b"PK\x03\x04" + bytes(100), b"\x80\x04abc"],
        "structure is damaged": [
            safetensors.numpy.save({"a": np.ones(1)}, {"structure": tree})
            for tree in ("{", '{"tensor": "b"}', '{"what": 1}', '{"dtype": "nonsense"}', "{}")
        ],
    }
    for word, contents in cases.items():
        for content in contents:
            path = tmp_path / "bad"
            path.write_bytes(content)
            with pytest.raises(CheckpointError, match=word) as error:
                load(path)
            assert str(path) in str(error.value)
    with pytest.raises(CheckpointError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        save(1, tmp_path / "nowhere" / "x")


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    save("old", path)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save("new", path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"), atomic_write(path) as file:
        file.write(b"new")
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(bytes(1 // 0))
    assert load(path) == "old"
    assert os.listdir(tmp_path) == ["x"]
    save("new", path)
    assert load(path) == "new"


def test_atomic_text(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with atomic_write(path, "w") as file:
        json.dump({"Größe": 1}, file, ensure_ascii=False)
        assert not path.exists()
    assert json.loads(path.read_text("utf-8")) == {"Größe": 1}


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save(1, tmp_path / "x")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode
