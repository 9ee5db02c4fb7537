"""minitensor: a transformer you can read, see and really train.

The names are PyTorch's: `minitensor.tensor`, `minitensor.nn`, `minitensor.optim`,
`minitensor.data`, `minitensor.autograd`; `minitensor.graph` draws what was computed. Names that
PyTorch has for other machines (`cuda`, `backends`, `compile`, `amp`, ...) are in
`minitensor.compat`, where they are looked up when they are first asked for.
"""

import sys as _sys
from math import e, inf, nan, pi

__version__ = "0.1.0"
newaxis = None  # of an index: x[:, newaxis]

if not getattr(_sys, "_is_gil_enabled", lambda: True)():
    raise ImportError(
        "minitensor relies on Python's global interpreter lock, which is off in this process: "
        "start Python with PYTHON_GIL=1 in its environment, or with -X gil=1"
    )

from . import autograd, core, memory, ops, random
from .autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .core import OutOfMemoryError, Size, Tensor
from .core import publish as _publish
from .creation import (
    BFloat16Tensor,
    BoolTensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
    arange,
    as_tensor,
    asarray,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    scalar_tensor,
    tensor,
    tril_indices,
    triu_indices,
    zeros,
    zeros_like,
)
from .devices import device
from .dtype import TYPES as _TYPES
from .dtype import bfloat16, can_cast, dtype, finfo, iinfo, set_default_dtype
from .formatting import set_printoptions
from .kernels.jit import get_num_threads, set_num_threads
from .kernels.precision import get_float32_matmul_precision, set_float32_matmul_precision
from .names import look_beyond as _look_beyond
from .names import show as _show
from .ops import return_types
from .random import (
    Generator,
    default_generator,
    exact_dropout,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from .sampling import (
    bernoulli,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)
from .serialize import CheckpointError, load, save
from .sharing import from_dlpack, frombuffer

half = float16 = _TYPES["float16"]
float = float32 = _TYPES["float32"]
double = float64 = _TYPES["float64"]
int8, uint8, bool = _TYPES["int8"], _TYPES["uint8"], _TYPES["bool"]
short = int16 = _TYPES["int16"]
int = int32 = _TYPES["int32"]
long = int64 = _TYPES["int64"]

_publish("torch", globals())

from . import data, nn, optim  # isort: skip  # they use the names above


def _compiled_calls(function, **settings):  # type: ignore[no-untyped-def]
    """Return a module's call, compiled."""
    from .replay import compiled_calls

    return compiled_calls(function, **settings)


nn.module.compiler.append(_compiled_calls)

_MODULES = (
    "autograd",
    "compat",
    "core",
    "data",
    "distributed",
    "distributions",
    "graph",
    "linalg",
    "memory",
    "nn",
    "optim",
    "random",
    "return_types",
    "testing",
)
_names = [n for n, v in globals().items() if n[0] != "_" and not isinstance(v, type(_sys))]
_show(__name__, [*_MODULES, *_names], core.NAMESPACES["torch"])
for _module in (core, memory, random):  # which may import nothing for it
    _show(_module.__name__)
_look_beyond(f"{__name__}.compat")
