"""The gradients of a whole model: of each parameter, and of each op that ran at its arguments."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..autograd import enable_grad, grad, no_grad
from ..core import Tensor, wrap
from ..dtype import FLOATING, get_default_dtype, set_default_dtype
from ..nn import Module
from ..random import default_generator
from .probe import Checked
from .report import How, Report, Row
from .samples import leaves, replaced
from .watch import Watch, one_line

ELEMENTS = 16  # a tensor of up to this many is checked element by element
PROJECTIONS = 2  # random directions, of a larger one
_Call = Callable[..., Any]


def gradcheck_module(
    module: _Call,
    *inputs: Any,
    second: bool = False,
    training: bool = False,
    seed: int = 0,
    elements: int = ELEMENTS,
    projections: int = PROJECTIONS,
    **options: Any,
) -> Report:
    """Raise AssertionError unless the gradients of a module, or of any function, are right.

    Runs `module(*inputs, **options)` in float64, and compares with central differences

    - the gradient of each parameter, and of each input of a floating type, through the whole model;
    - the backward of each op that ran, alone, at the arguments that it ran with,

    element by element for tensors of up to `elements`, else along `projections` random directions.
    `second` adds the second derivatives of both. The modules run in evaluation mode, so there is no
    dropout; with `training` in training mode, and each run draws the same random numbers. Left out
    are gradients that are 0 by convention, those of an embedding's padding row, and elements at a
    kink, such as relu at 0. Afterwards parameters and inputs are as they were.

    The AssertionError names op, module, line, argument and element, with both numbers. Otherwise
    returns what was checked. ValueError if there is nothing to check.
    """
    report = check_gradients(
        module,
        inputs,
        options,
        second=second,
        training=training,
        seed=seed,
        elements=elements,
        projections=projections,
    )
    if not report.ok:
        raise AssertionError(report.message())
    return report


def check_gradients(
    function: _Call,
    inputs: Sequence[Any] = (),
    options: Mapping[str, Any] | None = None,
    *,
    second: bool = False,
    training: bool = False,
    seed: int = 0,
    elements: int = ELEMENTS,
    projections: int = PROJECTIONS,
) -> Report:
    """Return the report that `gradcheck_module` judges."""
    how = How(second, elements, projections, np.random.RandomState(seed))
    roots = _modules_of(function, inputs, options or {})
    report = Report(
        "training mode, the same random numbers in each run" if training else "evaluation mode"
    )
    with _float64(roots, training):
        given = [list(inputs), dict(options or {})]
        tensors = [_converted(t) for t in leaves(given)]
        args, kwargs = replaced(given, iter(tensors))
        targets = _targets(function, roots, args, kwargs)
        start = default_generator.get_state()

        def run() -> list[Tensor]:
            default_generator.set_state(start)
            outs = leaves([function(*args, **kwargs)])
            return [out for out in outs if out._array.dtype.kind in FLOATING]

        try:
            _check(run, targets, how, report)
        finally:
            default_generator.set_state(start)
    return report


# The model as a whole


def _check(
    run: Callable[[], list[Tensor]], targets: dict[str, Tensor], how: How, report: Report
) -> None:
    """Fill the report: ops while the model runs, then its parameters and inputs."""
    watch = Watch(how, report)
    with watch:
        outs = run()
    again = run()
    _expect_numbers(outs)
    if not all(np.array_equal(a._array, b._array, True) for a, b in zip(outs, again, strict=True)):
        raise ValueError(
            "two runs on the same inputs differ, so there is nothing to compare a gradient with: "
            "the model draws random numbers of its own, or changes what it reads"
        )
    if not any(out.requires_grad for out in outs):
        raise ValueError("no output requires grad: nothing can be checked")
    weights = how.weights(outs)
    wanted = list(targets.values())

    def gradients(create_graph: bool = False) -> list[Tensor | None]:
        with enable_grad():
            results = run()
            pairs = [(r, wrap(w)) for r, w in zip(results, weights, strict=True)]
            roots = [(r, w) for r, w in pairs if r.requires_grad]
            return list(
                grad(
                    [r for r, _ in roots],
                    wanted,
                    [w for _, w in roots],
                    create_graph=create_graph,
                    allow_unused=True,
                )
            )

    def values() -> list[np.ndarray]:
        with no_grad():
            return [out._array for out in run()]

    found = gradients()
    for (name, t), g in zip(targets.items(), found, strict=True):
        checked = how.check(values, weights, t._array, g, how.fixed.get(id(t)))
        report.parameters.append(Row(name, 1, checked))
    if how.second:
        _second(gradients, targets, how, report)


def _second(
    gradients: Callable[..., list[Tensor | None]],
    targets: dict[str, Tensor],
    how: How,
    report: Report,
) -> None:
    """Return the derivatives of a random combination of all gradients."""
    try:
        first = gradients(create_graph=True)
    except RuntimeError as error:
        report.parameters += [
            Row(name, 2, Checked.failed(t._array.shape, one_line(error)))
            for name, t in targets.items()
        ]
        return
    weights = how.weights(list(targets.values()))
    pairs = [(g, wrap(w)) for g, w in zip(first, weights, strict=True) if g is not None]
    pairs = [(g, w) for g, w in pairs if g.requires_grad]
    wanted = list(targets.values())
    found: Sequence[Tensor | None] = [None] * len(wanted)
    if pairs:
        found = grad([g for g, _ in pairs], wanted, [w for _, w in pairs], allow_unused=True)

    def values() -> list[np.ndarray]:
        given = zip(gradients(), wanted, strict=True)
        return [np.zeros(t._array.shape) if g is None else g._array for g, t in given]

    for (name, t), g in zip(targets.items(), found, strict=True):
        checked = how.check(values, weights, t._array, g, how.fixed.get(id(t)))
        report.parameters.append(Row(name, 2, checked))


def _expect_numbers(outs: Sequence[Tensor]) -> None:
    if not outs:
        raise ValueError("no output is a tensor of a floating type: nothing can be checked")
    for number, out in enumerate(outs):
        if np.isnan(out._array).any():
            raise ValueError(f"output {number} is NaN in places: no gradient can be checked")


# Modules and parameters


def _modules_of(
    function: _Call, inputs: Sequence[Any], options: Mapping[str, Any]
) -> dict[str, Module]:
    """Return the modules that a function is or refers to, by name; the first name may be ""."""
    owner = getattr(function, "__self__", function)
    if isinstance(owner, Module):
        return {"": owner}
    found: dict[str, Any] = dict(vars(owner)) if hasattr(owner, "__dict__") else {}
    if inspect.isfunction(function) or inspect.ismethod(function):
        known = inspect.getclosurevars(function)
        found.update({**known.globals, **known.nonlocals})
    found.update({f"input {number}": x for number, x in enumerate(inputs)}, **options)
    return {name: x for name, x in found.items() if isinstance(x, Module)}


def _targets(
    function: _Call, roots: dict[str, Module], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the parameters and the inputs of a floating type, by name."""
    found: dict[str, Tensor] = {}
    for name, root in roots.items():
        for path, parameter in root.named_parameters():
            if parameter.requires_grad:
                found[f"{name}.{path}" if name else path] = parameter
    called = function.forward if isinstance(function, Module) else function
    names: list[str] = []
    with contextlib.suppress(TypeError, ValueError):  # some builtins have no signature
        parameters = inspect.signature(called).parameters.values()
        names = [
            p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    given = list(itertools.zip_longest(names[: len(args)], args, fillvalue="input")) + list(
        kwargs.items()
    )
    for name, x in given:
        for t in leaves([x]):
            if t.requires_grad:
                unique = name
                for number in itertools.count(1):
                    if unique not in found:
                        break
                    unique = f"{name}[{number}]"
                found[unique] = t
    if not found:
        raise ValueError(
            "nothing to check: no parameter that requires grad and no input of a floating type"
        )
    return {name: t for name, t in found.items() if t._array.size}


def _converted(t: Tensor) -> Tensor:
    """Return an input in float64 that requires grad, unless it is of another kind."""
    if t._array.dtype.kind not in FLOATING:
        return t
    made: Tensor = wrap(np.array(t._array, np.float64, order="K"))
    made._requires_grad = bool(np.isfinite(made._array).all())  # not a mask of -inf
    return made


@contextlib.contextmanager
def _float64(roots: dict[str, Module], training: bool) -> Iterator[None]:
    """Have all parameters and buffers in float64, and the modules in one mode, for a while."""
    tensors: dict[int, tuple[Tensor, np.ndarray]] = {}
    modes: dict[int, tuple[Module, bool]] = {}
    for root in roots.values():
        for module in root.modules():
            modes[id(module)] = module, module.training
        for t in (*root.parameters(), *root.buffers()):
            tensors[id(t)] = t, t._array
    before = get_default_dtype()
    set_default_dtype(np.dtype(np.float64))
    try:
        for module, _ in modes.values():
            module.__dict__["training"] = training
        for t, array in tensors.values():
            kind = np.float64 if array.dtype.kind in FLOATING else array.dtype
            t._array = array.astype(kind)
        yield
    finally:
        set_default_dtype(before)
        for module, mode in modes.values():
            module.__dict__["training"] = mode
        for t, array in tensors.values():
            t._array = array
