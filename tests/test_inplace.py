"""Changes in place where gradients flow: through views, custom Functions, checkpoints, no_grad.

Each program was also run by PyTorch 2.13; the values are its. Where it refuses, so do we.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

import minitensor as mt
from minitensor.autograd import Function, checkpoint, once_differentiable


def leaf() -> mt.Tensor:
    return mt.tensor([1.0, 2.0], requires_grad=True)


class Doubled(Function):
    """Doubles its argument in place."""

    @staticmethod
    def forward(ctx: Any, x: mt.Tensor) -> mt.Tensor:
        x.mul_(2)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, dy: mt.Tensor) -> mt.Tensor:
        return dy * 2


class DoubledCopy(Doubled):
    """Doubles its argument in place, and returns a copy of it."""

    @staticmethod
    def forward(ctx: Any, x: mt.Tensor) -> mt.Tensor:
        return Doubled.forward(ctx, x).clone()


class Same(Function):
    """Returns its argument as it is."""

    @staticmethod
    def forward(ctx: Any, x: mt.Tensor) -> mt.Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, dy: mt.Tensor) -> mt.Tensor:
        return dy


class Head(Function):
    """The first element, as a view; its rule says that it counts ten times."""

    @staticmethod
    def forward(ctx: Any, x: mt.Tensor) -> mt.Tensor:
        return x[:1]

    @staticmethod
    def backward(ctx: Any, dy: mt.Tensor) -> mt.Tensor:
        return mt.cat([dy * 10, dy * 0])


class Twice(Function):
    """Returns its argument as it is, two times."""

    @staticmethod
    def forward(ctx: Any, x: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
        return x, x

    @staticmethod
    def backward(ctx: Any, dy: mt.Tensor, dz: mt.Tensor) -> mt.Tensor:
        return dy + dz * 3


# Custom Functions


def test_a_function_that_changes_a_view_changes_its_base() -> None:
    x = leaf()
    y = x.clone()
    Doubled.apply(y[:1])
    y.sum().backward()
    assert y.tolist() == [2, 2]
    assert x.grad.tolist() == [2, 1]


def test_what_a_function_changed_is_its_output() -> None:
    x = leaf()
    y = x.clone()
    view = y[:1]
    changed = Doubled.apply(view)
    assert changed is view
    (y.sum() + changed.sum()).backward()
    assert x.grad.tolist() == [4, 1]


def test_what_a_function_changed_through_a_view_is_differentiated_in_order() -> None:
    x = mt.tensor([1.0, 2.0], dtype=mt.float64, requires_grad=True)
    y = x * x
    Doubled.apply(y.view(2))
    (first,) = mt.autograd.grad(mt.logaddexp(y, x).sum(), x, create_graph=True)
    first.sum().backward()
    z = x.detach()
    weight = (2 * z * z - z).sigmoid()
    slope = 4 * z - 1
    assert mt.allclose(first, weight * slope + 1)
    assert mt.allclose(x.grad, weight * (1 - weight) * slope**2 + weight * 4)  # type: ignore[arg-type]


def test_an_argument_returned_as_it_is_is_another_tensor_without_gradients_too() -> None:
    x = mt.zeros(1, 2)
    same = Same.apply(x)
    x.squeeze_()
    assert same.shape == (1, 2)
    assert same._version == x._version


def test_what_a_function_changed_has_to_be_returned() -> None:
    for x in (leaf() * 1, mt.zeros(2)):
        with pytest.raises(RuntimeError, match="must all be outputs of the Function"):
            DoubledCopy.apply(x)


@pytest.mark.parametrize("view", [False, True])
def test_a_function_may_not_change_a_leaf(view: bool) -> None:
    x = leaf()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        Doubled.apply(x[:1] if view else x)
    with mt.no_grad():
        y = Doubled.apply(x)
    assert not y.requires_grad
    assert y.is_set_to(x)


def test_an_argument_returned_as_it_is_shares_its_version() -> None:
    x = leaf()
    b = x * 1
    s = b * b
    same = Same.apply(b)
    assert same is not b
    assert same._base is b
    with mt.no_grad():
        same.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        s.sum().backward()


@pytest.mark.parametrize("function", [Same, Head, Twice])
def test_a_view_out_of_a_function_may_not_be_changed(function: Any) -> None:
    x = leaf()
    out = function.apply(x * 1)
    first = out[0] if isinstance(out, tuple) else out
    before = first.tolist()
    with pytest.raises(RuntimeError, match="is being modified inplace by mul_"):
        first.mul_(2)
    with pytest.raises(RuntimeError, match="is being modified inplace by unsqueeze_"):
        first.unsqueeze_(0)
    assert first.tolist() == before  # a refusal changes nothing
    assert f"grad_fn=<{function.__name__}Backward>" in repr(first)


@pytest.mark.parametrize("function", [Same, Head])
def test_a_view_out_of_a_function_is_lost_when_its_base_changes(function: Any) -> None:
    b = leaf() * 1
    out = function.apply(b)
    b.mul_(3)
    assert "grad_fn=<Invalid>" in repr(out)
    with pytest.raises(RuntimeError, match="its base or another view of its base was modified"):
        out.sum()


def test_a_module_with_a_full_backward_hook_hands_out_such_views() -> None:
    class Square(mt.nn.Module):
        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return x * x

    module = Square()
    module.register_full_backward_hook(lambda module, dx, dy: None)
    y = module(leaf())
    with pytest.raises(RuntimeError, match="is being modified inplace"):
        y.mul_(2)


def test_functions_may_call_backward_to_any_depth() -> None:
    class Nested(Function):
        @staticmethod
        def forward(ctx: Any, x: mt.Tensor, depth: int) -> mt.Tensor:
            ctx.depth = depth
            return x * 2

        @staticmethod
        def backward(ctx: Any, dy: mt.Tensor) -> Any:
            if ctx.depth:
                with mt.enable_grad():
                    inner = dy.detach().requires_grad_()
                    Nested.apply(inner, ctx.depth - 1).sum().backward()
                    reached.append(inner.grad.tolist())
            return dy * 2, None

    reached: list[Any] = []
    x = leaf()
    Nested.apply(x, 200).sum().backward()
    assert x.grad.tolist() == [2, 2]
    assert reached == [[2, 2]] * 200

    class Failing(Function):
        @staticmethod
        def forward(ctx: Any, x: mt.Tensor, depth: int) -> mt.Tensor:
            ctx.depth = depth
            return x * 2

        @staticmethod
        def backward(ctx: Any, dy: mt.Tensor) -> Any:
            if not ctx.depth:
                raise ZeroDivisionError("at the bottom")
            with mt.enable_grad():
                inner = dy.detach().requires_grad_()
                Failing.apply(inner, ctx.depth - 1).sum().backward()
            return dy * 2, None

    with pytest.raises(ZeroDivisionError, match="at the bottom"):
        Failing.apply(x, 100).sum().backward()


def test_a_function_that_changes_a_view_returns_nothing_else() -> None:
    class AddInto(Function):
        @staticmethod
        def forward(ctx: Any, x: mt.Tensor, y: mt.Tensor) -> Any:
            ctx.mark_dirty(x)
            return x.add_(y), y * 2

        @staticmethod
        def backward(ctx: Any, dx: mt.Tensor, dy: mt.Tensor) -> Any:
            return dx, dx + dy * 2

    x, y = leaf(), leaf()
    with pytest.raises(RuntimeError, match="cannot return more than one Tensor"):
        AddInto.apply((x * 1)[:1], y[:1])
    out, twice = AddInto.apply(x * 1, y)
    (out.sum() + twice.sum()).backward()
    assert x.grad.tolist() == [1, 1]
    assert y.grad.tolist() == [3, 3]


def test_the_gradient_of_a_function_is_summed_to_the_shape_of_its_argument() -> None:
    class Spread(Same):
        @staticmethod
        def backward(ctx: Any, dy: mt.Tensor) -> mt.Tensor:
            return dy.expand(3, 2)

    class Wrong(Same):
        @staticmethod
        def backward(ctx: Any, dy: mt.Tensor) -> mt.Tensor:
            return dy[:1]

    x = leaf()
    Spread.apply(x).sum().backward()
    assert x.grad.tolist() == [3, 3]
    with pytest.raises(RuntimeError, match="invalid gradient at index 0: got shape"):
        Wrong.apply(x).sum().backward()


# Views


def no_grad_view(y: mt.Tensor) -> mt.Tensor:
    with mt.no_grad():
        return y[:1]


def test_a_view_made_under_no_grad_may_not_be_changed_outside() -> None:
    y = leaf() * 1
    for change in (
        lambda: no_grad_view(y).mul_(3),
        lambda: no_grad_view(y)[:1].mul_(3),
        lambda: no_grad_view(leaf()).mul_(3),
        lambda: no_grad_view(mt.zeros(2)).mul_(leaf()[:1]),
    ):
        with pytest.raises(RuntimeError, match="created in no_grad mode"):
            change()
    assert y.tolist() == [1, 2]
    no_grad_view(mt.zeros(2)).mul_(3)  # no gradient is involved
    with mt.no_grad():
        no_grad_view(y).mul_(3)
    assert y.tolist() == [3, 2]


def test_a_view_made_under_no_grad_gets_no_gradient() -> None:
    x = leaf()
    view = no_grad_view(x)
    assert view.requires_grad  # as its base does
    y = view * 2
    assert y.requires_grad
    y.sum().backward()
    assert view.grad is x.grad is None
    assert mt.autograd.grad((view * x[0]).sum(), [view, x], allow_unused=True)[0] is None
    with mt.no_grad():
        logits = x.expand(2, 2)
    mt.nn.functional.cross_entropy(logits, mt.tensor([1, 1])).backward()
    assert logits.grad is x.grad is None
    for outside in (view, mt.inference_mode()(lambda: x[:1])()):
        with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
            outside.backward(mt.ones(1))


def test_a_view_made_under_no_grad_of_a_constant_may_be_used_after_its_base_changed() -> None:
    with mt.no_grad():
        y = leaf() * 1
        view = y[:1]
    y.fill_(-2)
    assert view.relu_().tolist() == [0]
    assert y.tolist() == [0, -2]


def test_gradients_that_are_returned_can_be_flattened() -> None:
    x = mt.ones(2, 3, requires_grad=True)
    for y in (x[:, [0]], x.index_select(1, mt.tensor([1])), x.t(), x.sum(0)):
        (g,) = mt.autograd.grad(y.sum(), x)
        assert g.view(-1).tolist() == g.flatten().tolist()


def test_a_view_made_under_no_grad_is_lost_when_its_base_changes() -> None:
    x = leaf()
    view = no_grad_view(x)
    with mt.no_grad():
        x -= 0.1
    with pytest.raises(RuntimeError, match="created in no_grad mode"):
        view.sum()


@pytest.mark.parametrize(
    "split",
    [
        lambda t: t.unbind()[0],
        lambda t: t.split(1)[0],
        lambda t: t.chunk(2)[0],
        lambda t: t.tensor_split(2)[0],
        lambda t: next(iter(t)),
    ],
)
def test_one_of_several_views_may_be_changed(split: Callable[[mt.Tensor], mt.Tensor]) -> None:
    """PyTorch refuses this but for tensor_split; here each of them has a history of its own."""
    x = leaf()
    y = x * 1
    split(y).mul_(2)
    y.sum().backward()
    assert x.grad.tolist() == [2, 1]


def test_a_view_of_a_base_that_was_transposed_in_place_since_is_refused() -> None:
    x = mt.arange(6.0).reshape(2, 3).requires_grad_()
    y = x * 1
    row, last = y[0], y.unbind(1)[-1]
    y.t_()
    column = y[0]
    column.mul_(2)
    y.sum().backward()
    assert x.grad.tolist() == [[2, 1, 1], [2, 1, 1]]
    with pytest.raises(RuntimeError, match="laid out anew in place"):
        row.sum()
    with pytest.raises(RuntimeError, match="laid out anew in place"):
        row.mul_(2)
    with pytest.raises(RuntimeError, match="laid out anew in place"):
        last.sum()


@pytest.mark.parametrize("mode", [mt.no_grad, mt.inference_mode, mt.enable_grad])
def test_a_new_layout_in_place_keeps_the_history(mode: Any) -> None:
    x = mt.arange(6.0).reshape(1, 2, 3).requires_grad_()
    y = x * 2
    square = x * y
    with mode():
        y.squeeze_(0).t_()
        assert y._version == 2
    assert not y.is_leaf
    (y * mt.arange(6.0).reshape(3, 2)).sum().backward()
    assert x.grad.tolist() == [[[0, 4, 8], [2, 6, 10]]]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.sum().backward()


def test_a_view_of_a_leaf_that_is_a_view_keeps_its_gradient_when_the_leaf_changes() -> None:
    x = mt.arange(6.0).reshape(2, 3).requires_grad_()  # PyTorch loses this one
    row = x[0]
    with mt.no_grad():
        x.mul_(2)
    row.sum().backward()
    assert x.grad.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_a_leaf_laid_out_anew_under_no_grad_stays_a_leaf() -> None:
    x = mt.ones(2, 3, requires_grad=True)
    row = no_grad_view(x)
    with mt.no_grad():
        x.t_()
    assert x.is_leaf
    (x * 2).sum().backward()
    assert x.grad.shape == (3, 2)
    with pytest.raises(RuntimeError, match="created in no_grad mode"):
        row.sum()


@pytest.mark.parametrize(
    "view",
    [
        lambda y: y.view(-1),
        lambda y: y.mT.mT.view(6),
        lambda y: y.view(3, 2).mT,
        lambda y: y.unsqueeze(0).view(1, 6)[0],
    ],
)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_of_any_layout_goes_through_a_change(
    view: Callable[[mt.Tensor], mt.Tensor], create_graph: bool
) -> None:
    x = mt.ones(2, 3, requires_grad=True)
    y = x * 1
    view(y).mul_(2)
    y.backward(mt.arange(6.0).reshape(3, 2).t(), create_graph=create_graph)
    assert x.grad.tolist() == [[0, 4, 8], [2, 6, 10]]


def test_a_change_through_a_view_of_a_transposed_copy() -> None:
    x = mt.arange(6.0).reshape(2, 3).requires_grad_()
    y = x.t() * 1  # laid out as x is
    y.t().view(6)[2:4].mul_(5)
    y.backward(mt.ones(3, 2))
    assert x.grad.tolist() == [[1, 1, 5], [5, 1, 1]]


def test_a_chain_of_views_takes_memory_in_proportion() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        x = mt.ones(2, 3, requires_grad=True)
        y = x * 1
        for _ in range(count // 2):
            y = y.view(3, 2).view(2, 3)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        y.mul_(2)
        y.sum().backward()
        assert x.grad.tolist() == [[2, 2, 2], [2, 2, 2]]
        return size

    assert peak(4000) < 20 * peak(500)  # eight times as many; 64 times the pairs


# retain_grad


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.mul_(3),
        lambda y: y[:1].mul_(3),
        lambda y: y.copy_(y * 3),
        lambda y: y.__setitem__(slice(None), 3.0),
    ],
)
def test_a_retained_gradient_is_that_of_the_changed_tensor(
    change: Callable[[mt.Tensor], Any],
) -> None:
    y = leaf().clone()
    y.retain_grad()
    change(y)
    y.sum().backward()
    assert y.grad.tolist() == [1, 1]


def test_a_gradient_is_kept_in_the_shape_that_the_tensor_had() -> None:
    """As in PyTorch: what changes the shape in place comes after it."""
    x = mt.ones(2, 2, requires_grad=True)
    y = x[:, :1] * 2
    y.retain_grad()
    y.transpose_(0, 1)
    (y * mt.tensor([[3.0, 4.0]])).sum().backward()
    assert y.grad.tolist() == [[3.0], [4.0]]
    assert x.grad.tolist() == [[6.0, 0.0], [8.0, 0.0]]


def test_retaining_twice_counts_once() -> None:
    y = leaf().clone()
    y.retain_grad()
    y.mul_(3)
    y.retain_grad()
    y.mul_(5)
    y.sum().backward()
    assert y.grad.tolist() == [1, 1]


def test_a_view_whose_base_changed_retains_its_gradient() -> None:
    x = leaf()
    y = x.clone()
    view = y[:1]
    view.retain_grad()
    y.mul_(3)
    view.sum().backward()
    assert view.grad.tolist() == [1]
    assert x.grad.tolist() == [3, 0]


# The inputs of backward, and what arrives at them


def test_backward_to_a_given_tensor_retains_its_gradient() -> None:
    y = leaf() * 1
    y.sum().backward(inputs=[y, y], retain_graph=True)
    assert y.grad.tolist() == [1, 1]
    first = y.grad
    y.sum().backward()
    assert y.grad.tolist() == [2, 2]
    assert first.tolist() == [1, 1]  # a retained gradient is not added to in place


def test_a_leaf_that_wants_no_gradient_any_more_gets_none() -> None:
    x, y = leaf(), leaf()
    z = (x * y).sum()
    x.requires_grad_(False)
    z.backward()
    assert x.grad is None
    assert y.grad.tolist() == [1, 2]


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_is_laid_out_as_its_leaf(create_graph: bool) -> None:
    x = mt.ones(2, 3, requires_grad=True)
    x.index_select(1, mt.tensor([1])).sum().backward(create_graph=create_graph)
    y = mt.ones(2, 3, requires_grad=True)
    (y * 3).backward(mt.ones(3, 2).mT, create_graph=create_graph)
    for t in (x, y):
        assert t.grad.stride() == t.stride()
        t.grad.view(-1)
    if not create_graph:
        z = mt.ones(3, 2).t().requires_grad_()
        (z * 3).sum().backward()
        assert z.grad.stride() == z.stride() == (1, 2)


def test_hooks_of_a_leaf_run_as_soon_as_its_gradient_is_complete() -> None:
    order: list[str] = []
    early, late, middle = leaf(), leaf(), leaf()
    a = late * middle
    a.register_hook(lambda g: order.append("a"))
    early.register_hook(lambda g: order.append("early"))
    early.register_post_accumulate_grad_hook(lambda t: order.append(f"early {t.grad.tolist()}"))
    late.register_post_accumulate_grad_hook(lambda t: order.append("late"))
    (early * a + early).sum().backward()
    assert order == ["early", "early [2.0, 5.0]", "a", "late"]


def test_only_the_second_derivative_of_a_once_differentiable_function_is_refused() -> None:
    class Once(Same):
        @staticmethod
        @once_differentiable
        def backward(ctx: Any, dy: mt.Tensor) -> mt.Tensor:
            return dy * 2

    x = leaf()
    Once.apply(x).tanh().sum().backward(create_graph=True)
    assert mt.allclose(x.grad, 2 * (1 - x.detach().tanh() ** 2))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="differentiate twice"):
        x.grad.sum().backward()


def test_what_a_function_saves_after_changing_it_is_its_output() -> None:
    class TanhInPlace(Function):
        @staticmethod
        def forward(ctx: Any, x: mt.Tensor) -> mt.Tensor:
            x.tanh_()
            ctx.mark_dirty(x)
            ctx.save_for_backward(x)
            return x

        @staticmethod
        def backward(ctx: Any, dy: mt.Tensor) -> mt.Tensor:
            (y,) = ctx.saved_tensors
            return dy * (1 - y * y)

    x = mt.tensor([0.3, 0.9], dtype=mt.float64, requires_grad=True)
    (first,) = mt.autograd.grad(TanhInPlace.apply(x * 2).sum(), x, create_graph=True)
    (second,) = mt.autograd.grad(first.sum(), x)
    y = (2 * x.detach()).tanh()
    assert mt.allclose(first, 2 * (1 - y * y))
    assert mt.allclose(second, -8 * y * (1 - y * y))


def test_backward_to_given_inputs_adds_once_and_runs_their_hooks() -> None:
    x, seen = leaf(), []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    (x * 3).sum().backward(inputs=[x, x])
    assert x.grad.tolist() == [3, 3]
    assert seen == [[3, 3]]


# Checkpoints


def test_a_checkpoint_refuses_an_argument_that_changed_since() -> None:
    a, c = leaf() * 1, mt.ones(2)
    for change in (a, c):
        y = checkpoint(lambda a, c: a * c, a, c)
        change.mul_(2)
        with pytest.raises(RuntimeError, match="saved by checkpoint is at version"):
            y.sum().backward()


def test_a_checkpoint_may_be_the_first_to_use_a_view_whose_base_changed() -> None:
    x = leaf()
    y = x * 1
    view = y[:1]
    y.mul_(2)
    checkpoint(lambda a, b: a * b, view, x).sum().backward()
    assert x.grad.tolist() == [8, 2]  # 2 x_0 (x_0 + x_1)


def test_a_checkpoint_that_saves_no_tensor_needs_no_argument_again() -> None:
    x = leaf()
    a = x * 1
    y = checkpoint(lambda a: a * 3, a)
    a.mul_(2)
    y.sum().backward()
    assert x.grad.tolist() == [3, 3]


# The tensors that share one array


@pytest.mark.parametrize("other", [lambda x: x.detach(), lambda x: x.data])
@pytest.mark.parametrize(
    ("f", "slope", "curvature"),
    [
        (lambda x, d: x * d, lambda x: x, 0),
        (lambda x, d: d * x, lambda x: x, 0),
        (lambda x, d: d / x, lambda x: -1 / x, lambda x: 2 / x**2),
        (lambda x, d: x / d, lambda x: 1 / x, 0),
        (lambda x, d: x**d, lambda x: x * x ** (x - 1), lambda x: x * (x - 1) * x ** (x - 2)),
        (lambda x, d: d**x, lambda x: x**x * x.log(), lambda x: x**x * x.log() ** 2),
        (lambda x, d: mt.addcmul(x, x, d), lambda x: 1 + x, 0),
        (lambda x, d: mt.addcdiv(x, d, x), lambda x: 1 - 1 / x, lambda x: 2 / x**2),
        (lambda x, d: mt.dot(x, d), lambda x: x, 0),
        (lambda x, d: mt.outer(x, d).sum(1), lambda x: x.sum().expand(2), 0),
        (lambda x, d: (x[None] @ d[:, None]).sum(), lambda x: x, 0),
        (lambda x, d: mt.where(d > 0, x * d, d), lambda x: x, 0),
        (lambda x, d: mt.atan2(x, d), lambda x: 1 / (2 * x), lambda x: -1 / (2 * x**2)),
        (lambda x, d: mt.lerp(x, d, d), lambda x: 1 - x, 0),
    ],
)
def test_a_tensor_and_its_detached_self_are_two_arguments(
    other: Any, f: Any, slope: Any, curvature: Any
) -> None:
    x = mt.tensor([1.5, 2.5], dtype=mt.float64, requires_grad=True)
    (first,) = mt.autograd.grad(f(x, other(x)).sum(), x, create_graph=True)
    assert mt.allclose(first, slope(x.detach()))
    if curvature == 0:
        second = (
            mt.autograd.grad(first.sum(), x, allow_unused=True)[0] if first.requires_grad else None
        )
        assert second is None or not second.any()
    else:
        (second,) = mt.autograd.grad(first.sum(), x)
        assert mt.allclose(second, curvature(x.detach()))


# A second backward pass


@pytest.mark.parametrize(
    ("f", "kept"),
    [
        (lambda x: x * 2, True),
        (lambda x: x / 2, True),
        (lambda x: 2 / x, True),
        (lambda x: x**2, True),
        (lambda x: x.exp(), True),
        (lambda x: x + 2, False),
        (lambda x: 2 - x, False),
        (lambda x: -x, False),
        (lambda x: x.view(2, 1).t().expand(3, 2)[0].mean(), False),
        (lambda x: mt.cat([x, x]).flip(0).roll(1), False),
    ],
)
def test_a_second_backward_pass_is_refused_if_the_first_freed_an_operand(
    f: Any, kept: bool
) -> None:
    x = leaf()
    y = f(x).sum()
    y.backward()
    if kept:
        with pytest.raises(RuntimeError, match="a second time"):
            y.backward()
    else:
        y.backward()


def test_the_gradient_of_a_mean_can_be_changed_in_place() -> None:
    x = mt.ones(2, 3, requires_grad=True)
    (gradient,) = mt.autograd.grad(x.mean(), x)
    assert gradient.mul_(6).view(-1).tolist() == [1] * 6


def test_a_hook_on_a_view_does_not_see_what_goes_to_its_base() -> None:
    x = mt.ones(2, 3, requires_grad=True)
    y = x * 1
    view = y.view(6)
    view.register_hook(lambda g: g * 10)
    view.mul_(2)
    y.sum().backward()
    assert x.grad.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_a_leaf_that_was_moved_into_the_graph_is_refused() -> None:
    x = leaf()
    y = x.sigmoid()
    x.requires_grad_(False)
    x[...] = y
    with pytest.raises(RuntimeError, match="moved into the graph interior"):
        x.sum().backward()


def test_a_view_of_a_leaf_keeps_its_layout() -> None:
    for view in (leaf().view(2, 1), leaf()[None]):
        with pytest.raises(RuntimeError, match="a view of a leaf Variable"):
            view.t_()
    with mt.inference_mode():
        x = mt.ones(2, 1) * 2
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        x.t_()


def test_what_a_function_returned_as_it_is_cannot_lose_a_gradient() -> None:
    x = leaf()
    y = mt.ones(2)
    same = Same.apply(y)
    y.mul_(x)
    assert same.requires_grad
    with pytest.raises(RuntimeError, match="modified inplace"):
        same.sum().backward()
