"""A process of the benchmark: python -m tools.bench.worker TASK SETTINGS.

The settings are JSON, and so is the last line of the output, the result.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from .plan import Step


def first_step(step: dict[str, Any]) -> float:
    """Return the loss of one training step; import no more than it needs."""
    import minitensor as mt
    import minitensor.nn.functional as F
    from minitensor.models.transformer import Transformer

    shape = Step(**step)
    model = Transformer(shape.config())
    optimizer = mt.optim.Adam(model.parameters(), lr=1e-4)
    tokens = mt.randint(3, shape.vocabulary, (shape.batch, shape.length))
    logits = model(tokens, tokens, tgt_mask=model.generate_square_subsequent_mask(shape.length))
    loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    return float(loss.item())


def memory(side: str, step: dict[str, Any], optimizer: bool, chunks: bool = False) -> int:
    """Return the bytes by which three training steps raise the peak of resident memory.

    With `chunks`, the loss here never has all scores.
    """
    import minitensor as mt

    from ..compare import Compiled, resident
    from .growth import InChunks
    from .measure import load
    from .training import training_step

    ours = InChunks if chunks else Compiled

    if side != "here":
        load(side).set_num_threads(mt.get_num_threads())
    shape = Step(**step)
    small = shape.resized(vocabulary=100, d_model=8 * shape.heads, layers=1, feedforward=64)
    warm_up = training_step(
        side, small, optimizer, ours
    )  # loads code, not counted as the step's memory
    warm_up()
    warm_up()
    run = training_step(side, shape, optimizer, ours)
    del warm_up
    gc.collect()
    mt.memory.release()
    with contextlib.suppress(AttributeError, OSError):  # return freed memory to the system
        libc: Any = ctypes.CDLL(None)
        libc.malloc_trim(0)
    with contextlib.suppress(OSError):  # reset the peak
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
    before = resident()
    for _ in range(3):
        run()
    return peak() - before


def turns(side: str, step: dict[str, Any]) -> None:
    """For each line of input, train for so many seconds and print the seconds of a step."""
    import minitensor as mt

    from .measure import load
    from .training import training_step

    if side != "here":
        load(side).set_num_threads(mt.get_num_threads())
    run = training_step(side, Step(**step))
    run()
    print(0, flush=True)
    for line in sys.stdin:
        run()
        start, count, seconds = time.perf_counter(), 0, 0.0
        while not count or seconds < float(line):
            run()
            count, seconds = count + 1, time.perf_counter() - start
        print(seconds / count, flush=True)


def peak() -> int:
    """Return this process's peak of resident memory in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text("utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    task: Any = {"first_step": first_step, "memory": memory, "turns": turns}[sys.argv[1]]
    print(json.dumps(task(**json.loads(sys.argv[2]))))
