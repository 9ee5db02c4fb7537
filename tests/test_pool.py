"""Pooling and interpolation: values written in, options and sizes against PyTorch's, threads."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
import minitensor.nn.functional as F

noise = np.random.RandomState(0)
nan, inf = math.nan, math.inf


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    return mt.from_numpy(noise.standard_normal(shape).astype(dtype))


def test_max_pooling_takes_the_largest_of_each_window() -> None:
    x = mt.tensor([[[3.0, 1.0, 4.0, 1.0, 5.0]]])
    assert F.max_pool1d(x, 2).tolist() == [[[3, 4]]]
    assert F.max_pool1d(x, 2, 1).tolist() == [[[3, 4, 4, 5]]]
    assert F.max_pool1d(x, 2, ceil_mode=True).tolist() == [[[3, 4, 5]]]
    assert F.max_pool1d(-x, 3, 2, 1).tolist() == [[[-1, -1, -1]]]  # the padding is never largest
    assert F.max_pool1d(x, 2, 1, dilation=2).tolist() == [[[4, 1, 5]]]
    y, places = F.max_pool1d(x, 3, 2, return_indices=True)
    assert y.tolist() == [[[4, 5]]]
    assert places.tolist() == [[[2, 4]]]
    image = mt.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [9.0, 8.0, 7.0]]])
    y, places = F.max_pool2d(image, 2, 1, return_indices=True)
    assert y.tolist() == [[[5, 6], [9, 8]]]
    assert places.tolist() == [[[4, 5], [6, 7]]]


def test_max_pooling_of_equals_and_of_what_is_no_number() -> None:
    x = mt.tensor([[[2.0, 2.0, nan, 1.0, -inf, -inf]]], requires_grad=True)
    y, places = F.max_pool1d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y.detach().numpy(), [[[2, nan, -inf]]])
    assert places.tolist() == [[[0, 2, 4]]]
    y.backward(mt.tensor([[[1.0, 2.0, 3.0]]]))
    assert x.grad.tolist() == [[[1, 0, 2, 0, 3, 0]]]


def test_a_mean_counts_the_padding_if_it_is_told_to() -> None:
    x = mt.tensor([[3.0, 6.0, 9.0, 12.0]])
    assert F.avg_pool1d(x, 2).tolist() == [[4.5, 10.5]]
    assert F.avg_pool1d(x, 2, 2, 1).tolist() == [[1.5, 7.5, 6]]
    assert F.avg_pool1d(x, 2, 2, 1, count_include_pad=False).tolist() == [[3, 7.5, 12]]
    assert F.avg_pool1d(x, 3, 2, ceil_mode=True).tolist() == [[6, 10.5]]
    assert F.avg_pool2d(x.reshape(1, 2, 2), 2, divisor_override=3).tolist() == [[[10]]]


def test_adaptive_windows_share_a_dimension_evenly() -> None:
    x = mt.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]], requires_grad=True)
    y = F.adaptive_avg_pool1d(x, 2)
    np.testing.assert_allclose(y.detach().numpy(), [[2, 4]], rtol=1e-6)  # of 3, the middle in both
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[1 / 3, 1 / 3, 2 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    assert F.adaptive_max_pool1d(x, 2).tolist() == [[3, 5]]
    assert F.adaptive_avg_pool2d(x.reshape(1, 1, 1, 5), (None, 1)).tolist() == [[[[3]]]]


def test_interpolation_reads_between_the_numbers() -> None:
    x = mt.tensor([[[0.0, 4.0]]])
    assert F.interpolate(x, 4).tolist() == [[[0, 0, 4, 4]]]
    assert F.interpolate(x, scale_factor=2, mode="linear").tolist() == [[[0, 1, 3, 4]]]
    aligned = F.interpolate(x, 5, mode="linear", align_corners=True)
    assert aligned.tolist() == [[[0, 1, 2, 3, 4]]]
    assert F.interpolate(x, 1, mode="area").tolist() == [[[2]]]
    image = x.reshape(1, 1, 1, 2)
    assert F.interpolate(image, (2, 4), mode="bilinear").tolist() == [[[[0, 1, 3, 4]] * 2]]
    bytes_ = mt.tensor([[[7, 200]]], dtype=mt.uint8)
    assert F.interpolate(bytes_, 4).tolist() == [[[7, 7, 200, 200]]]
    with pytest.raises(NotImplementedError, match="antialias is not there"):
        F.interpolate(image, 2, mode="bilinear", antialias=True)


def test_windows_of_images_become_columns_and_back() -> None:
    x = mt.arange(1.0, 7.0).reshape(1, 2, 3)
    columns = F.unfold(x, 2)
    assert columns.tolist() == [[1, 2], [2, 3], [4, 5], [5, 6]]
    assert F.fold(columns, (2, 3), 2).tolist() == [[[1, 4, 3], [4, 10, 6]]]
    assert F.unfold(x.unsqueeze(0), (1, 2), 1, (0, 1), 2).shape == (1, 2, 2)
    for arguments, error in (
        ((x, 0), RuntimeError),
        ((x, 4), RuntimeError),
        ((x[0], 1), IndexError),
    ):
        with pytest.raises(error):
            F.unfold(*arguments)
    with pytest.raises(RuntimeError, match=r"make columns \(channels \* 4, 2\)"):
        F.fold(columns[:3], (2, 3), 2)


def test_groups_of_channels_have_mean_0_and_variance_1() -> None:
    x = mt.tensor([[[1.0, 3.0], [5.0, 7.0], [2.0, 2.0], [4.0, 4.0]]])
    y = F.group_norm(x, 2, eps=0.0)
    a, b = 3 / 5**0.5, 1 / 5**0.5
    expected: Any = [[[-a, -b], [b, a], [-1, -1], [1, 1]]]
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6)


def test_the_same_bits_on_any_number_of_threads() -> None:
    x = normal(8, 16, 30, 20)
    threads = mt.get_num_threads()
    found: list[list[Any]] = []
    try:
        for count in (1, threads):
            mt.set_num_threads(count)
            found.append([])
            for function in (
                lambda x: F.max_pool2d(x, 3, 1, 1),
                lambda x: F.avg_pool2d(x, 3, 1, 1),
                lambda x: F.interpolate(x, (40, 50), mode="bicubic"),
            ):
                given = x.clone().requires_grad_()
                y = function(given)
                y.backward(y.detach())
                found[-1] += [y.detach().numpy(), given.grad.numpy()]
    finally:
        mt.set_num_threads(threads)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def compare(name: str, x: Any, *arguments: Any, **options: Any) -> None:
    import torch

    other = torch.tensor(x.numpy(), requires_grad=True)
    x = x.clone().requires_grad_()
    y = getattr(F, name)(x, *arguments, **options)
    theirs = getattr(torch.nn.functional, name)(other, *arguments, **options)
    if isinstance(y, tuple):
        np.testing.assert_array_equal(y[1].numpy(), theirs[1].numpy())
        y, theirs = y[0], theirs[0]
    y.backward(1 + y.detach())
    theirs.backward(1 + theirs.detach())
    near: Any = dict(rtol=1e-9, atol=1e-9) if x.dtype == mt.float64 else dict(rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(y.detach().numpy(), theirs.detach().numpy(), **near)
    np.testing.assert_allclose(x.grad.numpy(), other.grad.numpy(), **near)


@needs_torch
@pytest.mark.parametrize("dims", [1, 2])
def test_every_option_of_pooling_gives_pytorchs_numbers(dims: int) -> None:
    x = normal(2, 3, *(9, 8)[-dims:], dtype=np.float64)
    grid = [*itertools.product((1, 2, 3, 4), (None, 1, 2, 3), (0, 1, 2), (False, True), (1, 2))]
    done = 0
    for size, stride, padding, ceil, number in grid[::3]:
        if padding > size // 2:
            continue
        compare(
            f"max_pool{dims}d", x, size, stride, padding, number,
            ceil_mode=ceil, return_indices=True,
        )  # fmt: skip
        override = dict(divisor_override=5) if dims == 2 and number == 2 and size == 3 else {}
        compare(f"avg_pool{dims}d", x, size, stride, padding, ceil, number == 1, **override)
        done += 1
    for size in (1, 2, 5, 8, 11):
        compare(f"adaptive_avg_pool{dims}d", x, size)
        compare(f"adaptive_max_pool{dims}d", x, size, return_indices=True)
    assert done == 48


@needs_torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_mode_of_interpolation_gives_pytorchs_numbers(dtype: Any) -> None:
    sizes = np.random.RandomState(5)
    for mode, dims in (
        ("nearest", 1), ("nearest", 2), ("nearest-exact", 2), ("area", 2), ("linear", 1),
        ("bilinear", 2), ("bicubic", 2), ("trilinear", 3),
    ):  # fmt: skip
        for align in (None, False, True) if mode.endswith(("linear", "cubic")) else (None,):
            for scaled in (False, True):
                x = normal(1, 2, *map(int, sizes.randint(2, 12, dims)), dtype=dtype)
                options: Any = dict(mode=mode, align_corners=align)
                if scaled:
                    options["scale_factor"] = tuple(map(float, sizes.uniform(0.5, 3, dims)))
                    options["recompute_scale_factor"] = mode == "nearest"
                else:
                    options["size"] = tuple(map(int, sizes.randint(1, 20, dims)))
                compare("interpolate", x, **options)
