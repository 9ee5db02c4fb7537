"""A rank of a training job, as tests start it: `mpiexec -n K python tests/rank_runs.py MODEL ...`.

Runs the command line of models.MODEL. Draws no pictures, which take most of the time of a small
run. Writes the number of its process into the run's folder, and in the end a digest of the model's
weights and buffers. With RANK_FAULT="R S" in the environment, rank R fails before step S. RANK in
an argument becomes the number of the rank.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import training
from models.training import Trainer


def digest(trainer: Trainer) -> str:
    """A hash of all that the model holds."""
    found = hashlib.sha256()
    for name, tensor in trainer.model.state_dict().items():
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def run(self: Trainer, *args: Any) -> int:
    """Train, then write the digest."""
    (self.folder / f"process-{self.ranks.rank}").write_text(str(os.getpid()))
    code = plain_run(self, *args)
    (self.folder / f"digest-{self.ranks.rank}-of-{self.ranks.size}").write_text(digest(self))
    return code


def step(self: Trainer, batch: Any) -> tuple[float, float]:
    """Make a step, or fail before it."""
    fault = os.environ.get("RANK_FAULT", "")
    if fault == f"{self.ranks.rank} {self.position.step + 1}":
        raise OSError(5, "the disk is gone", "data.txt")
    return plain_step(self, batch)


plain_run, plain_step = Trainer.run, Trainer.step
Trainer.run, Trainer.step = run, step  # type: ignore[method-assign, assignment]
training.draw_losses = lambda *_: None  # type: ignore[assignment, attr-defined]

if __name__ == "__main__":
    model, *arguments = (
        word.replace("RANK", os.environ.get("PMI_RANK", "")) for word in sys.argv[1:]
    )
    sys.exit(importlib.import_module(f"models.{model}").main(arguments))
