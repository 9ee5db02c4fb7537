"""Convolution: values written in, options against PyTorch's, parts of a batch, threads."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import graph, nn
from minitensor.kernels import conv as kernel

noise = np.random.RandomState(0)


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    return mt.from_numpy(noise.standard_normal(shape).astype(dtype))


def test_conv1d_slides_the_weight_over_the_input() -> None:
    x, w = mt.tensor([[[1.0, 2.0, 3.0, 4.0]]]), mt.tensor([[[1.0, 10.0]]])
    assert F.conv1d(x, w).tolist() == [[[21, 32, 43]]]
    assert F.conv1d(x, w, mt.tensor([0.5])).tolist() == [[[21.5, 32.5, 43.5]]]
    assert F.conv1d(x, w, stride=2).tolist() == [[[21, 43]]]
    assert F.conv1d(x, w, padding=1).tolist() == [[[10, 21, 32, 43, 4]]]
    assert F.conv1d(x, w, dilation=2).tolist() == [[[31, 42]]]
    assert F.conv1d(x, w, padding="same").tolist() == [[[21, 32, 43, 4]]]  # the odd one is last
    assert F.conv1d(x[0], w).tolist() == [[21, 32, 43]]


def test_conv2d_sums_over_channels_and_window() -> None:
    x = mt.arange(18.0).reshape(1, 2, 3, 3)
    w = mt.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]])
    assert F.conv2d(x, w).tolist() == [[[[14, 17], [23, 26]]]]
    assert F.conv2d(x, w, padding=(1, 0)).shape == (1, 1, 4, 2)
    grouped = F.conv2d(x, w.transpose(0, 1), groups=2)
    assert grouped.tolist() == [[[[4, 6], [10, 12]], [[10, 11], [13, 14]]]]


def test_a_patch_is_a_linear_map_of_its_numbers() -> None:
    x, w, b = normal(2, 3, 8, 12), normal(5, 3, 4, 4), normal(5)
    patches = x.reshape(2, 3, 2, 4, 3, 4).permute(0, 2, 4, 1, 3, 5).reshape(2, 6, 48)
    linear = F.linear(patches, w.reshape(5, 48), b).transpose(1, 2).reshape(2, 5, 2, 3)
    np.testing.assert_allclose(F.conv2d(x, w, b, 4).numpy(), linear.numpy(), rtol=1e-5, atol=1e-5)


def test_gradients_of_a_convolution() -> None:
    x = mt.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    w = mt.tensor([[[1.0, 10.0]]], requires_grad=True)
    b = mt.tensor([0.0], requires_grad=True)
    F.conv1d(x, w, b).backward(mt.tensor([[[1.0, 100.0]]]))
    assert x.grad.tolist() == [[[1, 110, 1000]]]
    assert w.grad.tolist() == [[[201, 302]]]
    assert b.grad.tolist() == [101]


def results(x: Any, w: Any, b: Any, **options: Any) -> list[np.ndarray]:
    for t in (x, w, b):
        t.grad = None
        t.requires_grad_()
    y = (F.conv1d if w.dim() == 3 else F.conv2d)(x, w, b, **options)
    y.backward(mt.ones_like(y) + y.detach())
    return [y.detach().numpy(), *(t.grad.numpy() for t in (x, w, b))]


def test_a_batch_in_parts_gives_the_numbers_of_the_whole(monkeypatch: Any) -> None:
    for shapes, options in (
        (((5, 4, 6, 7), (6, 2, 3, 2), (6,)), dict(groups=2, padding=1, stride=2)),
        (((5, 3, 9), (4, 3, 1), (4,)), {}),
    ):
        arguments = [normal(*shape, dtype=np.float64) for shape in shapes]
        whole = results(*arguments, **options)
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "_BLOCK", 4)
            patch.setattr(kernel, "_SCATTERED", 30)
            parts = results(*arguments, **options)
        for one, other in zip(whole, parts, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_every_way_through_the_kernels_is_the_product_with_all_columns() -> None:
    for shapes, options in (
        (((3, 8, 600), (16, 2, 3)), dict(groups=4)),  # rows in blocks, four filters for each group
        (((2, 8, 600), (16, 1, 4)), dict(groups=8, stride=2)),  # two filters: a long row in pieces
        (((2, 3, 9, 5), (3, 1, 3, 3)), dict(groups=3, padding=2, dilation=2)),  # less than a vector
        (((1, 4, 12, 500), (5, 4, 3, 2)), dict(padding=(1, 4))),  # parts of a row
        (((2, 3, 12, 15), (4, 3, 4, 3)), dict(stride=(4, 3))),  # patches
        (((2, 4, 9, 9), (6, 4, 1, 2)), dict(stride=3, padding=1)),  # places that no window has
    ):
        x, w = normal(*shapes[0]), normal(*shapes[1])
        b = normal(len(w))
        found = results(x, w, b, **options)
        wide = [t.detach().double().requires_grad_() for t in (x, w, b)]
        y = by_columns(*wide, **options).reshape(found[0].shape)
        y.backward(mt.from_numpy(found[0]).double() + 1)
        for one, other in zip(found, [y.detach(), *(t.grad for t in wide)], strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-3)


def by_columns(x: Any, w: Any, b: Any, groups: int = 1, **options: Any) -> Any:
    if w.dim() == 3:
        x, w = x.unsqueeze(2), w.unsqueeze(2)
        options = {k: (int(k != "padding"), n) for k, n in options.items()}
    options = {"padding": 0, **options}
    columns = F.unfold(x, w.shape[2:], **options)
    columns = columns.reshape(len(x), groups, -1, columns.size(-1))
    return (w.reshape(groups, len(w) // groups, -1) @ columns).flatten(1, 2) + b[:, None]


def test_the_same_bits_on_any_number_of_threads() -> None:
    arguments = normal(3, 8, 40, 30), normal(16, 4, 3, 3), normal(16)
    threads = mt.get_num_threads()
    try:
        found = []
        for count in (1, threads):
            mt.set_num_threads(count)
            found.append(results(*arguments, padding=1, groups=2))
    finally:
        mt.set_num_threads(threads)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_half_is_computed_in_float32() -> None:
    x, w = mt.full((1, 1, 3000), 1.0, dtype=mt.float16), mt.ones(1, 1, 3000, dtype=mt.float16)
    y = F.conv1d(x, w)
    assert y.dtype == mt.float16
    assert y.item() == 3000


def test_nothing_is_kept_for_a_gradient_that_is_not_asked_for() -> None:
    x, w = normal(1, 2, 5), normal(3, 2, 3).requires_grad_()
    F.conv1d(x, w).sum().backward()
    assert x.grad is None
    assert w.grad.shape == (3, 2, 3)


def test_a_layer_refuses_settings_that_do_not_fit() -> None:
    for arguments, options, message in (
        ((3, 4, 3), dict(groups=2), "in_channels=3 must be divisible by groups=2"),
        ((4, 3, 3), dict(groups=2), "out_channels=3"),
        ((4, 4, 3), dict(groups=0), "groups must be a positive integer"),
        ((4, 4, 3), dict(padding="full"), "'same' or 'valid', not 'full'"),
        ((4, 4, 3), dict(padding="same", stride=2), "strided"),
        ((4, 4, 3), dict(padding_mode="mirror"), "padding_mode must be one of zeros"),
    ):
        with pytest.raises(ValueError, match=message):
            nn.Conv2d(*arguments, **options)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"conv2d: .* to have 3 channels, but got 4"):
        nn.Conv2d(3, 4, 3)(mt.ones(2, 4, 5, 5))


@needs_torch
@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize("dims", [1, 2])
def test_every_option_gives_pytorchs_numbers(dims: int) -> None:
    import torch

    grid = itertools.product(
        (1, 2, 3), (1, 2, 3), (0, 1, 2, "same"), (1, 2), (1, 2, 4), (True, False)
    )
    chosen = [case for case in grid if case[2] != "same" or case[1] == 1][::7]  # meets all pairs
    for kernel_size, stride, padding, dilation, groups, batched in chosen:
        size = (7, 6)[-dims:]
        x = normal(*([2] if batched else []), 4, *size, dtype=np.float64)
        w = normal(8, 4 // groups, *[kernel_size] * dims, dtype=np.float64)
        b = normal(8, dtype=np.float64)
        options: Any = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
        ours = results(x, w, b, **options)
        theirs = [torch.tensor(t.detach().numpy(), requires_grad=True) for t in (x, w, b)]
        y = getattr(torch, f"conv{dims}d")(*theirs, **options)
        y.backward(1 + y.detach())
        for one, other in zip(ours, [y.detach(), *(t.grad for t in theirs)], strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-9, atol=1e-9)
    assert len(chosen) == 52


class Stem(nn.Module):
    """Two convolutions over time, as in front of a Transformer that hears."""

    def __init__(self, n_mels: int = 10, n_state: int = 12) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, n_state, 3, padding=1)
        self.conv2 = nn.Conv1d(n_state, n_state, 3, stride=2, padding=1)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        y: mt.Tensor = self.conv2(F.gelu(self.conv1(x))).transpose(1, 2)
        return y


def test_the_graph_names_the_axes_of_convolutions_and_counts_their_products() -> None:
    dims = {"x": "N M L", "n_mels": "M", "n_state": "E"}
    g = graph.trace(Stem(), mt.randn(2, 10, 30), dims=dims, backward=True)
    nodes = [n for n in g.nodes.values() if n.op == "conv1d"]
    assert [(g.values[n.outputs[0]].label, n.flops) for n in nodes] == [
        ("(N, E, L)", 2 * 2 * 12 * 30 * 10 * 3),
        ("(N, E, L/2)", 2 * 2 * 12 * 15 * 12 * 3),
        ("(N, E, L)", 2 * 2 * 2 * 12 * 15 * 12 * 3),  # backward: dx and dw, each as much
        ("(E, M, 3)", 2 * 2 * 12 * 30 * 10 * 3),  # of the first layer dw alone
    ]
