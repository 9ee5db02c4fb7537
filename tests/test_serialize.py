"""Checkpoints: saved objects come back, damage is reported, the old file survives failures."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import tempfile
import threading
import tracemalloc
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
from minitensor.core import Tensor, wrap
from minitensor.dtype import TYPES, _made
from minitensor.files import DEPTH
from minitensor.serialize import CheckpointError, atomic_write, load, load_file, save, save_file


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
    st.sampled_from([*TYPES.values()]),
    st.integers(0, 9),
)
objects = st.recursive(
    scalars | arrays | arrays.map(wrap) | st.sampled_from([*TYPES.values()]),
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
            for tree in (
                *("{", '{"tensor": "b"}', '{"what": 1}', '{"dtype": "nonsense"}', "{}"),
                *('{"dict": 3}', '{"tuple": {}}', '{"pairs": [[1]]}', '{"pairs": [[[], 1]]}'),
                *('{"counter": {"tuple": []}}', '{"device": "a b"}', '{"set": [[]]}'),
                *(
                    '{"tensor": 3}',
                    '{"tensor": "a", "requires_grad": 2}',
                    '{"dict": {}, "tuple": []}',
                ),
                *("[" * 10**5, '{"dict": {"a": ' * 999, "1" * 9999, '{"dict": {"a": 1, "a": 2}}'),
                *('{"tensor": "' + "x" * 9999 + '"}', '{"dtype": "' + "x" * 9999 + '"}'),
            )
        ],
    }
    for word, contents in cases.items():
        for content in contents:
            path = tmp_path / "bad"
            path.write_bytes(content)
            with pytest.raises(CheckpointError, match=word) as error:
                load(path)
            assert str(path) in str(error.value)
            assert len(str(error.value)) < 300 + len(str(path))
    with pytest.raises(CheckpointError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        save(1, tmp_path / "nowhere" / "x")


def file_of(header: str | dict[str, Any], data: bytes = bytes(8)) -> bytes:
    """A safetensors file, right or wrong."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": entry(), "b": entry()}, "'b' begins at byte .* must follow one another"),
        ({"a": entry(offsets=[4, 12])}, "'a' begins at byte"),
        ({"a": entry(offsets=[0, 16], shape=[4])}, "incomplete or has been added to"),
        ({"a": entry(offsets=[0, 4], shape=[1])}, "incomplete or has been added to"),
        ({"a": entry(offsets=[8, 0])}, "data_offsets"),
        ({"a": entry(offsets=[0, 2**70])}, "data_offsets"),
        ({"a": entry(offsets=[0, 8.0])}, "data_offsets"),
        ({"a": entry(offsets=[-8, 0])}, "data_offsets"),
        ({"a": entry(offsets=[0])}, "data_offsets"),
        ({"a": entry(shape=[3])}, r"'a' of type F32 and shape \(3,\) needs 12 bytes.* gives it 8"),
        ({"a": entry(shape=[10**15], offsets=[0, 4 * 10**15])}, "incomplete"),
        ({"a": entry(shape=[2**62, 2**62], offsets=[0, 8])}, "too large"),
        ({"a": entry(shape=[0, 2**62, 2**62], offsets=[0, 0])}, "too large"),
        ({"a": entry(shape=[0, 2**63], offsets=[0, 0])}, "has the shape"),
        ({"a": entry(shape=[True, 2])}, "has the shape"),
        ({"a": entry(shape=["2"])}, "has the shape"),
        ({"a": entry(shape=2)}, "has the shape"),
        ({"a": entry(shape=[-1, -2])}, "has the shape"),
        ({"a": entry(shape=[1] * 65 + [2])}, "has the shape"),
        ({"a": entry("F8_E4M3", [8])}, "'a' is of type 'F8_E4M3', which minitensor does not have"),
        ({"a": entry("C64", [1])}, "type 'C64'"),
        ({"a": entry(None)}, "type None"),
        ({"a": entry(["F32"])}, "type"),
        ({"a": 3}, "no type and shape"),
        ({"a": {}}, "type None"),
        ({"__metadata__": 3}, "must be texts"),
        ({"__metadata__": {"a": 3}}, "must be texts"),
        ({"__metadata__": {"ties": "["}, "a": entry()}, "ties are damaged"),
        ({"__metadata__": {"ties": "[]"}, "a": entry()}, "ties are damaged"),
        (
            {"__metadata__": {"ties": '{"b": "c"}'}, "a": entry()},
            "'b' cannot be another name of 'c'",
        ),
        ({"__metadata__": {"ties": '{"a": "a"}'}, "a": entry()}, "'a' cannot be another name"),
        ({"__metadata__": {"ties": '{"b": ["a"]}'}, "a": entry()}, "'b' cannot be another name"),
        ('{"a": {"dtype": "F32"}, "a": {"dtype": "F32"}}', "'a' occurs twice"),
        ('{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}', "has the shape"),
        ('{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 8]}}', "has the shape"),
        ('{"\\ud800": 3}', r"'\\ud800' has no type"),
        ('{"a": ' + "9" * 5000 + "}", "thousands of digits"),
        ('{"a": ' * 2000 + "1" + "}" * 2000, "nested deeper"),
        ('{"a":', "not a safetensors file"),
        ("{" + " " * 10, "not a safetensors file"),
        ('{"' + "a" * 9999 + '": 3}', "no type and shape"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_all_that_a_header_says_is_checked(header: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(file_of(header))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=words) as error:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    message = str(error.value)
    assert message.startswith(f"cannot read {path}: ")
    assert len(message) < 300 + len(str(path))
    assert message.splitlines() == [message]
    message.encode()


def test_what_others_may_add_to_a_header(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(file_of({"a": entry(note="?"), "b": entry(shape=[0], offsets=[8, 8])}))
    found = load(path)
    assert found["a"].tolist() == [0, 0]
    assert found["b"].shape == (0,)


def test_a_cut_file_is_no_pickle_whatever_its_length(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for low in (b"\x80\x02", b"\x80\x04", b"PK"):
        length = int.from_bytes(low, "little")
        text = json.dumps({"a": entry()}).ljust(length).encode()
        whole = length.to_bytes(8, "little") + text + bytes(8)
        path.write_bytes(whole)
        assert load(path)["a"].tolist() == [0, 0]
        for cut in (2, 3, 7, 8, 9, 20, len(whole) - 1):
            path.write_bytes(whole[:cut])
            with pytest.raises(CheckpointError, match="incomplete"):
                load(path)


def test_bfloat16_is_read_bit_by_bit_and_without_ml_dtypes_as_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    header = {"a": entry("BF16", [2, 2**15], [0, 2**17])}
    (tmp_path / "x").write_bytes(file_of(header, bits.tobytes()))
    found = load(tmp_path / "x")["a"]
    assert found.dtype is minitensor.bfloat16
    assert np.array_equal(found.numpy().view(np.uint16).ravel(), bits)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    monkeypatch.setattr(minitensor.serialize, "bfloat16", _made("bfloat16", "V", 2))
    found = load(tmp_path / "x")["a"]
    assert found.dtype is minitensor.float32
    assert found.shape == (2, 2**15)
    expected = (bits.astype(np.uint32) << 16).reshape(2, -1)
    np.testing.assert_array_equal(found.numpy().view(np.uint32), expected)


@needs_torch
def test_bfloat16_of_pytorch(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    theirs = torch.randn(5, 7).to(torch.bfloat16)
    save_file({"a": theirs, "b": theirs[0, 0].clone()}, tmp_path / "x")
    found = load(tmp_path / "x")
    np.testing.assert_array_equal(found["a"].numpy(), theirs.float().numpy())
    np.testing.assert_array_equal(found["b"].numpy(), theirs[0, 0].float().numpy())


def test_booleans_are_0_or_1(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(file_of({"a": entry("BOOL", [2, 4])}, bytes([0, 1] * 4)))
    assert load(path)["a"].tolist() == [[False, True] * 2] * 2
    path.write_bytes(file_of({"a": entry("BOOL", [8])}, bytes([0, 2] * 4)))
    with pytest.raises(CheckpointError, match="'a' of type BOOL has bytes"):
        load(path)


def test_what_could_not_be_read_again_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save("old", path)
    x = minitensor.ones(1)
    for key in ("ties", "structure"):
        with pytest.raises(ValueError, match=f"metadata key '{key}' is taken"):
            save_file({"x": x}, path, {key: "{}"})
    with pytest.raises(ValueError, match="no tensor can be named '__metadata__'"):
        save_file({"__metadata__": x}, path)
    with pytest.raises(TypeError, match="metadata 'n' is not a text"):
        save_file({"x": x}, path, {"n": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="name of a tensor must be a string, not 3"):
        save_file({3: x}, path)  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="'x' is a float, expected a tensor"):
        save_file({"x": 3.0}, path)  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="'x', an array of complex128"):
        save_file({"x": np.ones(1, complex)}, path)
    for names, texts in (
        ({"\ud800": x}, {}),
        ({"x": x}, {"\ud800": ""}),
        ({"x": x}, {"": "\ud800"}),
    ):
        with pytest.raises(ValueError, match="is not Unicode text"):
            save_file(names, path, texts)
    deep: Any = x
    for _ in range(DEPTH + 1):
        deep = {"a": deep}
    itself: list[Any] = []
    itself.append(itself)
    for bad in (deep, itself):
        with pytest.raises(ValueError, match=f"nested deeper than {DEPTH} levels at") as error:
            save(bad, path)
        assert len(str(error.value)) < 200
    with pytest.raises(ValueError, match="an integer of 33220 bits at a"):
        save({"a": 10**10000}, path)
    with pytest.raises(TypeError, match="function at a") as type_error:
        save({"a" * 9999: test_files_in_memory}, path)
    assert len(str(type_error.value)) < 300
    assert load(path) == "old"


def test_whatever_is_saved_is_read_again(tmp_path: Path) -> None:
    deep: Any = minitensor.ones(1)
    for number in range(DEPTH):
        deep = {number: deep} if number % 2 else (deep,)
    obj = {"\ud800": [minitensor.ones(1), "\ud800\0"], "ties": 1, "structure": {"ties": np.ones(2)}}
    for whole in (deep, obj, -(10**4000), {"__metadata__": {"a": minitensor.ones(1)}}):
        save(whole, tmp_path / "x")
        same(load(tmp_path / "x"), whole)


def test_values_of_numpy_are_saved(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_file({"a": np.arange(3), "b": np.float32(2), "c": np.ones((2, 3)).T}, path)  # type: ignore[dict-item]
    found = load(path)
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"].shape == ()
    assert found["c"].shape == (3, 2)
    save([np.float32(0.5), np.int8(3), np.bool_(True), np.str_("x")], path)
    assert load(path) == [0.5, 3, True, "x"]


def test_reading_takes_little_more_memory_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save([minitensor.ones(1000, 1000), minitensor.zeros(500, 1000)], path)
    tracemalloc.start()
    try:
        found = load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found[0].shape == (1000, 1000)
    assert peak < 1.1 * path.stat().st_size


@pytest.mark.skipif(os.name == "nt", reason="pipes and devices are POSIX's")
def test_a_pipe_is_read_and_a_device_is_not(tmp_path: Path) -> None:
    save({"a": minitensor.ones(3)}, tmp_path / "x")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes((tmp_path / "x").read_bytes()))
    writer.start()
    assert load(pipe)["a"].tolist() == [1, 1, 1]
    writer.join()
    read, write = os.pipe()
    with open(write, "wb") as file:
        save({"a": minitensor.ones(3)}, file)
    with open(read, "rb") as file:
        assert load(file)["a"].tolist() == [1, 1, 1]
    with pytest.raises(CheckpointError, match="/dev/zero: it is a device"):
        load("/dev/zero")


def test_what_is_no_file_to_read_is_an_error_of_type() -> None:
    for wrong in (3, None, io.StringIO("text")):
        with pytest.raises(TypeError):
            load(wrong)


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
