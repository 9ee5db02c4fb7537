"""bfloat16, and float16 beside it: numbers, rounding, promotion, gradients, training, files."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor import nn, optim
from minitensor.core import OPS, Tensor, wrap
from minitensor.dtype import TYPES
from minitensor.graph import trace
from minitensor.graph.data import packed
from minitensor.nn import functional as F
from minitensor.testing import Rand, leaves, oracle, samples, to_torch
from minitensor.testing.samples import replaced

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)
HALVES = {"bfloat16": BF16, "float16": np.dtype(np.float16)}
STEP = {"bfloat16": 2.0**-7, "float16": 2.0**-10}  # from 1 to the next number
REFUSED = {"Quantile", "Nanquantile"}  # of half precision, by PyTorch too
TESTED = sorted(n for n, op in OPS.items() if op.__module__.startswith("minitensor.ops"))


def bits(x: Tensor) -> np.ndarray:
    return x._array.view(np.uint16)


def numbers(x: Any) -> np.ndarray:
    """The values of a tensor of either library, in float64."""
    array = x._array if isinstance(x, Tensor) else x.detach().double().numpy()
    with np.errstate(invalid="ignore"):  # of a signalling NaN
        return np.asarray(array, np.float64)


# Numbers


def test_floats_are_rounded_to_the_nearest_and_ties_to_even() -> None:
    x = mt.tensor([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-7, 3.14159265, -1e-3, 3.4e38, 1e-45])
    want = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x4049, 0xBA83, 0x7F80, 0x0000]
    assert bits(x.bfloat16()).tolist() == want
    assert bits(mt.tensor([math.inf, -math.inf, -0.0]).bfloat16()).tolist() == [
        0x7F80,
        0xFF80,
        0x8000,
    ]
    assert math.isnan(mt.tensor(math.nan).bfloat16().item())


def test_every_bfloat16_survives_float32_and_float64() -> None:
    every = wrap(np.arange(2**16, dtype=np.uint16).view(BF16))
    number = every == every  # not NaN
    for wide in (mt.float32, mt.float64):
        assert np.array_equal(bits(every.to(wide).bfloat16())[number], bits(every)[number])
        assert every.to(wide).bfloat16().isnan().equal(~number)


@needs_torch
def test_conversions_of_every_pattern_equal_pytorch() -> None:
    import torch

    patterns = np.arange(2**16, dtype=np.uint16)
    for name, dtype in HALVES.items():
        mine: Tensor = wrap(patterns.view(dtype))
        theirs = torch.from_numpy(patterns.copy()).view(getattr(torch, name))
        for target in ("bfloat16", "float16", "float32", "float64"):
            found, wanted = mine.to(TYPES[target]), theirs.to(getattr(torch, target))
            assert np.array_equal(numbers(found), numbers(wanted), equal_nan=True)
        whole = np.abs(np.nan_to_num(numbers(mine))) < 100
        assert np.array_equal(
            mine.to(mt.int64)._array[whole], theirs.to(torch.int64).numpy()[whole]
        )
        assert np.array_equal(mine.bool()._array, theirs.bool().numpy())
    noise = np.random.RandomState(0)
    wide = (noise.standard_normal(10_000) * np.exp(noise.standard_normal(10_000) * 9)).astype("f4")
    ties = (noise.randint(0, 2**16, 10_000).astype(np.uint32) << 16 | 0x8000).view(np.float32)
    for array in (wide, ties[np.isfinite(ties)], wide.astype(np.float64)):
        for name in HALVES:
            mine, theirs = wrap(array).to(TYPES[name]), torch.from_numpy(array.copy())
            assert np.array_equal(numbers(mine), numbers(theirs.to(getattr(torch, name))))


def test_arithmetic_rounds_each_result_once() -> None:
    third, tenth = mt.tensor([1 / 3]).bfloat16(), mt.tensor([0.1]).bfloat16()
    assert bits(third).item() == 0x3EAB
    assert bits(tenth).item() == 0x3DCD
    assert bits(third + tenth).item() == 0x3EDE
    assert bits(third * tenth).item() == 0x3D09
    assert bits(third / tenth).item() == 0x4056
    assert bits(third.exp()).item() == 0x3FB3
    assert bits(mt.tensor([1.0, 2.0]).bfloat16().softmax(0)).tolist() == [0x3E8A, 0x3F3B]
    hundred = mt.full((1000,), 0.1, dtype=mt.bfloat16)
    assert hundred.sum().item() == 100.0  # bfloat16 alone would stop at 32
    assert hundred.mean().item() == pytest.approx(0.1, rel=2**-8)


PROMOTED = [
    (mt.bfloat16, mt.float16, mt.float32),
    (mt.bfloat16, mt.float32, mt.float32),
    (mt.bfloat16, mt.float64, mt.float64),
    (mt.bfloat16, mt.int64, mt.bfloat16),
    (mt.bfloat16, mt.bool, mt.bfloat16),
    (mt.bfloat16, mt.bfloat16, mt.bfloat16),
]


@pytest.mark.parametrize(("a", "b", "both"), PROMOTED, ids=str)
def test_promotion(a: mt.dtype, b: mt.dtype, both: mt.dtype) -> None:
    assert mt.promote_types(a, b) is mt.promote_types(b, a) is both
    assert (mt.ones(2, dtype=a) + mt.ones(2, dtype=b)).dtype is both


def test_numbers_and_scalars_leave_the_type() -> None:
    x = mt.ones(2, dtype=mt.bfloat16)
    for other in (1, 0.5, True, mt.tensor(0.5), mt.tensor(0.5, dtype=mt.float64)):
        assert (x * other).dtype is (other - x if other is not True else x).dtype is mt.bfloat16
    x += mt.ones(2)
    assert x.dtype is mt.bfloat16
    assert x.tolist() == [2, 2]


def test_factors_of_two_types_are_refused() -> None:
    x, w = mt.ones(2, 2, dtype=mt.bfloat16), mt.ones(2, 2)
    for product in (mt.matmul, F.linear, lambda a, b: mt.addmm(a, a, b)):
        with pytest.raises(RuntimeError, match="expected one dtype, got bfloat16"):
            product(x, w)


# The type itself


def test_types_are_objects_of_a_class() -> None:
    for name, dtype in TYPES.items():
        assert isinstance(dtype, mt.dtype)
        assert dtype.name == str(dtype) == name
        assert repr(dtype) == f"minitensor.{name}"
        assert dtype.is_floating_point == ("float" in name)
        assert not dtype.is_complex
        assert dtype.is_signed == (name not in ("bool", "uint8"))
        assert mt.zeros(1, dtype=dtype).dtype is dtype is copy.deepcopy(dtype)
        assert pickle.loads(pickle.dumps(dtype)) is dtype
        assert mt.zeros(1, dtype=dtype).itemsize == dtype.itemsize
    assert mt.result_type(mt.ones(1), 1) is mt.get_default_dtype() is mt.float32
    with pytest.raises(TypeError, match="cannot create"):
        mt.dtype("float32")


def test_a_type_is_numpys_type_to_numpy() -> None:
    x = mt.ones(2)
    assert x.dtype == np.float32
    assert np.dtype(np.float32) == x.dtype
    assert x.dtype != np.float64
    assert hash(x.dtype) == hash(np.dtype(np.float32))
    assert x.dtype in (np.dtype(np.float32), None)
    assert x.dtype != mt.float64
    assert np.zeros(2, x.dtype).dtype == np.float32
    assert np.finfo(x.dtype).bits == 32
    assert x.dtype.kind == "f"
    assert x.dtype.type is np.float32
    assert mt.bfloat16 == BF16
    assert mt.bfloat16 == BF16
    assert mt.bfloat16 != np.float16
    assert np.zeros(2, mt.bfloat16).dtype == BF16


def test_limits() -> None:
    limits = mt.finfo(mt.bfloat16)
    assert (limits.bits, limits.eps, limits.dtype) == (16, 2.0**-7, "bfloat16")
    assert limits.max == -limits.min == (2 - 2**-7) * 2.0**127
    assert limits.tiny == 2.0**-126
    assert str(limits).startswith("finfo(resolution=0.01, min=-3.38953e+38, max=3.38953e+38")
    assert str(mt.iinfo(mt.int8)) == "iinfo(min=-128, max=127, dtype=int8)"


WITHOUT = """
import sys
sys.modules["ml_dtypes"] = None  # its import fails
import minitensor as mt
named = {"float32": mt.float32, "bfloat16": mt.bfloat16, "float16": mt.float16}["bfloat16"]
assert str(named) == "bfloat16" and named.itemsize == 2 and named.is_floating_point
assert mt.ones(1).dtype != named and mt.ones(1).dtype not in (mt.float16, named)
assert named in {named: 1} and mt.float32 not in {named: 1}
for use in (
    lambda: mt.zeros(2, dtype=named), lambda: mt.ones(2).to(named), lambda: mt.ones(2).bfloat16(),
    lambda: mt.finfo(named), lambda: mt.tensor([1.0], dtype="bfloat16"),
):
    try:
        use()
    except ImportError as error:
        assert str(error) == "bfloat16 needs ml_dtypes: pip install 'minitensor[bfloat16]'"
    else:
        raise AssertionError(use)
print(mt.load(sys.argv[1])["x"].dtype)
"""


def test_without_ml_dtypes_the_name_is_there_and_its_use_says_what_to_install(
    tmp_path: Path,
) -> None:
    mt.save({"x": mt.ones(2, dtype=mt.bfloat16)}, tmp_path / "x")
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("float32\n", "")


def test_ml_dtypes_is_imported_for_the_first_bfloat16() -> None:
    code = "import sys, minitensor as mt; mt.bfloat16; mt.zeros(2) + 1\n"
    code += "assert mt.ones(1).dtype != mt.bfloat16 and 'ml_dtypes' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Making, showing and leaving


def test_tensors_are_made_and_shown() -> None:
    assert repr(mt.tensor([1.1, 2], dtype=mt.bfloat16)) == (
        "tensor([1.1016, 2.0000], dtype=minitensor.bfloat16)"
    )
    for made in (mt.zeros(2), mt.ones(2), mt.eye(2), mt.arange(3.0), mt.linspace(0, 1, 5)):
        assert made.bfloat16().float().equal(made)
    assert mt.full((2,), 3.14159, dtype=mt.bfloat16).tolist() == [3.140625] * 2
    assert mt.zeros_like(mt.ones(2, dtype=mt.bfloat16)).dtype is mt.bfloat16
    assert mt.BFloat16Tensor([1, 2.5]).type() == "minitensor.BFloat16Tensor"
    assert mt.ones(2).type("minitensor.BFloat16Tensor").dtype is mt.bfloat16
    assert mt.BFloat16Tensor(2, 3).shape == (2, 3)
    with pytest.raises(RuntimeError, match="without overflow"):
        mt.zeros(1, dtype=mt.bfloat16).masked_fill(mt.tensor([True]), 1e39)


def test_arrays_of_ml_dtypes_come_and_go_without_a_copy() -> None:
    array = np.arange(3).astype(BF16)
    for x in (mt.as_tensor(array), mt.from_numpy(array)):
        assert x.dtype is mt.bfloat16
        assert x._array is array
        assert x.numpy() is array
        assert np.asarray(x).dtype == BF16
        assert np.asarray(x, np.float32).tolist() == [0, 1, 2]
    x = mt.as_tensor(array)
    assert x.tolist() == [0, 1, 2]
    assert type(x[1].item()) is float
    assert f"{x[1]:.1f}" == "1.0"
    assert mt.data.default_collate([array, array]).dtype is mt.bfloat16
    same = [copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.clone()]
    assert all(y.dtype is mt.bfloat16 and y.equal(x) for y in same)
    mt.testing.assert_close(x, x * 1.001)


def test_the_default_type_can_be_bfloat16() -> None:
    mt.set_default_dtype(mt.bfloat16)
    try:
        made = [mt.tensor(1.5), mt.ones(2), mt.rand(2), mt.arange(3) / 2, nn.Linear(2, 2).weight]
        assert {x.dtype for x in made} == {mt.bfloat16}
    finally:
        mt.set_default_dtype(mt.float32)


def test_checkpoints_hold_it(tmp_path: Path) -> None:
    x = mt.randn(3, 4).bfloat16()
    mt.save({"x": x, "type": mt.bfloat16, "tied": x}, tmp_path / "x")
    found = mt.load(tmp_path / "x")
    assert found["x"].dtype is found["type"] is mt.bfloat16
    assert found["x"].equal(x)
    assert found["tied"] is found["x"]
    layer = nn.Linear(4, 3, bias=False)  # another type is converted
    layer.load_state_dict({"weight": found["x"]})
    assert layer.weight.dtype is mt.float32
    assert layer.weight.equal(x.float())


@needs_torch
def test_files_are_exchanged_with_pytorch(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    x = mt.randn(3, 4).bfloat16()
    mt.save({"x": x}, tmp_path / "mine")
    theirs = load_file(tmp_path / "mine")["x"]
    assert theirs.dtype == torch.bfloat16
    assert np.array_equal(numbers(x), numbers(theirs))
    save_file({"x": theirs}, tmp_path / "theirs")
    found = mt.load(tmp_path / "theirs")["x"]
    assert found.dtype is mt.bfloat16
    assert found.equal(x)


def test_a_graph_names_the_type_and_counts_its_bytes() -> None:
    x = mt.ones(4, 8, dtype=mt.bfloat16)
    graph = trace(nn.Linear(8, 2).bfloat16(), x, values=1000)
    assert {v.dtype for v in graph.values.values()} == {"bfloat16"}
    given = next(v for v in graph.values.values() if v.kind == "input")
    assert (given.dtype, given.nbytes) == ("bfloat16", 64)
    assert packed(x._array)["dtype"] == "f4"


@needs_torch
@pytest.mark.parametrize("name", HALVES)
def test_random_numbers_are_pytorchs(name: str) -> None:
    import torch

    draws: list[Any] = [
        lambda t, d: t.rand(9, dtype=d),
        lambda t, d: t.randn(5, dtype=d),
        *(lambda t, d, n=n: t.randn(n, dtype=d) for n in (16, 17, 20, 33)),
        lambda t, d: t.randint(0, 200, (4,), dtype=d),
        lambda t, d: t.empty(9, dtype=d).uniform_(-1, 2),
        lambda t, d: t.empty(20, dtype=d).normal_(1, 2),
        lambda t, d: t.empty(9, dtype=d).exponential_(),
        lambda t, d: t.bernoulli(t.full((9,), 0.3, dtype=d)),
        lambda t, d: t.multinomial(t.tensor([0.1, 0.2, 0.7], dtype=d), 5, True),
        lambda t, d: t.empty(9, dtype=d).random_(),
        lambda t, d: t.nn.init.trunc_normal_(t.empty(20, dtype=d)),
        lambda t, d: t.nn.init.xavier_uniform_(t.empty(3, 4, dtype=d)),
        lambda t, d: t.nn.Linear(3, 2, dtype=d).weight,
    ]
    for draw in draws:
        mt.manual_seed(3)
        torch.manual_seed(3)
        for _ in range(2):  # the stream goes on at the same place
            mine, theirs = draw(mt, TYPES[name]), draw(torch, getattr(torch, name))
            step = 0 if mine.dtype is mt.int64 else STEP[name]
            np.testing.assert_allclose(numbers(mine), numbers(theirs), rtol=step, atol=step / 100)


# Ops


def apart(found: np.ndarray, wanted: np.ndarray, step: float) -> float:
    """The largest difference in steps of a type; of small numbers, of a quarter of the most."""
    if not found.size:
        return 0.0
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    if same.all():
        return 0.0
    size = np.abs(wanted[np.isfinite(wanted)])
    scale = np.maximum(np.abs(wanted), size.max(initial=0.0) / 4)
    with np.errstate(all="ignore"):
        return float(np.where(same, 0, np.abs(found - wanted) / (scale * step)).max())


def results(function: Any, args: Any, kwargs: Any, leaves: Any) -> tuple[list[Any], list[Any]]:
    """The results of a call, and the gradients of its arguments."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = function(*args, **kwargs)
    outs, noise = leaves([made]), np.random.RandomState(3)
    for out in outs:
        if out.requires_grad:
            dy = noise.standard_normal(tuple(out.shape)).astype(BF16).astype(np.float64)
            given = wrap(dy) if isinstance(out, Tensor) else torch.from_numpy(dy)
            out.backward(given.to(out.dtype), retain_graph=True)
    return outs, [x.grad for x in leaves([args, kwargs])]


def torch_leaves(x: Any) -> list[Any]:
    import torch

    if isinstance(x, torch.Tensor):
        return [x]
    x = list(x.values()) if isinstance(x, dict) else x
    return [t for y in x for t in torch_leaves(y)] if isinstance(x, list | tuple) else []


@needs_torch
@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("name", TESTED)
def test_ops_in_half_precision_equal_pytorch(name: str, kind: str) -> None:
    """Types are PyTorch's; numbers too, or they are about as near to the exact ones as its are."""
    op = OPS[name]
    theirs = oracle(op)
    if theirs is None or name in REFUSED:
        pytest.skip("PyTorch has no such op, or not in half precision")
    for args, kwargs in samples(op, HALVES[kind]):
        exact = [wrap(np.array(t._array)) for t in leaves([args, kwargs])]
        for t, given in zip(exact, leaves([args, kwargs]), strict=True):
            if given.is_floating_point():
                t._array = t._array.astype(np.float64)
            t._requires_grad = given.requires_grad
        exact_args, exact_kwargs = replaced([args, kwargs], iter(exact))
        other_args, other_kwargs = to_torch(args), to_torch(kwargs)
        mine = results(op.call, args, kwargs, leaves)
        try:
            other = results(theirs, other_args, other_kwargs, torch_leaves)
        except NotImplementedError:  # PyTorch has it for other types
            continue
        true = results(op.call, exact_args, exact_kwargs, leaves)
        for three in zip(mine, other, true, strict=True):
            for found, wanted, real in zip(*three, strict=True):
                if wanted is None:
                    continue
                assert found.dtype.name == str(wanted.dtype).removeprefix("torch.")
                assert tuple(found.shape) == tuple(wanted.shape)
                if not found.is_floating_point():
                    assert np.array_equal(numbers(found), numbers(wanted))
                    continue
                ours, its, right = numbers(found), numbers(wanted), numbers(real)
                if apart(ours, its, STEP[kind]) > 1:
                    off, allowed = (apart(x, right, STEP[kind]) for x in (ours, its))
                    assert off <= 6 + 3 * allowed, f"{name}{args}{kwargs}: {ours} {its} {right}"


def test_gradients_have_the_type_of_their_tensors() -> None:
    for name in sorted({*TESTED} - REFUSED):
        op = OPS[name]
        for args, kwargs in samples(op, BF16)[:2]:
            for out in leaves([op.call(*args, **kwargs)]):
                if out.requires_grad:
                    out.backward(mt.ones_like(out), retain_graph=True)
            for t in leaves([args, kwargs]):
                assert t.grad is None or (t.grad.dtype is t.dtype and t.grad.shape == t.shape), name


def test_an_op_keeps_its_arguments_and_results_and_not_copies_of_them_in_float32() -> None:
    x = mt.randn(8, 8).bfloat16().requires_grad_()
    y = (x * x).exp().softmax(1)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype is mt.bfloat16
    z = x.exp()
    node = z.grad_fn
    assert node is not None
    assert any(value is z._array for value in node._saved.values)
    x.detach().mul_(2)  # noticed, as the array that was saved is that of x
    w = (x.detach().requires_grad_() * 1.0) ** 3
    w.sum().backward()


def test_a_change_in_place_of_a_saved_tensor_is_noticed() -> None:
    x = mt.randn(4).bfloat16().requires_grad_() * 1
    y = x * x
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_second_derivatives_and_overflow_are_quiet() -> None:
    x = mt.tensor([0.5, 2.0]).bfloat16().requires_grad_()
    (dx,) = mt.autograd.grad((x**3).sum(), x, create_graph=True)
    (ddx,) = mt.autograd.grad(dx.sum(), x)
    assert dx.tolist() == [0.75, 12]
    assert ddx.tolist() == [3, 12]
    h = mt.tensor([60000.0]).half().requires_grad_()
    (h * 2 * 3).backward()
    assert h.grad is not None
    assert h.grad.item() == 6
    assert (h * 2).item() == math.inf


# Modules


def test_mixed_norms_take_float32_parameters() -> None:
    x = mt.randn(2, 4).bfloat16()
    y = F.layer_norm(x, (4,), mt.ones(4), mt.zeros(4))
    assert y.dtype is mt.bfloat16
    with pytest.raises(RuntimeError):
        F.layer_norm(x.float(), (4,), mt.ones(4).bfloat16())


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)))


@pytest.mark.parametrize("kind", HALVES)
def test_a_model_trains_in_half_precision(kind: str) -> None:
    mt.manual_seed(0)
    model = Small().to(TYPES[kind])
    assert {p.dtype for p in model.parameters()} == {TYPES[kind]}
    tokens = mt.arange(11).repeat(2).reshape(2, 11)
    optimizer = optim.AdamW(model.parameters(), lr=0.01, eps=1e-4)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        logits = model(tokens)
        loss = F.cross_entropy(logits.reshape(-1, 11), tokens.roll(-1, 1).reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert loss.dtype is TYPES[kind]
    assert losses[-1] < 0.3 < 2 < losses[0]
    assert {p.dtype for p in model.parameters()} == {TYPES[kind]}
    for p in model.parameters():
        assert p.grad is not None
        assert p.grad.dtype is p.dtype
        assert optimizer.state[p]["exp_avg"].dtype is p.dtype


@needs_torch
@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", dict(lr=0.1)),
        ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
        ("Adam", dict(lr=0.01, weight_decay=0.1, eps=1e-4)),
        ("AdamW", dict(lr=0.01, eps=1e-4)),
        ("RMSprop", dict(lr=0.01, eps=1e-4)),
        ("Adagrad", dict(lr=0.1, eps=1e-4)),
    ],
)
def test_optimizers_take_pytorchs_steps(kind: str, name: str, settings: dict[str, Any]) -> None:
    import torch

    start = Rand(HALVES[kind])(4, 5)
    mine, theirs = (
        nn.Parameter(start.detach().clone()),
        torch.nn.Parameter(to_torch(start).detach()),
    )
    first = getattr(optim, name)([mine], **settings)
    second = getattr(torch.optim, name)([theirs], **settings)
    noise = np.random.RandomState(1)
    for _ in range(4):
        grad: Tensor = wrap(noise.standard_normal((4, 5)).astype(HALVES[kind]))
        mine.grad, theirs.grad = grad, to_torch(grad)
        first.step()
        second.step()
    assert mine.dtype is TYPES[kind]
    # Here a step is computed in float32 and rounded once, there each of its operations is.
    np.testing.assert_allclose(numbers(mine), numbers(theirs), rtol=0, atol=4 * STEP[kind])


@needs_torch
def test_a_module_computes_what_pytorchs_does() -> None:
    import torch

    mt.manual_seed(0)
    torch.manual_seed(0)
    mine = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0).bfloat16()
    theirs = torch.nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0).bfloat16()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert np.array_equal(numbers(a), numbers(b))
    x: Tensor = mt.randn(5, 2, 16).bfloat16()
    y, z = mine(x), theirs(to_torch(x))
    assert y.dtype is mt.bfloat16
    assert apart(numbers(y), numbers(z), STEP["bfloat16"]) < 8
