"""The statements of random programs: one table, with a function that draws each.

`TABLE` has the kinds of statement by group, each with a function of a `Drawing` (tests/programs.py)
that returns its text, and raises `Unfit` where the variables do not allow it. Functions whose
gradient jumps (relu, sort, amax, ...) are drawn only where rounding cannot tip them.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from programs import Drawing

Draw = Callable[["Drawing"], str]


class Unfit(Exception):
    """This kind of statement cannot be drawn here; another one is tried."""


# Names that programs may call, in both libraries; printed with a program that uses it.
PRELUDE = """
def leaf(values):
    return T.tensor(values, dtype=T.float64, requires_grad=True)

def const(values):
    return T.tensor(values, dtype=T.float64)

def cosines(*shape):
    return T.arange(1, math.prod(shape) + 1, dtype=T.float64).cos().reshape(shape)

def project(t):
    return (t * cosines(*t.shape)).sum()

def projected(tensors):
    return sum(project(t) for t in tensors if t is not None)

def note(name, factor=None):
    def hook(g):
        if g is None:  # PyTorch tells of an output of a Function that was not used
            return None
        log.append((name, g.detach().clone()))
        return None if factor is None else g * factor
    return hook

def note_grad(name):
    def hook(t):
        log.append((name, None if t.grad is None else t.grad.detach().clone()))
    return hook

def note_forward(name, factor=None):
    def hook(module, args, out):
        log.append((name, out.detach().clone()))
        return None if factor is None else out * factor
    return hook

def note_before(name, factor=None):
    def hook(module, args):
        log.append((name, args[0].detach().clone()))
        return None if factor is None else (args[0] * factor, *args[1:])
    return hook

def note_backward(name, factor=None):
    def hook(module, gins, gouts):
        log.append((name, *(None if g is None else g.detach().clone() for g in (*gins, *gouts))))
        return None if factor is None else tuple(None if g is None else g * factor for g in gins)
    return hook

def note_backward_pre(name, factor=None):
    def hook(module, gouts):
        log.append((name, *(None if g is None else g.detach().clone() for g in gouts)))
        return None if factor is None else tuple(None if g is None else g * factor for g in gouts)
    return hook

def linear(inputs, outputs):
    layer = T.nn.Linear(inputs, outputs, dtype=T.float64)
    with T.no_grad():
        layer.weight.copy_(cosines(outputs, inputs))
        layer.bias.copy_(cosines(outputs))
    return layer

class Scale(T.nn.Module):
    def forward(self, x):
        return x * 3

class Keep(T.nn.Module):
    def forward(self, x):
        return x

class Change(T.nn.Module):
    def forward(self, x):
        return x.mul_(3)

class Square(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g

class Tanh(T.autograd.Function):
    @staticmethod
    def forward(x):
        return x.tanh()
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)
    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y * y)

class Double(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x.mul_(2)
        ctx.mark_dirty(x)
        return x
    @staticmethod
    def backward(ctx, g):
        return g * 2

class DoubleCopy(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x.mul_(2)
        ctx.mark_dirty(x)
        return x.clone()
    @staticmethod
    def backward(ctx, g):
        return g * 2

class ExpInPlace(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x.tanh_().exp_()
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x
    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y * (1 - y.log() ** 2)

class AddInto(T.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        x.add_(y * y)
        ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        return x, y * 3
    @staticmethod
    def backward(ctx, gx, gz):
        (y,) = ctx.saved_tensors
        return gx, 2 * y * gx + 3 * gz

class Same(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x
    @staticmethod
    def backward(ctx, g):
        return g * 3

class SameView(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)
    @staticmethod
    def backward(ctx, g):
        return g * 3

class Swap(T.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        return y, x
    @staticmethod
    def backward(ctx, gy, gx):
        return gx * 2, gy

class Two(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x * 2, x * x
    @staticmethod
    def backward(ctx, a, b):
        (x,) = ctx.saved_tensors
        g = None if a is None else a * 2
        h = None if b is None else b * 2 * x
        return g if h is None else h if g is None else g + h

class Product(T.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * y
    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        a = g * y if ctx.needs_input_grad[0] else None
        b = g * x if ctx.needs_input_grad[1] else None
        return a, b

class Split(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        whole = x.detach().floor()
        ctx.mark_non_differentiable(whole)
        return x * 3, whole
    @staticmethod
    def backward(ctx, g, unused):
        return g * 3

class Once(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x
    @staticmethod
    @T.autograd.function.once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g

class Inner(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()
    @staticmethod
    def backward(ctx, g):
        with T.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            x.sin().backward(g.detach())
        return x.grad

class WrongShape(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2
    @staticmethod
    def backward(ctx, g):
        return g.unsqueeze(0).expand(2, *g.shape)

class TooFew(T.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        return x * y
    @staticmethod
    def backward(ctx, g):
        return g
"""


def off(t: Any) -> bool:
    """No element near zero, where some functions have a kink."""
    return not t.numel() or t.detach().abs().min().item() > 1e-3


def apart(t: Any) -> bool:
    """No two elements alike, so that their order is the same for everyone."""
    return t.numel() > 0 and (
        t.numel() == 1 or t.detach().flatten().sort().values.diff().min().item() > 1e-3
    )


def has_grad(t: Any) -> bool:
    return t.is_leaf and t.grad is not None


def unhooked(t: Any) -> bool:
    """Without hooks, which PyTorch calls for a leaf even if it wants no gradient any more."""
    return not t._backward_hooks and not t._post_accumulate_grad_hooks


def owned(t: Any) -> bool:
    """A leaf that is not a view; a view made without gradients says that it wants one."""
    return t.is_leaf and not t._is_view() and not t.is_inference()


def overlaps(t: Any) -> bool:
    """Return True if elements share memory, as windows do; `expand` is not counted."""
    places = np.zeros((), dtype=int)
    for n, step in zip(t.shape, t.stride(), strict=True):
        if n > 1 and step == 0:
            return False
        places = np.add.outer(places, np.arange(n) * step)
    return len(np.unique(places)) < t.numel()


def ranked(*ndims: int) -> Callable[[Any], bool]:
    """A test for tensors of so many dimensions, none of them empty."""
    return lambda t: t.ndim in ndims and t.numel() > 0


TABLE: dict[str, dict[str, Draw]] = {}
WEIGHTS = {  # how often each group is drawn
    "unary": 8,
    "binary": 9,
    "matrix": 5,
    "reduce": 8,
    "fused": 5,
    "view": 14,
    "copy": 10,
    "inplace": 16,
    "write": 7,
    "mode": 8,
    "flag": 5,
    "hook": 5,
    "function": 8,
    "checkpoint": 3,
    "module": 4,
    "backward": 5,
}


def add(group: str, kind: str, draw: Draw) -> None:
    """Enter a kind of statement."""
    assert group in WEIGHTS
    TABLE.setdefault(group, {})[kind] = draw


def each(group: str, names: str, draw: Callable[[str], Draw]) -> None:
    """Enter several kinds that differ by a name."""
    for name in names.split():
        add(group, name, draw(name))


def kind(group: str) -> Callable[[Draw], Draw]:
    """Enter the decorated function under its name."""

    def enter(draw: Draw) -> Draw:
        add(group, draw.__name__.strip("_"), draw)
        return draw

    return enter


# One tensor, element by element


def smooth(name: str) -> Draw:
    return lambda d: f"{d.new()} = {d.operand()}.{name}()"


def kinked(name: str) -> Draw:
    return lambda d: f"{d.new()} = {d.operand(off)}.{name}()"


def positive(name: str) -> Draw:
    return lambda d: f"{d.new()} = {d.positive()}.{name}()"


def functional(name: str, test: Any = None) -> Draw:
    return lambda d: f"{d.new()} = F.{name}({d.operand(test or any_)})"


def any_(t: Any) -> bool:
    return True


each("unary", "exp tanh sigmoid sin cos neg square erf expm1 atan sinh cosh exp2", smooth)
each("unary", "log sqrt rsqrt reciprocal log1p log2 erfc", positive)
each("unary", "abs relu sign", kinked)
each("unary", "gelu silu softplus mish logsigmoid", functional)
each("unary", "leaky_relu elu", lambda name: functional(name, off))


@kind("unary")
def clamp(d: Drawing) -> str:
    x = d.pick(lambda t: off(t - 0.5) and off(t + 0.7))
    return f"{d.new()} = {x}.clamp({d.of(['-0.7, 0.5', 'min=-0.7', 'max=0.5'])})"


# Two tensors, with broadcasting


def between(symbol: str) -> Draw:
    def draw(d: Drawing) -> str:
        x = d.operand()
        y = x if d.maybe(0.1) else d.fit(d.shape_of(x))
        a, b = (x, y) if d.maybe(0.6) else (y, x)
        return f"{d.new()} = {a} {symbol} {b}"

    return draw


for _name, _symbol in {"add": "+", "sub": "-", "mul": "*"}.items():
    add("binary", _name, between(_symbol))


@kind("binary")
def div(d: Drawing) -> str:
    y = d.positive()
    return f"{d.new()} = {d.fit(d.shape_of(y))} / {y}"


@kind("binary")
def div_detached(d: Drawing) -> str:
    x = d.pick(off)
    return f"{d.new()} = {d.of([f'{x}.detach() / {x}', f'{x} / {x}.data', f'{x} / {x}'])}"


@kind("binary")
def pow_number(d: Drawing) -> str:
    if d.maybe(0.5):
        return f"{d.new()} = {d.pick()} ** {d.of([2, 3, 1, 0])}"
    return f"{d.new()} = {d.positive()} ** {d.of([0.5, -1, 1.7, -0.5])}"


@kind("binary")
def pow_tensor(d: Drawing) -> str:
    x = d.positive()
    if d.maybe(0.25):
        return f"{d.new()} = 1.3 ** {d.pick()}"
    return f"{d.new()} = {x} ** {d.fit(d.shape_of(x))}"


@kind("binary")
def maximum(d: Drawing) -> str:
    x = d.pick()
    y = d.pick(lambda t: d.broadcasts(t, d[x]) and off(t - d[x]))
    return f"{d.new()} = {x}.{d.word('maximum minimum')}({y})"


@kind("binary")
def where(d: Drawing) -> str:
    x = d.pick()
    shape = d.shape_of(x)
    return f"{d.new()} = T.where({d.mask(shape)}, {x}, {d.fit(shape)})"


@kind("binary")
def addcmul(d: Drawing) -> str:
    x = d.operand()
    shape = d.shape_of(x)
    y, z = d.fit(shape, exact=True), d.fit(shape, exact=True)
    if not (y.isidentifier() and z.isidentifier()):
        raise Unfit
    if d.maybe(0.5):
        return f"{d.new()} = T.addcmul({x}, {y}, {z}, value={d.number()})"
    return f"{d.new()} = T.addcdiv({x}, {y}, {z} * {z} + 0.5)"


@kind("binary")
def lerp(d: Drawing) -> str:
    x = d.operand()
    y = d.exact(d.shape_of(x))
    return f"{d.new()} = T.lerp({x}, {y}, {d.of(['0.3', d.exact(d.shape_of(x))])})"


@kind("binary")
def logaddexp(d: Drawing) -> str:
    x = d.operand()
    return f"{d.new()} = T.logaddexp({x}, {d.exact(d.shape_of(x))})"


@kind("binary")
def atan2(d: Drawing) -> str:
    x = d.pick(off)
    return f"{d.new()} = T.atan2({d.exact(d.shape_of(x))}, {x})"


# Products


@kind("matrix")
def matmul(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    shape = d.shape_of(x)
    inner = shape[-1]
    found = d.names(
        lambda t: (
            t.numel() > 0
            and (t.shape == (inner,) or (t.ndim > 1 and t.shape[-2] == inner and t.ndim < 4))
        )
    )
    if len(shape) > 1 and d.maybe(0.2):
        y = f"{x}.mT"
    elif found and d.maybe(0.6):
        y = d.of(found)
    else:
        y = d.const((inner, d.whole(1, 3))[: d.whole(1, 2)])
    return f"{d.new()} = {x} @ {y}"


@kind("matrix")
def mm(d: Drawing) -> str:
    x = d.operand(ranked(2))
    y = d.of([f"{x}.t()", d.const((d.shape_of(x)[1], 2))])
    return f"{d.new()} = T.mm({x}, {y})"


@kind("matrix")
def bmm(d: Drawing) -> str:
    x = d.operand(ranked(3))
    a, _, b = d.shape_of(x)
    return f"{d.new()} = T.bmm({x}, {d.of([f'{x}.mT', d.exact((a, b, 2))])})"


@kind("matrix")
def addmm(d: Drawing) -> str:
    x = d.operand(ranked(2))
    a, b = d.shape_of(x)
    y = d.exact((b, 3))
    return f"{d.new()} = T.addmm({d.fit_tensor((a, 3))}, {x}, {y}, beta=0.7, alpha=1.2)"


@kind("matrix")
def dot(d: Drawing) -> str:
    x = d.operand(ranked(1))
    return f"{d.new()} = T.{d.word('dot outer')}({x}, {d.of([x, d.exact(d.shape_of(x))])})"


@kind("matrix")
def mv(d: Drawing) -> str:
    x = d.operand(ranked(2))
    return f"{d.new()} = {x}.mv({d.exact(d.shape_of(x)[1:])})"


@kind("matrix")
def linear(d: Drawing) -> str:
    x = d.operand(ranked(2, 3))  # PyTorch's result is a view of something, hence the clone
    n = d.shape_of(x)[-1]
    bias = f", {d.exact((2,))}" if d.maybe(0.6) else ""
    return f"{d.new()} = F.linear({x}, {d.exact((2, n))}{bias}).clone()"


@kind("matrix")
def einsum(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    shape = d.shape_of(x)
    letters = "ijk"[: len(shape)]
    if d.maybe(0.3):
        kept = d.random.sample(letters, d.whole(0, len(letters)))
        return f"{d.new()} = T.einsum('{letters}->{''.join(kept)}', {x}).clone()"
    shared = d.whole(0, len(shape) - 1)
    out = d.of([letters, letters.replace(letters[shared], ""), letters + "m"])
    y = d.exact((shape[shared], 2))
    out = out if "m" in out or d.maybe(0.5) else out + "m"
    return f"{d.new()} = T.einsum('{letters},{letters[shared]}m->{out}', {x}, {y}).clone()"


# Reductions


def dims(d: Drawing, shape: Any, several: bool = True) -> str:
    """The argument `dim`, and perhaps `keepdim`."""
    keep = ", keepdim=True" if d.maybe(0.4) else ""
    if not shape:
        raise Unfit
    if several and len(shape) > 1 and d.maybe(0.3):
        return f"({', '.join(map(str, d.random.sample(range(len(shape)), 2)))}){keep}"
    return f"{d.whole(-len(shape), len(shape) - 1)}{keep}"


def reduced(name: str, test: Any, whole: bool = True) -> Draw:
    def draw(d: Drawing) -> str:
        x = d.operand(test)
        if whole and d.maybe(0.35):
            return f"{d.new()} = {x}.{name}()"
        return f"{d.new()} = {x}.{name}({dims(d, d.shape_of(x), name not in ('prod', 'max'))})"

    return draw


each("reduce", "sum mean", lambda name: reduced(name, any_))
add("reduce", "prod", reduced("prod", lambda t: t.numel() < 7))
add("reduce", "logsumexp", reduced("logsumexp", lambda t: t.numel() > 0, whole=False))
each("reduce", "amax amin", lambda name: reduced(name, apart))
each("reduce", "var std", lambda name: reduced(name, lambda t: apart(t) and min((2, *t.shape)) > 1))


@kind("reduce")
def max_dim(d: Drawing) -> str:
    x = d.operand(apart)
    f = d.of(["max", "min", "median"])
    if d.maybe(0.3):
        return f"{d.new()} = {x}.{f}()"
    return f"{d.new()} = {x}.{f}({dims(d, d.shape_of(x), False)})[0]"


@kind("reduce")
def norm(d: Drawing) -> str:
    x = d.operand(lambda t: off(t) and t.numel() > 0)
    if d.maybe(0.4):
        return f"{d.new()} = {x}.norm()"
    shape = d.shape_of(x)
    return f"{d.new()} = T.norm({x}, {d.of([2, 1, 3])}, dim={dims(d, shape)})"


@kind("reduce")
def cumsum(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    return f"{d.new()} = {x}.{d.word('cumsum cumsum cumprod')}({d.axis(d.value(x))})"


# Ops that a kernel computes as a whole


@kind("fused")
def softmax(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    f = d.word("softmax log_softmax softmin")
    return f"{d.new()} = F.{f}({x}, dim={d.axis(d.value(x))})"


@kind("fused")
def layer_norm(d: Drawing) -> str:
    x = d.operand(lambda t: t.ndim in (1, 2, 3) and apart(t) and t.shape[-1] > 1)
    n = d.shape_of(x)[-1]
    weights = f", {d.exact((n,))}, {d.exact((n,))}" if d.maybe(0.6) else ""
    return f"{d.new()} = F.layer_norm({x}, ({n},){weights}, eps=0.01)"


@kind("fused")
def rms_norm(d: Drawing) -> str:
    x = d.operand(lambda t: t.ndim in (1, 2, 3) and t.numel() > 0 and off(t))
    n = d.shape_of(x)[-1]
    return f"{d.new()} = F.rms_norm({x}, ({n},){d.of(['', f', {d.exact((n,))}'])}, eps=0.01)"


@kind("fused")
def normalize(d: Drawing) -> str:
    x = d.operand(lambda t: t.ndim in (1, 2, 3) and t.numel() > 0 and off(t))
    return f"{d.new()} = F.normalize({x}, dim={d.axis(d.value(x))})"


@kind("fused")
def attention(d: Drawing) -> str:
    q = d.operand(ranked(2, 3))
    shape = d.shape_of(q)
    k, v = d.exact((*shape[:-2], 3, shape[-1])), d.exact((*shape[:-2], 3, 2))
    if d.maybe(0.3):
        k = v = q
    rest = d.of(["", ", is_causal=True", ", scale=0.4"])
    if d.maybe(0.25):
        rest = f", attn_mask={d.exact((shape[-2], d.shape_of(k)[-2]))}"
    return f"{d.new()} = F.scaled_dot_product_attention({q}, {k}, {v}{rest})"


@kind("fused")
def cross_entropy(d: Drawing) -> str:
    x = d.operand(ranked(2))
    n, c = d.shape_of(x)
    rest = d.of(["", ", reduction='sum'", ", reduction='none'", ", label_smoothing=0.1"])
    return f"{d.new()} = F.cross_entropy({x}, {d.index(c, n)}{rest})"


@kind("fused")
def nll_loss(d: Drawing) -> str:
    x = d.operand(ranked(2))
    n, c = d.shape_of(x)
    return f"{d.new()} = F.nll_loss({x}, {d.index(c, n)})"


@kind("fused")
def pair_loss(d: Drawing) -> str:
    x = d.pick(lambda t: t.numel() > 0)
    y = d.exact(d.shape_of(x))
    if not off(d.value(f"{x} - {y}")) or not off(d.value(f"({x} - {y}).abs() - 1")):
        raise Unfit
    f = d.word("mse_loss l1_loss smooth_l1_loss huber_loss")
    return f"{d.new()} = F.{f}({x}, {y}{d.of(['', ', reduction=' + repr('none')])})"


@kind("fused")
def cross_entropy_of_bits(d: Drawing) -> str:
    x = d.operand(lambda t: t.numel() > 0)
    y = d.exact(d.shape_of(x))
    return f"{d.new()} = F.binary_cross_entropy_with_logits({x}, {y}.sigmoid())"


@kind("fused")
def dropout(d: Drawing) -> str:
    return f"{d.new()} = F.dropout({d.operand()}, {d.of(['p=0.0', 'training=False'])})"


@kind("fused")
def embedding(d: Drawing) -> str:
    x = d.operand(ranked(2))
    return f"{d.new()} = F.embedding({d.index(d.shape_of(x)[0], 3)}, {x})"


@kind("fused")
def glu(d: Drawing) -> str:
    x = d.operand(lambda t: t.ndim > 0 and t.shape[-1] % 2 == 0 and t.numel() > 0)
    return f"{d.new()} = F.glu({x})"


# Views


def two(d: Drawing, t: Any) -> str:
    if t.ndim < 1:
        raise Unfit
    return f"{d.axis(t)}, {d.axis(t)}"


def a_slice(d: Drawing, n: int) -> str:
    low = d.whole(0, max(n - 1, 0))
    return d.of(
        [":", f"{low}:", f":{max(n - 1, 1)}", "::2", "1:", f"{low}:{low + 1}", "-2:", f"{low}::2"]
    )


def basic(d: Drawing, t: Any) -> str:
    parts = []
    for n in t.shape[: d.whole(1, max(t.ndim, 1))]:
        if n and d.maybe(0.35):
            parts.append(str(d.whole(-n, n - 1)))
        else:
            parts.append(a_slice(d, n))
    if d.maybe(0.2):
        parts.insert(d.whole(0, len(parts)), "None")
    if d.maybe(0.2):
        parts = ["...", *parts] if len(parts) == 1 else [*parts, "..."]
    if not parts:
        parts = ["..."]
    return f"[{', '.join(parts)}]"


def resized(d: Drawing, t: Any) -> str:
    n = t.numel()
    if not n:
        raise Unfit
    shapes = ["-1", f"{n}", "1, -1", "-1, 1"]
    shapes += [f"{k}, {n // k}" for k in (2, 3) if n % k == 0]
    shapes += [f"{k}, -1, 2" for k in (1, 2, 3) if n % (2 * k) == 0]
    return d.of(shapes)


def unfold(d: Drawing, t: Any) -> str:
    axis = d.axis(t)
    if not t.shape[axis]:
        raise Unfit
    return f".unfold({axis}, {d.whole(1, t.shape[axis])}, {d.whole(1, 2)})"


def narrow(d: Drawing, t: Any) -> str:
    axis = d.axis(t)
    n = t.shape[axis]
    low = d.whole(0, n)
    return f".narrow({axis}, {low}, {d.whole(0 if d.maybe(0.1) else min(1, n - low), n - low)})"


def selected(d: Drawing, t: Any) -> str:
    axis = d.axis(t)
    if not t.shape[axis]:
        raise Unfit
    return f".select({axis}, {d.whole(-t.shape[axis], t.shape[axis] - 1)})"


def expanded(d: Drawing, t: Any) -> str:
    shape = ", ".join(str(d.whole(1, 3)) if n == 1 else d.of([str(n), "-1"]) for n in t.shape)
    if d.maybe(0.5) or not shape:
        return f".expand(2, {shape})" if shape else ".expand(2)"
    return f".expand({shape})"


def diagonal(d: Drawing, t: Any) -> str:
    if t.ndim < 2:
        raise Unfit
    a, b = d.random.sample(range(t.ndim), 2)
    return d.of([".diagonal()", f".diagonal({d.whole(-1, 1)}, {a}, {b})"])


def one_of(f: str) -> Callable[[Drawing, Any], str]:
    def draw(d: Drawing, t: Any) -> str:
        axis = d.axis(t)
        if not t.shape[axis]:
            raise Unfit
        size = "" if f == "unbind" else f"{d.whole(1, 2)}, "
        return f".{f}({size}{axis})[{d.of([0, -1])}]"

    return draw


def at_least(ndim: int, text: str) -> Callable[[Drawing, Any], str]:
    def draw(d: Drawing, t: Any) -> str:
        if t.ndim < ndim:
            raise Unfit
        return text

    return draw


def transposed(d: Drawing, t: Any) -> str:
    if t.ndim != 2:
        raise Unfit
    return d.of([".t()", ".T"])


def permuted(d: Drawing, t: Any) -> str:
    order = ", ".join(map(str, d.random.sample(range(t.ndim), t.ndim)))
    return f".permute({order or '()'})"


def copied(t: Any) -> str:
    return "" if t.is_contiguous() else ".clone()"


VIEWS: dict[str, Callable[[Drawing, Any], str]] = {
    "basic_index": basic,
    "t": transposed,
    "mT": at_least(2, ".mT"),
    "transpose": lambda d, t: f".{d.word('transpose swapaxes movedim')}({two(d, t)})",
    "permute": permuted,
    "view": lambda d, t: f".view({resized(d, t)})",
    # Where they have to copy, in memory of their own: PyTorch does not promise which case it is.
    "reshape": lambda d, t: f".reshape({resized(d, t)})" + copied(t),
    "flatten": lambda d, t: d.of([".flatten()", ".ravel()", ".flatten(-2)"]) + copied(t),
    "contiguous": lambda d, t: ".contiguous()" + copied(t),
    "unsqueeze": lambda d, t: f".unsqueeze({d.whole(-t.ndim - 1, t.ndim)})",
    "squeeze": lambda d, t: d.of([".squeeze()", f".squeeze({d.axis(t)})"]),
    "expand": expanded,
    "narrow": narrow,
    "select": selected,
    "diagonal": diagonal,
    "unfold": unfold,
    "unbind": one_of("unbind"),
    "split": one_of("split"),
    "chunk": one_of("chunk"),
    "view_as": lambda d, t: ".view_as({})",
    "detach": lambda d, t: ".detach()" if not t.is_inference() else d.unfit(),
    "data": lambda d, t: ".data" if not t.is_inference() else d.unfit(),
}


def viewed(step: Callable[[Drawing, Any], str]) -> Draw:
    def draw(d: Drawing) -> str:
        x = d.pick()
        return f"{d.new()} = {x}{step(d, d[x]).format(x)}"

    return draw


for _name, _step in VIEWS.items():
    add("view", _name, viewed(_step))


@kind("view")
def parts(d: Drawing) -> str:
    x = d.pick(ranked(1, 2, 3))
    axis = d.axis(d[x])
    n = d[x].shape[axis]
    if n == 1 or d.maybe(0.5):
        return f"{', '.join(d.new() for _ in range(n))}, = {x}.unbind({axis})"
    f = d.of([f"split([1, {n - 1}], {axis})", f"chunk(2, {axis})", f"tensor_split(2, {axis})"])
    return f"{d.new()}, {d.new()} = {x}.{f}"


@kind("view")
def chain(d: Drawing) -> str:
    """Several views in one statement."""
    x = d.pick(lambda t: t.numel() > 0)
    text = x
    for _ in range(d.whole(2, 4)):
        text += d.view(d.value(text)).format(x)
        if d.tried(text) is None:
            raise Unfit
    return f"{d.new()} = {text}"


# Copies


@kind("copy")
def cat(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    shape, axis = list(d.shape_of(x)), d.axis(d.value(x))
    shape[axis] = d.whole(1, 2)
    return f"{d.new()} = T.cat([{x}, {d.exact(shape)}{d.of(['', ', ' + x])}], {axis})"


@kind("copy")
def stack(d: Drawing) -> str:
    x = d.operand(lambda t: t.numel() < 20)
    y = d.exact(d.shape_of(x))
    return f"{d.new()} = T.stack(({x}, {y}), {d.whole(-1, len(d.shape_of(x)))})"


@kind("copy")
def index_select(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    axis = d.axis(d.value(x))
    return f"{d.new()} = {x}.index_select({axis}, {d.index(d.shape_of(x)[axis])})"


@kind("copy")
def gather(d: Drawing) -> str:
    x = d.operand(ranked(1, 2))
    shape = list(d.shape_of(x))
    axis = d.whole(0, len(shape) - 1)
    n, shape[axis] = shape[axis], d.whole(1, 3)
    at = f"T.tensor({d.literal(shape, lambda: d.whole(0, n - 1))})"
    return f"{d.new()} = {x}.{d.of([f'gather({axis}, {at})', f'take_along_dim({at}, {axis})'])}"


@kind("copy")
def advanced_index(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    return f"{d.new()} = {x}{advanced(d, d.shape_of(x))}"


def advanced(d: Drawing, shape: Any, distinct: bool = False) -> str:
    """An index with a list of places or a mask in it."""
    first = d.index(shape[0], distinct=distinct)
    choices = [first, first + ".tolist()", d.mask(shape), d.mask(shape[:1])]
    if len(shape) > 1:
        second = d.index(shape[1], distinct=distinct)
        a, b = d.index(shape[0], 2, True), d.index(shape[1], 2, True)
        choices += [f":, {second}", f"{first}, 0", f"{first}, 1:", f"None, {first}"]
        if min(shape[:2]) > 1:
            choices += [f"{a}, {b}"]
    if len(shape) > 2:
        choices += [f"{first}, :, 0", f"0, {d.index(shape[1], distinct=distinct)}, ::2"]
    return f"[{d.of(choices)}]"


@kind("copy")
def masked_fill(d: Drawing) -> str:
    x = d.operand()
    value = d.of([str(d.number()), d.exact(())])
    return f"{d.new()} = {x}.masked_fill({d.mask(d.shape_of(x))}, {value})"


@kind("copy")
def masked_select(d: Drawing) -> str:
    x = d.operand()
    return f"{d.new()} = {x}.masked_select({d.mask(d.shape_of(x))})"


@kind("copy")
def repeat(d: Drawing) -> str:
    x = d.operand(lambda t: t.numel() < 16)
    times = ", ".join(str(d.whole(1, 2)) for _ in range(len(d.shape_of(x)) + d.whole(0, 1)))
    return f"{d.new()} = {x}.{d.word('repeat tile')}({times or '2'})"


@kind("copy")
def repeat_interleave(d: Drawing) -> str:
    # Copied, because PyTorch's is a view of a copy, which loses its hooks when it is changed.
    x = d.operand(lambda t: 0 < t.numel() < 16)
    if d.maybe(0.3) or not d.shape_of(x):
        return f"{d.new()} = {x}.repeat_interleave({d.whole(1, 2)}).clone()"
    axis = d.axis(d.value(x))
    n = d.shape_of(x)[axis]
    times = d.of(["2", f"T.tensor({[d.whole(0, 2) for _ in range(n)]})"])
    return f"{d.new()} = {x}.repeat_interleave({times}, {axis}).clone()"


@kind("copy")
def flip(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    return f"{d.new()} = {x}.flip({d.axis(d.value(x))})"


@kind("copy")
def roll(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    return f"{d.new()} = {x}.roll({d.whole(-2, 2)}{d.of(['', f', {d.axis(d.value(x))}'])})"


@kind("copy")
def tril(d: Drawing) -> str:
    x = d.operand(ranked(2, 3))
    return f"{d.new()} = {x}.{d.word('tril triu')}({d.whole(-1, 1)})"


@kind("copy")
def pad(d: Drawing) -> str:
    x = d.operand(ranked(1, 2, 3))
    widths = d.of([(1, 0), (0, 2), (1, -1) if d.shape_of(x)[-1] > 1 else (1, 1)])
    return f"{d.new()} = F.pad({x}, {widths}{d.of(['', ', value=0.5'])})"


@kind("copy")
def sort(d: Drawing) -> str:
    x = d.operand(lambda t: t.ndim > 0 and apart(t))
    return f"{d.new()} = {x}.sort({d.axis(d.value(x))}{d.of(['', ', descending=True'])})[0]"


@kind("copy")
def topk(d: Drawing) -> str:
    x = d.operand(lambda t: t.ndim > 0 and apart(t))
    axis = d.axis(d.value(x))
    return f"{d.new()} = {x}.topk({d.whole(1, d.shape_of(x)[axis])}, {axis})[0]"


@kind("copy")
def clone(d: Drawing) -> str:
    return f"{d.new()} = {d.pick()}.clone()"


@kind("copy")
def diag(d: Drawing) -> str:
    return f"{d.new()} = T.{d.word('diag diag_embed')}({d.operand(ranked(1))}, {d.whole(-1, 1)})"


@kind("copy")
def scattered(d: Drawing) -> str:
    """The changes in place, out of place."""
    x = d.pick(ranked(1, 2, 3))
    return f"{d.new()} = {x}.{d.of(SCATTERS)(d, x).replace('_(', '(', 1)}"


@kind("copy")
def deepcopy(d: Drawing) -> str:
    return f"{d.new()} = copy.deepcopy({d.pick(lambda t: owned(t) or d.maybe(0.03))})"


# Changes in place of a tensor, or of a view made for it


def changed(draw: Callable[[Drawing, str], str]) -> Draw:
    """A statement that calls a method on what is changed, and may name the result."""

    def statement(d: Drawing) -> str:
        x = d.target()
        text = f"{x}.{draw(d, x)}"
        return f"{d.new()} = {text}" if d.maybe(0.15) else text

    return statement


def arithmetic(name: str) -> Callable[[Drawing, str], str]:
    return lambda d, x: f"{name}({d.fit(d.shape_of(x), exact=True)})"


def elementwise(name: str) -> Draw:
    return changed(lambda d, x: f"{name}()")


def elementwise_off(name: str) -> Draw:
    return changed(lambda d, x: f"{name}()" if off(d.value(x)) else d.unfit())


each("inplace", "add_ sub_ mul_ copy_", lambda name: changed(arithmetic(name)))
each("inplace", "tanh_ sigmoid_ sin_ neg_ exp_ square_ zero_ cos_", elementwise)
each("inplace", "relu_ abs_", elementwise_off)
add("inplace", "fill_", changed(lambda d, x: f"fill_({d.of([str(d.number()), d.exact(())])})"))
add("inplace", "clamp_", changed(lambda d, x: f"clamp_({d.of(['-0.61, 0.73', 'max=0.41'])})"))
add("inplace", "pow_", changed(lambda d, x: f"pow_({d.of([2, 3])})"))
add(
    "inplace",
    "masked_fill_",
    changed(
        lambda d, x: (
            f"masked_fill_({d.mask(d.shape_of(x))}, {d.of([str(d.number()), d.exact(())])})"
        )
    ),
)
add("inplace", "lerp_", changed(lambda d, x: f"lerp_({d.exact(d.shape_of(x))}, 0.3)"))


@kind("inplace")
def detach_(d: Drawing) -> str:
    x = d.pick(lambda t: unhooked(t) and not t.is_inference())
    if d.times(x) > 1:
        raise Unfit  # its views and what was saved of it: each library's own affair
    return f"{x}.detach_()"


@kind("inplace")
def div_(d: Drawing) -> str:
    x = d.target()
    y = d.pick(lambda t: d.broadcasts(t, d.value(x), True))
    return f"{x}.div_({y} * {y} + 0.5)"


@kind("inplace")
def addcmul_(d: Drawing) -> str:
    x = d.target()
    shape = d.shape_of(x)
    return f"{x}.addcmul_({d.exact(shape)}, {d.exact(shape)}, value=0.7)"


def two_dims(name: str, argument: str) -> Callable[[Drawing, str], str]:
    def draw(d: Drawing, x: str) -> str:
        if len(d.shape_of(x)) < 2:
            raise Unfit
        return f"{name}({argument})"

    return draw


add("inplace", "tril_", changed(two_dims("tril_", "")))
add("inplace", "triu_", changed(two_dims("triu_", "1")))


@kind("inplace")
def cumsum_(d: Drawing) -> str:
    x = d.target()
    return f"{x}.cumsum_({d.axis(d.value(x))})"


def index_add(d: Drawing, x: str) -> str:
    shape = list(d.shape_of(x))
    axis = d.axis(d.value(x))
    n = shape[axis]
    shape[axis] = d.whole(1, 3)
    alpha = d.of(["", ", alpha=0.6"])
    return f"index_add_({axis}, {d.index(n, shape[axis])}, {d.exact(shape)}{alpha})"


def index_copy(d: Drawing, x: str) -> str:
    shape = list(d.shape_of(x))
    axis = d.axis(d.value(x))
    n = shape[axis]
    shape[axis] = d.whole(1, n) if n else d.unfit()
    return f"index_copy_({axis}, {d.index(n, shape[axis], True)}, {d.exact(shape)})"


def index_fill(d: Drawing, x: str) -> str:
    axis = d.axis(d.value(x))
    value = d.of([str(d.number()), d.exact(()), d.exact(())])
    return f"index_fill_({axis}, {d.index(d.shape_of(x)[axis])}, {value})"


def scatter(d: Drawing, x: str) -> str:
    shape = list(d.shape_of(x))
    axis = d.whole(0, max(len(shape) - 1, 0))
    if not shape or not math.prod(shape):
        raise Unfit
    n, shape[axis] = shape[axis], 1
    places = d.literal(shape, lambda: d.whole(0, n - 1))
    return f"scatter_({axis}, T.tensor({places}), {d.of([str(d.number()), d.exact(shape)])})"


def scatter_add(d: Drawing, x: str) -> str:
    shape = list(d.shape_of(x))
    axis = d.whole(0, max(len(shape) - 1, 0))
    if not shape or not math.prod(shape):
        raise Unfit
    n, shape[axis] = shape[axis], d.whole(1, 2)
    places = d.literal(shape, lambda: d.whole(0, n - 1))
    return f"scatter_add_({axis}, T.tensor({places}), {d.exact(shape)})"


def index_put(d: Drawing, x: str) -> str:
    shape = d.shape_of(x)
    if not shape or not math.prod(shape):
        raise Unfit
    count = d.whole(1, 3)
    add_up = d.maybe(0.6)
    places = d.index(shape[0], count, distinct=not add_up)
    count = len(d.value(places))
    value = d.exact((count, *shape[1:]))
    return f"index_put_(({places},), {value}{', accumulate=True' if add_up else ''})"


SCATTERS = [index_add, index_copy, index_fill, scatter, scatter_add, index_put]
for _scatter in SCATTERS:
    add("write", f"{_scatter.__name__}_", changed(_scatter))


@kind("write")
def setitem(d: Drawing) -> str:
    x = d.target()
    index = basic(d, d.value(x))
    part = d.tried(x + index)
    if part is None:
        raise Unfit
    return f"{x}{index} = {d.fit(tuple(part.shape), exact=True)}"


@kind("write")
def setitem_at(d: Drawing) -> str:
    x = d.target()
    shape = d.shape_of(x)
    if not shape:
        raise Unfit
    index = advanced(d, shape, distinct=True)
    part = d.tried(x + index)
    if part is None:
        raise Unfit
    return f"{x}{index} = {d.fit(tuple(part.shape), exact=True)}"


@kind("write")
def augmented(d: Drawing) -> str:
    x = d.target()
    return (
        f"{x} {d.word('+= -= *=')} {d.fit(d.shape_of(x), exact=True)}"
        if "." not in x
        else (d.unfit())
    )


@kind("write")
def augmented_item(d: Drawing) -> str:
    x = d.target()
    index = basic(d, d.value(x))
    part = d.tried(x + index)
    if part is None:
        raise Unfit
    return f"{x}{index} {d.word('+= *=')} {d.fit(tuple(part.shape), exact=True)}"


@kind("write")
def data_assigned(d: Drawing) -> str:
    x = d.pick(lambda t: t.numel() > 0)
    if not d.unused(x):
        raise Unfit
    return f"{x}.data = {d.const(d.shape_of(x))}"


@kind("write")
def reshaped_in_place(d: Drawing) -> str:
    x = d.pick(ranked(2, 3))
    return f"{x}.{d.of(['unsqueeze_(0)', 'squeeze_()', 'transpose_(0, 1)'])}"


# Modes


PLAIN = ["unary", "binary", "reduce", "view", "view", "copy", "inplace", "inplace", "write"]


def block(text: str) -> Draw:
    def draw(d: Drawing) -> str:
        lines = [f"with {text}:"]
        for _ in range(d.of([1, 1, 2])):
            # The second does not know of the first's variables: it runs only when both are drawn.
            inner = d.draw(PLAIN)[1]
            if "inference" in text and re.search(r"detach_|\.data = |deepcopy", inner):
                raise Unfit  # PyTorch makes nothing of the first, and strange things of the others
            if re.search(r"squeeze_|transpose_", inner):
                raise Unfit  # PyTorch's graph is broken by a shape that changes without it
            lines.append(textwrap.indent(inner, "    "))
        return "\n".join(lines)

    return draw


add("mode", "no_grad", block("T.no_grad()"))
add("mode", "set_grad_enabled", block("T.set_grad_enabled(False)"))
add("mode", "inference_mode", block("T.inference_mode()"))


@kind("mode")
def enable_grad(d: Drawing) -> str:
    inner = textwrap.indent(block("T.enable_grad()")(d), "    ")
    return f"with T.no_grad():\n{inner}"


@kind("mode")
def view_without_grad(d: Drawing) -> str:
    x = d.pick(lambda t: t.numel() > 0)
    return f"with T.no_grad():\n    {d.new()} = {x}{d.view(d[x]).format(x)}"


@kind("mode")
def change_without_grad(d: Drawing) -> str:
    x = d.pick(lambda t: t.is_leaf and t.requires_grad)
    change = d.of(["mul_(0.9)", f"copy_({d.exact(d.shape_of(x))})", "zero_()", "add_(0.1)"])
    return f"with T.no_grad():\n    {x}.{change}"


# Flags


@kind("flag")
def requires_grad(d: Drawing) -> str:
    x = d.pick(lambda t: not t.requires_grad and owned(t))
    if d.times(x) > 1:
        raise Unfit  # what was saved of it has no history; PyTorch saved it itself
    return d.of([f"{x}.requires_grad_()", f"{x}.requires_grad = True"])


@kind("flag")
def requires_no_grad(d: Drawing) -> str:
    x = d.pick(lambda t: (t.is_leaf and t.requires_grad and unhooked(t)) or d.maybe(0.01))
    return f"{x}.requires_grad_(False)"


@kind("flag")
def new_leaf(d: Drawing) -> str:
    return f"{d.new('x')} = leaf({d.literal(d.shape())})"


@kind("flag")
def new_const(d: Drawing) -> str:
    if d.maybe(0.3):
        shape = d.of(["2, 0", "0", "0, 3"])
        return (
            f"{d.new('x')} = T.zeros({shape}, dtype=T.float64{d.of(['', ', requires_grad=True'])})"
        )
    return f"{d.new('x')} = const({d.literal(d.shape())})"


@kind("flag")
def detached_leaf(d: Drawing) -> str:
    return f"{d.new()} = {d.pick()}.detach(){d.of(['', '.clone()'])}.requires_grad_()"


@kind("flag")
def retain_grad(d: Drawing) -> str:
    return f"{d.pick(lambda t: t.requires_grad and not (t.is_leaf and d.maybe(0.7)))}.retain_grad()"


# Hooks


@kind("hook")
def register_hook(d: Drawing) -> str:
    x = d.pick(lambda t: t.requires_grad or d.maybe(0.02))
    name = d.new("h")
    return f"{name} = {x}.register_hook(note('{name}'{d.of(['', f', {d.number()}'])}))"


@kind("hook")
def remove_hook(d: Drawing) -> str:
    found = [k for k in d.space if k[0] == "h" and k[1:].isdigit()]
    return f"{d.of(found) if found else d.unfit()}.remove()"


@kind("hook")
def post_accumulate(d: Drawing) -> str:
    x = d.pick(lambda t: (t.is_leaf and t.requires_grad) or d.maybe(0.02))
    name = d.new("h")
    return f"{name} = {x}.register_post_accumulate_grad_hook(note_grad('{name}'))"


# Functions


def of_one(name: str) -> Draw:
    return lambda d: f"{d.new()} = {name}.apply({d.pick()})"


def of_one_changed(name: str) -> Draw:
    def draw(d: Drawing) -> str:
        text = f"{name}.apply({d.target()})"
        return text if d.maybe(0.2) else f"{d.new()} = {text}"

    return draw


each("function", "Square Tanh Once Inner Same SameView WrongShape", of_one)
each("function", "Double ExpInPlace DoubleCopy", of_one_changed)


def of_one_to_two(name: str) -> Draw:
    return lambda d: f"{d.new()}, {d.new()} = {name}.apply({d.pick()})"


each("function", "Two Split", of_one_to_two)


@kind("function")
def Product(d: Drawing) -> str:
    x = d.operand()
    return (
        f"{d.new()} = {d.of(['Product', 'Product', 'TooFew'])}.apply({x}, {d.exact(d.shape_of(x))})"
    )


@kind("function")
def Swap(d: Drawing) -> str:
    return f"{d.new()}, {d.new()} = Swap.apply({d.pick()}, {d.pick()})"


@kind("function")
def AddInto(d: Drawing) -> str:
    x = d.target()
    return f"{d.new()}, {d.new()} = AddInto.apply({x}, {d.exact(d.shape_of(x))})"


# Checkpoints


@kind("checkpoint")
def checkpoint_expression(d: Drawing) -> str:
    x, y = d.pick(), d.pick()
    body = d.of(
        [
            "a * a",
            "(a * 2).tanh() * a",
            f"a.sin() * {d.fit(d.shape_of(x))}",
            "a.exp().sum() * a",
            f"(a * {x}.detach()).sigmoid() + {y}.sum()",
            "a.view(-1)[:1] * a.sum()",
            "Square.apply(a) * a",
        ]
    )
    return f"{d.new()} = checkpoint(lambda a: {body}, {x}, use_reentrant=False)"


@kind("checkpoint")
def checkpoint_block(d: Drawing) -> str:
    x = d.pick()
    y = d.pick(lambda t: d.broadcasts(t, d[x]))
    f = d.new("f")
    steps = ["b = a.clone()", "b.mul_(a)", "b = b * a", "b = b.tanh() * 2", "b[...] = a * 2"]
    steps += ["b.view(-1).mul_(3)", "b = Double.apply(b)", "b = b + c", "b.add_(0.5)"]
    body = [d.of(steps) for _ in range(d.whole(1, 3))]
    lines = [f"def {f}(a, c):", "    b = a * 1", *(f"    {s}" for s in body), "    return b * c"]
    return "\n".join([*lines, f"{d.new()} = checkpoint({f}, {x}, {y}, use_reentrant=False)"])


# Modules


def with_module(maker: str) -> Draw:
    def draw(d: Drawing) -> str:
        m = d.new("m")
        lines = [f"{m} = {maker}()"]
        for _ in range(d.of([0, 1, 1, 2])):
            name, factor = d.new("h"), d.of(["", f", {d.number()}"])
            lines.append(
                d.of(
                    [
                        f"{m}.register_full_backward_hook(note_backward('{name}'{factor}))",
                        f"{m}.register_full_backward_hook(note_backward('{name}'{factor}))",
                        f"{m}.register_full_backward_pre_hook(note_backward_pre('{name}'{factor}))",
                        f"{m}.register_forward_hook(note_forward('{name}'{factor}))",
                        f"{m}.register_forward_pre_hook(note_before('{name}'{factor}))",
                    ]
                )
            )
        x = d.target() if maker == "Change" else d.pick()
        return "\n".join([*lines, f"{d.new()} = {m}({x})"])

    return draw


each("module", "Scale Keep Change", with_module)


@kind("module")
def Linear(d: Drawing) -> str:
    x = d.pick(ranked(2, 3))
    text = with_module("linear")(d)
    text = text.replace("linear()", f"linear({d.shape_of(x)[-1]}, {d.whole(1, 3)})")
    return f"{text[: text.rindex('(')]}({x})"


# The way back


def loss(d: Drawing) -> str:
    found = d.names(lambda t: t.requires_grad)
    if not found:
        raise Unfit
    some = d.random.sample(found, min(len(found), d.of([1, 1, 2, 3])))
    return " + ".join(f"project({x})" for x in some)


def places(d: Drawing, test: Callable[[Any], bool] = any_) -> str:
    # None with a hook: PyTorch gives what comes before or after it, by what else is asked for.
    found = d.names(
        lambda t: (t.requires_grad or d.maybe(0.02)) and not t._backward_hooks and test(t)
    )
    if not found:
        raise Unfit
    some = sorted(d.random.sample(found, min(len(found), d.whole(1, 4))), key=list(d.space).index)
    return f"[{', '.join(some)}]"


@kind("backward")
def backward(d: Drawing) -> str:
    return f"({loss(d)}).backward({d.of(['', '', 'retain_graph=True', 'create_graph=True'])})"


@kind("backward")
def backward_twice(d: Drawing) -> str:
    name = d.new("l")
    keep = d.of(["", "retain_graph=True", "retain_graph=True"])
    return f"{name} = {loss(d)}\n{name}.backward({keep})\n{name}.backward()"


@kind("backward")
def backward_inputs(d: Drawing) -> str:
    # Of leaves: for another tensor PyTorch also runs the op that made it, for nothing.
    wanted = places(d, owned)
    keep = d.of(["", ", retain_graph=True", ", create_graph=True"])
    return f"({loss(d)}).backward(inputs={wanted}{keep})"


@kind("backward")
def backward_of(d: Drawing) -> str:
    """From a tensor that is not a scalar, with a gradient that may not be contiguous."""
    x = d.pick(lambda t: t.requires_grad)
    shape = d.shape_of(x)
    g = f"cosines({', '.join(map(str, shape))})"
    if len(shape) > 1 and d.maybe(0.6):
        g = f"cosines({', '.join(map(str, (*shape[:-2], shape[-1], shape[-2])))}).mT"
    return f"{x}.backward({g}{d.of(['', ', retain_graph=True'])})"


@kind("backward")
def backward_of_several(d: Drawing) -> str:
    x, y = d.pick(lambda t: t.requires_grad), d.pick(lambda t: t.requires_grad)
    gs = [f"cosines({', '.join(map(str, d[n].shape))})" for n in (x, y)]
    keep = d.of(["", ", retain_graph=True"])
    return f"T.autograd.backward([{x}, {y}], [{', '.join(gs)}]{keep})"


@kind("backward")
def grad(d: Drawing) -> str:
    unused = d.of([", allow_unused=True"] * 8 + [", materialize_grads=True", ""])
    keep = d.of(["", ", retain_graph=True"])
    return f"{d.new('g')} = T.autograd.grad({loss(d)}, {places(d)}{keep}{unused})"


@kind("backward")
def second(d: Drawing) -> str:
    """The derivative of a derivative."""
    g = d.new("g")
    first = f"T.autograd.grad({loss(d)}, {places(d)}, create_graph=True, allow_unused=True)"
    made = d.probe(first)
    if made is not None and not any(t is not None and t.requires_grad for t in made):
        return f"{g} = {first}"
    # Plus a derivative that exists: ours has none where PyTorch has one that is always zero.
    total = f"projected({g}) + project({d.pick(lambda t: t.requires_grad)})"
    last = d.of(
        [
            f"{d.new('g')} = T.autograd.grad({total}, {places(d, owned)}, allow_unused=True)",
            f"({total}).backward()",
        ]
    )
    return f"{g} = {first}\n{last}"


@kind("backward")
def grad_changed(d: Drawing) -> str:
    x = d.pick(has_grad)
    return d.of([f"{x}.grad.zero_()", f"{x}.grad = None", f"{x}.grad += 100", f"{x}.grad.mul_(2)"])


@kind("backward")
def step(d: Drawing) -> str:
    """A step of gradient descent, by hand."""
    x = d.pick(lambda t: t.requires_grad and has_grad(t))
    return f"with T.no_grad():\n    {x} -= 0.1 * {x}.grad"


ENDS = {
    "backward": 6, "backward_twice": 1, "backward_inputs": 1, "backward_of": 2,
    "backward_of_several": 1, "grad": 2, "second": 6,
}  # fmt: skip
