"""Models with a wrong gradient each, for `tools.gradcheck` and its tests; and right ones."""

from __future__ import annotations

from typing import Any

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.autograd import Function


class Right(Function):
    """x^2, as it should be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * dy


class WrongEverywhere(Right):
    """x^2 with the derivative x."""

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * dy


class WrongOnce(Right):
    """x^2 with one derivative of many wrong by a hundredth."""

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        g = 2 * x * dy
        g[1, 3] *= 1.01
        return g


class WrongTwice(Right):
    """x^2 with the right derivative, which is differentiated wrongly."""

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * (x.detach() + (x - x.detach()) * 0.5) * dy


class Squares(nn.Module):
    """Applies a Function."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return self.kind.apply(x)  # the planted line


class Forgetful(nn.Module):
    """Loses half of a gradient by detach."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.detach()


def model(inner: Any) -> Any:
    mt.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 5), nn.Sequential(nn.Tanh(), inner), nn.Dropout(0.5), nn.Linear(5, 2)
    )


def right() -> Any:
    return model(Squares(Right))


def everywhere() -> Any:
    return model(Squares(WrongEverywhere))


def once() -> Any:
    return model(Squares(WrongOnce))


def twice() -> Any:
    return model(Squares(WrongTwice))


def forgetful() -> Any:
    return model(Forgetful())


def hooked() -> Any:
    made = model(nn.Sigmoid())
    made[1][1].register_full_backward_hook(lambda module, dx, dy: (dx[0] * 2,))
    return made


def loss() -> Any:
    """A function of its input that calls a model."""
    net = right()

    def function(x: Tensor) -> Tensor:
        return net(x).square().mean()

    return function, mt.randn(3, 4)


def drawing(x: Tensor) -> Tensor:
    """Another result in each run, whatever the seed."""
    drawing.count += 1  # type: ignore[attr-defined]
    return x * drawing.count  # type: ignore[attr-defined]


drawing.count = 0  # type: ignore[attr-defined]
