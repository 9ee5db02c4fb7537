"""The interface between a model's job and the machinery that trains it: tasks and checkpoints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.optim import Adam, Optimizer

from .settings import Settings

COMPILED_SHAPES = 64  # of batches, that are compiled for; as many as `mt.compile` keeps


@dataclass
class Position:
    """The progress of a run."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done of the current epoch
    step: int = 0  # batches done in all
    loss_sum: float = 0.0  # over the units of the current epoch
    tokens: int = 0  # units of the current epoch: tokens, or what else the task counts
    best_loss: float = math.inf


@dataclass
class Checkpoint:
    """The content of a checkpoint file; `training` is empty except in the last checkpoint.

    `content` has, by their names in the header, the objects that the task's `readers` made of the
    texts there.
    """

    path: Path
    weights: dict[str, Tensor]
    content: dict[str, Any]
    settings: Any  # of the task's settings_class
    progress: dict[str, Any]
    training: dict[str, Tensor] = field(default_factory=dict)


Shapes = tuple[tuple[int, ...], ...]  # of the tensors of a batch


class CompiledForShapes:
    """`function(*tensors)`, compiled for tensors of the shapes in `common`, None for any.

    Others, of which there may be too many for each to be compiled, run as they are. The function
    should hold the model alone, not the data: what it holds is looked at in every call.

    The first call of a shape is made twice: compiling records it, and it rounds in other places
    than those after it. So a run that was resumed rounds as one that was not.
    """

    def __init__(self, function: Callable[..., Tensor], common: set[Shapes] | None = None) -> None:
        self.function, self.common = function, common
        self.compiled = mt.compile(function)
        self.recorded: set[Shapes] = set()

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return the function of the tensors."""
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        if self.common is not None and shapes not in self.common:
            return self.function(*tensors)
        if shapes not in self.recorded:
            self.recorded.add(shapes)
            with mt.random.fork_rng():
                self.compiled(*tensors)
        return self.compiled(*tensors)


def common_shapes(shapes: Iterable[Shapes]) -> set[Shapes]:
    """Return those of the batches of an epoch that come more than once, the most frequent."""
    counts = Counter(shapes).most_common(COMPILED_SHAPES)
    return {shape for shape, count in counts if count > 1}


class Task:
    """A model, its data and its loss: all that a training run needs to know about them.

    A subclass sets the class attributes and, in `__init__`, reads the data, builds the model and
    sets `settings`, `model` and `digest`; the random numbers have been seeded before. With a
    checkpoint it takes from there what was learned from the data, such as a vocabulary; the
    weights are loaded by the caller.
    """

    kind: ClassVar[str]  # names the task in a checkpoint
    unit: ClassVar[str] = "tokens"  # of speed, and of what a loss is the mean over
    words: ClassVar[Mapping[str, str]] = {}  # for measures, where the name does not say it
    settings_class: ClassVar[type[Settings]] = Settings
    # How the texts in a checkpoint's header are read; ValueError for a damaged one.
    readers: ClassVar[Mapping[str, Callable[[str], Any]]] = {}

    settings: Any
    model: nn.Module
    digest: str  # of the data, to notice that it has changed

    def __init__(self, settings: Any, checkpoint: Checkpoint | None = None) -> None:
        raise NotImplementedError

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        """Raise CheckpointError unless the parts of a checkpoint fit together.

        Called before a model is built, since a config of a few bytes can ask for any memory.
        """

    # Data

    def train_batches(self, epoch: int) -> Sequence[Any]:
        """Return the batches of an epoch, in an order decided by the seed and the epoch alone."""
        raise NotImplementedError

    def valid_batches(self) -> Sequence[Any]:
        """Return the batches to validate with."""
        raise NotImplementedError

    def collate(self, numbers: Any) -> Any:
        """Return the tensors of one of `train_batches`."""
        return numbers

    def collate_valid(self, numbers: Any) -> Any:
        """Return the tensors of one of `valid_batches`."""
        return self.collate(numbers)

    def count(self, batch: Any) -> int:
        """Return the number of units that the loss of a batch is the mean over."""
        raise NotImplementedError

    # Learning

    def loss(self, batch: Any) -> Tensor:
        """Return the loss to learn from, a mean."""
        raise NotImplementedError

    def compiled_loss(self) -> Callable[[Any], Tensor]:
        """Return `loss`, or the same compiled (CompiledForShapes) where that is faster."""
        return self.loss

    def measures(self, batch: Any) -> dict[str, float]:
        """Return the means over a validation batch; "loss" decides which weights are the best."""
        return {"loss": self.loss(batch).item()}

    def optimizer(self) -> Optimizer:
        """Return the optimizer of the parameters that are not frozen."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return Adam(parameters, lr=self.settings.lr, betas=(0.9, 0.98), eps=1e-9)

    def floor(self) -> tuple[float, str] | None:
        """Return the lowest loss that is possible, and why; None if that is 0."""
        return None

    # Words

    def texts(self) -> dict[str, str]:
        """Return the texts of a checkpoint's header that `readers` and `check` need."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Return further values to keep with the progress in a checkpoint, for the user of it."""
        return {}

    def describe(self) -> str:
        """Return a line about the data and the model, to print before training."""
        count = sum(p.numel() for p in self.model.parameters())
        return f"{count:,} parameters"

    def advice(self) -> str:
        """Return a sentence about what losses to expect, to print before training, or ""."""
        return ""
