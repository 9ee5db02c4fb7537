"""A user's script, with the type that a checker must find for each result; it also runs."""

from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Generator, Tensor, nn, optim, return_types
from minitensor.data import DataLoader, TensorDataset
from minitensor.optim.lr_scheduler import StepLR

# Creation, with dtypes and generators

generator = mt.Generator().manual_seed(0)
assert_type(generator, Generator)
x = mt.randn(4, 3, generator=generator, dtype=mt.float32, requires_grad=True)
assert_type(x, Tensor)
assert_type(mt.zeros((2, 3), dtype=mt.int64), Tensor)
assert_type(mt.zeros_like(x, dtype=mt.float64), Tensor)
assert_type(mt.rand_like(x, generator=generator), Tensor)
assert_type(mt.full((2,), 1.5, requires_grad=True), Tensor)
assert_type(mt.tensor([[1, 2], [3, 4]], dtype=mt.float32), Tensor)
assert_type(mt.arange(0, 10, 2), Tensor)
assert_type(x.new_zeros(2, dtype=mt.int32), Tensor)
assert_type(mt.float32, mt.dtype)
assert_type(mt.get_default_dtype(), mt.dtype)
assert isinstance(x.dtype, mt.dtype)

# Operators

y = mt.randn(3, 4)
assert_type(x @ y, Tensor)
assert_type(x + 1, Tensor)
assert_type(2 * x, Tensor)
assert_type(1 - x, Tensor)
assert_type(1 / (x * x + 1), Tensor)
assert_type(-x, Tensor)
assert_type(x**2, Tensor)
assert_type(2**x, Tensor)
assert_type(x[0], Tensor)
assert_type(x[:, None, ..., 1:], Tensor)
assert_type(x > 0, Tensor)
assert_type(x == y.T, Tensor)
assert_type(x != 1, Tensor)
assert_type((x > 0) & ~(x < 1), Tensor)
assert_type(abs(x), Tensor)
z = mt.zeros(4, 3)
z += 1
z[0] = 2
assert_type(z, Tensor)

# Attributes

assert_type(x.shape, mt.Size)
assert_type(x.shape[0], int)
assert_type(x.shape[:1], mt.Size)
assert_type(x.shape.numel(), int)
assert_type(x.size(), mt.Size)
assert_type(x.size(0), int)
assert_type(x.stride(0), int)
assert_type(x.ndim, int)
assert_type(x.numel(), int)
assert_type(x.T, Tensor)
assert_type(x.mT, Tensor)
assert_type(x.requires_grad, bool)
assert_type(x.grad, Tensor | None)
assert_type(x.device, mt.device)
assert_type(x.detach().numpy(), np.ndarray)
assert_type(x[0, 0].item(), int | float | bool)
assert_type(len(x), int)
assert_type(iter(x), Iterator[Tensor])
assert_type(x.type(), str)
assert_type(x.type(mt.float64), Tensor)

# Functions and methods

assert_type(x.exp(), Tensor)
assert_type(mt.exp(x), Tensor)
assert_type(x.sum(), Tensor)
assert_type(x.sum(dim=1, keepdim=True), Tensor)
assert_type(x.mean(axis=(0, 1)), Tensor)
assert_type(x.max(), Tensor)
assert_type(x.max(y.T), Tensor)
assert_type(x.max(dim=1), return_types.max)
assert_type(x.max(1).values, Tensor)
assert_type(x.min(axis=0).indices, Tensor)
assert_type(mt.min(x, 0), return_types.min)
assert_type(x.median(), Tensor)
assert_type(x.median(0).indices, Tensor)
assert_type(x.topk(2), return_types.topk)
assert_type(x.topk(2).indices, Tensor)
assert_type(x.sort(), return_types.sort)
assert_type(mt.sort(x, descending=True).values, Tensor)
assert_type(x.aminmax().max, Tensor)
assert_type(x.argmax(dim=1), Tensor)
assert_type(mt.std_mean(x), tuple[Tensor, Tensor])
assert_type(x.unique(), Tensor)
assert_type(x.unique(return_inverse=True), tuple[Tensor, Tensor])
assert_type(x.unique(return_inverse=True, return_counts=True), tuple[Tensor, Tensor, Tensor])
assert_type(x.nonzero(), Tensor)
assert_type(x.nonzero(as_tuple=True), tuple[Tensor, ...])
assert_type(mt.where(x > 0), tuple[Tensor, ...])
assert_type(mt.where(x > 0, x, 0.0), Tensor)
assert_type(x.where(x > 0, 0.0), Tensor)
assert_type(x.unbind(), tuple[Tensor, ...])
assert_type(x.split(2), tuple[Tensor, ...])
assert_type(x.chunk(2, dim=0), tuple[Tensor, ...])
assert_type(mt.meshgrid(x[0], x[1], indexing="ij"), tuple[Tensor, ...])
assert_type(mt.cat([x, x], dim=0), Tensor)
assert_type(mt.stack((x, x)), Tensor)
assert_type(mt.einsum("ij,jk->ik", x, y), Tensor)
assert_type(x.view(2, 6).transpose(0, 1).reshape(-1), Tensor)
assert_type(x.permute(1, 0).contiguous(), Tensor)
assert_type(x.to(mt.float64).float(), Tensor)
assert_type(mt.allclose(x, x), bool)
assert_type(mt.is_tensor(x), bool)

# In place

assert_type(z.add_(1, alpha=2), Tensor)
assert_type(z.clamp_(min=0), Tensor)
assert_type(z.normal_(0, 1, generator=generator), Tensor)
assert_type(z.zero_(), Tensor)
assert_type(z.requires_grad_(False), Tensor)

# nn.functional

labels = mt.tensor([0, 1, 2, 0])
assert_type(F.softmax(x, dim=-1), Tensor)
assert_type(F.relu(x), Tensor)
assert_type(F.gelu(x, approximate="tanh"), Tensor)
assert_type(F.cross_entropy(x, labels, label_smoothing=0.1), Tensor)
assert_type(F.layer_norm(x, (3,)), Tensor)
assert_type(F.scaled_dot_product_attention(x, x, x, is_causal=True), Tensor)
assert_type(F.one_hot(labels, num_classes=3), Tensor)

# Modules


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Dropout(0.1))
        self.outer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outer(self.inner(x))
        return y


model = Net()
assert_type(model.train(), Net)
assert_type(model.outer.weight, nn.Parameter)
assert_type(list(model.parameters()), list[nn.Parameter])
assert_type(dict(model.named_parameters()), dict[str, nn.Parameter])
assert_type(model.state_dict(), dict[str, Any])
assert_type(nn.init.xavier_uniform_(model.outer.weight), Tensor)
assert_type(nn.utils.clip_grad_norm_(model.parameters(), 1.0), Tensor)

# Training

optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
loader = DataLoader(TensorDataset(x.detach(), labels), batch_size=2, shuffle=True)
for inputs, targets in loader:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), targets)
    assert_type(loss, Tensor)
    loss.backward()
    optimizer.step()
    scheduler.step()
assert_type(scheduler.get_last_lr(), list[float])
assert_type(len(loader), int)


@mt.no_grad()
def evaluate(model: Net, x: Tensor) -> float:
    model.eval()
    return float(model(x).sum())


assert_type(evaluate(model, x), float)
with mt.no_grad():
    assert_type(x.exp(), Tensor)
with mt.inference_mode(), mt.set_grad_enabled(False), mt.fork_rng():
    assert_type(mt.rand(2), Tensor)


# Differentiation


class Double(mt.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy * 2


doubled: Tensor = Double.apply(x)
assert_type(mt.autograd.grad(doubled.sum(), [x]), tuple[Tensor, ...])
handle = x.register_hook(lambda dy: dy * 2)
handle.remove()

# The graph

graph = mt.graph.trace(model, x)
assert_type(graph, mt.graph.Graph)
assert_type(graph.summary(), str)
