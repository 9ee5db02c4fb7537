"""PyTorch's files: read as data alone, refused by name, written so that PyTorch reads them."""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import struct
import sys
import tracemalloc
import zipfile
import zlib
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor import Tensor
from minitensor.files import DEPTH
from minitensor.serialize import CheckpointError, load_file

DATA = Path(__file__).parent / "data"


def text(x: str) -> bytes:
    """The instruction that pushes a text."""
    return b"X" + struct.pack("<I", len(x.encode())) + x.encode()


def number(x: int) -> bytes:
    return b"\x8a\x09" + x.to_bytes(9, "little", signed=True)


def numbers(*xs: int) -> bytes:
    return b"(" + b"".join(map(number, xs)) + b"t"


def storage(
    count: int, key: str = "0", kind: str = "torch\nFloatStorage", more: bytes = b""
) -> bytes:
    """The instructions that push a storage."""
    name = f"c{kind}\n".encode()
    return b"(" + text("storage") + name + text(key) + text("cpu") + number(count) + more + b"tQ"


def tensor(
    size: tuple[int, ...] = (2,),
    stride: tuple[int, ...] = (1,),
    offset: int = 0,
    count: int = 2,
    grad: bytes = b"\x89",
    **named: Any,
) -> bytes:
    """The instructions that push a tensor over the storage "0" of two numbers."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage(count, **named)
        + (number(offset) + numbers(*size) + numbers(*stride) + grad)
        + b"ccollections\nOrderedDict\n)RtR"
    )


TWO = np.array([1, 2], np.float32).tobytes()


def archive(
    program: bytes, entries: dict[str, bytes] | None = None, root: str = "x", compress: int = 0
) -> bytes:
    """A zip archive as PyTorch writes it, around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as made:
        made.writestr(f"{root}/data.pkl", b"\x80\2" + program + b".")
        for name, data in ({"data/0": TWO} if entries is None else entries).items():
            made.writestr(f"{root}/{name}", data)
    return file.getvalue()


def old(program: bytes, keys: bytes = b"](" + text("0") + b"e", rest: bytes | None = None) -> bytes:
    """A file as PyTorch wrote it before version 1.6."""
    begin = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    begin += pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    stored = (2).to_bytes(8, "little") + TWO if rest is None else rest
    return begin + b"\x80\2" + program + b"." + b"\x80\2" + keys + b"." + stored


def load(data: bytes) -> Any:
    return mt.load(io.BytesIO(data))


# What is read


@pytest.mark.parametrize("name", ["new.pt", "old.pt"])
def test_all_kinds_of_values_are_read(name: str) -> None:
    found = mt.load(DATA / name)
    model, optimizer = found["model"], found["optimizer"]
    assert type(model) is OrderedDict
    assert {key: tuple(t.shape) for key, t in model.items()} == {"weight": (2, 3), "bias": (2,)}
    assert found["parameter"].requires_grad
    assert found["parameter"].is_leaf
    assert found["parameter"].tolist() == model["weight"].tolist()
    assert optimizer["state"][0]["step"].item() == 1
    assert optimizer["param_groups"][0]["betas"] == (0.9, 0.999)
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["turned"].stride() == (1, 3)
    found["whole"][4] = 9.0
    assert found["turned"][1, 1].item() == found["row"][1].item() == 9
    assert found["wide"].tolist() == [[7] * 3] * 2
    assert found["wide"].stride() == (0, 0)
    names = ("float16", "bfloat16", "float64", "int8", "int16", "int32", "uint8", "bool")
    for t, wanted in zip(found["types"], names, strict=True):
        assert t.dtype.name in (wanted, "float32" if wanted == "bfloat16" else "")
        assert t.tolist() == ([False, True, True] if wanted == "bool" else [0, 1, 2])
    assert found["empty"].shape == (0, 3)
    assert found["number"].item() == 2.5
    assert found["number"].shape == ()
    plain = [None, True, 1.5, 10**30, -3, "text é", (1, (2,)), {3}, b"\0\xff", {1: "x"}]
    assert found["plain"] == plain
    assert found["named"] == [(6,), mt.float32, mt.device("cuda", 1), Counter({"a": 2})]
    assert type(found["named"][0]) is mt.Size
    assert found["args"] == argparse.Namespace(lr=0.5, name="x")
    ints, half, ones = found["numpy"]
    assert (ints.tolist(), half, ones.tolist()) == ([0, 1, 2], 0.5, [[1, 1], [1, 1]])
    assert type(half) is np.float64
    assert ones.dtype == np.float32


def test_a_state_dict_of_pytorch_is_loaded_and_a_training_continues() -> None:
    found = mt.load(DATA / "new.pt", map_location="cpu", weights_only=True)
    model = mt.nn.Linear(3, 2)
    assert not any(model.load_state_dict(found["model"]))
    optimizer = mt.optim.AdamW(model.parameters(), lr=5.0)
    optimizer.load_state_dict(found["optimizer"])
    before = model.bias.tolist()
    model(mt.ones(1, 3)).sum().backward()
    optimizer.step()
    # With gradients of 1, both means of Adam are 1 after their corrections: a step is lr.
    for old_value, new in zip(before, model.bias.tolist(), strict=True):
        assert new == pytest.approx(old_value * (1 - 0.1 * 0.01) - 0.1, abs=1e-6)


def test_one_tensor_by_hand_in_both_formats() -> None:
    for data in (archive(tensor()), old(tensor(more=b"N"))):
        t = load(data)
        assert t.tolist() == [1, 2]
        assert not t.requires_grad
        t[0] = 5.0  # the memory is ours to write


def test_the_other_byte_order_is_turned() -> None:
    swapped = np.array([1, 2], np.float32).astype(">f4").tobytes()
    entries = {"data/0": swapped, "byteorder": b"big"}
    if sys.byteorder == "little":
        assert load(archive(tensor(), entries)).tolist() == [1, 2]
    with pytest.raises(CheckpointError, match="byteorder is b'middle'"):
        load(archive(tensor(), {"data/0": TWO, "byteorder": b"middle"}))


def test_files_of_every_pickle_protocol_are_read() -> None:
    values = [1, 2**40, -1, 1.5, "x", "é" * 300, b"b" * 300, (1, 2, 3, 4), {1, 2}, {"a": [None]}]
    values += [frozenset((1, "a")), bytearray(b"c"), OrderedDict(a=1), Counter("aab"), 10**600]
    for protocol in range(2, 6):
        program = pickle.dumps(values, protocol)
        assert load(archive(program[2:-1])) == values


def test_python_2_wrote_its_dicts_as_pairs() -> None:
    pairs = b"](](U\x01aK\x01eU\x00U\x01bK\x02\x86e\x85".replace(b"U\x00", b"")
    assert load(archive(b"ccollections\nOrderedDict\n" + pairs + b"R")) == {"a": 1, "b": 2}


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    for suffix in ("pt", "safetensors", "x"):
        path = tmp_path / f"w.{suffix}"
        path.write_bytes(archive(tensor()))
        assert mt.load(path, map_location={"cuda:0": "cpu"}).tolist() == [1, 2]
        mt.save({"a": mt.ones(2)}, path)
        assert path.read_bytes()[:2] == (b"PK" if suffix == "pt" else path.read_bytes()[:2])
        assert mt.load(path)["a"].tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="only the CPU"):
        mt.load(path, map_location="cuda")
    with pytest.raises(RuntimeError, match="only the CPU"):
        mt.load(path, map_location={"cpu": "cuda:1"})


def test_reading_takes_little_more_memory_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    mt.save([mt.ones(1000, 1000), mt.zeros(500, 1000)], path)
    mt.load(path)  # imports
    for opened in (False, True):
        tracemalloc.start()
        try:
            with path.open("rb") as file:
                found = mt.load(file if opened else path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found[0].shape == (1000, 1000)
        assert peak < 1.1 * path.stat().st_size


# What is refused


def asks(name: str) -> bytes:
    """A call of a function with a text."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n" + text("echo hacked") + b"\x85R"


def nested(levels: int, inner: bytes = b"K\x01") -> bytes:
    return b"]" * levels + inner + b"a" * levels


def laughs(levels: int) -> bytes:
    """Lists of ten of the one before: a few bytes that unfold to ten to the power of `levels`."""
    made = b"]q\x00" + b"0" * 0
    for level in range(levels):
        made += (
            b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 9 + b"eq" + bytes([level + 1])
        )
    return b"](" + made + b"e"


def with_alike_keys(count: int) -> bytes:
    """A set of tuples of -1 and -2, which have one hash."""
    parts = []
    for index in range(count):
        bits = [-1 if index >> b & 1 else -2 for b in range(14)]
        parts.append(b"(" + b"".join(b"J" + struct.pack("<i", b) for b in bits) + b"t")
    return b"\x8f(" + b"".join(parts) + b"\x90"


def cut_entry(data: bytes) -> bytes:
    """An archive whose directory says of data/0 that it is larger than it is."""
    at = data.index(b"x/data/0", data.index(b"PK\1\2")) - 46
    at = data.index(b"PK\1\2", at)
    return data[: at + 20] + struct.pack("<II", 10**9, 10**9) + data[at + 28 :]


BIG = b"c__main__\n" + b"N" * 5000 + b"\n"
HOSTILE: dict[str, tuple[bytes, str]] = {
    # Names
    "os.system": (archive(asks("os system")), r"it asks for os\.system, which is not data"),
    "posix": (archive(asks("posix system")), r"posix\.system, which is not data"),
    "eval": (archive(asks("__builtin__ eval")), r"builtins\.eval, which is not data"),
    "getattr": (archive(asks("builtins getattr")), r"builtins\.getattr, which is not data"),
    "subprocess": (old(asks("subprocess Popen")), r"subprocess\.Popen, which is not data"),
    "by stack": (
        archive(text("os") + text("system") + b"\x93" + text("x") + b"\x85R"),
        r"os\.system, which is not data",
    ),
    "dotted": (archive(asks("torch Tensor.__reduce__")), r"not data"),
    "import": (archive(asks("torch._utils _import_dotted_name")), "not data"),
    "hub": (archive(asks("torch.hub load")), r"torch\.hub\.load, which is not data"),
    "own class": (archive(b"c__main__\nNet\n)\x81}b"), r"__main__\.Net, which is not .*state_dict"),
    "module": (
        archive(b"ctorch.nn.modules.linear\nLinear\n)\x81}b"),
        r"whole module, as it asks for torch\.nn\.modules\.linear\.Linear.*state_dict",
    ),
    "partial": (archive(asks("functools partial")), r"functools\.partial"),
    "long name": (archive(BIG), "a name is"),
    "strange name": (archive(b"ca\nb\x1b[31m\n"), "not data"),
    "no text as a name": (archive(b"K\1K\2\x93"), "a name is not text"),
    "sparse": (archive(asks("torch._utils _rebuild_sparse_tensor")), "a sparse tensor"),
    "quantized": (archive(asks("torch._utils _rebuild_qtensor")), "a quantized tensor"),
    "meta": (archive(asks("torch._utils _rebuild_meta_tensor_no_storage")), "without data"),
    "complex": (archive(tensor(kind="torch\nComplexFloatStorage")), "of type torch.ComplexFl"),
    "complex number": (archive(b"c__builtin__\ncomplex\nK\1\x85R"), "a complex number"),
    "complex type": (archive(b"ctorch\ncomplex64\n"), "numbers of type torch.complex64"),
    "float8": (archive(b"ctorch\nfloat8_e4m3fn\n"), "numbers of type torch.float8_e4m3fn"),
    "the class itself": (archive(b"ccollections\nOrderedDict\n"), "where a value should be"),
    "a class in a list": (archive(b"]ctorch\nTensor\na"), r"torch\.Tensor where a value should"),
    "a storage": (archive(storage(2)), "a Storage where a value should be"),
    "TorchScript": (archive(b"N", {"constants.pkl": b"", "code/x.py": b""}), "TorchScript"),
    "another zip": (archive(b"N", root="x/y"), "not one of PyTorch's"),
    "object array": (archive(b"cnumpy\ndtype\n" + text("O8") + b"\x85R"), "type 'O8'"),
    "structured array": (archive(b"cnumpy\ndtype\n" + text("i4,f8") + b"\x85R"), "type 'i4,f8'"),
    "extension": (archive(b"\x82\x01"), "the instruction EXT1, which no data needs"),
    "instance": (archive(b"(ios\nsystem\n"), "the instruction INST"),
    "text number": (archive(b"I1\n"), "the instruction INT"),
    "no instruction": (archive(b"\xff"), r"the byte b'\\xff'"),
    "protocol 9": (archive(b"\x80\x09N"), "protocol 9"),
    # Tensors
    "beyond": (archive(tensor(size=(3,))), r"reaches to element 2 of a storage of 2"),
    "far offset": (archive(tensor(offset=2**62)), "reaches to element"),
    "negative offset": (archive(tensor(offset=-1)), "from element -1"),
    "negative stride": (archive(tensor(stride=(-1,))), r"strides \(-1,\)"),
    "negative size": (archive(tensor(size=(-1,))), r"shape \(-1,\)"),
    "long stride": (archive(tensor(stride=(2**60,))), "reaches to element"),
    "too large": (archive(tensor(size=(2**40,) * 2, stride=(0, 0))), "too large"),
    "empty, too large": (archive(tensor(size=(0, 2**63 - 1), stride=(1, 1))), "too large"),
    "many dimensions": (archive(tensor(size=(1,) * 65, stride=(1,) * 65)), "a tensor of shape"),
    "unlike": (archive(tensor(size=(1, 2))), "strides"),
    "no sizes": (archive(tensor(grad=b"]")), "a tensor has no storage"),
    "integer gradient": (
        archive(tensor(count=1, size=(1,), grad=b"\x88", kind="torch\nLongStorage")),
        "int64 that requires a gradient",
    ),
    "bad bool": (
        archive(tensor((8,), count=8, kind="torch\nBoolStorage")),
        "bytes that are not 0 or 1",
    ),
    "no storage": (
        archive(b"ctorch._utils\n_rebuild_tensor_v2\n(K\1K\2tR"), "_rebuild_tensor_v2 with"
    ),
    "parameter of nothing": (archive(asks("torch._utils _rebuild_parameter")), "with "),
    "size of texts": (archive(asks("torch Size")), r"torch\.Size with"),
    "no device": (archive(b"ctorch\ndevice\n" + text("a b") + b"\x85R"), "Invalid device"),
    # Storages
    "huge storage": (archive(tensor(count=2**61)), "larger than the file"),
    "many storages": (
        archive(b"".join(tensor(count=400, key=str(k)) for k in range(99))),
        "larger than the file",
    ),
    "short storage": (archive(tensor(count=3)), "has 8 bytes, the tensors need 12"),
    "long storage": (archive(tensor(count=1, size=(1,))), "has 8 bytes, the tensors need 4"),
    "two sizes": (archive(b"](" + tensor() + tensor(count=1, size=(1,)) + b"e"), "or sizes"),
    "two types": (
        archive(b"](" + tensor() + tensor(kind="torch\nIntStorage") + b"e"),
        "two types or sizes",
    ),
    "missing storage": (archive(tensor(key="7")), "no entry 'data/7'"),
    "other storage": (archive(tensor(key="../../etc/passwd")), "no entry 'data/../../etc/passwd'"),
    "negative count": (archive(tensor(count=-2)), "has no size"),
    "no storage type": (archive(tensor(kind="torch\nSize")), "a storage has no type"),
    "persistent number": (archive(b"K\1Q"), "outside of it that is no storage"),
    "a view of a storage": (old(tensor(more=b"K\1")), "has no size"),
    # The stack
    "empty": (archive(b""), "takes what is not there"),
    "no mark": (archive(b"t"), "takes what is not there"),
    "no memo": (archive(b"j" + b"\xff" * 4), "takes what is not there, 4294967295"),
    "append to a number": (archive(b"K\1K\1a"), "puts something into a int"),
    "append to a tuple": (archive(b")K\1a"), "puts something into a tuple"),
    "set on a list": (archive(b"]K\1K\2s"), "puts something into a list"),
    "a key alone": (archive(b"}(K\1u"), "a key has no value"),
    "a list as a key": (archive(b"}]K\1s"), "a list as a key"),
    "a tensor as a key": (archive(b"}" + tensor() + b"K\1s"), "a Tensor as a key"),
    "call of a number": (archive(b"K\1)R"), "calls a int"),
    "attributes of a list": (archive(b"]}b"), "gives attributes to a list"),
    "attributes of a tensor": (archive(tensor() + b"}b"), "gives attributes to a Tensor"),
    "attributes by number": (archive(b"cargparse\nNamespace\n)\x81}K\1K\1sb"), "as attributes"),
    "not UTF-8": (archive(b"X\1\0\0\0\xff"), "utf-8"),
    "surrogate bytes": (
        archive(b"c_codecs\nencode\n" + text("é日") + text("latin1") + b"\x86R"),
        "latin-1",
    ),
    # Sizes
    "long text": (archive(b"X" + b"\xff" * 4), "4294967295 bytes expected"),
    "longer text": (archive(b"\x8d" + b"\xff" * 7 + b"\x7f"), "bytes expected"),
    "long bytes": (archive(b"\x96" + b"\xff" * 8), "bytes expected"),
    "long integer": (archive(b"\x8b\xff\xff\xff\x7f"), "bytes expected"),
    "deep lists": (archive(nested(5_000)), f"nested deeper than {DEPTH} levels"),
    "deep tuples": (archive(b"N" + b"\x85" * 5_000), f"nested deeper than {DEPTH} levels"),
    "deep key": (archive(b"}N" + b"\x85" * 5_000 + b"Ns"), "a key nested deeper"),
    "deep marks": (archive(b"(" * 5_000), "nested too deep"),
    "in itself": (archive(b"]q\0h\0a"), "contains itself"),
    "in itself, by a dict": (archive(b"}q\0K\1h\0s"), "contains itself"),
    "billion laughs": (archive(laughs(9)), "unfolds to far more values"),
    "more laughs": (archive(laughs(40)), "unfolds to far more values"),
    "alike keys": (archive(with_alike_keys(1200)), "are alike"),
    # The archive
    "cut": (archive(tensor())[:-30], "damaged or incomplete"),
    "cut early": (archive(tensor())[:40], "damaged or incomplete"),
    "only a signature": (b"PK\3\4", "damaged or incomplete"),
    "compressed": (archive(tensor(), {"data/0": bytes(10**6)}, compress=8), "is compressed"),
    "a lie about a size": (cut_entry(archive(tensor())), "is incomplete"),
    "checksum": (archive(tensor()).replace(TWO, TWO[::-1]), "its checksum is another"),
    "no zip at the end": (archive(tensor()) + b"x" * 70000, "damaged or incomplete"),
    # Before 1.6
    "old, cut": (old(tensor(more=b"N"))[:-1], "is not all there"),
    "old, cut more": (old(tensor(more=b"N"))[:-20], "incomplete"),
    "old, other size": (old(tensor(more=b"N"), rest=bytes(16)), "has another size"),
    "old, other keys": (old(tensor(more=b"N"), keys=b"]"), "lists other storages"),
    "old, no keys": (old(tensor(more=b"N"), keys=b"K\1"), "lists no storages"),
    "old, huge": (old(tensor(count=2**40, more=b"N")), "larger than the file"),
    "a pickle": (pickle.dumps({"a": 1}), "it is a pickle"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_data_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    data, words = HOSTILE[name]
    path = tmp_path / "weights.pt"
    path.write_bytes(data)
    mt.load(DATA / "new.pt")  # imports
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=words) as error:
            mt.load(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(data) + 2**20
    finally:
        tracemalloc.stop()
    message = str(error.value)
    assert message.startswith(f"cannot read {path}: ")
    assert len(message) < 400 + len(str(path))
    assert message.isprintable()


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "hacked",)

    data = pickle.dumps({"weight": Bomb()}, 2)
    with pytest.raises(CheckpointError, match=r"pathlib\.Path\.touch|builtins\.getattr|pathlib"):
        load(archive(data[2:-1]))
    assert not (tmp_path / "hacked").exists()


def test_where_named_tensors_are_expected_it_says_what_reads_the_file() -> None:
    for name in ("new.pt", "old.pt"):
        with pytest.raises(CheckpointError, match=r"it is a pickle: .* minitensor\.load reads"):
            load_file(DATA / name)


def test_entries_that_occur_twice_are_refused() -> None:
    file = io.BytesIO(archive(tensor()))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as made:
        made.writestr("x/data/0", TWO)
    with pytest.raises(CheckpointError, match="'x/data/0' occurs twice"):
        load(file.getvalue())


def test_names_outside_of_the_archive_are_never_opened(tmp_path: Path) -> None:
    entries = {"data/0": TWO, "../../../../etc/passwd": b"x", "data/../0": b"y"}
    assert load(archive(tensor(), entries)).tolist() == [1, 2]


def test_entries_that_share_bytes_do_not_add_up() -> None:
    """A hundred entries over the same bytes: the file would unfold to a hundred times its size."""
    program = b"](" + b"".join(tensor((500,), count=500, key=str(k)) for k in range(100)) + b"e"
    content = np.ones(500, np.float32).tobytes()
    data = archive(program, {"data/0": content})
    directory = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    entry, end = data[directory : data.index(b"PK\5\6")], data.index(b"PK\5\6")
    copies = b"".join(
        entry[:28] + struct.pack("<H", len(name)) + entry[30:46] + name
        for name in (f"x/data/{k}".encode() for k in range(100))
    )
    start = data.index(b"PK\1\2")
    whole = data[:start] + data[start:directory] + copies
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 101, 101, len(whole) - start, start, 0)
    assert end
    with pytest.raises(CheckpointError, match="larger than the file"):
        load(whole + tail)


# What is written


def checkpoint() -> dict[Any, Any]:
    shared = mt.arange(6.0).reshape(2, 3)
    types = (mt.float16, mt.float64, mt.int8, mt.int16, mt.int32, mt.int64, mt.uint8, mt.bool)
    return {
        "plain": [
            1,
            -1,
            2**31,
            2**70,
            -(2**70),
            1.5,
            float("inf"),
            None,
            True,
            "é",
            b"\xff",
        ],
        "inner": {"": (), 3: {(1, "a"): (1, (2, [3]))}, None: {4}, "set": set()},
        "types": [mt.tensor([[0, 1], [2, 3]]).to(t) for t in types],
        "shared": [shared, shared.detach(), shared.t(), mt.zeros(0, 3), mt.tensor(2.0)],
        "grad": mt.ones(2, requires_grad=True),
        "named": [mt.float32, mt.bool, mt.device("cpu")],
        "counts": [Counter({2: 1, 5: 2}), Counter("ab")],
        "args": argparse.Namespace(lr=0.5, layers=[1, 2]),
    }


def same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert (a.dtype, a.shape, a.requires_grad) == (b.dtype, b.shape, b.requires_grad)
        assert a.tolist() == b.tolist()
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for x, y in zip(a.values(), b.values(), strict=True):
            same(x, y)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "ckpt", "safetensors"])
def test_what_is_saved_comes_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    mt.save(checkpoint(), path)
    found = mt.load(path)
    same(found, checkpoint())
    first, second, *_ = found["shared"]
    first[0, 0] = 7.0
    assert second[0, 0].item() == 7
    assert zipfile.is_zipfile(path) == (suffix != "safetensors")


def test_a_module_is_saved_as_its_state_dict(tmp_path: Path) -> None:
    model = mt.nn.Sequential(mt.nn.Linear(2, 3), mt.nn.LayerNorm(3))
    optimizer = mt.optim.SGD(model.parameters(), lr=0.1)
    for suffix in ("pt", "safetensors"):
        mt.save(model, tmp_path / f"x.{suffix}")
        same(mt.load(tmp_path / f"x.{suffix}"), dict(model.state_dict()))
        mt.save({"model": model, "optimizer": optimizer}, tmp_path / f"x.{suffix}")
        found = mt.load(tmp_path / f"x.{suffix}")
        same(found["model"], dict(model.state_dict()))
        assert found["optimizer"] == optimizer.state_dict()


def test_what_is_not_data_is_not_saved(tmp_path: Path) -> None:
    import dataclasses

    @dataclasses.dataclass
    class Config:
        width: int = 3

    for suffix in ("pt", "safetensors"):
        path = tmp_path / f"x.{suffix}"
        with pytest.raises(TypeError, match=r"a Config at config: save dataclasses\.asdict"):
            mt.save({"config": Config()}, path)
        with pytest.raises(TypeError, match=r"a type at kind: only dicts"):
            mt.save({"kind": mt.nn.Linear}, path)
        assert not path.exists()


def test_an_archive_is_laid_out_as_pytorch_lays_it_out(tmp_path: Path) -> None:
    mt.save({"a": mt.ones(2), "b": mt.zeros(3)}, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        names = [info.filename for info in made.infolist()]
        assert names[0] == "archive/data.pkl"
        assert {"archive/version", "archive/byteorder", "archive/data/1"} <= set(names)
        assert made.testzip() is None
        program = made.read("archive/data.pkl")
        assert max(op.proto for op, _, _ in pickletools.genops(program)) == 2
        for number_ in range(2):
            info = made.getinfo(f"archive/data/{number_}")
            name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
            begin = info.header_offset + 30 + name + extra
            assert begin % 64 == 0
            assert zlib.crc32(data[begin : begin + info.file_size]) == info.CRC


# With PyTorch


@needs_torch
def test_pytorch_reads_what_is_written(tmp_path: Path) -> None:
    import torch

    mt.save(checkpoint(), tmp_path / "x.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        found = torch.load(tmp_path / "x.pt", weights_only=True)
        mapped = torch.load(tmp_path / "x.pt", weights_only=True, mmap=True)
    ours = checkpoint()
    assert found["plain"] == ours["plain"]
    assert found["inner"] == ours["inner"]
    assert found["args"] == ours["args"]
    assert found["named"] == [torch.float32, torch.bool, torch.device("cpu")]
    assert found["counts"] == ours["counts"]
    assert found["grad"].requires_grad
    for mine, theirs in zip(
        [*ours["types"], *ours["shared"]], [*found["types"], *found["shared"]], strict=True
    ):
        assert str(theirs.dtype) == f"torch.{mine.dtype.name}"
        assert tuple(theirs.shape) == tuple(mine.shape)
        assert theirs.tolist() == mine.tolist()
    first, second, *_ = found["shared"]
    assert first.data_ptr() == second.data_ptr()
    assert all(t.data_ptr() % 64 == 0 for t in mapped["types"])
    mt.save(mt.nn.Linear(2, 3), tmp_path / "m.pt")
    torch.nn.Linear(2, 3).load_state_dict(torch.load(tmp_path / "m.pt"))


@needs_torch
@pytest.mark.parametrize("new", [True, False])
def test_what_pytorch_writes_is_read(new: bool, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Transformer(16, 2, 1, 1, 8, batch_first=True)
    base = torch.randn(4, 5, 6)
    obj: dict[str, Any] = {
        "model": model.state_dict(),
        "parameters": list(model.parameters())[:3],
        "views": [base[1:, ::2], base.permute(2, 0, 1), base[..., None], base.expand(2, 4, 5, 6)],
        "types": [torch.randn(3).to(t) for t in (torch.half, torch.double, torch.long, torch.bool)],
    }
    torch.save(obj, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    found = mt.load(tmp_path / "x.pt")
    for group in ("parameters", "views", "types"):
        for mine, theirs in zip(found[group], obj[group], strict=True):
            assert mine.tolist() == theirs.tolist()
            assert mine.stride() == theirs.stride() or mine.numel() < 2
            assert mine.requires_grad == theirs.requires_grad
    assert found["views"][3].data_ptr() == found["views"][1].data_ptr()
    ours = mt.nn.Transformer(16, 2, 1, 1, 8, batch_first=True)
    ours.load_state_dict(found["model"])
    for name, t in ours.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), obj["model"][name].numpy())
    assert list(ours.state_dict()) == list(obj["model"])
    for whole in (torch.nn.Linear(2, 2), model):
        torch.save(whole, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
        with pytest.raises(CheckpointError, match=r"it is a whole module.*state_dict"):
            mt.load(tmp_path / "w.pt")


@needs_torch
def test_bfloat16_of_pytorch_is_read(tmp_path: Path) -> None:
    import torch

    t = torch.randn(4, 6).to(torch.bfloat16)
    for new in (True, False):
        torch.save([t, t[1:, ::2]], tmp_path / "x.pt", _use_new_zipfile_serialization=new)
        whole, part = mt.load(tmp_path / "x.pt")
        assert whole.tolist() == t.tolist()
        assert part.tolist() == t[1:, ::2].tolist()
        assert whole.stride() == (6, 1)
        assert part.stride() == (6, 2)


@needs_torch
@pytest.mark.parametrize("name", ["uint16", "float8_e4m3fn", "complex64"])
def test_types_that_are_not_here_are_named(name: str, tmp_path: Path) -> None:
    import torch

    torch.save(torch.zeros(2, dtype=getattr(torch, name)), tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError, match=r"numbers of type torch\.(uint16|float8_e4m3fn|ComplexFloatStorage)"
    ):
        mt.load(tmp_path / "x.pt")


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", dict(momentum=0.9, nesterov=True)),
    ("Adam", dict(amsgrad=True)),
    ("AdamW", dict(weight_decay=0.1)),
    ("RMSprop", dict(momentum=0.9, centered=True)),
    ("Adagrad", {}),
]


class Training:
    """Two parameters, an optimizer and a schedule, of one of the libraries."""

    def __init__(self, lib: Any, values: list[Any], name: str, **options: Any) -> None:
        self.lib = lib
        self.params = [lib.nn.Parameter(lib.tensor(value)) for value in values]
        self.optimizer = getattr(lib.optim, name)(self.params, **options)
        self.scheduler = lib.optim.lr_scheduler.MultiStepLR(self.optimizer, [2, 5], 0.5)

    def steps(self, seeds: range) -> None:
        for seed in seeds:
            noise = np.random.RandomState(seed)
            for p in self.params:
                p.grad = self.lib.tensor(noise.randn(*p.shape).astype(np.float32))
            self.optimizer.step()
            self.scheduler.step()

    def values(self) -> list[Any]:
        return [p.detach().numpy().copy() for p in self.params]

    def state(self) -> dict[str, Any]:
        return {"o": self.optimizer.state_dict(), "s": self.scheduler.state_dict()}

    def continue_from(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["o"])
        self.scheduler.load_state_dict(state["s"])


@needs_torch
@pytest.mark.parametrize("way", ["here, a file", "here, as it is", "there, a file"])
@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=lambda x: str(x))
def test_a_training_continues_in_the_other_library(
    name: str, options: dict[str, Any], way: str, tmp_path: Path
) -> None:
    import torch

    start = [np.ones((3, 2), np.float32), np.zeros(4, np.float32)]
    whole, ours = (Training(lib, start, name, lr=0.1, **options) for lib in (torch, mt))
    whole.steps(range(4))
    ours.steps(range(4))
    assert set(ours.state()["o"]["param_groups"][0]) == set(whole.state()["o"]["param_groups"][0])
    if way == "there, a file":
        second = Training(torch, ours.values(), name, lr=5.0)
        mt.save(ours.state(), tmp_path / "x.pt")
        second.continue_from(torch.load(tmp_path / "x.pt"))
    else:
        second = Training(mt, whole.values(), name, lr=5.0)
        state = whole.state()
        if way == "here, a file":
            torch.save(state, tmp_path / "x.pt")
            state = mt.load(tmp_path / "x.pt")
        second.continue_from(state)
    whole.steps(range(4, 8))
    second.steps(range(4, 8))
    for a, b in zip(second.values(), whole.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert second.scheduler.get_last_lr() == whole.scheduler.get_last_lr()
