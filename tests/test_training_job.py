"""A training job loses nothing: to bad numbers, to signals and kills, to others, to a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import without_notice
from kills import SETTINGS, content, kill_often

import minitensor as mt
import minitensor.nn.functional as F
from minitensor.models import demo, job, training, translate, translation
from minitensor.models.checkpoint import read_checkpoint
from minitensor.models.command import ENDING, InputError, program
from minitensor.models.config import TRAINING
from minitensor.models.decoding import Output
from minitensor.models.pairs import TranslationSettings, load_pairs
from minitensor.models.text import write_file
from minitensor.models.training import BEST, CURVES, LAST, LOG, start_run
from minitensor.models.translation import Translation
from minitensor.serialize import CheckpointError, load_file, save_file

pytestmark = pytest.mark.faults

WORDS = {"red": "rouge", "blue": "bleu", "big": "grand", "cat": "chat", "dog": "chien"}
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("data") / "phrases.tsv"
    table = [(f"{a} {b}", f"{WORDS[a]} {WORDS[b]}") for a in WORDS for b in WORDS]
    path.write_text("".join(f"{s}\t{t}\n" for s, t in table), "utf-8")
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture of the loss, which takes most of the time of a small run."""
    monkeypatch.setattr(training, "draw_losses", lambda *_: None)


def command(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--tsv", str(data), "--out", str(out), *SETTINGS, *more]


def train(data: Path, out: Path, *more: str) -> int:
    return translate.main(command(data, out, *more))


def resume(out: Path, *more: str) -> int:
    return translate.main(["train", "--out", str(out), "--resume", *more])


def step_of(out: Path) -> int:
    return read_checkpoint(out / LAST, Translation).progress["position"]["step"]


def one_sentence(capsys: Any) -> str:
    """The only line on standard error."""
    err = capsys.readouterr().err
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    return err


def at_step(number: int, act: Callable[[training.Trainer], object]) -> Any:
    """`Trainer.step`, which lets something happen before a step."""
    step = training.Trainer.step

    def acting(self: training.Trainer, batch: Any) -> Any:
        if self.position.step == number - 1:
            act(self)
        return step(self, batch)

    return acting


# Numbers that are none


def test_an_absurd_rate_stops_the_job_and_no_checkpoint_is_named_that_is_not_there(
    data: Path, tmp_path: Path, capsys: Any
) -> None:
    more = ("--lr", "1e30", "--warmup", "1", "--batch-tokens", "9999", "--epochs", "1")
    assert train(data, tmp_path / "run", *more) == 1  # one step, whose loss is a number
    out, err = capsys.readouterr()
    assert BEST not in out + err
    assert "the validation loss became" in err
    assert "after step 1: " in err
    assert " made the first " in err
    assert (
        f"{LAST} is that of step 0: go on from there with --resume and an --lr below 1e+30" in err
    )
    assert [p.name for p in (tmp_path / "run").iterdir()] == [LAST]
    assert step_of(tmp_path / "run") == 0
    assert resume(tmp_path / "run", "--lr", "0.01") == 0
    assert (tmp_path / "run" / BEST).exists()


def poison(self: training.Trainer) -> None:
    with mt.no_grad():
        self.model.decoder.layers[0].linear1.weight.fill_(3e38)  # type: ignore[index, union-attr]


@pytest.mark.usefixtures("undrawn")
def test_a_loss_that_is_no_number_is_traced_to_its_op_and_the_last_checkpoint_stays(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--epochs", "2") == 0
    good, before = step_of(out), content(out)
    monkeypatch.setattr(training.Trainer, "step", at_step(good + 1, poison))
    capsys.readouterr()
    assert resume(out, "--epochs", "9") == 1
    err = one_sentence(capsys)
    assert re.search(f"the loss became (nan|inf) at step {good + 1}: ", err)
    assert "in decoder.layers.0.linear1 made the first" in err
    assert f"{LAST} is that of step {good}" in err
    assert content(out) == before


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_stopped_goes_on_with_a_lower_rate_and_stops_again_without(
    data: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--lr", "1e30", "--warmup", "1") == 1
    err = one_sentence(capsys)
    assert resume(out) == 1
    assert one_sentence(capsys) == err
    assert resume(out, "--lr", "0.02") == 0
    records = content(out)[LOG]
    rates = [record["lr"] for record in records]
    assert rates[0] == pytest.approx(0.02 * (records[0]["step"] + 1) ** -0.5, rel=1e-6)
    assert read_checkpoint(out / LAST, Translation).settings.lr == 0.02
    assert resume(out, "--epochs", "6") == 0


@pytest.mark.usefixtures("undrawn")
def test_a_gradient_that_is_no_number_changes_no_weight(data: Path, tmp_path: Path) -> None:
    settings = TranslationSettings(
        tsv=str(data), d_model=16, nhead=2, epochs=1, label_smoothing=0.0
    )
    with start_run(Translation, settings, tmp_path / "run") as trainer:
        model: Any = trainer.model
        weight = model.src_embedding.weight
        weight.register_hook(lambda g: g * math.inf)
        before = {k: t.numpy().copy() for k, t in trainer.model.state_dict().items()}
        with pytest.raises(InputError, match=r"norm of the gradient became nan at step 1: "):
            trainer.run(lambda line: None)
        for key, tensor in trainer.model.state_dict().items():
            np.testing.assert_array_equal(tensor.numpy(), before[key])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["tgt_embedding.weight", TRAINING + "0.exp_avg"])
def test_nothing_infinite_is_ever_saved(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Also where no loss tells: an embedding of a word that does not occur."""
    out = tmp_path / "run"
    assert train(data, out, "--epochs", "1") == 0
    before = content(out)

    def spoil(self: training.Trainer) -> None:
        key = name.removeprefix(TRAINING + "0.")
        state = {**self.model.state_dict(), **self.optimizer.state_dict()["state"][0]}
        state[key].numpy()[-1 if "embedding" in key else 0] = math.inf
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training.Trainer, "step", lambda self, batch: (spoil(self), (1.0, 1.0))[1])  # type: ignore[func-returns-value]
    capsys.readouterr()
    assert resume(out, "--epochs", "2") == 1
    assert f"made {name} inf; " in capsys.readouterr().err
    assert content(out) == before


# Signals


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_saves_and_ends(
    number: int, times: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it comes, and while the checkpoint is being written too."""

    def send(*_: Any) -> None:
        os.kill(os.getpid(), number)

    def saving(*arguments: Any) -> None:
        for _ in range(times - 1):
            send()
        save_file(*arguments)

    def save(self: training.Trainer, name: str) -> None:
        if self.position.step and times > 1:
            monkeypatch.setattr(training, "save_file", saving)
        real(self, name)

    handler, real = signal.getsignal(number), training.Trainer.save
    monkeypatch.setattr(training.Trainer, "step", at_step(2, send))
    monkeypatch.setattr(training.Trainer, "save", save)
    out = tmp_path / "run"
    assert train(data, out, "--epochs", "9", "--batch-tokens", "20") == 128 + number
    assert step_of(out) == 2
    assert signal.getsignal(number) == handler


@pytest.mark.usefixtures("undrawn")
def test_a_signal_while_validating_keeps_the_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, out = tmp_path / "alone", tmp_path / "run"
    assert train(data, alone, "--epochs", "2") == 0
    validate = training.Trainer.validate

    def asked(self: training.Trainer) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(self)

    monkeypatch.setattr(training.Trainer, "validate", asked)
    assert train(data, out, "--epochs", "2") == 143
    position = read_checkpoint(out / LAST, Translation).progress["position"]
    assert (position["epoch"], position["batch"]) == (0, position["step"])
    monkeypatch.undo()
    monkeypatch.setattr(training, "draw_losses", lambda *_: None)
    assert resume(out) == 0
    assert content(out) == content(alone)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_starting_translating_and_evaluating(
    number: int, code: int, data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = tmp_path / "run", tmp_path / "found.txt"
    assert train(data, out, "--epochs", "1") == 0
    found.write_text("precious")
    capsys.readouterr()
    monkeypatch.setattr(translate, "generate", lambda *_: os.kill(os.getpid(), number))
    arguments = ["translate", "--run", str(out), "--output", str(found), "red cat"]
    assert translate.main(arguments) == code
    assert translate.main(["evaluate", "--run", str(out)]) == code
    monkeypatch.setattr(translation, "load_data", lambda *_: os.kill(os.getpid(), number))
    assert train(data, tmp_path / "new") == code
    assert without_notice(capsys.readouterr().err) == "interrupted\n" * 3
    assert found.read_text() == "precious"
    assert not (tmp_path / "new").exists()


def waiting(out: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a job has begun to log."""
    end = time.monotonic() + 120
    while not (out / LOG).exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert (out / LOG).exists(), process.communicate()


def launch(data: Path, out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "models.translate", *command(data, out, "--epochs", "100000")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    waiting(out, process)
    return process


@pytest.mark.usefixtures("undrawn")
@pytest.mark.posix
def test_a_folder_belongs_to_one_run_until_it_ends_or_is_killed(
    data: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "run"
    process = launch(data, out)
    for second in ((), ("--overwrite",)):
        assert train(data, out, *second) == 1
        assert f"another run is going on in {out}" in one_sentence(capsys)
    assert resume(out) == 1
    assert f"another run is going on in {out}" in one_sentence(capsys)
    process.kill()
    process.communicate()
    assert resume(out, "--epochs", "1") == 0
    process = launch(data, tmp_path / "other")
    process.send_signal(signal.SIGTERM)
    output, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "saving before the end" in err
    assert "Traceback" not in err
    assert "continue with --resume" in output
    assert resume(tmp_path / "other", "--epochs", "1") == 0
    assert set(content(out)) <= {BEST, LAST, LOG, CURVES}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.posix
def test_a_closed_terminal_ends_the_job_unless_it_was_started_with_nohup(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        training.Trainer, "step", at_step(2, lambda _: os.kill(os.getpid(), signal.SIGHUP))
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert train(data, tmp_path / "run", "--epochs", "2") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_folder_that_cannot_be_locked_is_an_error(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(job, "_lock", cannot)
    with job.hold(tmp_path):
        assert "cannot be locked" in capsys.readouterr().err


# Kills


@pytest.mark.posix
def test_a_run_that_was_killed_again_and_again_ends_as_one_left_alone(tmp_path: Path) -> None:
    """A few kills; `python tests/kills.py 50` for more."""
    seen = kill_often(tmp_path, 3, 15, seed=os.getpid())
    assert seen["kills"] == 3


@pytest.mark.usefixtures("undrawn")
def test_a_long_epoch_is_saved_on_the_way(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 0)

    def die(self: training.Trainer) -> None:
        assert step_of(self.folder) == 1
        raise MemoryError

    monkeypatch.setattr(training.Trainer, "step", at_step(2, die))
    with pytest.raises(MemoryError):
        train(data, tmp_path / "run")


# Folders and disks


class Faults:
    """Lets the n-th opening for writing, renaming or flushing to disk fail, as on a full disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.count, self.at, self.on = str(folder), 0, -1, False
        fsync = os.fsync

        def flush(number: int) -> None:
            self.call()
            fsync(number)

        monkeypatch.setattr(os, "fsync", flush)
        sys.addaudithook(self.see)  # it stays, and does nothing once `on` is False

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or event not in ("open", "os.rename"):
            return
        writes = event == "os.rename" or arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and str(arguments[0]).startswith(self.folder):
            self.call()

    def call(self) -> None:
        if self.on:
            self.count += 1
            if self.count == self.at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def run(self, at: int, job: Callable[[], int]) -> int:
        """The exit code of a job in which the call number `at` fails."""
        self.count, self.at, self.on = 0, at, True
        try:
            return job()
        finally:
            self.on = False


@pytest.mark.posix
def test_a_disk_that_is_full_at_any_moment_loses_nothing(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # of the right name, and quickly drawn
        training,
        "draw_losses",
        lambda _, path, *__: write_file(path, b"picture"),
    )
    faults = Faults(monkeypatch, tmp_path)
    more = ("--epochs", "2", "--batch-tokens", "40")
    alone = tmp_path / "alone"
    assert faults.run(-1, lambda: train(data, alone, *more)) == 0
    calls, expected = faults.count, content(alone)
    assert calls > 20
    for at in range(1, calls + 1):
        out = tmp_path / f"at{at}"
        capsys.readouterr()
        assert faults.run(at, lambda out=out: train(data, out, *more)) == 1, at  # type: ignore[misc]
        err = one_sentence(capsys)
        assert "cannot write" in err
        assert "No space left on device" in err
        if (out / LAST).exists():
            read_checkpoint(out / LAST, Translation)
            assert resume(out) == 0
        else:
            assert train(data, out, *more) == 0
        assert content(out) == expected, at
    print(f"{calls} faults injected, nothing lost")


@pytest.mark.posix
def test_a_real_full_disk_loses_nothing(data: Path, capsys: Any) -> None:
    """On a file system of 300 kB, where the user may make one."""
    with tempfile.TemporaryDirectory() as place:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=300k", "none", place], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("a file system can be made by root alone")
        try:
            out = Path(place) / "run"
            assert train(data, out, "--epochs", "1") == 0
            before, position = content(out), step_of(out)
            filling = Path(place) / "filling"
            with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            capsys.readouterr()
            assert resume(out, "--epochs", "2") == 1
            err = one_sentence(capsys)
            assert "No space left on device" in err
            assert step_of(out) == position
            assert set(content(out)) == set(before)
            filling.unlink()
            assert resume(out, "--epochs", "2") == 0
        finally:
            subprocess.run(["umount", place], check=True)


@pytest.fixture
def nobody() -> Iterator[None]:
    """A user who is not root, to whom permissions mean something."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.posix
def test_a_read_only_folder_is_an_error_at_the_start(data: Path, capsys: Any, nobody: None) -> None:
    with tempfile.TemporaryDirectory() as place:
        table = Path(place) / "table.tsv"
        table.write_text("a\tb\nc\td\ne\tf\n")
        folder = Path(place) / "run"
        folder.mkdir()
        folder.chmod(0o555)
        assert train(table, folder) == 1
        assert "cannot write" in one_sentence(capsys)
        assert train(table, folder / "deeper") == 1
        assert "cannot make the folder" in one_sentence(capsys)
        assert not list(folder.iterdir())
        folder.chmod(0o755)


@pytest.mark.posix
@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_is_removed_stops_the_job_and_nothing_is_written_to_its_successor(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def remove(self: training.Trainer) -> None:
        for path in out.iterdir():
            path.unlink()
        out.rmdir()

    def exchange(self: training.Trainer) -> None:
        out.rename(tmp_path / "elsewhere")
        out.mkdir()

    step = training.Trainer.step
    for act in remove, exchange:
        monkeypatch.setattr(training.Trainer, "step", step)
        monkeypatch.setattr(training.Trainer, "step", at_step(2, act))
        capsys.readouterr()
        assert train(data, out) == 1
        assert f"{out} was removed or exchanged" in one_sentence(capsys)
        assert out.exists() == (act is exchange)
        assert act is remove or not list(out.iterdir())


@pytest.mark.usefixtures("undrawn")
def test_a_log_that_is_removed_is_written_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, out = tmp_path / "alone", tmp_path / "run"
    assert train(data, alone, "--epochs", "4") == 0
    monkeypatch.setattr(
        training.Trainer, "step", at_step(3, lambda trainer: (trainer.folder / LOG).unlink())
    )
    assert train(data, out, "--epochs", "4") == 0
    assert content(out) == content(alone)


@pytest.mark.usefixtures("undrawn")
def test_a_start_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    assert train(tmp_path / "nowhere.tsv", tmp_path / "run") == 1
    assert not (tmp_path / "run").exists()


# Messages to the user


@pytest.mark.usefixtures("undrawn")
def test_resuming_a_finished_run_says_so(data: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--epochs", "2") == 0
    before = content(out)
    capsys.readouterr()
    assert resume(out) == 0
    output = capsys.readouterr().out
    assert f"the run in {out} is finished, after 2 epochs" in output
    assert "--epochs 3 or more" in output
    assert content(out) == before
    (out / BEST).unlink()
    assert resume(out) == 0
    assert f"{BEST} is gone" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_a_run_is_evaluated_on_its_own_held_out_pairs(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, table = tmp_path / "run", tmp_path / "table.tsv"
    long = "cat " * 9
    table.write_text(data.read_text() + f"{long}\tchat\n" * 20)
    more = ("--epochs", "1", "--max-length", "5", "--positions", "learned")
    assert train(table, out, *more) == 0
    seen: list[str] = []
    translating = translate.Translator.translate

    def spy(self: translate.Translator, lines: Any, *more: Any, **options: Any) -> Any:
        seen.extend(lines)
        return translating(self, lines, *more, **options)

    monkeypatch.setattr(translate.Translator, "translate", spy)
    evaluate = ["evaluate", "--run", str(out)]
    capsys.readouterr()
    assert translate.main(evaluate) == 0
    output = capsys.readouterr().out
    settings = read_checkpoint(out / BEST, Translation).settings
    _, valid = load_pairs(settings)
    expected = [source for source, _ in valid if len(source.split()) < 5]
    assert seen == expected
    assert f"{len(expected)} pairs that {out} did not learn from" in output
    assert f"/{len(expected)} = " in output

    table.write_text(data.read_text())
    assert translate.main(evaluate) == 1
    assert "the data has changed" in one_sentence(capsys)
    table.unlink()
    assert translate.main(evaluate) == 1
    err = one_sentence(capsys)
    assert f"cannot read {table}" in err
    assert "name the pairs to evaluate with" in err


@pytest.mark.usefixtures("undrawn")
def test_targets_longer_than_twice_the_source_are_not_cut(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = tmp_path / "table.tsv", tmp_path / "run"
    table.write_text(f"one\t{'a ' * 60}\ntwo\tb\n" * 20)
    assert train(table, out, "--epochs", "1") == 0
    translator = translate.Translator(training.load_trained(out, Translation))
    assert translator.longest_target == 61
    asked: list[int] = []

    def endless(_: Any, prompts: Any, __: Any, longest: int, *___: Any) -> Any:
        asked.append(longest)
        return [Output([4] * longest, False) for _ in prompts]

    monkeypatch.setattr(translate, "generate", endless)
    capsys.readouterr()
    tensors, texts = load_file(out / BEST)
    for wrong in (-1, 10**9, "9", 1.5, None, True):
        progress = json.loads(texts["progress"]) | {"longest_target": wrong}
        save_file(tensors, tmp_path / "wrong", {**texts, "progress": json.dumps(progress)})
        with pytest.raises(CheckpointError, match=r"longest_target is .* from 0 to 256"):
            translate.Translator(training.load_trained(tmp_path / "wrong", Translation))
    found = translator.translate(["one", "", "two"], replace_unknown=True)
    assert asked == [61]
    assert len(found[0].split()) == 61
    assert capsys.readouterr().err == (
        "warning: 2 of 3 translations had not ended and were cut, the first in line 1\n"
    )


def test_label_smoothing_has_a_least_loss_that_is_said_and_drawn(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TranslationSettings(tsv=str(data), d_model=16, nhead=2, epochs=1)
    with start_run(Translation, settings, tmp_path / "run") as trainer:
        task: Any = trainer.task
        least, unsmoothed = task.least_losses()
        classes = len(task.data.target_vocabulary)
    asked = np.full(classes, 0.1 / classes)
    asked[5] += 0.9
    logits, target = mt.tensor(np.log(asked)).unsqueeze(0), mt.tensor([5])
    assert F.cross_entropy(logits, target, label_smoothing=0.1).item() == pytest.approx(least)
    assert F.cross_entropy(logits, target).item() == pytest.approx(unsmoothed)

    labels: list[str] = []
    write = training.draw_losses.__globals__["write_figure"]  # type: ignore[attr-defined]

    def spy(figure: Any, path: Any) -> None:
        labels[:] = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        write(figure, path)

    monkeypatch.setitem(training.draw_losses.__globals__, "write_figure", spy)  # type: ignore[attr-defined]
    for smoothing in ("0.1", "0"):
        capsys.readouterr()
        out = tmp_path / smoothing
        assert train(data, out, "--epochs", "1", "--label-smoothing", smoothing) == 0
        output = capsys.readouterr().out
        drawn = f"{least:.2f}, the least possible with label smoothing 0.1"
        assert (drawn in labels) == (smoothing == "0.1")
        assert (f"below {least:.4f}, and" in output) == (smoothing == "0.1")


def test_the_demo_that_is_interrupted_says_how_to_go_on(
    tiny_demo: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        training.Trainer, "step", at_step(1, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    )
    assert demo.main() == 143
    output = capsys.readouterr().out
    advice = f"{program('minitensor.models.translate')} train --resume --out {tiny_demo}"
    assert advice in output
    assert not subprocess.run(
        f"{advice} --help", shell=True, cwd=ROOT, capture_output=True
    ).returncode
