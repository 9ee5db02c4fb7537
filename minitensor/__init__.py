"""minitensor: a transformer you can read, see and really train.

The names are PyTorch's: `minitensor.tensor`, `minitensor.nn`, `minitensor.optim`,
`minitensor.data`, `minitensor.autograd`; `minitensor.graph` draws what was computed.
"""

from __future__ import annotations

import sys as _sys
from importlib import import_module as _import_module
from typing import Any

if not getattr(_sys, "_is_gil_enabled", lambda: True)():
    raise ImportError(
        "minitensor relies on Python's global interpreter lock, which is off in this process: "
        "start Python with PYTHON_GIL=1 in its environment, or with -X gil=1"
    )

from . import autograd, core, creation, memory, ops, random, sampling
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
from .devices import device
from .dtype import (  # the names of PyTorch's types, some of them Python's
    bool_ as bool,
)
from .dtype import (
    can_cast,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
)
from .formatting import set_printoptions
from .kernels.jit import get_num_threads, set_num_threads
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
from .serialize import CheckpointError, load, save

half, float, double = float16, float32, float64
short, int, long = int16, int32, int64


def __getattr__(name: str) -> Any:
    """`minitensor.testing`, imported for those who ask; type checkers find the ops' functions."""
    if name == "testing":
        return _import_module(".testing", __name__)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


_publish("torch", globals())
globals().update({name: getattr(creation, name) for name in creation.__all__})
globals().update({name: getattr(sampling, name) for name in sampling.__all__})

from . import data, nn, optim  # isort: skip  # they use the names above
from . import graph  # isort: skip  # it uses all of them
