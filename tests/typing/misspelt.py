"""Every line of `mistakes` is one, and a type checker must say so."""

# ruff: noqa: B018  # what is wrong in a line is its name
import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn, optim


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)


def mistakes(x: Tensor, net: Net, optimizer: optim.Optimizer, graph: mt.graph.Graph) -> None:
    F.sofmax(x, dim=-1)
    F.softmax(x, dimm=-1)
    F.cross_entropy(x, x, label_smoothin=0.1)
    F.relu(x, inplce=True)
    mt.sofmax(x, 0)
    mt.zeroes(3)
    mt.zeros_like(x, dtyp=mt.float64)
    mt.randn(3, generater=None)
    mt.tensor([1.0], requires_gard=True)
    mt.zeros(2, dtype=mt.flot32)
    mt.NAMESPACES
    mt.no_gard()
    mt.Generator().manual_sed(0)
    mt.cat([x], dimension=0)
    (x @ x).sofmax(-1)
    (2 * x).sun()
    (-x).item().shape
    (x**2).shap
    x[0].sun()
    (x > 0).ani()
    x.exp_().sun()
    x.add_(1, alpa=2)
    x.T.sofmax(0)
    x.topk(2).value
    x.max(dim=1).sun()
    x.max(dim=1).argmax
    x.max().values
    x.max(dimm=1)
    x.sort().indexes
    x.sum(dim=0, keepdms=True)
    x.unbind().sum()
    x.split(2)[0].sun()
    x.shape.numl()
    x.shape[0].numel()
    x.size(0).numel()
    x.nonzero(as_tuple=True).sum()
    x.grad_function
    x.requires_gard
    x.backward(retain_grap=True)
    nn.Liner(3, 4)
    nn.Linear(3, 4, bia=False)
    nn.MultiheadAttention(8, 2, batchfirst=True)
    nn.init.xavier_uniform(x)
    net.linear.weight.sun()
    optim.AdanW(net.parameters())
    optim.AdamW(net.parameters(), learning_rate=1e-3)
    optim.lr_scheduler.StepLr(optimizer, 1)
    optimizer.zero_grads()
    mt.autograd.gard(x, x)
    mt.data.DataLoder([])
    graph.sumary()
    mt.graph.trase(net, x)
    mt.testing.assert_closs(x, x)
    net.parameter()
    net.evl()
