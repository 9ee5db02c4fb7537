"""Topic `scripts`: training steps of models that were written for PyTorch, as they are.

The models are those of `tests/scripts`: a nanoGPT, a LLaMA and a ViT. Only their definitions run,
with `torch` meaning PyTorch on one side and minitensor on the other, from the same weights and on
the same batch: forward, backward, clipping of the gradients, AdamW. Each side is measured as it is
and compiled, by `torch.compile` and `minitensor.compile`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import minitensor as mt
from minitensor.models.command import InputError

from .measure import (
    HERE,
    Figure,
    Roofs,
    Sides,
    at_peak,
    from_times,
    geometric_mean,
    library,
    take_turns,
)
from .plan import Plan, Script

TARGET = 2.0  # of PyTorch's speed, compiled here and not there
TOLERANCE = 2e-3  # of the losses after a few steps, between the sides
COMPILED = " compiled"
SCRIPTS = Path(mt.__file__).parents[1] / "tests" / "scripts"
COMPILES = importlib.util.find_spec("minitensor.replay") is not None


def measure_scripts(plan: Plan, against: Sequence[str], roofs: Roofs | None) -> Iterator[Figure]:
    """Measure training steps, uncompiled and compiled; ratios are to the compiled one here."""
    figures = []
    for script in plan.scripts:
        sides: Sides = {HERE + COMPILED: Training(HERE, script, True).step} if COMPILES else {}
        sides[HERE] = Training(HERE, script).step
        if "torch" in against:
            sides["torch"] = Training("torch", script).step
            sides["torch" + COMPILED] = Training("torch", script, True).step
        check_losses(script, sides)
        flops = Training(HERE, script).flops()
        times = take_turns(sides, plan.rounds, plan.seconds, plan.pause)
        if COMPILES:
            name = f"{script.name}, uncompiled"
            yield from_times("scripts", name, without(times, True), flops=flops)
            times[HERE] = times.pop(HERE + COMPILED)
        figures.append(
            from_times("scripts", script.name, without(times, False), flops=flops, target=TARGET)
        )
        yield figures[-1]
        if "torch" in against:
            both = {HERE: times[HERE], "torch": times["torch" + COMPILED]}
            yield from_times("scripts", f"{script.name}, beside torch.compile", both)
    yield from geometric_mean("scripts", figures, TARGET)
    yield from at_peak("scripts", figures, roofs)


def without(times: dict[str, list[float]], compiled: bool) -> dict[str, list[float]]:
    """Return the times here and of what is uncompiled elsewhere."""
    return {side: series for side, series in times.items() if not side.endswith(COMPILED)}


def check_losses(script: Script, sides: Sides) -> None:
    """Raise InputError unless the first steps give the same losses on all sides."""
    losses = {side: [float(step()) for _ in range(3)] for side, step in sides.items()}
    middle = np.median(list(losses.values()), 0)
    for side, found in losses.items():
        if not np.allclose(found, middle, rtol=TOLERANCE, atol=0):
            raise InputError(f"{script.name}: the losses of {side} are {found}, not {middle}")


class Training:
    """A model on one side, its optimiser and one batch."""

    def __init__(self, side: str, script: Script, compiled: bool = False) -> None:
        lib = self.lib = library(side)
        lib.manual_seed(0)
        self.script = script
        model, (self.x, self.y) = BUILD[script.file](definitions(script.file, lib), script, lib)
        for number, p in enumerate(model.parameters()):  # the same on all sides
            noise = np.random.RandomState(number).standard_normal(tuple(p.shape))
            if p.ndim > 1:
                with lib.no_grad():
                    p.copy_(lib.from_numpy((0.02 * noise).astype(np.float32)))
        self.optimizer = lib.optim.AdamW(
            model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1
        )
        self.parameters = list(model.parameters())
        self.model = lib.compile(model) if compiled else model

    def flops(self) -> int:
        """Return the FLOPs of the matrix products of a step, here."""
        graph = mt.graph.trace(
            lambda x: LOSS[self.script.file](mt, self.model, x, self.y), self.x, backward=True
        )
        return sum(node.flops for node in graph.nodes.values())

    def step(self) -> Any:
        """Train for one step, and return the loss."""
        loss = LOSS[self.script.file](self.lib, self.model, self.x, self.y)
        loss.backward()
        self.lib.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def definitions(file: str, lib: Any) -> Any:
    """Return a module with the classes and functions of a script, whose `torch` is `lib`."""
    path = SCRIPTS / file
    if not path.exists():
        raise InputError(f"there is no {path}: run this in a checkout of the repository")
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Import | ast.ImportFrom)
        and "torch" not in ast.unparse(node).split("\n")[0].replace(".", " ").split()[:2]
    ]
    name = f"{lib.__name__}_{path.stem}"
    module = types.ModuleType(name)
    sys.modules[name] = module  # where dataclasses look
    module.__dict__.update(
        torch=lib, nn=lib.nn, F=lib.nn.functional, checkpoint=lib.utils.checkpoint.checkpoint
    )
    exec(compile(tree, str(path), "exec"), module.__dict__)
    return module


def tokens(lib: Any, script: Script, vocabulary: int) -> tuple[Any, Any]:
    """Return random tokens (N, L) and those that follow them."""
    noise = np.random.RandomState(0).randint(0, vocabulary, (script.batch, script.length + 1))
    return lib.from_numpy(noise[:, :-1].copy()), lib.from_numpy(noise[:, 1:].copy())


def build_gpt(module: Any, script: Script, lib: Any) -> Any:
    """Return a nanoGPT and a batch."""
    config = module.GPTConfig(
        script.length, script.vocabulary, script.layers, script.heads, script.width, bias=False
    )
    with contextlib.redirect_stdout(io.StringIO()):
        return module.GPT(config), tokens(lib, script, script.vocabulary)


def build_llama(module: Any, script: Script, lib: Any) -> Any:
    """Return a LLaMA, whose heads share keys and values by two, and a batch."""
    args = module.ModelArgs(
        script.width, script.layers, script.heads, script.heads // 2, script.vocabulary, 32,
        max_seq_len=script.length,
    )  # fmt: skip
    return module.Transformer(args), tokens(lib, script, script.vocabulary)


def build_vit(module: Any, script: Script, lib: Any) -> Any:
    """Return a ViT for images (N, 3, L, L), and a batch."""
    model = module.VisionTransformer(
        script.length, 4, 3, script.vocabulary, script.width, script.layers, script.heads, 0.0
    )
    noise = np.random.RandomState(0)
    images = noise.standard_normal((script.batch, 3, script.length, script.length))
    labels = noise.randint(0, script.vocabulary, script.batch)
    return model, (lib.from_numpy(images.astype(np.float32)), lib.from_numpy(labels))


BUILD: dict[str, Callable[..., Any]] = {
    "train_gpt.py": build_gpt, "llama.py": build_llama, "vit.py": build_vit,
}  # fmt: skip
LOSS: dict[str, Callable[..., Any]] = {
    "train_gpt.py": lambda lib, model, x, y: model(x, y)[1],
    "llama.py": lambda lib, model, x, y: lib.nn.functional.cross_entropy(
        model(x).flatten(0, 1), y.flatten()
    ),
    "vit.py": lambda lib, model, x, y: lib.nn.functional.cross_entropy(
        model(x), y, label_smoothing=0.1
    ),
}
