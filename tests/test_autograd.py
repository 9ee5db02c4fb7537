"""The backward pass: modes, observers, hooks, in-place rules, checkpoints, anomalies, memory."""

from __future__ import annotations

import gc
import itertools
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor import autograd
from minitensor.autograd import Function, checkpoint, once_differentiable
from minitensor.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from minitensor.core import Node, Observer, Tensor, wrap


def leaf(*values: float, shape: tuple[int, ...] | None = None) -> Tensor:
    array = np.asarray(values, np.float64)
    return wrap(array if shape is None else array.reshape(shape)).requires_grad_()


def test_backward_of_a_diamond() -> None:
    x = leaf(2.0, 3.0)
    y = x * x
    (y * y + y).sum().backward()
    np.testing.assert_allclose(x.grad._array, 4 * x._array**3 + 2 * x._array)


def test_backward_accumulates() -> None:
    x = leaf(1.0, 2.0)
    for _ in range(3):
        (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad._array, [6, 6])


def test_gradients_of_two_leaves_are_not_one_array() -> None:
    x, y = leaf(1.0), leaf(2.0)
    (x + y).sum().backward()
    x.grad._array += 1
    assert y.grad.item() == 1


def test_the_callers_gradient_stays_the_callers() -> None:
    x, dy = leaf(1.0, 2.0), wrap(np.ones(2))
    (x + 0.0).backward(dy)
    (x + 0.0).backward(dy)
    np.testing.assert_array_equal(dy._array, [1, 1])
    np.testing.assert_array_equal(x.grad._array, [2, 2])


def test_second_backward_needs_retain_graph() -> None:
    x = leaf(1.0)
    y = x.exp()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match=r"second time.*ExpBackward0"):
        y.backward()
    z = (x + x).sum()  # saves nothing, so it can run backward again, as in PyTorch
    z.backward()
    z.backward()


# Expressions of x and w by whether their backward pass can run twice without `retain_graph`: only
# where no op saved a tensor or a number that it multiplies by.
TWICE: dict[bool, dict[str, Callable[[Any, Any, Any], Any]]] = {
    False: {
        "(x * 2).sum()": lambda lib, x, w: (x * 2).sum(),
        "(x * w).sum()": lambda lib, x, w: (x * w).sum(),
        "(x / 2).sum()": lambda lib, x, w: (x / 2).sum(),
        "(x**2).sum()": lambda lib, x, w: (x**2).sum(),
        "x.exp().sum()": lambda lib, x, w: x.exp().sum(),
        "x.relu().sum()": lambda lib, x, w: x.relu().sum(),
        "x.softmax(0).sum()": lambda lib, x, w: x.softmax(0).sum(),
        "x @ w": lambda lib, x, w: x @ w,
        "x.max()": lambda lib, x, w: x.max(),
        "x.clamp(0, 1).sum()": lambda lib, x, w: x.clamp(0, 1).sum(),
        "x[[0, 1]].sum()": lambda lib, x, w: x[[0, 1]].sum(),
        "linear": lambda lib, x, w: lib.nn.functional.linear(x[None], w[None]).sum(),
        "mse_loss": lambda lib, x, w: lib.nn.functional.mse_loss(x, w),
    },
    True: {
        "x.sum()": lambda lib, x, w: x.sum(),
        "x.mean()": lambda lib, x, w: x.mean(),
        "(x + w).sum()": lambda lib, x, w: (x + w).sum(),
        "(x + 3).sum()": lambda lib, x, w: (x + 3).sum(),
        "(1 - x).sum()": lambda lib, x, w: (1 - x).sum(),
        "(-x).sum()": lambda lib, x, w: (-x).sum(),
        "x.view(2, 1).T.sum()": lambda lib, x, w: x.view(2, 1).transpose(0, 1).sum(),
        "x[0]": lambda lib, x, w: x[0],
        "x.expand(3, 2).sum()": lambda lib, x, w: x.expand(3, 2).sum(),
        "x.clone().sum()": lambda lib, x, w: x.clone().sum(),
        "cat": lambda lib, x, w: lib.cat([x, w]).sum(),
        "x.cumsum(0).sum()": lambda lib, x, w: x.cumsum(0).sum(),
        "x.floor().sum()": lambda lib, x, w: x.floor().sum(),
        "x.split(1)[0].sum()": lambda lib, x, w: x.split(1)[0].sum(),
    },
}


def runs_twice(lib: Any, expression: Callable[[Any, Any, Any], Any]) -> bool:
    """Return True if a second backward pass adds the same gradient again; a first always works."""
    x = lib.tensor([1.0, 2.0], requires_grad=True)
    w = lib.tensor([3.0, 4.0], requires_grad=True)
    y = expression(lib, x, w)
    y.backward()
    once = x.grad.tolist()
    message = ""
    try:
        y.backward()
    except RuntimeError as error:
        message = str(error)
    if message:
        assert "Trying to backward through the graph a second time" in message
        assert x.grad.tolist() == once
        return False
    assert x.grad.tolist() == [2 * g for g in once]
    return True


CASES = [
    pytest.param(works, expression, id=name)
    for works, expressions in TWICE.items()
    for name, expression in expressions.items()
]


@pytest.mark.parametrize(("works", "expression"), CASES)
def test_a_second_backward_pass_works_only_where_nothing_was_saved(
    works: bool, expression: Callable[[Any, Any, Any], Any]
) -> None:
    assert runs_twice(mt, expression) == works
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = expression(mt, x, w)
    for count in (1, 2, 3):
        y.backward(retain_graph=True)
        assert x.grad is not None
        np.testing.assert_allclose(
            x.grad._array, count * autograd.grad(y, x, retain_graph=True)[0]._array
        )


@needs_torch
@pytest.mark.parametrize(("works", "expression"), CASES)
def test_a_second_backward_pass_works_where_it_does_in_pytorch(
    works: bool, expression: Callable[[Any, Any, Any], Any]
) -> None:
    import torch

    assert runs_twice(torch, expression) == works


def test_a_hash_is_of_the_tensor_and_not_of_its_values() -> None:
    a, b = mt.ones(2), mt.ones(2)
    assert {a: 1, b: 2}[a] == 1
    assert len({a, b, a}) == 2


class Events(Observer):
    """Notes what it sees."""

    def __init__(self, seen: list[str], name: str = "") -> None:
        self.seen, self.name = seen, name

    def ran(self, node: Node, args: Any, kwargs: Any, outs: Any) -> None:
        assert node.seconds > 0
        self.seen.append(f"{self.name}{node.op_name}{'' if node.recorded else ' unrecorded'}")

    def writing(self, target: Tensor, before: Tensor) -> None:
        self.seen.append(f"{self.name}writing {target.tolist()} {before.tolist()}")

    def wrote(self, target: Tensor, made: Tensor) -> None:
        self.seen.append(f"{self.name}wrote {target.tolist()} {made.tolist()}")

    def backward_begins(self, node: Node, grads: Any) -> None:
        self.seen.append(f"{self.name}{node.op_name} given {[g.tolist() for g in grads]}")

    def backward_ended(self, node: Node, grads: Any) -> None:
        assert node.seconds > 0
        made = [None if g is None else g.tolist() for g in grads]
        self.seen.append(f"{self.name}{node.op_name} made {made}")


def test_an_observer_sees_ops_changes_and_backward_rules() -> None:
    seen: list[str] = []
    x = leaf(2.0, 3.0)
    with autograd.observe(Events(seen)):
        y = (x + 1).sum()
        y.backward()
        t = wrap(np.ones(1))
        t.add_(1)
        with mt.no_grad():
            x.sum()
    x.sum().backward()
    assert seen == [
        "add",
        "sum",
        "sum given [1.0]",
        "reshape unrecorded",  # the ops of the backward rule
        "expand unrecorded",
        "sum made [[1.0, 1.0]]",
        "add given [[1.0, 1.0]]",
        "add made [[1.0, 1.0], None]",
        "writing [1.0] [1.0]",
        "add unrecorded",
        "wrote [2.0] [2.0]",
        "sum unrecorded",
    ]


def test_observers_see_the_same_ops_the_inner_one_first() -> None:
    seen: list[str] = []
    with autograd.observe(Events(seen, "outer ")):
        with autograd.observe(Events(seen, "inner ")):
            mt.ones(2).exp()
        with pytest.raises(ZeroDivisionError), autograd.observe(Events(seen, "failing ")):
            raise ZeroDivisionError
        with autograd.observe(without=Events):
            mt.ones(2).log()
        mt.ones(2).sin()
        thread = threading.Thread(target=lambda: mt.ones(2).cos())
        thread.start()
        thread.join()
    assert seen == ["inner exp unrecorded", "outer exp unrecorded", "outer sin unrecorded"]


def test_modes_that_observe_can_be_nested_in_any_order() -> None:
    with mt.inference_mode():
        with mt.inference_mode(), autograd.detect_anomaly():
            assert mt.is_inference_mode_enabled()
        with mt.inference_mode(False):
            assert not mt.is_inference_mode_enabled()
            assert not mt.ones(1).is_inference()
        assert mt.ones(1).exp().is_inference()
    with autograd.detect_anomaly(), autograd.detect_anomaly(False):
        x = leaf(0.0)
        (x * 0).log().backward(wrap(np.zeros(1)))  # 0 / 0
    assert math.isnan(x.grad.item())


def test_backward_of_a_vector_needs_its_gradient() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"only for scalar outputs.*\(2,\)"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        (x * 2).backward(wrap(np.ones(3)))
    with pytest.raises(RuntimeError, match="does not require grad"):
        x.detach().sum().backward()


def test_derivatives_of_any_order() -> None:
    x = leaf(0.7)
    y = x.sin().sum()
    for n in range(1, 9):
        (y,) = autograd.grad(y, x, create_graph=True)
        expected = [math.cos, lambda v: -math.sin(v), lambda v: -math.cos(v), math.sin][(n - 1) % 4]
        assert y.item() == pytest.approx(expected(0.7))
        y = y.sum()


def test_grad_leaves_the_leaves_alone_and_knows_non_leaves() -> None:
    x = leaf(3.0)
    y = x * x
    z = (y * y).sum()
    dx, dy = autograd.grad(z, [x, y])
    assert (dx.item(), dy.item()) == (4 * 27, 18)
    assert x.grad is None


def test_grad_walks_only_where_it_must() -> None:
    x, w = leaf(1.0), leaf(2.0)
    seen = []
    side = w.exp()
    side.register_hook(lambda g: seen.append(g))
    autograd.grad((x * 2 + side).sum(), x)
    assert not seen


def test_grad_of_an_unused_input() -> None:
    x, w = leaf(1.0), leaf(2.0)
    y = (x * 2).sum()
    with pytest.raises(RuntimeError, match="allow_unused"):
        autograd.grad(y, [x, w], retain_graph=True)
    assert autograd.grad(y, [x, w], retain_graph=True, allow_unused=True)[1] is None
    assert autograd.grad(y, [x, w], materialize_grads=True)[1].item() == 0


def test_backward_with_inputs_touches_only_those() -> None:
    x, w = leaf(1.0), leaf(2.0)
    (x * w).sum().backward(inputs=[x])
    assert x.grad.item() == 2
    assert w.grad is None


def test_modes() -> None:
    x = leaf(1.0)
    with mt.no_grad():
        assert not (x * 2).requires_grad
        with mt.enable_grad():
            assert (x * 2).requires_grad
    assert (x * 2).requires_grad

    @mt.no_grad()
    def silent() -> Tensor:
        return x * 2

    assert not silent().requires_grad
    mt.set_grad_enabled(False)
    assert not (x * 2).requires_grad
    mt.set_grad_enabled(True)
    with mt.set_grad_enabled(False):
        assert not mt.is_grad_enabled()
    assert mt.is_grad_enabled()


def test_modes_belong_to_their_thread() -> None:
    seen = []
    with mt.no_grad():
        thread = threading.Thread(target=lambda: seen.append(mt.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_inference_tensors_stay_out_of_graphs() -> None:
    with mt.inference_mode():
        y = leaf(1.0) * 2
    assert y.is_inference()
    w = leaf(1.0)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
        w * y
    with pytest.raises(RuntimeError, match="version counter"):
        _ = y._version


def test_hooks_see_the_whole_gradient_once_and_may_replace_it() -> None:
    x = leaf(1.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.item()))
    y = x * 1.0
    y.register_hook(lambda g: g * 10)
    (y * 2 + y * 3).sum().backward()
    assert seen == [50]
    assert x.grad.item() == 50


def test_hooks_can_be_removed() -> None:
    x = leaf(1.0)
    handle = x.register_hook(lambda g: g * 2)
    handle.remove()
    handle.remove()
    (x * 1.0).sum().backward()
    assert x.grad.item() == 1


def test_post_accumulate_hook() -> None:
    x = leaf(1.0)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    (x * 3).sum().backward()
    assert seen == [3]


def test_retain_grad() -> None:
    x = leaf(1.0)
    y = x * 2
    y.retain_grad()
    (y * 3).sum().backward()
    assert y.grad.item() == 3
    assert x.grad.item() == 6


def test_chain_of_100_000_ops() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y * 1.0
    y.backward(wrap(np.ones(1)))
    assert x.grad.item() == 1


def test_memory_returns_without_the_garbage_collector() -> None:
    x = leaf(*range(1, 100))
    x.softmax(-1).sum().backward()  # compiles
    gc.collect()
    gc.disable()
    try:
        y = ((x.exp() * x).softmax(-1) * x).sum()
        h = y * 2
        h.register_hook(lambda g: None)
        h.retain_grad()
        node, tensor = weakref.ref(y.grad_fn), weakref.ref(y)
        h.backward()
        del y, h
        assert node() is None
        assert tensor() is None
        for _ in range(3):  # a long graph thrown away unused
            z = x
            for _ in range(50_000):
                z = z * 1.0
            del z
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_saved_tensor_changed_in_place_is_caught_and_named() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1.0
    z = y * y
    y += 1
    with pytest.raises(
        RuntimeError, match=r"modified by an inplace operation.*version 1; expected version 0"
    ):
        z.sum().backward()


def test_in_place_on_a_leaf_is_refused() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        x += 1
    with pytest.raises(RuntimeError, match="a view of a leaf"):
        x[0] += 1
    with mt.no_grad():
        x += 1
    np.testing.assert_array_equal(x._array, [2, 3])


def test_in_place_has_the_right_gradient() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y.mul_(3.0)
    z = y * y
    z.exp_()
    (first,) = autograd.grad(z.sum(), x, create_graph=True)
    np.testing.assert_allclose(first._array, np.exp(36 * x._array**2) * 72 * x._array)

    def function(x: Tensor) -> Tensor:
        y = x * 2
        y.mul_(x)
        y.sin_()
        return y

    assert gradgradcheck(function, leaf(0.3, 0.4))


def test_in_place_through_views() -> None:
    def function(x: Tensor, w: Tensor) -> Tensor:
        y = x * 1.0
        before = y[1]
        y[0].mul_(w)
        before.add_(w * w)
        return y * y

    assert gradcheck(function, (leaf(1.0, 2.0, 3.0, 4.0, shape=(2, 2)), leaf(0.5, 0.6)))


def test_in_place_shape_and_type_rules() -> None:
    x = mt.zeros(3)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        x.add_(mt.zeros(2, 3))
    with pytest.raises(RuntimeError, match="can't be cast"):
        mt.tensor([1, 2]).add_(1.5)
    with pytest.raises(RuntimeError, match="single memory location"):
        mt.zeros(1, 3).expand(2, 3).add_(1)


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.scale = scale
        return x * x * x * scale

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return dy * 3 * x * x * ctx.scale, None


def test_user_function() -> None:
    x = leaf(1.0, -2.0)
    y = Cube.apply(x, 2.0)
    assert y.grad_fn.name() == "CubeBackward"
    assert gradcheck(lambda t: Cube.apply(t, 2.0), x)
    assert gradgradcheck(lambda t: Cube.apply(t, 2.0), x)


def test_user_function_with_setup_context_and_two_outputs() -> None:
    class SumDifference(Function):
        @staticmethod
        def forward(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return a + b, a - b

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx: Any, ds: Any, dd: Any) -> tuple[Tensor, Tensor]:
            assert dd is None
            return ds, ds

    a, b = leaf(1.0), leaf(2.0)
    s, _ = SumDifference.apply(a, b)
    s.sum().backward()
    assert (a.grad.item(), b.grad.item()) == (1, 1)


def test_user_function_non_differentiable_dirty_and_once() -> None:
    class Clip(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
            mask = x > 0
            ctx.mark_non_differentiable(mask)
            ctx.mark_dirty(x)
            x.mul_(2.0)
            return x, mask

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, dy: Tensor, _: Any) -> Tensor:
            return dy * 2

    x = leaf(1.0)
    y = x * 1.0
    out, mask = Clip.apply(y)
    assert out is y
    assert not mask.requires_grad
    (g,) = autograd.grad(out.sum(), x, create_graph=True)
    assert g.item() == 2


def test_wrong_gradients_name_the_op() -> None:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1.0

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> Tensor:
            return mt.zeros(7)

    with pytest.raises(
        RuntimeError, match=r"WrongBackward.*got shape \(7,\) but expected shape \(2,\)"
    ):
        Wrong.apply(leaf(1.0, 2.0)).sum().backward()


def test_anomaly_names_op_and_line() -> None:
    with mt.autograd.detect_anomaly():
        x = leaf(0.0)
        y = x.sqrt()  # the guilty line
        z = (y * 0).sum()
        with pytest.raises(
            RuntimeError, match=r"SqrtBackward0.*nan.*sqrt.*test_autograd.py:\d+.*the guilty line"
        ):
            z.backward()


def test_anomaly_finds_a_nan_made_going_forward() -> None:
    with mt.autograd.detect_anomaly():
        x = leaf(-1.0)
        y = x.log()  # made here
        with pytest.raises(
            RuntimeError, match=r"The first NaN was made going forward, by log at .*made here"
        ):
            (y.exp() * 2).sum().backward()


def test_checkpoint_gives_the_same_gradients_and_keeps_nothing() -> None:
    runs = itertools.count()

    def block(x: Tensor, w: Tensor) -> Tensor:
        next(runs)
        return ((x * w).sin() * x).exp()

    x, w = leaf(0.3, 0.4), leaf(0.5, 0.6)
    block(x, w).sum().backward()
    plain = x.grad._array.copy(), w.grad._array.copy()
    for t in (x, w):
        t.grad = None
    y = checkpoint(block, x, w)
    assert next(runs) == 2
    y.sum().backward()
    assert next(runs) == 4
    np.testing.assert_array_equal(x.grad._array, plain[0])
    np.testing.assert_array_equal(w.grad._array, plain[1])
    assert gradgradcheck(lambda x, w: checkpoint(block, x, w), (x, w))


def test_checkpoint_repeats_random_numbers() -> None:
    mt.manual_seed(0)
    x = mt.ones(1000, requires_grad=True)
    y = checkpoint(lambda t: mt.nn.functional.dropout(t * 1.0, 0.5) * t, x)
    after = mt.rand(1).item()
    y.sum().backward()
    kept = y._array != 0
    np.testing.assert_array_equal(x.grad._array != 0, kept)
    mt.manual_seed(0)
    mt.nn.functional.dropout(mt.ones(1000), 0.5)
    assert mt.rand(1).item() == after


def test_checkpoint_of_fused_ops() -> None:
    model = mt.nn.Sequential(mt.nn.Linear(4, 4), mt.nn.LayerNorm(4))
    x = mt.rand(3, 4)
    (model(x) ** 2).sum().backward()
    plain = [p.grad._array for p in model.parameters()]
    model.zero_grad()
    (checkpoint(model, x) ** 2).sum().backward()
    for p, g in zip(model.parameters(), plain, strict=True):
        np.testing.assert_array_equal(p.grad._array, g)


def test_gradcheck_says_where() -> None:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2.0

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> Tensor:
            return dy * wrap(np.array([2.0, 2.0, 2.5]))

    with pytest.raises(
        GradcheckError,
        match=r"output 0 with respect to input 0 at input element \(2,\), output element \(2,\)",
    ):
        gradcheck(Wrong.apply, leaf(1.0, 2.0, 3.0))
    assert not gradcheck(Wrong.apply, leaf(1.0, 2.0, 3.0), raise_exception=False)
    assert not gradcheck(Wrong.apply, leaf(1.0, 2.0, 3.0), raise_exception=False, fast_mode=True)
    with pytest.raises(ValueError, match="float64"):
        gradcheck(lambda t: t * 2, wrap(np.ones(2, np.float32)).requires_grad_())
    with pytest.raises(ValueError, match="requires_grad=True"):
        gradcheck(lambda t: t * 2, wrap(np.ones(2)))


def test_errors_name_the_module() -> None:
    model = mt.nn.Sequential(mt.nn.Linear(4, 3), mt.nn.Sequential(mt.nn.Linear(5, 2)))
    with pytest.raises(RuntimeError, match=r"linear.*\(2, 3\).*\(5, 2\) in 1\.0"):
        model(mt.zeros(2, 4))


def test_tensor_attributes() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    assert x.is_leaf
    assert not y.is_leaf
    assert y.grad_fn.name() == "MulBackward0"
    assert y.grad_fn.next_functions[0][0].variable is x
    assert y.detach().requires_grad is False
    assert y.detach().data_ptr() == y.data_ptr()
    with pytest.raises(RuntimeError, match="leaf variables"):
        y.requires_grad_(False)
    with pytest.raises(RuntimeError, match="floating point"):
        mt.tensor([1]).requires_grad_()
    with pytest.raises(RuntimeError, match="different size"):
        x.grad = mt.zeros(3)
    with pytest.raises(RuntimeError, match="detach"):
        x.numpy()
