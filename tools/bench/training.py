"""Topics `steps`, `medium`, `memory` and `startup`: whole models, in this and other processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import minitensor as mt
from minitensor.models.command import InputError
from minitensor.models.transformer import Transformer

from ..compare import Compiled, Ours, Theirs, torch_twin
from .measure import HERE, Figure, Roofs, Sides, at_peak, from_times, geometric_mean, take_turns
from .plan import Plan, Step

STEP_TARGET = 2.0  # of the geometric mean
PEAK_SHARE = 0.75  # of the last step
MEMORY_RATIO = 0.7
IMPORT_SECONDS, WARM_SECONDS, COLD_SECONDS = 0.25, 0.7, 8.0
MEDIUM_TARGETS, BEST_TARGETS = (2.5, 3.0), (1.7, 2.0)  # beside float32, beside the best
SMOOTHING = 0.1
UNCOMPILED = "uncompiled"
ROOT = Path(mt.__file__).parents[1]
PATH = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # for Python


def training_step(
    side: str, step: Step, optimizer: bool = True, ours: type[Ours] = Compiled
) -> Any:
    """Return a function that trains for one step, without clipping; or without the optimizer.

    - ours: the kind of step on the side here.
    """
    lib: Any = mt
    mt.manual_seed(0)
    config = step.config()
    model: Any = Transformer(config)
    sides: Any
    if side == HERE:
        sides = ours(model, SMOOTHING, 0.0)
    else:
        import torch

        lib = torch
        lib.manual_seed(0)
        model = torch_twin(model)
        sides = Theirs(model, config, SMOOTHING, 0.0)
    batch = step.data()
    adam = lib.optim.Adam(model.parameters(), lr=1e-4)

    def both_passes() -> None:
        adam.zero_grad()
        sides.loss(batch).backward()

    return (lambda: sides.step(batch, adam)) if optimizer else both_passes


def measure_steps(plan: Plan, against: Sequence[str], roofs: Roofs | None) -> Iterator[Figure]:
    """Measure training steps, compiled and uncompiled: forward, backward, Adam."""
    against = [side for side in against if side == "torch"]
    figures = []
    for step in plan.steps:
        sides: Sides = {side: training_step(side, step) for side in (HERE, *against)}
        sides[UNCOMPILED] = training_step(HERE, step, ours=Ours)
        # A step is long: threads of the other side that still spin after the pause do not matter.
        times = take_turns(sides, plan.rounds, 0.0, plan.pause)
        uncompiled = times.pop(UNCOMPILED)
        figure = from_times("steps", title(step), times, flops=step.flops)
        figures.append(figure)
        yield figure
        times[HERE] = uncompiled
        yield from_times("steps", f"{step.name}, uncompiled", times, flops=step.flops)
    yield from geometric_mean("steps", figures, STEP_TARGET)
    yield from at_peak("steps", figures, roofs)
    if roofs is not None:
        share = (figures[-1].gflops or 0.0) / roofs.gflops
        yield Figure(
            "steps", f"{plan.steps[-1].name}: share of the FMA peak", {HERE: share},
            unit="share", target=PEAK_SHARE, of_value=True,
        )  # fmt: skip


def measure_medium(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure training steps at precision "medium" beside PyTorch's float32, and its best.

    PyTorch's best is the fastest of float32, "medium" and autocast to bfloat16.
    """
    figures: list[Figure] = []
    best: list[Figure] = []
    for step in plan.steps:
        sides: Sides = {HERE: partial(at_medium, mt, training_step(HERE, step))}
        if "torch" in against:
            import torch

            theirs = training_step("torch", step)
            sides["torch"] = theirs
            sides["medium"] = partial(at_medium, torch, theirs)
            sides["autocast"] = partial(in_autocast, theirs)
        times = take_turns(sides, plan.rounds, 0.0, plan.pause)
        here = {HERE: times[HERE]}
        name = f"{step.name} at medium"
        if len(times) == 1:
            yield from_times("medium", name, here, flops=step.flops)
            continue
        theirs = {side: series for side, series in times.items() if side != HERE}
        fastest = min(theirs, key=lambda side: statistics.median(theirs[side]))
        for beside, side, found in (
            ("", "torch", figures),
            (", PyTorch's best: " + {"torch": "float32"}.get(fastest, fastest), fastest, best),
        ):
            both = here | {"torch": times[side]}
            found.append(from_times("medium", name + beside, both, flops=step.flops))
            yield found[-1]
    for found, beside, targets in (
        (figures, "float32", MEDIUM_TARGETS),
        (best, "best", BEST_TARGETS),
    ):
        for target in targets:
            name = f"medium beside PyTorch's {beside}, towards {target:g}"
            yield from geometric_mean("medium", found, target, name)


def at_medium(library: Any, call: Callable[[], Any]) -> None:
    """Make a call with the precision of products at "medium"."""
    library.set_float32_matmul_precision("medium")
    try:
        call()
    finally:
        library.set_float32_matmul_precision("highest")


def in_autocast(call: Callable[[], Any]) -> None:
    """Make a call in PyTorch's autocast to bfloat16."""
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        call()


def title(step: Step) -> str:
    """Format a step's sizes."""
    return (
        f"{step.name} V={step.vocabulary} d={step.d_model} {step.layers}+{step.layers} "
        f"ff={step.feedforward} N={step.batch} S={step.length} heads {step.heads}"
    )


# Other processes


def measure_memory(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure the rise of peak resident memory in a training step: gradients, activations, Adam.

    Each is a process of its own; imports and the model are not counted.
    """
    sides = [HERE, *(side for side in against if side == "torch")]
    for optimizer, name in ((True, "step"), (False, "both passes, without optimiser")):
        for step in plan.steps:
            values = {
                side: float(run_worker("memory", side=side, step=asdict(step), optimizer=optimizer))
                for side in sides
            }
            yield Figure(
                "memory", f"{step.name}: {name}", values, "bytes",
                {side: values[HERE] / values[side] for side in sides[1:]},
                target=MEMORY_RATIO if optimizer else None,
            )  # fmt: skip


def measure_startup(plan: Plan) -> Iterator[Figure]:
    """Measure from the start of Python to the end of the import, or of the first training step.

    The step is that of a small Transformer, with a full and with an empty cache of kernels.
    """
    step = json.dumps(dict(step=asdict(plan.startup)))
    module = ["-m", f"{__package__}.worker", "first_step", step]
    with tempfile.TemporaryDirectory() as bytecode, tempfile.TemporaryDirectory() as kernels:
        # As after a first start, even if this process may write no bytecode beside the sources.
        kept = dict(PYTHONPYCACHEPREFIX=bytecode, PYTHONDONTWRITEBYTECODE="")
        for name, command, target in (
            ("import minitensor", ["-c", "import minitensor"], IMPORT_SECONDS),
            ("first step, all compiled before", module, WARM_SECONDS),
        ):
            run_python(command, **kept)
            times = [run_python(command, **kept)[1] for _ in range(plan.startups)]
            yield started(name, statistics.median(times), target)
        seconds = run_python(module, **kept, MINITENSOR_CACHE=kernels)[1]
    yield started("first step, nothing compiled", seconds, COLD_SECONDS)


def started(name: str, seconds: float, target: float) -> Figure:
    """Return the figure of a start."""
    return Figure("startup", name, {HERE: seconds}, target=target, of_value=True)


def run_worker(task: str, **settings: Any) -> Any:
    """Return the result of a task of `tools.bench.worker`, run in its own process."""
    output, _ = run_python(["-m", f"{__package__}.worker", task, json.dumps(settings)])
    return json.loads(output.splitlines()[-1])


def run_python(arguments: Sequence[str], **environment: str) -> tuple[str, float]:
    """Return a Python process's output and seconds; InputError with its last line if it fails."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": PATH, **environment},
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"a process of the benchmark failed: {last}")
    return done.stdout, seconds
