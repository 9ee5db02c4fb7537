"""`compile`; and `jit`, `compiler`, `profiler` and their settings, which change nothing."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterator
from typing import Any

from ..nn import Module
from .answers import answer, as_given, namespace, refuse, settings

__all__ = ["compile", "compiler", "jit", "profiler"]


def compile(
    model: Any = None, *, explain: bool = False, disable: bool = False, **settings: Any
) -> Any:
    """Return a function or module that computes the same, faster: see `minitensor.replay`."""
    if disable:
        return as_given(model)
    from .. import replay

    return replay.compile(model, explain=explain, **settings)


@contextlib.contextmanager
def _nothing(*args: Any, **kwargs: Any) -> Iterator[None]:
    """A block that does nothing; a decorator too."""
    yield


def _unchanged(function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Return the function or module; `drop=True` and other settings make a decorator of it."""
    return as_given(function)


def _annotate(the_type: Any, the_value: Any) -> Any:
    """Return the value."""
    return the_value


class ScriptModule(Module):
    """A compiled module, which there is none of: `isinstance(model, ScriptModule)` is False."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()


class ScriptFunction:
    """A compiled function, which there is none of."""


_no_file = refuse(
    RuntimeError,
    "minitensor compiles no programs into files: save model.state_dict(), load it into the model",
)

jit = namespace(
    f"{__name__}.jit",
    "`torch.jit`: functions and modules stay as they are.",
    **dict.fromkeys(("script", "trace", "freeze", "optimize_for_inference"), _unchanged),
    **dict.fromkeys(("script_if_tracing", "export", "ignore", "unused", "interface"), _unchanged),
    **dict.fromkeys(("script_method", "trace_module"), _unchanged),
    **dict.fromkeys(("is_scripting", "is_tracing"), answer(False)),
    **dict.fromkeys(("save", "load"), _no_file),
    **dict.fromkeys(("optimized_execution", "fuser"), _nothing),
    annotate=_annotate,
    isinstance=isinstance,
    Final=typing.Final,
    Attribute=lambda value, type: value,
    ScriptModule=ScriptModule,
    ScriptFunction=ScriptFunction,
)

compiler = namespace(
    f"{__name__}.compiler",
    "`torch.compiler`: nothing is compiled.",
    compile=compile,
    **dict.fromkeys(("disable", "allow_in_graph", "assume_constant_result"), _unchanged),
    **dict.fromkeys(("is_compiling", "is_dynamo_compiling", "is_exporting"), answer(False)),
    **dict.fromkeys(("reset", "cudagraph_mark_step_begin"), answer()),
    list_backends=answer([]),
    set_stance=_nothing,
)

_dynamo = namespace(
    f"{__name__}._dynamo",
    "`torch._dynamo`: settings are taken.",
    config=settings(f"{__name__}._dynamo.config", "Any setting."),
    **dict.fromkeys(("disable", "allow_in_graph", "optimize"), _unchanged),
    **dict.fromkeys(("reset", "mark_dynamic", "mark_static", "graph_break"), answer()),
    is_compiling=answer(False),
)
_inductor = namespace(
    f"{__name__}._inductor",
    "`torch._inductor`: settings are taken.",
    config=settings(f"{__name__}._inductor.config", "Any setting."),
)
_functorch = namespace(
    f"{__name__}._functorch",
    "`torch._functorch`: settings are taken.",
    config=settings(f"{__name__}._functorch.config", "Any setting."),
)
_C = namespace(
    f"{__name__}._C",
    "`torch._C`: settings of its compilers are taken.",
    **dict.fromkeys(("_jit_set_profiling_mode", "_jit_set_profiling_executor"), answer(True)),
    **dict.fromkeys(("_jit_override_can_fuse_on_cpu", "_jit_override_can_fuse_on_gpu"), answer()),
    **dict.fromkeys(("_jit_set_texpr_fuser_enabled", "_jit_set_nvfuser_enabled"), answer()),
    _log_api_usage_once=answer(),
    _get_tracing_state=answer(),
)

_no_profile = refuse(
    RuntimeError,
    "minitensor has no torch.profiler.profile: "
    "`python -m minitensor.tools.graph --overlay time` shows the time of every op",
)
profiler = namespace(
    f"{__name__}.profiler",
    "`torch.profiler`: blocks may have a name, nothing is measured.",
    record_function=_nothing,
    **dict.fromkeys(("profile", "schedule", "tensorboard_trace_handler"), _no_profile),
)
