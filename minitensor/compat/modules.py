"""PyTorch's modules and the modules of minitensor that they are; what is not there, and instead.

The table is all there is to it: `import torch.utils.data` and the attribute `torch.utils.data`
both look here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_LAYERS = (
    *("activation", "adaptive", "batchnorm", "channelshuffle", "container", "conv", "distance"),
    *("dropout", "flatten", "fold", "instancenorm", "lazy", "linear", "loss", "module"),
    *("normalization", "padding", "pixelshuffle", "pooling", "rnn", "sparse", "transformer"),
    *("upsampling", "utils"),
)

_DISTRIBUTIONS = ("bernoulli", "categorical", "distribution", "kl", "normal")

# PyTorch's modules, and the module that each of them is.
MODULES = {
    "torch": "minitensor",
    "torch.autograd": "minitensor.autograd",
    "torch.autograd.function": "minitensor.autograd.function",
    "torch.autograd.grad_mode": "minitensor.autograd.grad_mode",
    "torch.autograd.gradcheck": "minitensor.autograd.gradcheck",
    "torch.distributed": "minitensor.distributed",
    "torch.distributed.algorithms": "minitensor.compat.distributed.algorithms",
    "torch.distributed.algorithms.ddp_comm_hooks": (
        "minitensor.compat.distributed.algorithms.ddp_comm_hooks"
    ),
    "torch.distributed.algorithms.ddp_comm_hooks.default_hooks": (
        "minitensor.distributed.default_hooks"
    ),
    "torch.distributed.distributed_c10d": "minitensor.distributed",
    "torch.distributed.optim": "minitensor.distributed.optim",
    "torch.distributions": "minitensor.distributions",
    **{f"torch.distributions.{name}": "minitensor.distributions" for name in _DISTRIBUTIONS},
    "torch.linalg": "minitensor.linalg",
    "torch.nn": "minitensor.nn",
    "torch.nn.attention": "minitensor.nn.attention",
    "torch.nn.functional": "minitensor.nn.functional",
    "torch.nn.init": "minitensor.nn.init",
    "torch.nn.modules": "minitensor.compat.nn.modules",
    **{f"torch.nn.modules.{name}": "minitensor.compat.nn.modules" for name in _LAYERS},
    "torch.nn.parallel": "minitensor.nn.parallel",
    "torch.nn.parallel.data_parallel": "minitensor.nn.parallel",
    "torch.nn.parallel.distributed": "minitensor.nn.parallel",
    "torch.nn.parameter": "minitensor.nn.parameter",
    "torch.nn.utils": "minitensor.nn.utils",
    "torch.nn.utils.clip_grad": "minitensor.nn.utils.clip",
    "torch.nn.utils.convert_parameters": "minitensor.nn.utils.vector",
    "torch.nn.utils.rnn": "minitensor.nn.utils.rnn",
    "torch.nn.utils.parametrizations": "minitensor.nn.utils.parametrizations",
    "torch.nn.utils.parametrize": "minitensor.nn.utils.parametrize",
    "torch.nn.utils.weight_norm": "minitensor.nn.utils.weight_norm",
    "torch.onnx": "minitensor.onnx",
    "torch.optim": "minitensor.optim",
    "torch.optim.adagrad": "minitensor.optim.adagrad",
    "torch.optim.adam": "minitensor.optim.adam",
    "torch.optim.adamw": "minitensor.optim.adam",
    "torch.optim.lr_scheduler": "minitensor.optim.lr_scheduler",
    "torch.optim.optimizer": "minitensor.optim.optimizer",
    "torch.optim.rmsprop": "minitensor.optim.rmsprop",
    "torch.optim.sgd": "minitensor.optim.sgd",
    "torch.random": "minitensor.random",
    "torch.return_types": "minitensor.ops.return_types",
    "torch.serialization": "minitensor.serialize",
    "torch.testing": "minitensor.testing",
    "torch.utils": "minitensor.compat.utils",
    "torch.utils.hooks": "minitensor.autograd.hooks",
    "torch.utils.checkpoint": "minitensor.autograd.checkpoint",
    "torch.utils.data": "minitensor.data",
    "torch.utils.data._utils": "minitensor.data",
    "torch.utils.data._utils.collate": "minitensor.data.collate",
    "torch.utils.data.dataloader": "minitensor.data.dataloader",
    "torch.utils.data.dataset": "minitensor.data.dataset",
    "torch.utils.data.distributed": "minitensor.data.distributed",
    "torch.utils.data._utils.worker": "minitensor.data.worker",
    "torch.utils.data.sampler": "minitensor.data.sampler",
    # PyTorch's alone
    "torch._C": "minitensor.compat.compilers._C",
    "torch._dynamo": "minitensor.compat.compilers._dynamo",
    "torch._dynamo.config": "minitensor.compat.compilers._dynamo.config",
    "torch._functorch": "minitensor.compat.compilers._functorch",
    "torch._functorch.config": "minitensor.compat.compilers._functorch.config",
    "torch._inductor": "minitensor.compat.compilers._inductor",
    "torch._inductor.config": "minitensor.compat.compilers._inductor.config",
    "torch._tensor": "minitensor",
    "torch.accelerator": "minitensor.compat.devices.accelerator",
    "torch.amp": "minitensor.compat.amp",
    "torch.amp.autocast_mode": "minitensor.compat.amp",
    "torch.amp.grad_scaler": "minitensor.compat.amp",
    "torch.backends": "minitensor.compat.backends",
    "torch.backends.cpu": "minitensor.compat.backends.cpu",
    "torch.backends.cuda": "minitensor.compat.backends.cuda",
    "torch.backends.cudnn": "minitensor.compat.backends.cudnn",
    "torch.backends.mkl": "minitensor.compat.backends.mkl",
    "torch.backends.mkldnn": "minitensor.compat.backends.mkldnn",
    "torch.backends.mps": "minitensor.compat.backends.mps",
    "torch.backends.openmp": "minitensor.compat.backends.openmp",
    "torch.backends.opt_einsum": "minitensor.compat.backends.opt_einsum",
    "torch.compiler": "minitensor.compat.compilers.compiler",
    "torch.cpu": "minitensor.compat.devices.cpu",
    "torch.cuda": "minitensor.compat.devices.cuda",
    "torch.cuda.amp": "minitensor.compat.devices.cuda.amp",
    "torch.cuda.amp.autocast_mode": "minitensor.compat.devices.cuda.amp",
    "torch.cuda.amp.grad_scaler": "minitensor.compat.devices.cuda.amp",
    "torch.cuda.memory": "minitensor.compat.devices.cuda",
    "torch.cuda.random": "minitensor.compat.devices.cuda",
    "torch.cuda.nvtx": "minitensor.compat.devices.cuda.nvtx",
    "torch.hub": "minitensor.compat.hub",
    "torch.jit": "minitensor.compat.compilers.jit",
    "torch.mps": "minitensor.compat.devices.mps",
    "torch.multiprocessing": "minitensor.compat.distributed.multiprocessing",
    "torch.overrides": "minitensor.compat.utils.overrides",
    "torch.profiler": "minitensor.compat.compilers.profiler",
    "torch.autograd.profiler": "minitensor.compat.compilers.profiler",
    "torch.types": "minitensor.compat.utils.types",
    "torch.utils.model_zoo": "minitensor.compat.hub",
    "torch.version": "minitensor.compat.version",
    "torch.torch_version": "minitensor.compat.version",
    "torch.xpu": "minitensor.compat.devices.xpu",
}

# Modules of minitensor that lack names of PyTorch's, and the module that has these.
BEYOND = {
    "minitensor": "minitensor.compat.top",
    "minitensor.autograd": "minitensor.compat.autograd",
    "minitensor.distributed": "minitensor.compat.distributed",
    "minitensor.nn": "minitensor.compat.nn",
    "minitensor.nn.attention": "minitensor.compat.nn.attention",
    "minitensor.nn.init": "minitensor.compat.nn.init",
    "minitensor.nn.utils": "minitensor.compat.nn.utils",
}

_REAL = "tensors are real: write a rotation as pairs of numbers with cos and sin"
# What is not there, and the nearest thing that is.
INSTEAD = {
    "torch.ao": "int8 and other quantized layers are not there",
    "torch.autograd.functional": "autograd.grad(..., create_graph=True) gives derivatives",
    "torch.complex": _REAL,
    "torch.complex64": _REAL,
    "torch.complex128": _REAL,
    "torch.distributed.fsdp": "ZeroRedundancyOptimizer divides the state of an optimizer",
    "torch.export": "minitensor.graph.trace records a program",
    "torch.fft": _REAL,
    "torch.func": "autograd.grad(..., create_graph=True) gives derivatives",
    "torch.fx": "minitensor.graph.trace records a program",
    "torch.nn.attention.flex_attention": "F.scaled_dot_product_attention takes any mask",
    "torch.nn.quantized": "int8 and other quantized layers are not there",
    "torch.nested": "nn.utils.rnn.pad_sequence pads to one length",
    "torch.optim.swa_utils": "average the tensors of state_dict() in a loop",
    "torch.polar": _REAL,
    "torch.quantization": "int8 and other quantized layers are not there",
    "torch.sparse": "tensors are dense",
    "torch.sparse_coo_tensor": "tensors are dense",
    "torch.special": "its functions are torch.erf, torch.sigmoid, torch.logsumexp, ...",
    "torch.utils.benchmark": "Python's timeit measures",
    "torch.utils.cpp_extension": "minitensor.autograd.Function defines an op in Python",
    "torch.utils.tensorboard": "print, or write the numbers to a file",
    "torch.view_as_complex": _REAL,
    "torch.view_as_real": _REAL,
    "torch.vmap": "broadcasting and einsum take batches",
}


def missing(name: str) -> str:
    """Return the sentence for a name of PyTorch's that is not there."""
    for known, instead in INSTEAD.items():
        if name == known or name.startswith(f"{known}."):
            return f"minitensor has no {known}: {instead}"
    near = get_close_matches(name, MODULES, 1)
    return f"minitensor has no {name}" + (f": did you mean {near[0]}?" if near else "")


def enter(name: str) -> None:
    """Put the module of minitensor where the import system looks for PyTorch's."""
    found = import_module(MODULES[name])
    vars(found).setdefault("__path__", [])  # PyTorch's may have modules within
    sys.modules[name] = found
    for inner, target in MODULES.items():
        # A later import of a module that is there does not hide the function of the same name.
        parent, _, child = inner.rpartition(".")
        if parent == name and callable(vars(found).get(child)):
            sys.modules[inner] = import_module(target)


class Finder(MetaPathFinder, Loader):
    """Finds the modules of the table, and refuses all else below `torch` with a sentence."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, of: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of PyTorch's is; raises ModuleNotFoundError if it is nowhere."""
        if fullname.partition(".")[0] != "torch":
            return None
        if fullname not in MODULES:
            raise ModuleNotFoundError(missing(fullname), name=fullname)
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of minitensor where the import system looks for PyTorch's."""
        enter(module.__name__)
