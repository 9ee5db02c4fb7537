"""Initial values beside PyTorch's from the same seed, and helpers over parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from twins import close

import minitensor
from minitensor import nn
from minitensor.core import Tensor, wrap
from minitensor.kernels.multi_tensor import CHUNK, SERIAL
from minitensor.nn import init

CASES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("uniform_", (5, 7), {}),
    ("uniform_", (5, 7), dict(a=-2.0, b=3.0)),
    ("normal_", (5, 7), {}),
    ("normal_", (3,), dict(mean=1.0, std=0.02)),
    ("trunc_normal_", (9, 9), dict(std=0.02)),
    ("trunc_normal_", (40, 9), {}),
    ("trunc_normal_", (40,), dict(a=1.0, b=2.0)),
    ("constant_", (2, 3), dict(val=4)),
    ("zeros_", (2, 3), {}),
    ("ones_", (2, 3), {}),
    ("eye_", (3, 5), {}),
    ("xavier_uniform_", (4, 6), {}),
    ("xavier_uniform_", (4, 6, 2, 3), dict(gain=1.7)),
    ("xavier_normal_", (4, 6), dict(gain=0.5)),
    ("kaiming_uniform_", (4, 6), dict(a=5**0.5)),
    ("kaiming_uniform_", (4, 6), dict(mode="fan_out", nonlinearity="relu")),
    ("kaiming_normal_", (4, 6, 3), dict(nonlinearity="tanh")),
    ("kaiming_normal_", (4, 6), {}),
    ("orthogonal_", (4, 6), {}),
    ("orthogonal_", (6, 4), dict(gain=2.0)),
    ("orthogonal_", (3, 2, 4), {}),
]


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "shape", "settings"), CASES)
def test_equals_pytorch(
    name: str, shape: tuple[int, ...], settings: dict[str, Any], dtype: str
) -> None:
    import torch

    minitensor.manual_seed(3)
    torch.manual_seed(3)
    mine = nn.Parameter(minitensor.empty(shape, dtype=dtype))
    theirs = torch.nn.Parameter(torch.empty(shape, dtype=getattr(torch, dtype)))
    version = mine._version
    assert getattr(init, name)(mine, **settings) is mine
    getattr(torch.nn.init, name)(theirs, **settings)
    close(mine, theirs, 2e-6 if dtype == "float32" else 1e-12)
    assert mine._version > version
    assert mine.is_leaf
    assert mine.requires_grad
    assert float(minitensor.rand(1)) == float(torch.rand(1))  # as much was drawn


def test_a_generator_of_its_own() -> None:
    drawn = []
    for _ in range(2):
        source = minitensor.Generator().manual_seed(5)
        drawn.append(
            [
                fill(minitensor.empty(4, 5), generator=source).tolist()
                for fill in (init.uniform_, init.normal_, init.trunc_normal_, init.orthogonal_)
            ]
        )
    assert drawn[0] == drawn[1]


@needs_torch
@pytest.mark.parametrize(
    ("name", "param"),
    [
        *((name, None) for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "selu")),
        ("leaky_relu", None),
        ("leaky_relu", 0.2),
    ],
)
def test_gain(name: str, param: float | None) -> None:
    import torch

    assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)  # type: ignore[arg-type]


def test_errors() -> None:
    vector, matrix = minitensor.empty(3), minitensor.empty(3, 3)
    for fill in (
        init.eye_,
        init.xavier_uniform_,
        init.xavier_normal_,
        init.kaiming_uniform_,
        init.kaiming_normal_,
        init.orthogonal_,
    ):
        with pytest.raises(ValueError, match="dimensions"):
            fill(vector)
    with pytest.raises(ValueError, match="Mode"):
        init.kaiming_uniform_(matrix, mode="fan")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Unsupported"):
        init.kaiming_uniform_(matrix, nonlinearity="sine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a valid number"):
        init.calculate_gain("leaky_relu", True)
    assert init.orthogonal_(minitensor.empty(0, 3)).shape == (0, 3)


# nn.utils


def parameters(*grads: Any) -> list[Tensor]:
    made: list[Tensor] = []
    for grad in grads:
        array = np.asarray(grad, np.float32)
        parameter = nn.Parameter(wrap(np.ones_like(array)))
        parameter.grad = wrap(array.copy())
        made.append(parameter)
    return made


@needs_torch
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm(norm_type: float, max_norm: float) -> None:
    import torch

    mine = [*parameters([[3.0, -4.0]], 12.0), nn.Parameter(wrap(np.ones(2)))]
    theirs = []
    for p in mine:
        theirs.append(torch.nn.Parameter(torch.from_numpy(p.detach().numpy().copy())))
        if p.grad is not None:
            theirs[-1].grad = torch.from_numpy(p.grad.numpy().copy())
    total = nn.utils.clip_grad_norm_(mine, max_norm, norm_type)
    close(total, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type), 1e-6)
    for a, b in zip(mine[:2], theirs, strict=False):
        assert a.grad is not None
        close(a.grad, b.grad, 1e-6)
    assert mine[2].grad is None


def test_clip_grad_norm_of_nothing_and_of_nan() -> None:
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0
    (p,) = parameters([np.nan, 1.0])
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert p.grad is not None
    assert p.grad[1].item() == 1
    assert np.isnan(nn.utils.clip_grad_norm_(p, 1.0).item())
    assert np.isnan(p.grad.numpy()).all()


def test_clip_grad_norm_of_many_gradients() -> None:
    """Of several chunks, types and orders in memory; the same for any number of threads."""
    noise = np.random.RandomState(0)
    sizes = (3, 2 * CHUNK, CHUNK + 1, 0, SERIAL)
    start: list[Any] = [noise.randn(size).astype(np.float32) for size in sizes]
    start += [noise.randn(5, 7).T, noise.randn(CHUNK + 5)]
    everything = np.concatenate([x.ravel() for x in start])
    expected = np.sqrt(np.sum(everything.astype(np.float64) ** 2))
    before = minitensor.get_num_threads()
    found = []
    for threads in (1, before):
        made = [nn.Parameter(wrap(np.zeros_like(x))) for x in start]
        for p, x in zip(made, start, strict=True):
            p.grad = wrap(x.copy(order="K"))
        minitensor.set_num_threads(threads)
        try:
            total = nn.utils.clip_grad_norm_(made, 2.0)
        finally:
            minitensor.set_num_threads(before)
        assert total.item() == np.float32(expected)
        found.append([p.grad.numpy() for p in made if p.grad is not None])
        for x, y in zip(start, found[-1], strict=True):
            np.testing.assert_allclose(y, x * (2 / (expected + 1e-6)), rtol=1e-6)
    for x, y in zip(*found, strict=True):
        np.testing.assert_array_equal(x, y)


def test_clip_grad_value() -> None:
    made = parameters([3.0, -0.25], [-9.0])
    nn.utils.clip_grad_value_(made, 0.5)
    assert [p.grad.tolist() for p in made if p.grad is not None] == [[0.5, -0.25], [-0.5]]


def test_parameters_as_a_vector() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    vector = nn.utils.parameters_to_vector(model.parameters())
    assert vector.shape == (13,)
    new = wrap(np.arange(13, dtype=np.float32))
    nn.utils.vector_to_parameters(new, model.parameters())
    assert model[0].bias.tolist() == [6, 7, 8]  # type: ignore[operator]
    assert nn.utils.parameters_to_vector(model.parameters()).tolist() == new.tolist()
    assert all(p.is_leaf for p in model.parameters())
    vector.sum().backward()
    with pytest.raises(TypeError, match="expected Tensor"):
        nn.utils.vector_to_parameters([1.0], model.parameters())  # type: ignore[arg-type]


def test_pad_sequence() -> None:
    padded = nn.utils.rnn.pad_sequence([minitensor.ones(2), minitensor.ones(1)], batch_first=True)
    assert padded.tolist() == [[1, 1], [1, 0]]
