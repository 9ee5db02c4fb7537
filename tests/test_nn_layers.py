"""Layers, activations and losses: same seed, values, gradients, state and repr as PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from twins import assert_same, assert_same_state, twins

import minitensor
from minitensor import nn
from minitensor.core import wrap

noise = np.random.RandomState(0)


def normal(*shape: int) -> np.ndarray:
    return noise.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return noise.uniform(0.05, 0.95, shape).astype(np.float32)


def indices(high: int, *shape: int) -> np.ndarray:
    return noise.randint(0, high, shape)


# How to make each, and arrays to call it with.
LAYERS: dict[str, tuple[Any, tuple[np.ndarray, ...]]] = {
    "Linear": (lambda nn: nn.Linear(4, 5), (normal(2, 3, 4),)),
    "Linear of a vector": (lambda nn: nn.Linear(4, 5), (normal(4),)),
    "Linear without bias": (lambda nn: nn.Linear(4, 5, bias=False), (normal(2, 4),)),
    "Conv1d": (lambda nn: nn.Conv1d(3, 4, 3, 2, 1), (normal(2, 3, 7),)),
    "Conv1d, same length": (
        lambda nn: nn.Conv1d(4, 6, 4, padding="same", dilation=2, groups=2, bias=False),
        (normal(4, 9),),
    ),
    "Conv2d": (lambda nn: nn.Conv2d(3, 4, (3, 2), padding=1), (normal(2, 3, 5, 6),)),
    "Conv2d of patches": (lambda nn: nn.Conv2d(3, 8, 4, stride=4), (normal(2, 3, 8, 12),)),
    "Conv2d of each channel": (
        lambda nn: nn.Conv2d(3, 6, 3, groups=3, padding="valid"),
        (normal(2, 3, 5, 6),),
    ),
    "Conv2d, reflected": (
        lambda nn: nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"),
        (normal(2, 2, 5, 6),),
    ),
    "Conv2d, replicated, same size": (
        lambda nn: nn.Conv2d(2, 3, (2, 3), padding="same", padding_mode="replicate"),
        (normal(2, 2, 5, 6),),
    ),
    "Conv1d, circular": (
        lambda nn: nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"),
        (normal(2, 2, 5),),
    ),
    "Embedding": (lambda nn: nn.Embedding(7, 3), (indices(7, 2, 5),)),
    "Embedding with padding": (
        lambda nn: nn.Embedding(7, 3, padding_idx=-2),
        (np.array([[5, 1], [5, 5]]),),
    ),
    "Identity": (lambda nn: nn.Identity(1, a=2), (normal(2, 3),)),
    "Flatten": (lambda nn: nn.Flatten(), (normal(2, 3, 4),)),
    "Flatten some": (lambda nn: nn.Flatten(0, 1), (normal(2, 3, 4),)),
    "Unflatten": (lambda nn: nn.Unflatten(1, (2, 3)), (normal(4, 6),)),
    "LayerNorm": (lambda nn: nn.LayerNorm(6), (normal(2, 3, 6),)),
    "LayerNorm of two dimensions": (
        lambda nn: nn.LayerNorm([3, 4], eps=0.1),
        (normal(2, 3, 4),),
    ),
    "LayerNorm without bias": (lambda nn: nn.LayerNorm(6, bias=False), (normal(2, 6),)),
    "LayerNorm without affine": (
        lambda nn: nn.LayerNorm(6, elementwise_affine=False),
        (normal(2, 6),),
    ),
    "RMSNorm": (lambda nn: nn.RMSNorm(6), (normal(2, 3, 6),)),
    "RMSNorm with eps": (lambda nn: nn.RMSNorm((3, 6), eps=0.1), (normal(2, 3, 6),)),
    "RMSNorm without affine": (
        lambda nn: nn.RMSNorm(6, elementwise_affine=False),
        (normal(2, 6),),
    ),
    "BatchNorm1d": (lambda nn: nn.BatchNorm1d(4), (normal(6, 4),)),
    "BatchNorm1d of sequences": (lambda nn: nn.BatchNorm1d(4, eps=0.1), (normal(3, 4, 5),)),
    "BatchNorm1d, plain average": (lambda nn: nn.BatchNorm1d(4, momentum=None), (normal(6, 4),)),
    "BatchNorm1d without affine": (lambda nn: nn.BatchNorm1d(4, affine=False), (normal(6, 4),)),
    "BatchNorm1d without bias": (lambda nn: nn.BatchNorm1d(4, bias=False), (normal(6, 4),)),
    "BatchNorm1d without statistics": (
        lambda nn: nn.BatchNorm1d(4, track_running_stats=False),
        (normal(6, 4),),
    ),
    "BatchNorm2d": (lambda nn: nn.BatchNorm2d(3), (normal(2, 3, 4, 5),)),
    "BatchNorm2d without statistics": (
        lambda nn: nn.BatchNorm2d(3, track_running_stats=False, affine=False),
        (normal(2, 3, 4, 5),),
    ),
    "GroupNorm": (lambda nn: nn.GroupNorm(2, 4), (normal(3, 4, 5),)),
    "GroupNorm of vectors": (
        lambda nn: nn.GroupNorm(3, 6, eps=0.1, bias=False),
        (normal(3, 6),),
    ),
    "GroupNorm without affine": (
        lambda nn: nn.GroupNorm(4, 4, affine=False),
        (normal(2, 4, 3, 2),),
    ),
    "MaxPool1d": (lambda nn: nn.MaxPool1d(3, 2, 1), (normal(2, 3, 8),)),
    "MaxPool2d": (lambda nn: nn.MaxPool2d(2), (normal(2, 3, 6, 5),)),
    "MaxPool2d, all settings": (
        lambda nn: nn.MaxPool2d((3, 2), (2, 1), 1, (1, 2), ceil_mode=True),
        (normal(3, 6, 5),),
    ),
    "AvgPool1d": (lambda nn: nn.AvgPool1d(3, 2, 1, count_include_pad=False), (normal(2, 3, 8),)),
    "AvgPool2d": (lambda nn: nn.AvgPool2d((3, 2), 2, 1, ceil_mode=True), (normal(2, 3, 6, 5),)),
    "AvgPool2d by a number": (
        lambda nn: nn.AvgPool2d(2, divisor_override=3),
        (normal(2, 3, 6, 5),),
    ),
    "AdaptiveAvgPool1d": (lambda nn: nn.AdaptiveAvgPool1d(3), (normal(2, 3, 8),)),
    "AdaptiveAvgPool2d": (lambda nn: nn.AdaptiveAvgPool2d((None, 2)), (normal(2, 3, 6, 5),)),
    "AdaptiveMaxPool1d": (lambda nn: nn.AdaptiveMaxPool1d(3), (normal(2, 3, 8),)),
    "AdaptiveMaxPool2d": (lambda nn: nn.AdaptiveMaxPool2d(1), (normal(2, 3, 6, 5),)),
    "Upsample": (lambda nn: nn.Upsample(scale_factor=2), (normal(2, 3, 4, 5),)),
    "Upsample, bilinear": (
        lambda nn: nn.Upsample((7, 3), mode="bilinear", align_corners=True),
        (normal(2, 3, 4, 5),),
    ),
    "Upsample, bicubic": (
        lambda nn: nn.Upsample(scale_factor=(1.5, 0.7), mode="bicubic"),
        (normal(1, 2, 4, 5),),
    ),
    "Unfold": (lambda nn: nn.Unfold((2, 3), 1, (1, 0), 2), (normal(2, 3, 4, 5),)),
    "Fold": (lambda nn: nn.Fold((4, 5), 2), (normal(2, 8, 12),)),
    "ZeroPad2d": (lambda nn: nn.ZeroPad2d((1, 0, 2, -1)), (normal(2, 3, 4, 5),)),
    "Dropout of nothing": (lambda nn: nn.Dropout(0.0), (normal(2, 3),)),
    "Dropout of all": (lambda nn: nn.Dropout(1.0), (normal(2, 3),)),
    "ReLU": (lambda nn: nn.ReLU(), (normal(2, 3),)),
    "ReLU6": (lambda nn: nn.ReLU6(), (4 * normal(4, 5),)),
    "GELU": (lambda nn: nn.GELU(), (normal(2, 3),)),
    "GELU by tanh": (lambda nn: nn.GELU("tanh"), (normal(2, 3),)),
    "SiLU": (lambda nn: nn.SiLU(), (normal(2, 3),)),
    "Mish": (lambda nn: nn.Mish(), (normal(2, 3),)),
    "SELU": (lambda nn: nn.SELU(), (normal(2, 3),)),
    "Tanh": (lambda nn: nn.Tanh(), (normal(2, 3),)),
    "Sigmoid": (lambda nn: nn.Sigmoid(), (normal(2, 3),)),
    "LogSigmoid": (lambda nn: nn.LogSigmoid(), (normal(2, 3),)),
    "Softmax": (lambda nn: nn.Softmax(-1), (normal(2, 3),)),
    "LogSoftmax": (lambda nn: nn.LogSoftmax(dim=0), (normal(2, 3),)),
    "ELU": (lambda nn: nn.ELU(0.7), (normal(2, 3),)),
    "LeakyReLU": (lambda nn: nn.LeakyReLU(0.2), (normal(2, 3),)),
    "GLU": (lambda nn: nn.GLU(), (normal(2, 6),)),
    "GLU along another": (lambda nn: nn.GLU(0), (normal(2, 6),)),
    "Softplus": (lambda nn: nn.Softplus(2.0, 3.0), (3 * normal(4, 3),)),
    "Hardtanh": (lambda nn: nn.Hardtanh(-0.5, 0.7), (normal(4, 3),)),
    "Hardsigmoid": (lambda nn: nn.Hardsigmoid(), (3 * normal(4, 5),)),
    "Hardswish": (lambda nn: nn.Hardswish(), (3 * normal(4, 5),)),
    "Softsign": (lambda nn: nn.Softsign(), (normal(2, 3),)),
    "Tanhshrink": (lambda nn: nn.Tanhshrink(), (normal(2, 3),)),
    "Hardshrink": (lambda nn: nn.Hardshrink(0.7), (normal(4, 3),)),
    "Softshrink": (lambda nn: nn.Softshrink(), (normal(4, 3),)),
    "Softmin": (lambda nn: nn.Softmin(-1), (normal(2, 3),)),
    "CELU": (lambda nn: nn.CELU(0.5), (normal(2, 3),)),
    "Threshold": (lambda nn: nn.Threshold(0.1, 20), (normal(4, 3),)),
    "CosineSimilarity": (lambda nn: nn.CosineSimilarity(), (normal(2, 3), normal(2, 3))),
    "PairwiseDistance": (lambda nn: nn.PairwiseDistance(1.0), (normal(2, 3), normal(2, 3))),
    "PReLU": (lambda nn: nn.PReLU(), (normal(4, 3),)),
    "PReLU by channel": (lambda nn: nn.PReLU(3, init=0.1), (normal(4, 3, 2),)),
    "CrossEntropyLoss": (
        lambda nn: nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1),
        (normal(6, 4), indices(4, 6)),
    ),
    "CrossEntropyLoss of probabilities": (
        lambda nn: nn.CrossEntropyLoss(reduction="sum"),
        (normal(6, 4), positive(6, 4)),
    ),
    "LinearCrossEntropyLoss": (
        lambda nn: nn.LinearCrossEntropyLoss(3, 4, bias=True, ignore_index=0, label_smoothing=0.1),
        (normal(6, 3), indices(4, 6)),
    ),
    "LinearCrossEntropyLoss of several scores": (
        lambda nn: nn.LinearCrossEntropyLoss(3, 4, out_features=(2, 5), bias=True),
        (normal(6, 3), indices(4, 6, 2, 5)),
    ),
    "LinearCrossEntropyLoss of probabilities": (
        lambda nn: nn.LinearCrossEntropyLoss(3, 4, reduction="sum"),
        (normal(6, 3), positive(6, 4)),
    ),
    "NLLLoss": (lambda nn: nn.NLLLoss(ignore_index=1), (normal(6, 4), indices(4, 6))),
    "MSELoss": (lambda nn: nn.MSELoss(), (normal(2, 3), normal(2, 3))),
    "MSELoss, summed": (lambda nn: nn.MSELoss(reduction="sum"), (normal(2, 3), normal(2, 3))),
    "L1Loss": (lambda nn: nn.L1Loss(reduction="none"), (normal(2, 3), normal(2, 3))),
    "SmoothL1Loss": (lambda nn: nn.SmoothL1Loss(beta=0.5), (normal(4, 3), normal(4, 3))),
    "HuberLoss": (lambda nn: nn.HuberLoss(delta=0.5), (normal(4, 3), normal(4, 3))),
    "KLDivLoss": (
        lambda nn: nn.KLDivLoss(reduction="batchmean"),
        (normal(2, 3), positive(2, 3)),
    ),
    "KLDivLoss of logarithms": (
        lambda nn: nn.KLDivLoss(log_target=True, reduction="sum"),
        (normal(2, 3), normal(2, 3)),
    ),
    "CosineEmbeddingLoss": (
        lambda nn: nn.CosineEmbeddingLoss(margin=0.1),
        (normal(3, 4), normal(3, 4), np.array([1, -1, -1])),
    ),
    "TripletMarginLoss": (
        lambda nn: nn.TripletMarginLoss(swap=True, reduction="none"),
        (normal(3, 4), normal(3, 4), normal(3, 4)),
    ),
    "BCELoss": (lambda nn: nn.BCELoss(), (positive(2, 3), positive(2, 3))),
    "BCEWithLogitsLoss": (lambda nn: nn.BCEWithLogitsLoss(), (normal(2, 3), positive(2, 3))),
}


@needs_torch
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_pytorch(name: str, training: bool) -> None:
    make, args = LAYERS[name]
    mine, theirs = twins(make)
    mine.train(training)
    theirs.train(training)
    for _ in range(2):  # twice: some layers remember
        assert_same(mine, theirs, *args)
    assert_same_state(mine, theirs, 1e-5)


@needs_torch
@pytest.mark.parametrize(
    "name", sorted(LAYERS.keys() - {"Hardsigmoid"})
)  # PyTorch's 1/6 is a float32
def test_takes_a_dtype(name: str) -> None:
    make, args = LAYERS[name]
    mine, theirs = twins(make)
    mine.load_state_dict(theirs.state_dict())
    doubled = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in args]
    assert_same(mine.double(), theirs.double(), *doubled, tolerance=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        nn.ReLU,
        nn.ReLU6,
        nn.SiLU,
        nn.Mish,
        nn.SELU,
        nn.ELU,
        nn.CELU,
        nn.LeakyReLU,
        nn.Hardtanh,
        nn.Hardsigmoid,
        nn.Hardswish,
    ],
)
def test_in_place(make: Any) -> None:
    x = wrap(normal(2, 3))
    expected = make()(x.clone())
    assert "inplace=True" in repr(make(inplace=True))
    assert make(inplace=True)(x) is x
    np.testing.assert_allclose(x.numpy(), expected.numpy())


def test_dropout() -> None:
    x = minitensor.ones(200, 200)
    layer = nn.Dropout(0.25)
    y = layer(x)
    kept = y.numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.01
    np.testing.assert_allclose(y.numpy()[kept], 1 / 0.75, rtol=1e-6)
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy(), 1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        nn.Dropout(1.5)


@needs_torch
def test_losses_with_weights() -> None:
    import torch

    weight, other = normal(4) ** 2, positive(2, 3)
    for name, setting, value, args in (
        ("CrossEntropyLoss", "weight", weight, (normal(6, 4), indices(4, 6))),
        ("NLLLoss", "weight", weight, (normal(6, 4), indices(4, 6))),
        ("BCELoss", "weight", other, (positive(2, 3), positive(2, 3))),
        ("BCEWithLogitsLoss", "weight", other, (normal(2, 3), positive(2, 3))),
        ("BCEWithLogitsLoss", "pos_weight", other, (normal(2, 3), positive(2, 3))),
    ):
        mine = getattr(nn, name)(**{setting: wrap(value)})
        theirs = getattr(torch.nn, name)(**{setting: torch.from_numpy(value)})
        assert_same_state(mine, theirs)
        assert_same(mine, theirs, *args)


def test_the_former_names_of_reductions() -> None:
    assert nn.MSELoss(size_average=False).reduction == "sum"
    assert nn.MSELoss(reduce=False).reduction == "none"
    assert nn.MSELoss(size_average=True, reduction="sum").reduction == "mean"
    assert nn.NLLLoss(None, None, 3, False).reduction == "none"


@needs_torch
def test_embedding_from_pretrained() -> None:
    import torch

    table = normal(5, 3)
    mine = nn.Embedding.from_pretrained(wrap(table), padding_idx=1)
    theirs = torch.nn.Embedding.from_pretrained(torch.from_numpy(table), padding_idx=1)
    assert repr(mine) == repr(theirs)
    assert_same(mine, theirs, indices(5, 4))
    assert not mine.weight.requires_grad
    assert mine.weight._array is table
    assert nn.Embedding.from_pretrained(wrap(table), freeze=False).weight.requires_grad


def test_embedding_errors() -> None:
    with pytest.raises(AssertionError, match="Padding_idx"):
        nn.Embedding(5, 3, padding_idx=5)
    with pytest.raises(AssertionError, match="does not match"):
        nn.Embedding(5, 3, _weight=minitensor.ones(5, 4))
    with pytest.raises(AssertionError, match="2-dimensional"):
        nn.Embedding.from_pretrained(minitensor.ones(5))
    with pytest.raises(NotImplementedError, match="max_norm"):
        nn.Embedding(5, 3, max_norm=1.0)
    with pytest.raises(NotImplementedError, match="scale_grad_by_freq"):
        nn.Embedding(5, 3, scale_grad_by_freq=True)
    with pytest.raises(IndexError):
        nn.Embedding(5, 3)(wrap(np.array([5])))


def test_tied_weights_add_their_gradients() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5, 3)
            self.project = nn.Linear(3, 5, bias=False)
            self.project.weight = self.embedding.weight

        def forward(self, x: Any) -> Any:
            return self.project(self.embedding(x))

    model = Tied()
    assert list(model.state_dict()) == ["embedding.weight", "project.weight"]
    assert [name for name, _ in model.named_parameters()] == ["embedding.weight"]
    model(wrap(np.array([1, 2]))).sum().backward()
    e = model.embedding.weight.detach().numpy()
    expected = np.tile(e[1] + e[2], (5, 1))
    expected[[1, 2]] += e.sum(0)
    assert model.embedding.weight.grad is not None
    np.testing.assert_allclose(model.embedding.weight.grad.numpy(), expected, rtol=1e-5)


def test_batch_norm_errors() -> None:
    with pytest.raises(ValueError, match="2D or 3D"):
        nn.BatchNorm1d(3)(minitensor.ones(3))


@needs_torch
def test_a_network_trains_as_in_pytorch() -> None:
    """Embedding, norm, tied output, loss: some steps of plain descent stay together."""

    def make(nn: Any) -> Any:
        model = nn.Sequential(
            nn.Embedding(11, 8), nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 11)
        )
        model.add_module("loss", nn.CrossEntropyLoss())
        return model

    mine, theirs = twins(make)
    x, y = indices(11, 20), indices(11, 20)
    for _ in range(5):
        loss, _ = assert_same(
            lambda x, y: mine.loss(mine[:5](x), y), lambda x, y: theirs.loss(theirs[:5](x), y), x, y
        )
        for model in (mine, theirs):
            for p in model.parameters():
                p.data -= 0.5 * p.grad
                p.grad = None
    assert_same_state(mine, theirs, 1e-4)
    assert loss.item() < 2.5


@pytest.mark.parametrize("name", sorted(set(nn.__all__) - {"functional", "init", "utils"}))
def test_is_documented(name: str) -> None:
    assert getattr(nn, name).__doc__


def test_functional_names() -> None:
    functional = nn.functional
    assert functional.relu(wrap(np.array([-1.0, 1.0]))).tolist() == [0, 1]
    assert functional.multi_head_attention_forward.__doc__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        functional.nonsense  # type: ignore[attr-defined]  # noqa: B018
