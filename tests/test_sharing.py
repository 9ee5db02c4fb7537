"""Memory shared with other libraries: no copies, no early reuse, no writes where none may be."""

from __future__ import annotations

import array
import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor import memory, nn, optim
from minitensor.dtype import DTYPES

LARGE = 300_000  # numbers, whose memory comes from the pool


def read_only(*shape: int) -> np.ndarray:
    made = np.ones(shape, np.float32)
    made.flags.writeable = False
    return made


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (1, 4, 1)])
def test_numpy_and_we_share_memory_both_ways(dtype: Any, shape: tuple[int, ...]) -> None:
    theirs = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    ours = mt.from_dlpack(theirs)
    again = np.from_dlpack(ours)
    for made in (ours.numpy(), again):
        assert made.dtype == dtype
        assert made.shape == shape
        assert made.tolist() == theirs.tolist()
    if theirs.size:
        ours.fill_(1)
        assert theirs.all()
        again.fill(0)
        assert not ours.numpy().any()


def test_strides_are_kept() -> None:
    x = mt.arange(24.0).reshape(2, 3, 4)
    for view in (x.transpose(0, 2), x[:, 1:, ::2], x[..., 0], x.expand(2, 2, 3, 4)):
        found = np.from_dlpack(view)
        assert found.strides == view.numpy().strides
        assert mt.from_dlpack(found).stride() == view.stride()
        assert mt.from_dlpack(found).data_ptr() == view.data_ptr()


def test_our_tensors_are_shared_too() -> None:
    x = mt.zeros(2)
    mt.from_dlpack(x)[0] = 1.0
    assert x.tolist() == [1, 0]
    assert mt.from_dlpack(x, copy=True).data_ptr() != x.data_ptr()
    assert x.__dlpack_device__() == (1, 0)


def test_what_cannot_be_exported_or_imported() -> None:
    x = mt.ones(2, requires_grad=True)
    with pytest.raises(BufferError, match=r"require gradient, use tensor\.detach"):
        np.from_dlpack(x)
    assert np.from_dlpack(x.detach()).tolist() == [1, 1]
    with pytest.raises(TypeError, match="an object with __dlpack__, got list"):
        mt.from_dlpack([1, 2])
    with pytest.raises(TypeError, match="uint16"):
        mt.from_dlpack(np.zeros(2, np.uint16))
    with pytest.raises(ValueError, match="a stride is negative"):
        mt.from_dlpack(np.ones(3)[::-1])
    with pytest.raises(RuntimeError, match="only the CPU"):
        mt.from_dlpack(np.ones(3), device="cuda")


def test_memory_that_may_not_be_written_is_read_and_not_written() -> None:
    theirs = read_only(2, 3)
    ours = mt.from_numpy(theirs)
    assert (ours + 1).sum().item() == 12
    with pytest.raises(RuntimeError, match=r"add_: .* may not be written: change a clone"):
        ours.add_(1)
    with pytest.raises(RuntimeError, match="may not be written"):
        ours[0] = 2.0
    with pytest.raises(RuntimeError, match="may not be written"):
        ours.t().mul_(2)
    with pytest.raises(RuntimeError, match="may not be written"):
        nn.init.normal_(ours)
    for make in (optim.SGD, optim.Adam):
        p = nn.Parameter(ours)
        (p * 2).sum().backward()
        optimizer = make([p], lr=1.0)
        with pytest.raises(RuntimeError, match="may not be written"):
            optimizer.step()
    q = mt.zeros(2, 3, requires_grad=True)
    q.grad = ours
    with pytest.raises(RuntimeError, match="may not be written"):
        nn.utils.clip_grad_norm_([q], 0.1)
    with pytest.raises(BufferError):
        ours.__dlpack__()  # a capsule of the old kind cannot say so
    assert not np.from_dlpack(ours).flags.writeable
    assert theirs.tolist() == [[1] * 3] * 2


def test_memory_lives_as_long_as_either_side() -> None:
    theirs = np.arange(5.0)
    alive = weakref.ref(theirs)
    ours = mt.from_dlpack(theirs)[1:]
    del theirs
    assert alive() is not None
    assert ours.tolist() == [1, 2, 3, 4]
    del ours
    gc.collect()
    assert alive() is None
    x = mt.arange(5.0)
    held = weakref.ref(x._array)
    exported = np.from_dlpack(x)
    del x
    assert held() is not None
    assert exported.tolist() == [0, 1, 2, 3, 4]
    del exported
    assert held() is None


def test_exported_memory_returns_to_the_pool_only_when_it_is_let_go() -> None:
    x = mt.ones(LARGE) * 3  # of an op, in a buffer of the pool
    used = memory.stats().used
    exported = [np.from_dlpack(x), x.numpy()[5:], x.numpy().data]
    capsule = x.__dlpack__()
    del x
    for held in range(4):
        others = [mt.ones(LARGE) * 5 for _ in range(4)]
        del others
        assert memory.stats().used == used
        assert all(np.asarray(view).max() == 3 for view in exported)
        if held < 3:
            exported.pop()
    del capsule
    assert memory.stats().used < used


def test_a_step_does_not_write_into_what_was_exported() -> None:
    """Gradients are summed in place and buffers reused; what another holds stays as it is."""
    w = mt.ones(LARGE, requires_grad=True)
    y = w * 2
    shown = np.from_dlpack(y.detach())
    kept: list[Any] = []
    y.register_hook(lambda g: kept.append(np.from_dlpack(g.detach())))
    (y * y + y).sum().backward()
    first = kept[0].copy()
    for _ in range(3):
        z = w * 3
        (z * z + z).sum().backward()
        del z
    assert (shown == 2).all()
    np.testing.assert_array_equal(kept[0], first)


def test_buffers_are_shared() -> None:
    for buffer in (bytearray(16), memoryview(bytearray(16)), array.array("i", [0] * 4)):
        t = mt.frombuffer(buffer, dtype=mt.int32)
        t[1] = 7
        assert memoryview(buffer).tobytes()[4] == 7
        assert mt.frombuffer(buffer, dtype=mt.int32, count=2, offset=4).tolist() == [7, 0]
    t = mt.frombuffer(np.ones(2).data, dtype=mt.float64, requires_grad=True)
    assert t.requires_grad
    with pytest.raises(RuntimeError, match="may not be written"):
        mt.frombuffer(bytes(8), dtype=mt.int32).add_(1)
    grown = bytearray(8)
    held = mt.frombuffer(grown, dtype=mt.uint8)
    with pytest.raises(BufferError):
        grown.extend(b"x")  # while the tensor shows it
    del held
    grown.extend(b"x")


@pytest.mark.parametrize(
    ("size", "options", "error", "words"),
    [
        (16, dict(offset=2), ValueError, "must be a multiple of element size"),
        (16, dict(offset=16), ValueError, "must be non-negative and no greater than"),
        (16, dict(offset=-4), ValueError, "must be non-negative and no greater than"),
        (16, dict(count=5), ValueError, "must not be greater than actual buffer length"),
        (16, dict(count=0), ValueError, "and count .0. must not be 0"),
        (0, {}, ValueError, "both buffer length .0. and count .-1. must not be 0"),
        (5, {}, ValueError, "must be a multiple of element size"),
        (8, dict(requires_grad=True), RuntimeError, "floating point dtype can require gradients"),
    ],
)
def test_buffers_that_do_not_fit(size: int, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        mt.frombuffer(bytearray(size), dtype=mt.int32, **options)


def test_what_is_no_buffer() -> None:
    with pytest.raises(ValueError, match="object does not implement Python buffer protocol"):
        mt.frombuffer(3, dtype=mt.int32)
    with pytest.raises(TypeError):
        mt.frombuffer(bytearray(4))  # type: ignore[call-arg]


class Foreign:
    """An array of another library, which shows NumPy its memory in one of its ways."""

    def __init__(self, values: np.ndarray, way: str) -> None:
        self.values = values
        if way != "__array__":
            setattr(self, way, getattr(values, way))
        else:
            self.__class__ = type("Foreign", (Foreign,), {way: lambda s, *a, **k: s.values})


@pytest.mark.parametrize("way", ["__array__", "__array_interface__", "__array_struct__"])
def test_foreign_arrays_are_shared(way: str) -> None:
    values = np.arange(3, dtype=np.float32)
    foreign = Foreign(values, way)
    mt.as_tensor(foreign)[0] = 5.0
    mt.asarray(foreign)[1] = 6.0
    assert values.tolist() == [5, 6, 2]
    assert mt.as_tensor(foreign, dtype=mt.int64).tolist() == [5, 6, 2]
    mt.asarray(foreign, copy=True)[2] = 9.0
    assert values[2] == 2


def test_asarray_says_when_it_cannot_share() -> None:
    x = mt.ones(2)
    assert mt.asarray(x) is x
    assert mt.asarray(x, copy=False) is x
    with pytest.raises(ValueError, match="can't alias arbitrary sequence"):
        mt.asarray([1, 2], copy=False)
    with pytest.raises(ValueError, match=r"can't alias tensor with dtype float64 into .*float32"):
        mt.asarray(np.ones(2), dtype=mt.float32, copy=False)
    assert mt.asarray([1, 2], requires_grad=False, dtype=mt.float32).tolist() == [1, 2]
    assert mt.asarray([1.0], requires_grad=True).requires_grad
    assert not mt.asarray(mt.ones(1, requires_grad=True), requires_grad=False).requires_grad
    shared = bytearray(8)
    mt.asarray(shared, dtype=mt.int32)[0] = 1
    assert shared[0] == 1


def test_a_state_dict_may_hold_arrays_of_any_library() -> None:
    model = nn.Linear(3, 2)
    weight = Foreign(np.ones((2, 3), np.float32), "__array__")
    model.load_state_dict({"weight": weight, "bias": np.zeros(2)})
    assert model.weight.tolist() == [[1] * 3] * 2


# With PyTorch and JAX


@needs_torch
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_pytorch_and_we_share_memory_both_ways(shape: tuple[int, ...]) -> None:
    torch: Any = pytest.importorskip("torch")

    for dtype in DTYPES:
        ours = mt.ones(*shape, dtype=dtype) if shape else mt.ones((), dtype=dtype)
        theirs = torch.from_dlpack(ours)
        assert str(theirs.dtype) == f"torch.{dtype.name}"
        assert theirs.tolist() == ours.tolist()
        assert mt.from_dlpack(theirs).data_ptr() == ours.data_ptr() or not theirs.numel()
        if theirs.numel():
            theirs.fill_(0)
            assert not ours.numpy().any()
            mt.from_dlpack(theirs).fill_(1)
            assert ours.numpy().all()
    with pytest.raises(BufferError, match="require gradient"):
        torch.from_dlpack(mt.ones(2, requires_grad=True))
    with pytest.raises(BufferError, match="require gradient"):
        mt.from_dlpack(torch.ones(2, requires_grad=True))
    turned = torch.from_dlpack(mt.zeros(2, 3).t())
    assert turned.stride() == (1, 3)
    assert mt.from_dlpack(turned).stride() == (1, 3)
    assert mt.as_tensor(turned).data_ptr() == turned.data_ptr()


@needs_torch
def test_pytorch_holds_our_memory() -> None:
    torch: Any = pytest.importorskip("torch")

    ours = mt.ones(LARGE) * 3
    held = weakref.ref(ours._array)
    theirs = torch.from_dlpack(ours)[5:]
    del ours
    for _ in range(4):
        mt.ones(LARGE) * 5
    assert held() is not None
    assert (theirs == 3).all()
    del theirs
    assert held() is None
    source = torch.ones(LARGE)
    alive = weakref.ref(source)
    mine = mt.from_dlpack(source)
    del source
    assert (mine.numpy() == 1).all()
    del mine
    gc.collect()
    assert alive() is None


@needs_torch
def test_jax_and_we_share_memory() -> None:
    jax = pytest.importorskip("jax")
    theirs = jax.numpy.arange(6.0).reshape(2, 3)
    ours = mt.from_dlpack(theirs)
    assert ours.data_ptr() == theirs.unsafe_buffer_pointer()
    assert ours.tolist() == theirs.tolist()
    with pytest.raises(RuntimeError, match="may not be written"):
        ours.add_(1)
    copy = mt.from_dlpack(theirs, copy=True)
    copy.add_(1)
    assert theirs.tolist() == ours.tolist()
    x = mt.zeros(64, 64)
    assert jax.dlpack.from_dlpack(x).tolist() == x.tolist()
    del theirs
    gc.collect()
    assert ours.tolist() == [[0, 1, 2], [3, 4, 5]]


@needs_torch
def test_weights_of_pytorch_are_loaded_as_they_are() -> None:
    torch: Any = pytest.importorskip("torch")

    theirs = torch.nn.Linear(3, 2)
    ours = nn.Linear(3, 2)
    ours.load_state_dict(theirs.state_dict())
    assert ours.weight.tolist() == theirs.weight.tolist()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    with mt.no_grad():
        ours.bias.fill_(4.0)
    assert theirs.bias.tolist() == [4, 4]  # assigned, so shared
    theirs.load_state_dict({k: torch.from_dlpack(t.detach()) for k, t in ours.state_dict().items()})


@needs_torch
@pytest.mark.parametrize(
    "make",
    [
        lambda lib: [1, 2],
        lambda lib: lib.ones(2),
        lambda lib: np.ones(2),
        lambda lib: array.array("i", [1, 2]),
        lambda lib: bytearray(8),
        lambda lib: 3.5,
        lambda lib: lib.ones(2, requires_grad=True),
    ],
)
@pytest.mark.parametrize("name", ["asarray", "as_tensor"])
@pytest.mark.filterwarnings("ignore")
def test_what_asarray_makes_is_what_pytorch_makes(make: Any, name: str) -> None:
    torch: Any = pytest.importorskip("torch")

    ours, theirs = (getattr(lib, name)(make(lib)) for lib in (mt, torch))
    assert f"torch.{ours.dtype.name}" == str(theirs.dtype)
    assert ours.tolist() == theirs.tolist()
    assert ours.requires_grad == theirs.requires_grad


@needs_torch
def test_bfloat16_crosses_without_a_copy(tmp_path: Path) -> None:
    """NumPy has no name for it: the type in the description of the memory is changed."""
    torch: Any = pytest.importorskip("torch")
    theirs = torch.randn(3, 4).to(torch.bfloat16)
    for ours in (mt.from_dlpack(theirs), mt.as_tensor(theirs)):
        assert ours.dtype == mt.bfloat16
        assert ours.data_ptr() == theirs.data_ptr()
        assert ours.tolist() == theirs.tolist()
    ours.fill_(2.0)
    assert (theirs == 2).all()
    turned = torch.from_dlpack(ours.t())
    assert turned.dtype == torch.bfloat16
    assert turned.stride() == (1, 4)
    assert turned.data_ptr() == theirs.data_ptr()
    assert mt.from_dlpack(ours).data_ptr() == ours.data_ptr()
    assert mt.from_dlpack(theirs, copy=True).data_ptr() != theirs.data_ptr()
    jax = pytest.importorskip("jax")
    there = jax.numpy.arange(3, dtype=jax.numpy.bfloat16)
    assert mt.from_dlpack(there).tolist() == [0, 1, 2]
    assert jax.numpy.from_dlpack(mt.ones(64, dtype=mt.bfloat16)).dtype == jax.numpy.bfloat16
    for dtype in (mt.float32, mt.bfloat16):
        layer = nn.Linear(4, 3).to(dtype)
        layer.load_state_dict({"weight": theirs, "bias": torch.zeros(3, dtype=torch.bfloat16)})
        assert layer.weight.tolist() == theirs.tolist()
    mt.save({"t": ours, "type": mt.bfloat16}, tmp_path / "x.pt")
    found = torch.load(tmp_path / "x.pt")
    assert found["type"] == found["t"].dtype == torch.bfloat16
    assert found["t"].tolist() == mt.load(tmp_path / "x.pt")["t"].tolist() == ours.tolist()
