"""A training job that is killed again and again must end as one that was left alone.

    python tests/kills.py 50 [SEED]

Starts a small job, kills it with SIGKILL at a random moment, goes on with --resume, and so forth;
then lets it finish, and compares its folder with that of a job that nobody killed.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from minitensor.models.training import LAST, LOG  # noqa: E402
from minitensor.serialize import load_file  # noqa: E402

WORDS = {"red": "rouge", "blue": "bleu", "big": "grand", "cat": "chat", "dog": "chien"}
SETTINGS = [
    *("--d-model", "16", "--nhead", "2", "--encoder-layers", "1", "--decoder-layers", "1"),
    *("--dim-feedforward", "32", "--batch-tokens", "120", "--warmup", "10", "--lr", "0.01"),
    *("--dropout", "0.2"),
]


def start(folder: Path, data: Path, epochs: int) -> subprocess.Popen[bytes]:
    """The job in `folder`, from its last checkpoint if there is one."""
    more = ["--resume"] if (folder / LAST).exists() else ["--tsv", str(data), *SETTINGS]
    command = [sys.executable, "-m", "models.translate", "train", "--out", str(folder)]
    return subprocess.Popen(
        [*command, "--epochs", str(epochs), *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(folder: Path, data: Path, epochs: int) -> float:
    """Let the job run to its end; returns the seconds it took."""
    began = time.perf_counter()
    process = start(folder, data, epochs)
    _, output = process.communicate()
    assert process.returncode == 0, output.decode()
    return time.perf_counter() - began


def content(folder: Path) -> dict[str, Any]:
    """Return all that the files of a folder hold, by name, except the times in a log."""
    found: dict[str, Any] = {}
    for path in folder.iterdir():
        found[path.name] = path.read_bytes()
        if path.suffix == ".safetensors":  # the order of the entries in its header is free
            tensors, texts = load_file(path)
            arrays = {name: t.numpy() for name, t in tensors.items()}
            found[path.name] = {k: (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items()}
            found[path.name] |= {key: json.loads(text) for key, text in texts.items()}
        elif path.name == LOG:
            found[LOG] = [json.loads(line) for line in found[LOG].splitlines()]
            for record, key in itertools.product(found[LOG], ("seconds", "tokens_per_second")):
                record.pop(key, None)
    return found


def log_of(folder: Path) -> tuple[int, int] | None:
    """Return something that changes when a job logs, or makes its log anew."""
    try:
        state = (folder / LOG).stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_size


def drafts(folder: Path) -> list[str]:
    """Return the names of files that are being written, or were when their writer was killed."""
    return [name for name in os.listdir(folder) if name.endswith(".tmp")] if folder.exists() else []


def kill_often(place: Path, kills: int, epochs: int, seed: int) -> Counter[str]:
    """Kill a job so often; returns when it happened, and raises AssertionError for a difference."""
    data = place / "phrases.tsv"
    phrases = [p for length in (1, 2, 3) for p in itertools.product(WORDS, repeat=length)]
    lines = (f"{' '.join(p)}\t{' '.join(WORDS[w] for w in p)}\n" for p in phrases)
    data.write_text("".join(lines), "utf-8")
    alone, killed = place / "alone", place / "killed"
    finish(alone, data, epochs)
    startup = finish(alone, data, epochs)  # it is finished, and only starts
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    while seen["kills"] < kills:
        before = log_of(killed)
        process = start(killed, data, epochs)
        when = chance.choice(("while starting", "while training", "while writing"))
        if when == "while starting":  # or as soon as it trains: the machine may be faster now
            end = time.monotonic() + chance.uniform(0, startup)
            while log_of(killed) == before and time.monotonic() < end:
                time.sleep(0.002)
        else:
            while log_of(killed) == before and process.poll() is None:
                time.sleep(0.002)
            end = time.monotonic() + (5 if when == "while writing" else chance.uniform(0, 0.5))
            while time.monotonic() < end and not (when == "while writing" and drafts(killed)):
                time.sleep(0.0005)
        process.kill()
        _, output = process.communicate()
        assert process.returncode == -signal.SIGKILL, (
            f"the job ended before kill {seen['kills'] + 1}: {output.decode()}"
        )
        seen["kills"] += 1
        seen[when] += 1
        seen["drafts left behind"] += len(drafts(killed))
    finish(killed, data, epochs)
    ours, theirs = content(killed), content(alone)
    assert ours.keys() == theirs.keys(), f"left behind: {sorted(ours.keys() ^ theirs.keys())}"
    for name in theirs:
        assert ours[name] == theirs[name], f"{name} is another"
    return seen


if __name__ == "__main__":
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        found = kill_often(Path(place), count, 7 * count, seed)
    output = ", ".join(f"{number} {when}" for when, number in found.items())
    print(f"{output}; lost: nothing; {time.perf_counter() - began:.0f} s, seed {seed}")
