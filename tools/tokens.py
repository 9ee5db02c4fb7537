"""Measure how a text of any size is tokenised, opened, sampled and trained from.

    python -m tools.tokens --gigabytes 10 --folder /tmp/corpus

writes a text of 1 GB files into the folder, tokenises it, and deletes both at the end. The text is
made of sentences by a seed: words of letters, each as frequent as Zipf's law says, and in every
fourth sentence a number that occurs nowhere else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from minitensor.data import BlockSampler
from minitensor.models.command import exit_code
from minitensor.models.gpt import GPTWriting
from minitensor.models.settings import amount
from minitensor.models.token_folder import open_tokens
from minitensor.models.training import Trainer, start_task
from minitensor.models.writing import WritingSettings

WORDS, SENTENCES, FILE = 100_000, 50_000, 10**9
LENGTH, BATCH = 1024, 32  # of what is sampled
STEPS = 20  # of training


def sentences(seed: int) -> list[bytes]:
    """Return random sentences without their numbers."""
    random = np.random.default_rng(seed)
    letters = np.frombuffer(b"eeeetttaaaooiinnsshhrrdlcumwfgypbvk", np.uint8)
    lengths = np.minimum(random.poisson(np.log2(np.arange(WORDS) + 2) / 2) + 1, 16)
    words = [letters[random.integers(letters.size, size=n)].tobytes() for n in lengths]
    share = np.cumsum(1 / np.arange(1, WORDS + 1))
    found = []
    for count in random.integers(5, 40, size=SENTENCES):
        chosen = np.searchsorted(share, random.random(count) * share[-1])
        text = b" ".join(words[n] for n in chosen).capitalize()
        found.append(text + (b".\n" if random.random() < 0.2 else b". "))
    return found


def write_text(folder: Path, size: int, seed: int = 0) -> None:
    """Write a text of so many bytes, in files of 1 GB."""
    pool, random, number, written = sentences(seed), np.random.default_rng(seed + 1), 0, 0
    for name in range(-(-size // FILE)):
        left = min(FILE, size - written)
        with (folder / f"text-{name:03}.txt").open("wb") as file:
            while left > 0:
                parts = []
                for n in random.integers(SENTENCES, size=10_000).tolist():
                    number += 1
                    parts += [b"No. %d: " % number, pool[n]] if number % 4 == 0 else [pool[n]]
                data = b"".join(parts)[:left]
                file.write(data)
                left, written = left - len(data), written + len(data)


def memory() -> dict[str, float]:
    """Return the resident memory of this process in MB: its own, and that of mapped files."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    values = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {name: int(values[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}


def load() -> str:
    """Return the load of the machine as words."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def measure_tokenize(text: str, tokens: Path, size: int) -> None:
    """Tokenise a text in a process of its own; print speed and memory."""
    command = [sys.executable, "-m", "minitensor.models.gpt", "tokenize"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, text, "--out", str(tokens)])
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"tokenize ended with {os.waitstatus_to_exitcode(status)}")
    cpu = used.ru_utime + used.ru_stime
    print(
        f"tokenise: {size / 1e9:g} GB in {seconds:,.0f} s, {size / seconds / 1e6:,.1f} MB/s; "
        f"{cpu:,.0f} s of a core, {size / cpu / 1e6:,.1f} MB/s for each; at most "
        f"{used.ru_maxrss / 1024:,.0f} MB resident; {load()}"
    )


def measure_reading(tokens: Path) -> None:
    """Open a folder of tokens, sample it, and train a model from it; print speeds and memory."""
    before = memory()
    start = time.perf_counter()
    folder = open_tokens(tokens)
    opened = time.perf_counter() - start
    count = len(folder.train)
    print(f"open: {count:,} tokens in {len(folder.train.shards)} files in {1e3 * opened:.0f} ms")
    batches = BlockSampler(count, LENGTH, BATCH)
    offsets = np.arange(LENGTH + 1)

    def sample(number: int) -> int:
        return int(folder.train[batches[number][:, None] + offsets].size)

    rate = per_second(sample, 5.0)
    now = memory()
    print(
        f"sample: {rate / 1e6:,.1f} million tokens/s, in blocks of {LENGTH:,}; memory "
        f"{now['RssAnon'] - before['RssAnon']:+,.0f} MB, and {now['RssFile']:,.0f} MB of mapped "
        f"files, which the system can take back; {load()}"
    )
    trainer = Trainer(start_task(GPTWriting, WritingSettings(tokens=str(tokens))), "")
    begun = trainer.task.train_batches(0)
    rate = per_second(lambda number: train_step(trainer, begun[number]), 10.0)
    now = memory()
    print(
        f"train: {rate:,.0f} tokens/s, {len(begun):,} batches in an epoch; memory "
        f"{now['RssAnon']:,.0f} MB, and {now['RssFile']:,.0f} MB of mapped files; {load()}"
    )


def train_step(trainer: Trainer, numbers: np.ndarray) -> int:
    """Learn from a batch; return its number of tokens."""
    batch = trainer.task.collate(numbers)
    trainer.step(batch)
    return trainer.task.count(batch)


def per_second(work: Callable[[int], int], seconds: float) -> float:
    """Return how much is done in a second by `work(0)`, `work(1)`, ..., without the first."""
    work(0)
    done, number, start = 0, 1, time.perf_counter()
    while (now := time.perf_counter() - start) < seconds:
        done, number = done + work(number), number + 1
    return done / now


def run(options: argparse.Namespace) -> int:
    """Write a text, measure, and delete it."""
    folder, size = Path(options.folder), round(options.gigabytes * 1e9)
    folder.mkdir(parents=True)
    try:
        if shutil.disk_usage(folder).free < 2 * size:
            print(f"{folder} has no room for twice {options.gigabytes:g} GB", file=sys.stderr)
            return 1
        start = time.perf_counter()
        write_text(folder, size)
        print(
            f"text: {size / 1e9:g} GB written in {time.perf_counter() - start:,.0f} s", flush=True
        )
        measure_tokenize(str(folder / "*.txt"), folder / "tokens", size)
        measure_reading(folder / "tokens")
    finally:
        shutil.rmtree(folder)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.tokens", description=__doc__)
    parser.add_argument(
        "--gigabytes", type=amount, default=1.0, help="of text (default: %(default)g)"
    )
    parser.add_argument("--folder", required=True, help="a new folder for text and tokens")
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
