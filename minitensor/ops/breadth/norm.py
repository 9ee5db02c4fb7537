"""Norms of channels over a batch or in groups, and vectors of unit length."""

from __future__ import annotations

import math
from typing import Any

from ...autograd import no_grad
from ...core import Tensor
from ..checks import check_floating, check_parameter_dtypes
from ..composite import composite
from ..convert import cast
from ..norm import LayerNorm
from ..samples import strided


@composite(
    namespaces="functional",
    torch_name="nn.functional.batch_norm",
    samples=lambda rand: [
        (rand(4, 3), rand.constant(3), rand.constant(3).square(), rand(3), rand(3)),
        (rand(4, 3), None, None, rand(3), rand(3), True),
        (rand(2, 3, 4), None, None, None, rand(3), dict(training=True, eps=1e-3)),
    ],
    errors=lambda rand: [
        (rand(1, 3), None, None, dict(training=True)),
        (rand(2, 3), None, None),
        (rand(2, 3), rand.constant(2), rand.constant(2)),
        (rand(3), rand.constant(3), rand.constant(3)),
    ],
)
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """y = (x - mean) / sqrt(var + eps) * weight + bias for each channel: (N, C, *) -> (N, C, *).

    The statistics are those of the batch when `training`, and then also enter the running ones in
    place, new = (1 - momentum) * old + momentum * batch, with the unbiased variance; otherwise they
    are the running ones. All four vectors are (C) or None. ValueError for a batch of one value in
    each channel. Ioffe and Szegedy, "Batch Normalization", 2015.
    """
    if input.ndim < 2:
        raise RuntimeError(f"batch_norm: expected (N, C, ...), got shape {tuple(input.shape)}")
    check_floating("batch_norm", input)
    shape = input._array.shape
    channels = shape[1]
    vectors = dict(running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    for name, vector in vectors.items():
        if vector is not None and vector._array.size != channels:
            raise RuntimeError(
                f"batch_norm: {name} should contain {channels} elements, not {vector.numel()}"
            )

    check_parameter_dtypes("batch_norm", input, weight, bias)
    if input._array.itemsize == 2:  # rounded once, and the vectors may be float32
        w, b = (vector if vector is None else vector.float() for vector in (weight, bias))
        args = (input.float(), running_mean, running_var, w, b, training, momentum, eps)
        return batch_norm(*args).to(input.dtype)

    def across(vector: Tensor) -> Tensor:
        return vector.reshape(channels, *[1] * (len(shape) - 2)) if len(shape) > 2 else vector

    if training:
        count = math.prod(shape) // max(channels, 1)
        if count <= 1:
            raise ValueError(
                f"batch_norm: expected more than 1 value per channel when training, got {shape}"
            )
        rows = input.transpose(0, 1).reshape(channels, count)
        if running_mean is not None and running_var is not None:
            with no_grad():
                mean = rows.mean(1)
                var = (rows - mean.unsqueeze(1)).square().sum(1) / (count - 1)
                running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
                running_var.mul_(1 - momentum).add_(var, alpha=momentum)
        y = LayerNorm.call(rows, (count,), eps=eps)
        y = y.reshape(channels, shape[0], *shape[2:]).transpose(0, 1).contiguous()
    elif running_mean is None or running_var is None:
        raise RuntimeError("batch_norm: in evaluation the running mean and variance are needed")
    else:
        y = (input - across(running_mean)) * (across(running_var) + eps).rsqrt()
    return _scaled(y, weight, bias)


@composite(
    namespaces="functional",
    torch_name="nn.functional.group_norm",
    samples=lambda rand: [
        (rand(2, 4, 3), 2, rand(4), rand(4)),
        (rand(3, 6), 3),
        (strided(rand(3, 2, 2, 2)), 1, rand(3), None, 1e-3),
    ],
    errors=lambda rand: [
        (rand(2, 4, 3), 3),
        (rand(2, 4, 3), 0),
        (rand(2, 4, 3), -1),
        (rand(4), 2),
        (rand(2, 4, 3), 2, rand(2)),
        (rand(1, 4), 4),
        (rand.integers(0, 5, 2, 4, 3), 2),
    ],
)
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = (x - mean) / sqrt(var + eps) * weight + bias over each group of channels of each sample.

    (N, C, *) -> (N, C, *), with C in `num_groups` parts of equal size; weight and bias are (C) or
    None. Wu and He, "Group Normalization", 2018. RuntimeError for shapes that do not fit,
    ValueError for one value in each group of one sample.
    """
    shape = tuple(input.shape)
    if len(shape) < 2:
        raise RuntimeError(f"group_norm: expected (N, C, ...), got shape {shape}")
    if num_groups == 0:
        raise ZeroDivisionError("group_norm: num_groups must be greater than 0")
    channels = shape[1]
    if num_groups < 0 or channels % num_groups:
        raise RuntimeError(
            f"group_norm: {channels} channels, of shape {shape}, cannot be parted into "
            f"{num_groups} groups"
        )
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and tuple(vector.shape) != (channels,):
            raise RuntimeError(
                f"group_norm: {name} must have {channels} elements, its shape is "
                f"{tuple(vector.shape)}"
            )
    check_floating("group_norm", input)
    count = math.prod(shape[1:]) // num_groups
    if shape[0] == count == 1:
        raise ValueError(f"group_norm: expected more than 1 value per group, got shape {shape}")
    check_parameter_dtypes("group_norm", input, weight, bias)
    x = input.float() if input._array.itemsize == 2 else input  # rounded once, at the end
    y = LayerNorm.call(x.reshape(shape[0] * num_groups, count), (count,), eps=eps)
    return cast(_scaled(y.reshape(shape), weight, bias), input._array.dtype)


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return y * weight + bias, vectors (C) for y (N, C, *)."""
    ones = (1,) * (y.ndim - 2)
    if weight is not None:
        y = y * (weight.reshape(-1, *ones) if ones else weight)
    if bias is not None:
        y = y + (bias.reshape(-1, *ones) if ones else bias)
    return y


@composite(
    namespaces="functional",
    samples=lambda rand: [
        (rand(3, 4),),
        (rand(3, 4), 1.0, -1),
        (rand(2, 3, 2), dict(dim=(0, 2))),
        (strided(rand(3, 4)), dict(p=3.0, dim=0)),
    ],
)
def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """y = x / max(|x|_p, eps), with the norm along `dim`: (*) -> (*)."""
    return input / input.norm(p, dim, keepdim=True).clamp_min(eps)
