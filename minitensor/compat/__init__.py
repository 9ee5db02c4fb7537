"""PyTorch's own names, so that code written for it runs as it is: `import torch` finds minitensor.

    python -m minitensor.compat train.py --epochs 3   # a script, with its arguments
    python -m minitensor.compat -m package.train      # a module

or, before the first `import torch` of a program:

    import minitensor.compat
    minitensor.compat.install()

`torch` is then minitensor itself, `torch.nn` is `minitensor.nn`, `torch.utils.data` is
`minitensor.data`: one module under two names, so `torch.Tensor is minitensor.Tensor`. The file
`modules.py` lists them. Code that was changed to `import minitensor as torch` needs no `install`:
the names below are looked up here when they are first asked for. `install` also turns on
`minitensor.exact_dropout`, for PyTorch's numbers after the same seed, which takes more time.

PyTorch's names that mean nothing on a CPU answer as they do there, on a machine without a GPU:

- `cuda.is_available()` is False, `cuda.device_count()` 0, `cuda.manual_seed(0)` is accepted;
  `.cuda()`, `.to("cuda")` and `cuda.synchronize()` raise an error that is an AssertionError, as of
  PyTorch's build without CUDA, and a RuntimeError, as of its build with CUDA.
- `backends.*` can be set and change nothing.
- `jit.script` and `jit.trace` return the function or module they are given.
- `autocast("cpu")` with bfloat16 selects what `set_float32_matmul_precision("medium")` does, within
  its block: products of float32 round their operands to bfloat16 on processors where that is
  faster, and stay float32 on others. **Tensors stay float32 in any case**, while PyTorch's autocast
  returns bfloat16. With float16, and on "cuda" with PyTorch's warning, it changes nothing, and
  neither does `GradScaler`.
- `distributed` is `minitensor.distributed`, over MPI, whichever backend is asked for: start the
  program as `mpiexec -n K python -m minitensor.compat script.py`, which stands for torchrun, and
  for the processes of `multiprocessing.spawn`. `nn.DataParallel` passes on to its `.module`.
- What cannot be had (`hub.load`, `utils.tensorboard`, ...) says so in a sentence when it is asked.

The library itself imports nothing of this.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from ..core import NAMESPACES  # noqa: F401  # the library comes first
from ..names import call_library, show
from ..random import exact_dropout
from .modules import BEYOND, INSTEAD, MODULES, Finder, enter, missing
from .version import VERSION

__all__ = ["install", "uninstall"]

_FINDER = Finder()
_PACKAGE = __name__.rpartition(".")[0]
_NAME = {target: name for name, target in reversed(MODULES.items())}  # PyTorch's, of each module


def install() -> None:
    """Make `import torch` find minitensor in this process, whether PyTorch is installed or not.

    A second call changes nothing. Raises ImportError if PyTorch has already been imported.
    """
    if _FINDER in sys.meta_path:
        return
    if "torch" in sys.modules:
        raise ImportError(
            "minitensor.compat.install: PyTorch is already imported in this process; "
            "call install() before the first import of torch"
        )
    for name, target in MODULES.items():
        if target in sys.modules:
            enter(name)
    sys.meta_path.insert(0, _FINDER)
    exact_dropout(True)
    call_library("torch")
    setattr(sys.modules[_PACKAGE], "__version__", VERSION)  # which scripts compare


def uninstall() -> None:
    """Undo `install`, for tests: the next `import torch` finds PyTorch, if it is installed."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
        exact_dropout(False)
        call_library(_PACKAGE)
        for name in [n for n in sys.modules if n.partition(".")[0] == "torch"]:
            del sys.modules[name]
        setattr(sys.modules[_PACKAGE], "__version__", VERSION.of_minitensor)


def find(module: str, name: str) -> Any:
    """Return PyTorch's `name` of a module of minitensor that lacks it; None if there is none.

    Raises AttributeError, with a sentence, for what minitensor has in another form or not at all.
    """
    torch = _NAME.get(module)
    full = f"{torch}.{name}"
    if full in MODULES:
        return import_module(MODULES[full])
    if module in BEYOND and name in vars(beyond := import_module(BEYOND[module])):
        return vars(beyond)[name]
    if torch and full in INSTEAD:
        raise AttributeError(missing(full), name=name, obj=None)
    return None


def listed(module: str) -> list[str]:
    """Return the public names that `find` has for a module of minitensor."""
    prefix = f"{_NAME.get(module)}."
    here = [n for n, target in MODULES.items() if target.startswith(f"{__name__}.")]
    names = [n.removeprefix(prefix) for n in here if n.startswith(prefix)]
    if module in BEYOND:
        names += getattr(import_module(BEYOND[module]), "__all__", ())  # no older names
    return [name for name in names if "." not in name and not name.startswith("_")]


show(__name__)
