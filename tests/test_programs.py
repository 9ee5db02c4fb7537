"""Random programs do in minitensor what they do in PyTorch; and so do those that once did not."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest
from conftest import CHECKED, needs_torch

import minitensor
from minitensor.core import OPS

if importlib.util.find_spec("torch"):
    import program_runs
    import program_shrink
    import programs
    from program_table import TABLE

COUNT = 500
SEED = 10**9

# Faults that were found, each by its smallest program.
KNOWN = {
    # Ownership of gradients
    "two leaves do not share one gradient": """
x = leaf([1.0, 2.0])
y = leaf([3.0, 4.0])
((x + y) * const([0.5, 0.7])).sum().backward()
x.grad += 100
""",
    "a gradient given from outside is not the leaf's own": """
x = leaf([1.0, 2.0])
g = const([1.0, 1.0])
(x + 0).backward(g)
x.grad += 100
""",
    "a retained gradient is not changed by the next": """
x = leaf([1.0, 2.0])
y = x * 1
y.retain_grad()
y.backward(const([1.0, 2.0]), retain_graph=True)
g = y.grad
y.backward(const([1.0, 2.0]))
""",
    "a leaf's gradient has the leaf's layout": """
x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
(x * 3).backward(cosines(3, 2).mT)
flat = x.grad.view(-1)
""",
    "the gradient of a mean can be changed in place": """
x = leaf([1.0, 2.0])
(g1,) = T.autograd.grad(x.mean(), [x])
g1.mul_(2)
""",
    "the gradients that grad returns for a leaf can be viewed": """
x = leaf([[1.0, 2.0], [3.0, 4.0]])
g1 = T.autograd.grad(project(x[:, [0]]), x)[0].view(-1)
g2 = T.autograd.grad(project(x.index_select(1, T.tensor([1]))), x)[0].view(-1)
g3 = T.autograd.grad(x.mean(), x)[0].view(-1)
""",
    # The same tensor with and without history
    **{
        f"the second derivative of {text}": f"""
x = leaf([1.3, 1.7])
y = leaf([0.4, 0.9])
z = {text}
(g1,) = T.autograd.grad(project(z), [x], create_graph=True)
g2 = T.autograd.grad(project(g1) + project(x), [x, y], allow_unused=True)
"""
        for text in (
            "x * x.detach()",
            "x.data * x",
            "x.detach() / x",
            "x / x.detach()",
            "x ** x.detach()",
            "x.detach() ** x",
            "T.addcmul(y, x, x.detach())",
            "T.addcdiv(y, x.detach(), x)",
            "T.dot(x, x.detach())",
            "T.outer(x.detach(), x)",
            "T.mm(x[None], x.detach()[:, None])",
            "T.atan2(x, x.detach())",
            "T.logaddexp(x, x.detach())",
            "T.lerp(x, x.detach(), x)",
            "F.linear(x, x.detach()[None])",
            "F.mse_loss(x, x.detach() * 2)",
            "checkpoint(lambda a: a * x.detach(), x, use_reentrant=False)",
        )
    },
    # Functions that change their argument
    "a Function that doubles a view in place": """
x = leaf([1.0, 2.0])
y = x.clone()
Double.apply(y[:1])
y.sum().backward()
""",
    "a Function that doubles a view of a view in place": """
x = leaf([1.0, 2.0, 3.0, 4.0])
y = x * x
Double.apply(y.view(2, 2)[1:])
y.sum().backward()
""",
    "a Function that marks as changed what it does not return": """
x = leaf([1.0, 2.0])
y = x * 1
z = DoubleCopy.apply(y)
""",
    "a Function that returns its argument": """
x = leaf([1.0, 2.0])
b = x * 1
s = b * b
Same.apply(b).mul_(2)
s.sum().backward()
""",
    "a module with a backward hook whose result is changed in place": """
x = leaf([1.0, 2.0])
b = x * 1
s = b * b
m = Keep()
m.register_full_backward_hook(note_backward('h'))
m(b).mul_(2)
s.sum().backward()
""",
    "the second derivative of a Function that saves what it changed": """
x = leaf(1.0)
y = x * 2
ExpInPlace.apply(y)
(g1,) = T.autograd.grad(y, [x], create_graph=True)
g2 = T.autograd.grad(g1, [x])
""",
    "a saved output of a Function, changed through another view": """
x = leaf([1.0, 2.0])
v = x * 2
ExpInPlace.apply(v.unsqueeze(1))
v.lerp_(const([1.0, 1.0]), 0.3)
v.sum().backward()
""",
    "a Function that changes a view and returns two tensors": """
x = leaf([1.0, 2.0])
v = x * 1
AddInto.apply(v[:1], x[1:])
""",
    "a Function whose gradient has a dimension too many": """
x = leaf([1.0, 2.0])
WrongShape.apply(x).sum().backward()
""",
    "a Function whose gradient is of another shape": """
class Wrong(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2
    @staticmethod
    def backward(ctx, g):
        return g[:1].expand(3)
x = leaf([1.0, 2.0])
Wrong.apply(x).sum().backward()
""",
    "a Function that can be differentiated once, with create_graph": """
x = leaf(1.5)
Once.apply(x).tanh().backward(create_graph=True)
x.grad.backward()
""",
    "a Function whose backward calls backward, 200 deep": """
class Deep(T.autograd.Function):
    @staticmethod
    def forward(ctx, x, depth):
        ctx.depth = depth
        return x * 1
    @staticmethod
    def backward(ctx, g):
        if ctx.depth:
            with T.enable_grad():
                x = leaf(1.0)
                Deep.apply(x, ctx.depth - 1).backward()
            return g + x.grad, None
        return g, None
x = leaf(1.0)
Deep.apply(x, 200).backward()
""",
    # Views
    "a view made without grad, changed outside": """
x = leaf([1.0, 2.0])
y = x * 1
with T.no_grad():
    v = y[:1]
v.mul_(3)
(y * y).sum().backward()
""",
    "a view made without grad of a leaf has no gradient": """
x = leaf([[1.0, 2.0]])
with T.no_grad():
    v = x.permute(1, 0)
project(v).backward()
g1 = T.autograd.grad(project(v), v, allow_unused=True)
""",
    "an op on a view made without grad of a leaf": """
x = leaf(1.0)
with T.no_grad():
    v = x.expand(2, 2)
(F.cross_entropy(v, T.tensor([1, 1])) * 2).backward()
""",
    "a view made without grad is no place to start from": """
x = leaf([1.0])
with T.no_grad():
    v = x[-1]
v.backward()
""",
    "a view made in inference mode is no place to start from": """
x = leaf([1.0])
with T.inference_mode():
    v = x[-1]
v.backward()
""",
    "a view made without grad whose base is changed": """
x = leaf([[1.0]])
with T.no_grad():
    v = x.mT
with T.no_grad():
    x -= 0.1
project(v)
""",
    "one of several views is changed": """
x = leaf([1.0, 2.0])
y = x * 1
y.unbind()[-1].mul_(2)
""",
    "the base of several views is changed": """
x = leaf([1.0, 2.0])
v = x.chunk(2)[-1]
with T.no_grad():
    x.add_(0.1)
project(v)
""",
    "a gradient of any layout goes through a change of a view": """
x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
y = x * 1
y.view(-1).mul_(2)
y.backward(cosines(3, 2).mT)
""",
    "a gradient of any layout goes through a repeat": """
x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
y = x * 1
y.mT.mul_(2)
y.repeat_interleave(2, 1).backward(cosines(6, 2).mT)
""",
    # Retained gradients, hooks and flags
    "a retained gradient is that of the tensor when it was asked for": """
x = leaf([1.0, 2.0])
y = x.clone()
y.retain_grad()
y.mul_(3)
y.sum().backward()
""",
    "a view whose base was changed keeps its gradient": """
x = leaf([1.0, 2.0])
y = x.clone()
v = y[:1]
v.retain_grad()
y.mul_(3)
(y.sum() + v.sum()).backward()
""",
    "a hook on what is changed afterwards": """
x = leaf([1.0, 2.0])
y = x.clone()
y.register_hook(note('h', 3.0))
y.mul_(3)
y.sum().backward()
""",
    "the hooks of leaves run when their gradient is whole": """
x = leaf(1.0)
y = leaf(2.0)
v = x * 2
v.register_hook(note('v'))
y.register_hook(note('y'))
y.register_post_accumulate_grad_hook(note_grad('p'))
(y * 3 + v).backward()
""",
    "backward of some inputs runs their hooks": """
x = leaf(1.0)
x.register_post_accumulate_grad_hook(note_grad('h'))
(x * 2).backward(inputs=x)
""",
    "backward of the same input twice": """
x = leaf(1.0)
(x * 2).backward(inputs=[x, x])
""",
    "backward of an input that is no leaf retains its gradient": """
x = leaf([1.0, 2.0])
a, b = x.unbind()
c = b * 1
project(x).backward(inputs=c)
c.backward()
""",
    "a leaf that wants no gradient any more gets none": """
x = leaf([1.0, 2.0])
v = x.exp()
x.requires_grad_(False)
v.sum().backward()
""",
    "a module with a backward hook whose result is laid out anew in place": """
x = leaf([1.0, 2.0])
m = Keep()
m.register_full_backward_hook(note_backward('h'))
m(x * 1).unsqueeze_(0)
""",
    "a base that is laid out anew in place, and its views": """
x = leaf([[1.0, 2.0]])
y = x * 2
v = y.unfold(1, 1, 1)
y.unsqueeze_(0)
w = v * 3
project(w).backward()
""",
    "a Function that saves what it changed, of a view, with one backward pass": """
x = leaf([[1.0]])
y = x * x
ExpInPlace.apply(y.movedim(1, 1))
z = T.logaddexp(y, x)
(g1,) = T.autograd.grad(z, [x], create_graph=True)
project(g1).backward()
""",
    "a Function that returns its argument, without gradients": """
x = const([1.0])
y = Same.apply(x)
x.squeeze_()
""",
    "a view of what needs no gradient, made without grad": """
x = leaf([[1.0, 1.2]])
with T.no_grad():
    a = T.cat([x])
    v = a.mT
a.mul_(2.0)
v.relu_()
""",
    # Checkpoints
    "the input of a checkpoint is changed": """
x = leaf([1.0, 2.0])
a = x * 1
y = checkpoint(lambda a: a * a, a, use_reentrant=False)
a.mul_(2)
y.sum().backward()
""",
    "the input of a checkpoint is changed without grad": """
x = leaf([1.0, 2.0])
y = checkpoint(lambda a: a * a, x, use_reentrant=False)
with T.no_grad():
    x.mul_(2)
y.sum().backward()
""",
    # Ops
    "index_fill counts a place once": """
v = leaf(2.0)
T.index_fill(T.zeros(3, dtype=T.float64), 0, T.tensor([0, 0, 1]), v).sum().backward()
""",
    "index_fill with a number is as exact as the tensor": """
v = const([1.0])
v.index_fill_(0, T.tensor(0), 1.9)
""",
    "scatter_ of a number": """
x = leaf([[1.0, 2.0]])
y = x * 2
y.scatter_(1, T.tensor([[0]]), 1.5)
project(y).backward()
""",
    "the ops that make a view again are none of a checkpoint's": """
x = leaf([[1.0, 2.0]])
y = x * x
v = ExpInPlace.apply(y.unfold(1, 2, 2))
z = checkpoint(lambda a, c: a * c, v, x[:, :1], use_reentrant=False)
project(z).backward()
""",
    "the result of einsum is contiguous": """
x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
v = T.einsum('ij,jk->ki', x, cosines(3, 4)).view(-1)
""",
    "the result of einsum is a tensor of its own": """
x = leaf([2.0, 1.0, 1.0])
y = T.einsum('i,im->im', x, cosines(3, 2))
v = y.unsqueeze(1).mul_(3)
g1 = T.autograd.grad(project(v), y, allow_unused=True)
""",
    "roll and cumsum of a transposed tensor are contiguous": """
x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).mT
v = x.roll(2, 0).view(-1)
w = x.cumsum(0).view(-1)
""",
    # Intended: ours saves what PyTorch does not, and refuses to run backward twice
    "a second backward pass through lerp": """
y = leaf([1.0, 2.0]).lerp(const([3.0, 4.0]), 0.5).sum()
y.backward()
y.backward()
""",
    "a second backward pass through repeat_interleave": """
y = T.repeat_interleave(leaf([1.0, 2.0]), 2, dim=0).sum()
y.backward()
y.backward()
""",
}


def statements(source: str) -> list[str]:
    return re.split(r"\n(?! )", source.strip())


@needs_torch
@pytest.mark.parametrize("name", KNOWN)
def test_a_program_that_once_went_wrong(name: str) -> None:
    found = program_runs.difference(statements(KNOWN[name]))
    assert found is None, found.message


@needs_torch
def test_random_programs_do_what_they_do_in_pytorch() -> None:
    tally = programs.try_seeds(range(SEED, SEED + COUNT))
    CHECKED["random programs"] += tally.programs
    CHECKED["statements of random programs"] += sum(tally.kept.values())
    reported = [programs.report(*failure)[0] for failure in tally.failures[:3]]
    assert not tally.failures, f"{len(tally.failures)} programs differ:\n" + "\n\n".join(reported)
    kinds = {kind for group in TABLE.values() for kind in group}
    assert not kinds - set(tally.kept) - set(tally.refused), "kinds that no program has"
    assert sum(tally.refused.values()) > COUNT / 10


@needs_torch
def test_the_same_seed_draws_the_same_program() -> None:
    first, again = programs.draw(SEED + 7), programs.draw(SEED + 7)
    assert first.program == again.program
    assert first.program != programs.draw(SEED + 8).program


@needs_torch
def test_a_program_is_printed_as_a_file_of_its_own() -> None:
    program = statements(KNOWN["a Function that doubles a view in place"])
    for library in program_runs.HEADS:
        space: dict[str, Any] = {}
        exec(program_runs.source(program, library), space)
        assert space["x"].grad.tolist() == [2, 1]


def first_found(monkeypatch: Any, *fault: Any) -> list[str]:
    """The shrunk program of the first that a planted fault makes differ."""
    for seed in range(SEED, SEED + COUNT):
        program = programs.draw(seed).program
        if program_runs.difference(program) is None:
            with monkeypatch.context() as planted:
                planted.setattr(*fault)
                if program_runs.difference(program) is not None:
                    return program_shrink.shrink(program)[0]
    raise AssertionError("not found")


@needs_torch
def test_a_wrong_gradient_is_found_and_shrunk(monkeypatch: Any) -> None:
    right = OPS["Tanh"].backward
    small = first_found(
        monkeypatch, OPS["Tanh"], "backward", lambda ctx, dy: right(ctx, dy) * 1.001
    )
    assert re.search("tanh|mish", "\n".join(small))  # mish is written with tanh
    assert "\n".join(small).count("\n") < 6, small


@needs_torch
def test_a_change_in_place_that_nobody_notes_is_found_and_shrunk(monkeypatch: Any) -> None:
    small = first_found(monkeypatch, minitensor.Tensor, "_bump", lambda self: None)
    assert "\n".join(small).count("\n") < 6, small
