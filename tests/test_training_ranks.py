"""Several processes train one model: as one process does, and so that nothing is lost.

In `make test` the parts of a batch are computed one after another, and two processes train once;
the jobs of all models and their accidents are in `make ranks`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitensor import random
from minitensor.distributed.launch import find_mpiexec
from minitensor.models import ranks as ranks_module
from minitensor.models import translate
from minitensor.models.bert import Pretraining
from minitensor.models.bert_data import PretrainingSettings
from minitensor.models.gpt import GPTWriting
from minitensor.models.pairs import TranslationSettings
from minitensor.models.ranks import Ranks
from minitensor.models.recurrent import RecurrentSettings, RecurrentTranslation
from minitensor.models.task import Task
from minitensor.models.training import BEST, LAST, LOG, start_task
from minitensor.models.translation import Translation
from minitensor.models.vit import Vision, VisionSettings
from minitensor.models.writing import WritingSettings
from minitensor.serialize import load_file

pytest.importorskip("mpi4py")
MPIEXEC = find_mpiexec()
needs_mpiexec = pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec")

ROOT = Path(__file__).parents[1]
WORDS = {"red": "rouge", "blue": "bleu", "big": "grand", "cat": "chat", "dog": "chien"}
LINES = [f"the {a} {b} is near the {c}\n" for a in WORDS for b in WORDS for c in WORDS]
SHAPE = ("--d-model", "16", "--nhead", "2", "--dim-feedforward", "32")
COMMON = ("--warmup", "4", "--lr", "0.01", "--dropout", "0.2", "--epochs", "3")
JOBS: dict[str, tuple[str, ...]] = {
    "translate": ("train", *SHAPE, *COMMON, "--encoder-layers", "1", "--decoder-layers", "1"),
    "recurrent": ("train", *COMMON, "--width", "16"),
    "bert": ("pretrain", *SHAPE, *COMMON, "--layers", "1", "--next-sentence", "yes"),
    "gpt": ("train", *COMMON, "--embed-dim", "16", "--num-layers", "1", "--num-heads", "2"),
    "vit": ("train", *COMMON, "--embed-dim", "16", "--num-heads", "2", "--depth", "1"),
}
DATA: dict[str, tuple[str, ...]] = {
    "translate": ("--tsv", "pairs.tsv", "--batch-tokens", "30"),
    "recurrent": ("--tsv", "pairs.tsv", "--batch-tokens", "30"),
    "bert": ("--text", "text.txt", "--batch-tokens", "600"),
    "gpt": ("--text", "text.txt", "--batch-size", "7", "--context-length", "32"),
    "vit": ("--views", "1", "--batch-size", "150", "--dim-feedforward", "32"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("data")
    table = [(f"{a} {b}", f"{WORDS[a]} {WORDS[b]}") for a in WORDS for b in WORDS]
    (folder / "pairs.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in table), "utf-8")
    text = "".join(f"{line}\n" if n % 5 == 4 else line for n, line in enumerate(LINES))
    (folder / "text.txt").write_text(text, "utf-8")
    return folder


def arguments(model: str, data: Path, *more: str) -> list[str]:
    """A job of a model, with the files of the data by their paths."""
    files = {path.name: str(path) for path in data.iterdir()}
    return [files.get(word, word) for word in (*JOBS[model], *DATA[model], *more)]


def start(
    count: int, model: str, *words: str, fault: str = "", **more: Any
) -> subprocess.Popen[str]:
    """Start a job on `count` processes, of one thread each."""
    command = [MPIEXEC or "mpiexec", "-n", str(count), sys.executable]
    return subprocess.Popen(
        [*command, str(ROOT / "tests" / "rank_runs.py"), model, *words],
        env={**os.environ, "NUMBA_NUM_THREADS": "1", "RANK_FAULT": fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def train(count: int, model: str, *words: str, code: int = 0, fault: str = "") -> tuple[str, str]:
    """Run a job to its end; returns what it wrote."""
    process = start(count, model, *words, fault=fault)
    try:
        out, err = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    assert process.returncode == code, (process.returncode, out, err)
    return out, err


def records(folder: Path, kind: str = "epoch") -> list[dict[str, Any]]:
    lines = (folder / LOG).read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(folder: Path) -> np.ndarray:
    """The losses of a run: (epochs, 2)."""
    return np.array([[record["train_loss"], record["valid_loss"]] for record in records(folder)])


def numbers(path: Path) -> dict[str, bytes]:
    """All tensors of a checkpoint."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path)[0].items()}


def progress(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(load_file(folder / LAST)[1]["progress"])["position"]
    return found


def check_equal_ranks(folder: Path, count: int) -> None:
    """All ranks ended with the same weights."""
    digests = {(folder / f"digest-{rank}-of-{count}").read_text() for rank in range(count)}
    assert len(digests) == 1


# The parts of a batch, without processes

TASKS: dict[str, Callable[[Path], tuple[type[Task], Any]]] = {
    "translate": lambda data: (
        Translation,
        TranslationSettings(tsv=str(data / "pairs.tsv"), batch_tokens=20, d_model=16),
    ),
    "recurrent": lambda data: (
        RecurrentTranslation,
        RecurrentSettings(tsv=str(data / "pairs.tsv"), width=16, batch_tokens=20),
    ),
    "bert": lambda data: (
        Pretraining,
        PretrainingSettings(
            text=str(data / "text.txt"), next_sentence="yes", batch_tokens=90, d_model=16
        ),
    ),
    "gpt": lambda data: (
        GPTWriting,
        WritingSettings(text=str(data / "text.txt"), context_length=32, embed_dim=16, dropout=0.1),
    ),
    "vit": lambda data: (Vision, VisionSettings(views=1, batch_size=5, embed_dim=16)),
}


@pytest.mark.parametrize("model", TASKS)
def test_the_parts_of_a_batch_add_up_to_it(model: str, data: Path) -> None:
    task_class, settings = TASKS[model](data)
    task = start_task(task_class, settings)
    task.model.train()
    batch = task.collate(task.train_batches(0)[0])
    state = random.get_rng_state()

    def weighed(ranks: Ranks) -> float:
        """A rank's share of the loss; adds its share of the gradients."""
        part = ranks.part(task, batch)
        random.set_rng_state(state)
        with random.part_of_batch(part.first, part.rows):
            loss = task.loss(part.batch) * part.weight
            loss.backward()
        assert part.scale == part.weight * ranks.size
        return loss.item()

    found = []
    for size in 1, 2, 8:  # of which some have no row
        task.model.zero_grad()
        loss = sum(weighed(Ranks(rank, size)) for rank in range(size))
        parts = [p.grad.numpy().ravel() for p in task.model.parameters() if p.grad is not None]
        found.append((loss, np.concatenate(parts)))
    (loss, grads), *others = found
    for other_loss, other_grads in others:
        assert other_loss == pytest.approx(loss, abs=1e-5)
        np.testing.assert_allclose(other_grads, grads, rtol=1e-3, atol=2e-5)


# Jobs


@needs_mpiexec
def test_two_processes_learn_what_one_learns(data: Path, tmp_path: Path) -> None:
    alone = arguments("translate", data, "--out", str(tmp_path / "1"))
    assert translate.main(alone) == 0
    out, err = train(
        2, "translate", *arguments("translate", data, "--out", str(tmp_path / "2")),
        "--shard-optimizer",
    )  # fmt: skip
    assert not err, err
    assert "2 processes with 1 thread each" in out
    assert out.count("epoch 1/3") == out.count("best validation loss") == 1
    np.testing.assert_allclose(losses(tmp_path / "2"), losses(tmp_path / "1"), rtol=0, atol=1e-5)
    check_equal_ranks(tmp_path / "2", 2)
    resumed = ["train", "--out", str(tmp_path / "2"), "--resume", "--epochs", "4"]
    assert translate.main(resumed) == 0  # alone


def test_a_job_of_several_processes_needs_mpi4py(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    words = arguments("translate", data, "--out", str(tmp_path / "run"))
    monkeypatch.setenv("PMI_SIZE", "2")
    for rank, said in ("1", ""), ("0", "error: mpiexec started 2 processes, but mpi4py is not"):
        monkeypatch.setenv("PMI_RANK", rank)
        assert translate.main(words) == 1
        assert capsys.readouterr().err.startswith(said)
    assert not (tmp_path / "run").exists()


def test_a_process_alone_exchanges_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    words = arguments("translate", data, "--out", str(tmp_path), "--epochs", "1")
    assert translate.main([*words, "--shard-optimizer", "--bf16-gradients"]) == 0
    assert ranks_module.started() == Ranks()


@pytest.mark.ranks
@needs_mpiexec
@pytest.mark.parametrize("model", JOBS)
def test_any_number_of_processes_learns_the_same(model: str, data: Path, tmp_path: Path) -> None:
    found = {}
    for count in 1, 2, 4:
        folder = tmp_path / str(count)
        train(count, model, *arguments(model, data, "--out", str(folder)))
        check_equal_ranks(folder, count)
        found[count] = losses(folder)
    print(model, *(f"{count}: {values.tolist()}" for count, values in found.items()), sep="\n")
    for count in 2, 4:
        np.testing.assert_allclose(found[count], found[1], rtol=0, atol=1e-5)


@pytest.mark.ranks
@needs_mpiexec
def test_the_same_processes_do_the_same_and_checkpoints_fit_any_number(
    data: Path, tmp_path: Path
) -> None:
    def job(name: str, count: int, *more: str) -> Path:
        train(count, "translate", *more, "--out", str(tmp_path / name))
        return tmp_path / name

    words = arguments("translate", data)
    whole = job("whole", 2, *words, "--epochs", "4")
    again = job("again", 2, *words, "--epochs", "4", "--shard-optimizer")
    assert numbers(again / LAST) == numbers(whole / LAST)
    assert numbers(again / BEST) == numbers(whole / BEST)
    first = job("first", 2, *words, "--epochs", "2")
    for count in 1, 2, 4:
        shutil.copytree(first, tmp_path / f"on {count}")
        options = ["--shard-optimizer"] if count == 4 else []
        other = job(f"on {count}", count, "train", "--resume", "--epochs", "4", *options)
        np.testing.assert_allclose(losses(other), losses(whole), rtol=0, atol=1e-5)
        check_equal_ranks(other, count)
    assert numbers(tmp_path / "on 2" / LAST) == numbers(whole / LAST)
    rounded = job("rounded", 2, *words, "--epochs", "4", "--bf16-gradients")
    np.testing.assert_allclose(losses(rounded), losses(whole), rtol=0, atol=0.02)
    assert numbers(rounded / LAST) != numbers(whole / LAST)
    check_equal_ranks(rounded, 2)


# Accidents


@pytest.fixture
def long_job(data: Path, tmp_path: Path) -> Any:
    """A job of two processes that has begun its second epoch."""
    words = arguments("translate", data, "--out", str(tmp_path), "--epochs", "100000")
    process = start(2, "translate", *words)
    deadline = time.monotonic() + 120
    log = tmp_path / LOG
    while not log.exists() or log.read_bytes().count(b'"epoch", "') < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


@pytest.mark.ranks
@needs_mpiexec
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_job_and_is_named(
    rank: int, long_job: Any, data: Path, tmp_path: Path
) -> None:
    os.kill(int((tmp_path / f"process-{rank}").read_text()), signal.SIGKILL)
    began = time.monotonic()
    _, err = long_job.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert long_job.returncode
    assert f"rank {rank} of 2 failed: " in err
    reached = progress(tmp_path)
    assert reached["step"] > 0  # the last checkpoint is whole
    words = ["train", "--out", str(tmp_path), "--resume", "--epochs", str(reached["epoch"] + 1)]
    assert translate.main(words) == 0


@pytest.mark.ranks
@needs_mpiexec
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_one_rank_stops_all_at_the_same_step(
    name: str, long_job: Any, tmp_path: Path
) -> None:
    number = getattr(signal, name)
    os.kill(int((tmp_path / "process-1").read_text()), number)
    out, err = long_job.communicate(timeout=60)
    assert long_job.returncode == 128 + number, err
    assert f"interrupted at step {progress(tmp_path)['step']}: continue with --resume" in out
    check_equal_ranks(tmp_path, 2)
    train(4, "translate", "train", "--out", str(tmp_path), "--resume", "--epochs", "1")


@pytest.mark.ranks
@needs_mpiexec
def test_mpiexec_passes_ctrl_c_on(long_job: Any, tmp_path: Path) -> None:
    long_job.send_signal(signal.SIGINT)
    out, err = long_job.communicate(timeout=60)
    assert long_job.returncode == 130, err
    assert err.count("saving before the end") == 1
    assert f"interrupted at step {progress(tmp_path)['step']}" in out


@pytest.mark.ranks
@needs_mpiexec
def test_a_rank_that_fails_ends_the_job_with_its_sentence(data: Path, tmp_path: Path) -> None:
    words = arguments("translate", data, "--out", str(tmp_path))
    began = time.monotonic()
    _, err = train(3, "translate", *words, code=1, fault="2 5")
    assert time.monotonic() - began < 120
    assert "error: rank 2 of 3: data.txt: the disk is gone\n" in err
    assert "Traceback" not in err
    assert progress(tmp_path)["epoch"] >= 0
    # What all ranks know is said once.
    _, err = train(2, "translate", *words, code=1)
    assert err.count("already holds a run") == err.count("error: ") == 1
    _, err = train(2, "translate", *words, "--overwrite", "--lr", "1e30", "--warmup", "1", code=1)
    assert err.count("error: ") == 1
    assert f"{LAST} is that of step" in err


@pytest.mark.ranks
@needs_mpiexec
def test_ranks_that_read_different_data_are_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "0.tsv").write_text((data / "pairs.tsv").read_text())
    (tmp_path / "1.tsv").write_text((data / "pairs.tsv").read_text().replace("chat", "chatte"))
    words = arguments("translate", data, "--out", str(tmp_path / "run"))
    words[words.index(str(data / "pairs.tsv"))] = f"{tmp_path}/RANK.tsv"
    _, err = train(2, "translate", *words, code=1)
    assert err == "error: rank 1 of 2 read other data than rank 0\n"
