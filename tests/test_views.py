"""Views and changes in place against PyTorch: random programs, and the cases worth a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor
from minitensor.core import Tensor, wrap

Step = Callable[[list[Any], Any], None]  # changes a list of tensors, given the library's `make`


def ours(a: Any) -> Tensor:
    return wrap(np.array(a))


def theirs(a: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(a))


def random_program(noise: np.random.RandomState) -> list[tuple[str, Step]]:
    """Steps that take views of tensors, change tensors in place, and compute with them."""
    steps: list[tuple[str, Step]] = []
    shapes: list[tuple[int, ...]] = [(2, 3, 4), (3, 4)]  # a tensor that needs a gradient, one not

    def note(text: str, step: Any) -> None:
        steps.append((text, step))

    for _ in range(noise.randint(3, 12)):
        at = int(noise.randint(len(shapes)))
        shape = shapes[at]
        number = float(noise.randint(1, 5))
        new = len(shapes)
        kind = noise.choice(
            [
                "item",
                "transpose",
                "flat",
                "unbind",
                "chunk",
                "mul",
                "fill",
                "copy",
                "put",
                "mask",
                "exp",
                "use",
                "square",
                "add",
            ],
            p=[0.15, 0.08, 0.06, 0.04, 0.04, 0.1, 0.06, 0.1, 0.09, 0.07, 0.05, 0.06, 0.05, 0.05],
        )
        if kind == "item":
            key = tuple(
                int(noise.randint(n))
                if n and noise.rand() < 0.3
                else slice(int(noise.randint(0, 2)), None, int(noise.randint(1, 3)))
                for n in shape[: noise.randint(0, len(shape) + 1)]
            )
            note(f"t{new} = t{at}[{key}]", lambda ts, _, at=at, key=key: ts.append(ts[at][key]))
            shapes.append(np.zeros(shape)[key].shape)
        elif kind == "transpose":
            if len(shape) < 2:
                continue
            note(
                f"t{new} = t{at}.transpose(0, -1)",
                lambda ts, _, at=at: ts.append(ts[at].transpose(0, -1)),
            )
            shapes.append((shape[-1], *shape[1:-1], shape[0]))
        elif kind == "flat":
            # a view or a copy, which depends on the strides
            note(f"t{new} = t{at}.reshape(-1)", lambda ts, _, at=at: ts.append(ts[at].reshape(-1)))
            shapes.append((int(np.prod(shape)),))
        elif kind in ("unbind", "chunk"):
            if not shape or not shape[0]:
                continue
            # PyTorch forbids to change one of several outputs, so it gets a view of its own.
            if kind == "unbind":
                note(
                    f"t{new} = t{at}.unbind()[-1]",
                    lambda ts, make, at=at: ts.append(
                        ts[at].unbind()[-1] if make is ours else ts[at][-1]
                    ),
                )
                shapes.append(shape[1:])
            else:
                half = -(-shape[0] // 2)
                note(
                    f"t{new} = t{at}.chunk(2)[0]",
                    lambda ts, make, at=at, half=half: ts.append(
                        ts[at].chunk(2)[0] if make is ours else ts[at][:half]
                    ),
                )
                shapes.append((half, *shape[1:]))
        elif kind == "mul":
            note(f"t{at}.mul_({number})", lambda ts, _, at=at, c=number: ts[at].mul_(c))
        elif kind == "add":
            note(f"t{at} += {number}", lambda ts, _, at=at, c=number: ts[at].add_(c))
        elif kind == "exp":
            note(f"t{at}.mul_(0.1).exp_()", lambda ts, _, at=at: ts[at].mul_(0.1).exp_())
        elif kind == "fill":
            note(f"t{at}.fill_({number})", lambda ts, _, at=at, c=number: ts[at].fill_(c))
        elif kind == "copy":
            other = int(noise.randint(len(shapes)))
            if not fits(shapes[other], shape):
                continue
            note(
                f"t{at}.copy_(t{other} * 2)", lambda ts, _, at=at, o=other: ts[at].copy_(ts[o] * 2)
            )
        elif kind == "put":
            other = int(noise.randint(len(shapes)))
            if not shape or not shape[0] or not fits(shapes[other], shape[1:]):
                continue
            i = int(noise.randint(shape[0]))
            note(
                f"t{at}[{i}] = t{other} * 3",
                lambda ts, _, at=at, i=i, o=other: ts[at].__setitem__(i, ts[o] * 3),
            )
        elif kind == "mask":
            mask = np.array(noise.rand(*shape) < 0.5)
            note(
                f"t{at}[mask] = {number}",
                lambda ts, make, at=at, m=mask, c=number: ts[at].__setitem__(make(m), c),
            )
        elif kind == "use":
            note(f"t{new} = t{at} * {number}", lambda ts, _, at=at, c=number: ts.append(ts[at] * c))
            shapes.append(shape)
        elif kind == "square":
            note(f"t{new} = t{at} * t{at}", lambda ts, _, at=at: ts.append(ts[at] * ts[at]))
            shapes.append(shape)
    return steps


def fits(source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(source, target) == target and len(source) <= len(target)
    except ValueError:
        return False


def run(program: list[tuple[str, Step]], make: Any) -> tuple[list[Any], list[Any], Any]:
    """The leaves, the tensors and the error, if there was one."""
    noise = np.random.RandomState(5)
    leaf = make(noise.randn(2, 3, 4)).requires_grad_()
    constant = make(noise.randn(3, 4))
    tensors = [leaf * 1, constant]
    try:
        for _, step in program:
            step(tensors, make)
        weights = [
            make(noise.randn(*t.shape)) if len(t.shape) else make(np.array(noise.randn()))
            for t in tensors
        ]
        loss = sum((t * w).sum() for t, w in zip(tensors, weights, strict=True) if t.requires_grad)
        if hasattr(loss, "backward"):
            loss.backward()
        return [leaf], tensors, None
    except RuntimeError as error:
        return [leaf], tensors, error


@needs_torch
@pytest.mark.parametrize("seed", range(6))
def test_random_programs_are_pytorchs(seed: int) -> None:
    noise = np.random.RandomState(seed)
    compared = 0
    for _ in range(60):
        program = random_program(noise)
        text = "\n".join(line for line, _ in program)
        mine, my_tensors, error = run(program, ours)
        other, other_tensors, other_error = run(program, theirs)
        for number, (a, b) in enumerate(zip(my_tensors, other_tensors, strict=False)):
            np.testing.assert_allclose(
                a.detach().numpy(),
                b.detach().numpy(),
                rtol=1e-10,
                err_msg=f"t{number} of\n{text}",
            )
            assert a.requires_grad == b.requires_grad, f"t{number} of\n{text}"
            assert a.is_leaf == b.is_leaf, f"t{number} of\n{text}"
        assert (error is None) == (other_error is None), f"{error}\n{other_error}\n{text}"
        if error is not None:
            continue
        compared += 1
        for a, b in zip(mine, other, strict=True):
            assert (a.grad is None) == (b.grad is None), text
            if a.grad is not None:
                np.testing.assert_allclose(
                    a.grad.numpy(), b.grad.numpy(), rtol=1e-9, atol=1e-9, err_msg=text
                )
    assert compared > 20


# One case each: the same function, run by both libraries

CASES: list[Callable[[Any], Any]] = []


def same_as_pytorch(case: Callable[[Any], Any]) -> Callable[[Any], Any]:
    CASES.append(case)
    return case


def make(lib: Any, values: Any, requires_grad: bool = False) -> Any:
    array = np.array(values, np.float64)
    t = wrap(array) if lib is minitensor else lib.from_numpy(array)
    return t.requires_grad_() if requires_grad else t


def values(t: Any) -> Any:
    return None if t is None else np.round(t.detach().numpy(), 9).tolist()


@same_as_pytorch
def nograd_view(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    with lib.no_grad():
        v = p[1:]
    return v.requires_grad, v.is_leaf, (v * 2).requires_grad


@same_as_pytorch
def nograd_view_then_use(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    with lib.no_grad():
        v = p[1:]
    w = p * 2
    w.sum().backward()
    return values(p.grad), values(v.grad)


@same_as_pytorch
def nograd_view_modified(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    with lib.no_grad():
        v = p[1:]
        v.mul_(2)
        p[0] = 7
        p.add_(1)
    (p * p).sum().backward()
    return values(p), values(p.grad), v.requires_grad


@same_as_pytorch
def nograd_view_of_nonleaf(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    with lib.no_grad():
        v = y[1:]
    return v.requires_grad, (v * 3).requires_grad


@same_as_pytorch
def stale_in_nograd(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    v = y[1:]
    y.mul_(3)
    with lib.no_grad():
        a = (v.requires_grad, v.is_leaf, v.grad_fn is None)
    (v * v).sum().backward()
    return a, values(p.grad)


@same_as_pytorch
def nograd_inplace_after_view(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    v = y[1:]
    with lib.no_grad():
        y.mul_(3)
    (v * 1).sum().backward()
    return values(p.grad), values(v)


@same_as_pytorch
def hook_before_inplace(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    seen = []
    y.register_hook(lambda g: seen.append(values(g)))
    y.mul_(5)
    (y * 2).sum().backward()
    return seen, values(p.grad)


@same_as_pytorch
def hook_after_inplace(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    seen = []
    y[0] = 3
    y.register_hook(lambda g: seen.append(values(g)))
    (y * 2).sum().backward()
    return seen, values(p.grad)


@same_as_pytorch
def retain_view(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    v = y[1:]
    v.retain_grad()
    (y * 2).sum().backward()
    return values(v.grad), values(p.grad)


@same_as_pytorch
def detach_write(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    z = y * y
    y.detach().mul_(2)
    z.sum().backward()
    return values(p.grad)


@same_as_pytorch
def data_write(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    z = y * y
    y.data.mul_(2)
    z.sum().backward()
    return values(p.grad)


@same_as_pytorch
def leaf_view(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    p[0] = 1


@same_as_pytorch
def leaf(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    p.zero_()


@same_as_pytorch
def leaf_mask(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    p[p > 1] = 1


@same_as_pytorch
def leaf_index(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    p[[0, 1]] = 1


@same_as_pytorch
def expanded(lib: Any) -> Any:
    p = make(lib, [[1], [2]])
    p.expand(2, 3)[0] = 1


@same_as_pytorch
def expanded2(lib: Any) -> Any:
    p = make(lib, [[1], [2]])
    q = p.expand(2, 3)
    q.add_(1)


@same_as_pytorch
def expanded3(lib: Any) -> Any:
    p = make(lib, [[1], [2]])
    q = p.expand(2, 3)
    q[0, 0] = 1
    return values(p)


@same_as_pytorch
def expanded4(lib: Any) -> Any:
    p = make(lib, [1, 2])
    q = p.expand(1, 2)
    q.add_(1)
    return values(p)


@same_as_pytorch
def value_makes_base_require(lib: Any) -> Any:
    x = make(lib, np.zeros((3, 2)))
    v = x[0]
    w = x.view(-1)
    a = make(lib, [1, 2], True)
    x[1] = a
    r = (x.requires_grad, v.requires_grad, w.requires_grad, v.is_leaf, w.is_leaf)
    (w * make(lib, np.arange(6))).sum().backward()
    return r, values(a.grad)


@same_as_pytorch
def value_via_view(lib: Any) -> Any:
    x = make(lib, np.zeros((3, 2)))
    v = x[0]
    a = make(lib, [1, 2], True)
    v.copy_(a * 3)
    (x * x).sum().backward()
    return x.requires_grad, v.requires_grad, values(a.grad)


@same_as_pytorch
def leaf_value_direct(lib: Any) -> Any:
    x = make(lib, np.zeros((2,)))
    a = make(lib, [1, 2], True)
    x.copy_(a)
    x.register_hook(lambda g: g * 10)
    (x * a).sum().backward()
    return x.is_leaf, values(a.grad), values(x)


@same_as_pytorch
def zero_keeps(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    y.zero_()
    y.sum().backward()
    return y.requires_grad, values(p.grad)


@same_as_pytorch
def fill_tensor(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    a = make(lib, 2, True)
    y = p * 2
    y[1:].fill_(a)
    (y * make(lib, [1, 2, 3])).sum().backward()
    return values(p.grad), values(a.grad)


@same_as_pytorch
def saved_modified(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    z = y * y
    y[0] = 1
    z.sum().backward()


@same_as_pytorch
def saved_modified_exp(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p.exp()
    y.add_(1)
    y.sum().backward()


@same_as_pytorch
def view_saved_modified(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    v = y[1:]
    z = v * v
    y[0] = 1
    z.sum().backward()


@same_as_pytorch
def versions(lib: Any) -> Any:
    x = make(lib, np.zeros((2, 3)))
    v = x[0]
    d = x.detach()
    e = x.data
    r = [x._version]
    x[0] = 1
    r += [x._version, v._version, d._version, e._version]
    v.add_(1)
    r += [x._version, v._version]
    x.fill_(0)
    r += [x._version]
    x[x > 0] = 1
    r += [x._version]
    x.copy_(x + 1)
    r += [x._version]
    x.zero_()
    r.append(x._version)
    x[[0, 1]] = 2.0
    r.append(x._version)
    x[0, 1] = 3
    r.append(x._version)
    return r


@same_as_pytorch
def imul_slice(lib: Any) -> Any:
    p = make(lib, np.arange(6).reshape(2, 3), True)
    y = p * 1
    y[:, 0] *= 2
    y[:, 1:] += y[:, :2].clone()
    (y * y).sum().backward()
    return values(p.grad), values(y)


@same_as_pytorch
def double_backward_through_setitem(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    a = make(lib, [4.0], True)
    y = p * p
    y[1:2] = a * a * a
    z = (y * y).sum()
    g, h = lib.autograd.grad(z, [p, a], create_graph=True)
    (g.sum() + h.sum()).backward()
    return values(p.grad), values(a.grad)


@same_as_pytorch
def double_backward_inplace_view(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * p
    v = y[1:]
    v.mul_(v.clone())
    z = (y * y).sum()
    (g,) = lib.autograd.grad(z, [p], create_graph=True)
    g.sum().backward()
    return values(p.grad)


@same_as_pytorch
def double_backward_index(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    i = lib.tensor([0, 0, 2])
    z = (p[i] ** 3).sum()
    (g,) = lib.autograd.grad(z, [p], create_graph=True)
    (g * g).sum().backward()
    return values(p.grad)


@same_as_pytorch
def unsqueeze_inplace(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    y.unsqueeze_(0)
    (y * y).sum().backward()
    return list(y.shape), values(p.grad)


@same_as_pytorch
def squeeze_inplace_view(lib: Any) -> Any:
    p = make(lib, [[1, 2, 3]], True)
    y = p * 2
    v = y[:, 1:]
    v.squeeze_(0)
    v.mul_(2)
    (y * y).sum().backward()
    return list(v.shape), values(p.grad)


@same_as_pytorch
def unsq_leaf(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    p.unsqueeze_(0)


@same_as_pytorch
def int_target(lib: Any) -> Any:
    x = lib.tensor([1, 2, 3])
    x[0] = make(lib, 1.7)
    x.copy_(make(lib, [1.5, 2.5, -1.5]))
    return x.tolist(), str(x.dtype)[-5:]


@same_as_pytorch
def bool_target(lib: Any) -> Any:
    x = lib.tensor([True, False])
    x[1] = 5
    x.fill_(0.5)
    return x.tolist()


@same_as_pytorch
def requires_grad_view(lib: Any) -> Any:
    x = make(lib, [1, 2, 3])
    v = x[1:]
    v.requires_grad_()
    return x.requires_grad, v.requires_grad, v.is_leaf


@same_as_pytorch
def base_requires_after(lib: Any) -> Any:
    x = make(lib, [1, 2, 3])
    v = x[1:]
    x.requires_grad_()
    return x.requires_grad, v.requires_grad, v.is_leaf


@same_as_pytorch
def inplace_self_view(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    y[1:].add_(y[0])
    y.sum().backward()
    return values(p.grad), values(y)


@same_as_pytorch
def overlap(lib: Any) -> Any:
    x = make(lib, [1, 2, 3, 4])
    x[1:] = x[:-1].clone()
    return values(x)


@same_as_pytorch
def setitem_in_loop(lib: Any) -> Any:
    a = make(lib, [1, 2, 3], True)
    out = lib.zeros(3, 3).double()
    for i in range(3):
        out[i] = a * (i + 1)
    out[0, 1] = out[2, 2]
    (out * out).sum().backward()
    return values(a.grad)


@same_as_pytorch
def inference_write(lib: Any) -> Any:
    with lib.inference_mode():
        x = make(lib, [1, 2, 3]) * 1
    x.zero_()


@same_as_pytorch
def inference_view_write(lib: Any) -> Any:
    with lib.inference_mode():
        x = make(lib, [1, 2, 3]) * 1
        x[0] = 5
        x.zero_()
        return values(x)


@same_as_pytorch
def inference_normal_view(lib: Any) -> Any:
    x = make(lib, [1, 2, 3])
    with lib.inference_mode():
        v = x[1:]
        v.zero_()
    return values(x), x._version > 0


@same_as_pytorch
def detach_inplace(lib: Any) -> Any:
    p = make(lib, [1, 2, 3], True)
    y = p * 2
    v = y[1:]
    v.detach_()


@same_as_pytorch
def param_view_nograd_then_grad(lib: Any) -> Any:
    p = make(lib, np.ones((2, 2)), True)
    with lib.no_grad():
        p[0].fill_(3)
        p.t().mul_(2)
    (p.t()[0] * p[1]).sum().backward()
    return values(p), values(p.grad)


@same_as_pytorch
def scatter_inplace(lib: Any) -> Any:
    p = make(lib, np.arange(6.0).reshape(2, 3), True)
    s = make(lib, [[5.0], [6.0]], True)
    y = p * 1
    y.scatter_(1, lib.tensor([[0], [2]]), s)
    (y * y).sum().backward()
    return values(p.grad), values(s.grad)


@same_as_pytorch
def index_fill_view(lib: Any) -> Any:
    p = make(lib, np.arange(6.0).reshape(2, 3), True)
    y = p * 1
    y.t().index_fill_(0, lib.tensor([0]), 9.0)
    (y * y).sum().backward()
    return values(p.grad)


@same_as_pytorch
def masked_fill_view(lib: Any) -> Any:
    p = make(lib, np.arange(6.0).reshape(2, 3), True)
    y = p * 1
    y[0].masked_fill_(lib.tensor([True, False, True]), 9.0)
    (y * y).sum().backward()
    return values(p.grad)


@same_as_pytorch
def index_put_acc(lib: Any) -> Any:
    p = make(lib, np.zeros(3), True)
    y = p * 1
    v = make(lib, [1, 2, 3], True)
    y.index_put_((lib.tensor([0, 0, 2]),), v, accumulate=True)
    (y * y).sum().backward()
    return values(p.grad), values(v.grad)


@same_as_pytorch
def tril_inplace(lib: Any) -> Any:
    p = make(lib, np.ones((3, 3)), True)
    y = p * 2
    y.tril_()
    y.sum().backward()
    return values(p.grad)


@same_as_pytorch
def reshape_view_flag(lib: Any) -> Any:
    x = make(lib, np.zeros((2, 3)))
    y = x.t().reshape(-1)
    y.add_(1)
    z = x.reshape(3, 2)
    z.add_(2)
    return values(x), y._base is None


@same_as_pytorch
def what_changes_nothing_returns_itself(lib: Any) -> Any:
    x = make(lib, [1, 2])
    return x.flatten() is x, x.contiguous() is x, x.reshape(2) is x


@same_as_pytorch
def grad_of_view_leaf(lib: Any) -> Any:
    x = make(lib, [1, 2, 3])
    v = x[1:].requires_grad_()
    (v * v).sum().backward()
    return values(v.grad)


@same_as_pytorch
def setitem_other_lib_index(lib: Any) -> Any:
    x = make(lib, np.zeros((2, 3)))
    x[:, np.array([0, 2])] = make(lib, [1, 2])
    x[lib.tensor([1]), ...] += 5
    return values(x)


@same_as_pytorch
def aug(lib: Any) -> Any:
    x = make(lib, np.zeros((2, 3)))
    i = lib.tensor([0, 0])
    x[i] += 1
    x[0] -= 2
    x[:, 1] /= 4
    return values(x)


@same_as_pytorch
def zero_grad_loop(lib: Any) -> Any:
    p = make(lib, [1, 2], True)
    (p * 2).sum().backward()
    g = p.grad
    g.zero_()
    (p * 3).sum().backward()
    return values(p.grad), p.grad is g


@needs_torch
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: CASES[n].__name__)
def test_case(number: int) -> None:
    import torch

    found: list[Any] = []
    for lib in (minitensor, torch):
        try:
            found.append(CASES[number](lib))
        except Exception as error:
            found.append(type(error))
    assert found[0] == found[1]
