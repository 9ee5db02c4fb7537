"""Products of float32 rounded to bfloat16: the setting, and the numbers on any processor.

The instruction is used where there is one, and otherwise emulated; `sizes.py` compares both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from sizes import rounded
from test_matmul import close, layouts, uniform

import minitensor as mt
import minitensor.nn.functional as F
from minitensor.autograd import checkpoint
from minitensor.kernels import jit, simd
from minitensor.kernels.matmul import matmul
from minitensor.kernels.panels import Panels


@pytest.fixture
def medium(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The setting "medium" on a processor on which rounding is faster."""
    monkeypatch.setattr(simd, "BFLOAT16", True)
    mt.set_float32_matmul_precision("medium")
    yield
    mt.set_float32_matmul_precision("highest")


def at(precision: str, f: Callable[[], Any]) -> Any:
    """The result of a function with a setting."""
    before = mt.get_float32_matmul_precision()
    mt.set_float32_matmul_precision(precision)
    try:
        return f()
    finally:
        mt.set_float32_matmul_precision(before)


def test_the_setting_is_pytorchs() -> None:
    assert mt.get_float32_matmul_precision() == "highest"
    try:
        for precision in ("medium", "high", "medium", "medium"):
            mt.set_float32_matmul_precision(precision)
            assert mt.get_float32_matmul_precision() == precision
        with pytest.warns(UserWarning, match="low is not one of 'highest', 'high', or 'medium'"):
            mt.set_float32_matmul_precision("low")
        assert mt.get_float32_matmul_precision() == "medium"
        with pytest.raises(RuntimeError, match=r"expected a str, .* got int"):
            mt.set_float32_matmul_precision(3)  # type: ignore[arg-type]
    finally:
        mt.set_float32_matmul_precision("highest")


def test_only_medium_rounds_and_only_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = uniform(np.float32, 40, 64), uniform(np.float32, 64, 50, seed=1)
    exact = matmul(a, b)
    monkeypatch.setattr(simd, "BFLOAT16", False)
    assert at("medium", lambda: matmul(a, b)).tobytes() == exact.tobytes()
    monkeypatch.setattr(simd, "BFLOAT16", True)
    assert at("high", lambda: matmul(a, b)).tobytes() == exact.tobytes()
    found = at("medium", lambda: matmul(a, b))
    assert np.abs(found - exact).max() > 1e-3
    close(found, rounded(a), rounded(b))
    assert matmul(a, b).tobytes() == exact.tobytes()


@pytest.mark.parametrize("k", [1, 2, 31, 64, 65, 511, 512, 513, 1025])
def test_operands_of_all_layouts_are_rounded_and_sums_are_float32(k: int, medium: None) -> None:
    a, b, bias = uniform(np.float32, 37, k), uniform(np.float32, k, 70), uniform(np.float32, 70)
    before = uniform(np.float32, 37, 70)
    wanted = rounded(a), rounded(b)
    first = matmul(a, b).tobytes()
    for x in layouts(a):
        for y in layouts(b):
            found = matmul(x, y)
            close(found, *wanted)
            assert found.tobytes() == first
    close(matmul(a, b, bias=bias), *wanted, bias)
    out = before.copy()
    close(matmul(a, b, out, accumulate=True), *wanted, before)


def test_sums_of_rows_are_those_of_numbers_not_rounded(medium: None) -> None:
    for k in (7, 300, 1200):
        a, b, sums = uniform(np.float32, k, 50), uniform(np.float32, k, 64), np.empty(50, "f")
        close(matmul(a.T, b, row_sums=sums), rounded(a).T, rounded(b))
        assert np.abs(sums - a.sum(0, dtype=np.float64)).max() <= (k + 2) * 2.0**-24


def test_the_number_of_threads_does_not_matter(medium: None) -> None:
    threads = jit.get_num_threads()
    a, b = uniform(np.float32, 3, 133, 700), uniform(np.float32, 700, 301)
    try:
        found = []
        for count in range(1, threads + 1):
            jit.set_num_threads(count)
            found.append(matmul(a, b).tobytes() + matmul(a[0], b).tobytes())
    finally:
        jit.set_num_threads(threads)
    assert len(set(found)) == 1
    assert matmul(a[0, 37:90], b[:, 5:77]).tobytes() == matmul(a[0], b)[37:90, 5:77].tobytes()


def test_small_products_and_float64_are_not_rounded(medium: None) -> None:
    for dtype, m, n in ((np.float32, 31, 100), (np.float32, 100, 1), (np.float64, 100, 100)):
        a, b = uniform(dtype, m, 64), uniform(dtype, 64, n)
        assert matmul(a, b).tobytes() == at("highest", partial(matmul, a, b)).tobytes()


def test_a_weight_packed_beforehand_is_of_bfloat16_and_half_as_large(medium: None) -> None:
    x, w = uniform(np.float32, 40, 301), uniform(np.float32, 65, 301)
    packed, plain = Panels(w), at("highest", partial(Panels, w))
    assert packed.rounded
    assert packed.product(x).tobytes() == matmul(x, w.T).tobytes()
    close(packed.product(x[:1]), rounded(x[:1]), rounded(w).T)
    assert plain.product(x).tobytes() == at("highest", partial(matmul, x, w.T)).tobytes()
    assert packed.nbytes == plain.nbytes * 151 // 301
    assert not Panels(w.astype(np.float64)).rounded


def test_infinity_nan_and_the_smallest_numbers(medium: None) -> None:
    a, b = np.zeros((32, 40), "f"), np.eye(40, dtype="f")
    a[0, 3], a[1, 4], a[2, 5] = np.inf, -np.inf, np.nan
    a[3, 6] = np.array(0x7F800001, np.uint32).view("f")  # NaN in the bits that rounding drops
    a[4, 7], a[5, 8] = 3.4e38, 1e-40  # rounds to infinity; below the normal numbers, so to 0
    a[6, 9], a[7, 10] = 2.0**-126, -0.0
    found = matmul(a, b)
    nan = np.isnan(found)
    assert nan[0].sum() == nan[1].sum() == 39  # inf * 0
    assert found[0, 3] == np.inf
    assert found[1, 4] == -np.inf
    assert nan[2].all()
    assert nan[3].all()
    assert found[4, 7] == np.inf
    assert found[5, 8] == 0
    assert found[6, 9] == 2.0**-126
    assert found[8:].tobytes() == bytes(found[8:].nbytes)


def test_halves_round_to_even(medium: None) -> None:
    ulp = 2.0**-7
    a = np.full((32, 1), 1, "f")
    a[:4, 0] = [1 + ulp / 2, 1 + 3 * ulp / 2, 1 + ulp / 2 + 2.0**-20, -1 - ulp / 2]
    found = matmul(a, np.ones((1, 32), "f"))[:4, 0]
    assert found.tolist() == [1, 1 + 2 * ulp, 1 + ulp, -1]


def gradient(x: mt.Tensor) -> bytes:
    """The bytes of a gradient."""
    assert x.grad is not None
    return x.grad.numpy().tobytes()


def gradients(f: Callable[..., mt.Tensor], *arrays: np.ndarray) -> list[np.ndarray]:
    """The result of a function and its gradients by all arguments."""
    tensors = [mt.tensor(x, requires_grad=True) for x in arrays]
    y = f(*tensors)
    (y * mt.from_numpy(uniform(np.float32, *y.shape, seed=9))).sum().backward()
    return [y.numpy(force=True), *(t.grad.numpy() for t in tensors)]


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (lambda a, b: a @ b, [(48, 64), (64, 40)]),
        (lambda a, b: a @ b, [(2, 48, 64), (2, 64, 40)]),
        (F.linear, [(2, 48, 64), (96, 64), (96,)]),
        (lambda x, w, b: F.linear_activation(x, w, b, "gelu"), [(2, 48, 64), (96, 64), (96,)]),
        (F.scaled_dot_product_attention, [(2, 2, 70, 64)] * 3),
        (partial(F.scaled_dot_product_attention, is_causal=True), [(2, 65, 64)] * 3),
        (lambda x, w: F.conv2d(x, w, padding=1), [(2, 32, 9, 9), (32, 32, 3, 3)]),
    ],
)
def test_results_and_gradients_are_near_those_of_float32(f: Any, shapes: Any, medium: None) -> None:
    arrays = [uniform(np.float32, *shape, seed=i) for i, shape in enumerate(shapes)]
    found = gradients(f, *arrays)
    exact = at("highest", lambda: gradients(f, *arrays))
    for number, (x, y) in enumerate(zip(found, exact, strict=True)):
        error, size = np.abs(x - y).max(), np.abs(y).max()
        assert error <= 0.02 * size, number
        assert error > 0 or y.ndim == 1, number  # rounded, but not the gradient of a bias


def test_autocast_rounds_in_its_block_and_in_the_backward_pass_of_what_ran_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simd, "BFLOAT16", True)
    x, w = mt.randn(40, 64), mt.randn(48, 64, requires_grad=True)

    def run(block: Any = None) -> tuple[bytes, bytes]:
        w.grad = None
        y = block(F.linear)(x, w) if block else F.linear(x, w)
        y.square().sum().backward()
        return y.numpy(force=True).tobytes(), gradient(w)

    exact, medium = run(), at("medium", run)
    assert exact[0] != medium[0]
    assert exact[1] != medium[1]
    assert run(mt.autocast("cpu")) == medium
    assert run(mt.amp.autocast("cpu", mt.bfloat16)) == medium
    assert run() == exact
    assert run(mt.autocast("cpu", enabled=False)) == exact
    assert run(mt.autocast("cpu", mt.float16)) == exact
    with mt.autocast("cpu"), mt.autocast("cpu"):
        assert mt.is_autocast_enabled("cpu")
        assert not mt.is_autocast_enabled()
        assert run() == medium
        with mt.autocast("cpu", enabled=False):
            assert not mt.is_autocast_enabled("cpu")
            assert run() == exact
        assert F.linear(x, w).dtype == mt.float32
    assert not mt.is_autocast_enabled("cpu")


def test_a_checkpoint_runs_again_as_it_ran_in_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simd, "BFLOAT16", True)
    x, w = mt.randn(40, 64), mt.randn(64, 64, requires_grad=True)
    grads = []
    for again in (False, True):
        w.grad = None
        with mt.autocast("cpu"):
            f = lambda a: F.linear(F.linear(a, w).relu(), w)  # noqa: E731
            y = checkpoint(f, x, use_reentrant=False) if again else f(x)
        y.sum().backward()
        grads.append(gradient(w))
    assert grads[0] == grads[1]


def test_pytorchs_way_of_training_with_autocast_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with mt.autocast(device_type="cpu", dtype=mt.bfloat16):
            loss = mt.nn.Linear(40, 40)(mt.ones(40, 40)).sum()
        loss.backward()
