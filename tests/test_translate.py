"""The translation job learns, repeats itself exactly, survives interruption, refuses clearly."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shape_names import watch

from minitensor.models import command, demo, run_files, training, translate, translation
from minitensor.models.checkpoint import read_checkpoint
from minitensor.models.config import TRAINING
from minitensor.models.task import Position
from minitensor.models.training import BEST, CURVES, LAST, LOG
from minitensor.models.transformer import Transformer
from minitensor.models.translation import Translation, vocabularies
from minitensor.serialize import load_file, save_file

WORDS = {
    "red": "rouge",
    "blue": "bleu",
    "big": "grand",
    "small": "petit",
    "cat": "chat",
    "dog": "chien",
}
TINY = [
    *("--d-model", "16", "--nhead", "2", "--encoder-layers", "1", "--decoder-layers", "1"),
    *("--dim-feedforward", "32", "--batch-tokens", "120", "--warmup", "10", "--lr", "0.01"),
]  # fmt: skip
PNG = b"\x89PNG"


def phrases() -> list[tuple[str, str]]:
    """Every phrase of one to three words, word by word."""
    phrases = [p for length in (1, 2, 3) for p in itertools.product(WORDS, repeat=length)]
    return [(" ".join(p), " ".join(WORDS[w] for w in p)) for p in phrases]


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("data") / "phrases.tsv"
    path.write_text("".join(f"{s}\t{t}\n" for s, t in phrases()), "utf-8")
    return path


def train(data: Path, out: Path, *more: str) -> int:
    return translate.main(["train", "--tsv", str(data), "--out", str(out), *TINY, *more])


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: Any) -> Path:
    """A finished run that has learned its data."""
    out = tmp_path_factory.mktemp("run") / "phrases"
    assert train(data, out, "--epochs", "12", "--dropout", "0") == 0
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def weights(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in load_file(path)[0].items()}


def assert_same(a: Path, b: Path) -> None:
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


# Training


def test_a_run_leaves_its_files(run: Path) -> None:
    assert set(content(run)) >= {BEST, LAST, LOG, CURVES}
    assert (run / CURVES).read_bytes()[:4] == PNG
    records = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    epochs = [r for r in records if r["kind"] == "epoch"]
    assert [r["epoch"] for r in epochs] == list(range(1, 13))
    assert epochs[-1]["valid_nll"] < 0.3 < epochs[0]["valid_nll"]
    rates = [r["lr"] for r in records if r["kind"] == "step"]
    assert max(rates) == pytest.approx(0.01, rel=0.1)
    assert rates[-1] < max(rates)
    best = read_checkpoint(run / BEST, Translation)
    assert best.progress["position"]["best_loss"] == min(r["valid_loss"] for r in epochs)
    assert not best.training
    assert isinstance(Transformer.load(run / BEST), Transformer)


def test_the_seed_decides_every_bit(data: Path, tmp_path: Path) -> None:
    for name, seed in ("a", "5"), ("b", "5"), ("c", "6"):
        assert train(data, tmp_path / name, "--epochs", "1", "--seed", seed) == 0
    assert_same(tmp_path / "a" / LAST, tmp_path / "b" / LAST)
    name = "encoder.layers.0.linear1.weight"
    a, c = weights(tmp_path / "a" / LAST)[name], weights(tmp_path / "c" / LAST)[name]
    assert (a != c).any()


@pytest.mark.parametrize("at", [2, 5, 6])  # within an epoch, at its last batch, in the next
def test_a_resumed_run_equals_an_uninterrupted_one(
    at: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(data, whole, "--epochs", "2", "--dropout", "0.2") == 0
    position = read_checkpoint(whole / LAST, Translation).progress["position"]
    assert position["step"] >= 10
    per_epoch = position["step"] // 2
    at = {5: per_epoch, 6: per_epoch + 1}.get(at, at)

    step = training.Trainer.step

    def interrupted(self: training.Trainer, batch: Any) -> Any:
        if self.position.step == at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(training.Trainer, "step", interrupted)
    assert train(data, parts, "--epochs", "2", "--dropout", "0.2") == 130
    assert read_checkpoint(parts / LAST, Translation).progress["position"]["step"] == at
    assert f"interrupted at step {at}" in capsys.readouterr().out
    monkeypatch.undo()
    with (parts / LOG).open("a") as log:  # as if killed later, in the middle of a line
        log.write('{"kind": "step", "epoch": 0, "step": 99}\n{"kind": "st')
    assert translate.main(["train", "--out", str(parts), "--resume"]) == 0
    assert_same(whole / LAST, parts / LAST)
    assert_same(whole / BEST, parts / BEST)
    ours, theirs = (run_files.read_log(p / LOG, Position(9, 0, 999)) for p in (whole, parts))
    for records in (ours, theirs):
        for record in records:
            record.pop("tokens_per_second"), record.pop("seconds", None)
    assert ours == theirs


def test_more_epochs_continue_a_finished_run(data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path / "two", "--epochs", "2") == 0
    assert train(data, tmp_path / "one", "--epochs", "1") == 0
    command = ["train", "--out", str(tmp_path / "one"), "--resume", "--epochs", "2"]
    assert translate.main(command) == 0
    assert_same(tmp_path / "one" / LAST, tmp_path / "two" / LAST)


def test_ctrl_c_saves_and_leaves(data: Path, tmp_path: Path) -> None:
    command = ["train", "--tsv", str(data), "--out", str(tmp_path / "run"), *TINY]
    process = subprocess.Popen(
        [sys.executable, "-m", "models.translate", *command, "--epochs", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    log = tmp_path / "run" / LOG
    end = time.monotonic() + 120
    while not log.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "continue with --resume" in out
    assert read_checkpoint(tmp_path / "run" / LAST, Translation).progress["position"]["step"] >= 1


def test_bpe_learned_positions_and_a_tied_output(tmp_path: Path) -> None:
    for side, column in ("en", 0), ("fr", 1):
        lines = "".join(f"{pair[column]}\n" for pair in phrases())
        (tmp_path / f"train.{side}").write_text(lines, "utf-8")
        (tmp_path / f"valid.{side}").write_text(lines[: lines.index("\n") + 1], "utf-8")
    files = [
        item
        for part, name in (("train", ""), ("valid", "valid-"))
        for item in (
            f"--{name}source", str(tmp_path / f"{part}.en"),
            f"--{name}target", str(tmp_path / f"{part}.fr"),
        )
    ]  # fmt: skip
    more = (
        "--vocabulary bpe --vocabulary-size 280 --positions learned --max-length 20 --output tied"
    )
    out = str(tmp_path / "run")
    command = ["train", *files, "--out", out, *TINY, *more.split(), "--norm", "post"]
    assert translate.main([*command, "--epochs", "1"]) == 0
    checkpoint = read_checkpoint(tmp_path / "run" / BEST, Translation)
    assert checkpoint.content["config"].tied_output
    assert len(vocabularies(checkpoint)[0]) == 280
    assert translate.main(["translate", "--run", out, "big Żaba"]) == 0


# Translating and evaluating


def test_translations_from_everywhere(
    run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    lines = ["big red dog", "", "small blue cat"]
    expected = "grand rouge chien\n\npetit bleu chat\n"
    assert translate.main(["translate", "--run", str(run), *lines]) == 0
    assert capsys.readouterr().out == expected

    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("\n".join(lines), "utf-8")
    files = ["--input", str(source), "--output", str(target)]
    assert translate.main(["translate", "--run", str(run / BEST), *files]) == 0
    assert target.read_text("utf-8") == expected

    with source.open("rb") as stream:
        monkeypatch.setattr(sys, "stdin", type("Stream", (), {"buffer": stream}))
        assert translate.main(["translate", "--run", str(run)]) == 0
    assert capsys.readouterr().out == expected


def test_no_name_lies_about_its_shape(data: Path, tmp_path: Path) -> None:
    with watch(training, translation, translate) as seen:
        assert train(data, tmp_path, "--epochs", "1", "--positions", "learned") == 0
        options = ["--attention", str(tmp_path / "map.png"), "big cat"]
        assert translate.main(["translate", "--run", str(tmp_path), *options]) == 0
    assert ("predict", "logits_NLV") in seen
    assert ("Translation.attention_maps", "tgt_NL") in seen


def test_attention_is_drawn(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "map.png"
    assert translate.main(
        ["translate", "--run", str(run), "big red cat", "--attention", str(picture)]
    ) == 0  # fmt: skip
    assert picture.read_bytes()[:4] == PNG


def test_unknown_words_on_request(run: Path) -> None:
    arguments = ["translate", "--run", str(run), "--replace-unknown", "purple cat"]
    assert translate.main(arguments) == 0


def test_evaluation(run: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert translate.main(["evaluate", "--run", str(run), "--tsv", str(data)]) == 0
    out = capsys.readouterr().out
    assert "exact match" in out
    assert "BLEU" in out
    share = float(out.split("= ")[1].split(" %")[0])
    assert share > 90

    wrong = tmp_path / "wrong.tsv"
    wrong.write_text("red cat\trouge chat\nred dog\trouge chat\nblue cat\tx y z\n", "utf-8")
    worst = tmp_path / "worst.tsv"
    arguments = ["--tsv", str(wrong), "--worst", str(worst), "--count", "1"]
    assert translate.main(["evaluate", "--run", str(run), *arguments]) == 0
    assert "exact match 1/3" in capsys.readouterr().out
    rows = [line.split("\t") for line in worst.read_text("utf-8").splitlines()]
    assert rows[0] == ["chrF", "source", "reference", "translation"]
    assert rows[1][1:] == ["blue cat", "x y z", "bleu chat"]
    assert len(rows) == 2


# Bad input: a sentence on standard error, exit code 1, and every file as it was


def refused(arguments: list[str], words: str, folder: Path, capsys: Any, code: int = 1) -> None:
    before = content(folder)
    capsys.readouterr()
    assert translate.main(arguments) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert content(folder) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--source a --target short", "a has 3 lines and"),
        ("--source empty --target a", "empty is empty"),
        ("--source latin --target a", "latin is not UTF-8"),
        ("--source a", "--source and --target belong together"),
        ("--source a --target a --tsv a", "give either --tsv"),
        ("--tsv nowhere", "cannot read"),
        ("--tsv a", "a, line 1: expected a source and a target"),
        ("--valid-tsv a", "no training data"),
        ("--tsv table --valid-source a", "--valid-source and --valid-target belong together"),
        ("--tsv table --nhead 3", "--d-model is 128, --nhead is 3"),
        ("--tsv table --max-length 1", "no pair to learn from is short enough for --max-length 1"),
        (
            "--tsv longest --max-length 4",
            "no pair to validate with is short enough for --max-length",
        ),
        ("--tsv one", "too little text"),
        ("--tsv same", "all 3 pairs have the same source, so none can be held out"),
        ("--tsv table --vocabulary-size 3", "a word vocabulary needs at least 5 tokens, 3 were"),
        ("--tsv table --out a", "cannot make the folder"),
        ("--tsv table --vocabulary bpe --vocabulary-size 5", "at least 260"),
        ("--resume --out nowhere", "cannot read"),
    ],
)
def test_bad_training(options: str, words: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a").write_text("x\ny\nz\n")
    (tmp_path / "short").write_text("x\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "latin").write_bytes(b"\xe9\n" * 3)
    (tmp_path / "table").write_text("a\tb\nc\td\ne\tf\n")
    (tmp_path / "one").write_text("a\tb\n")
    (tmp_path / "same").write_text("a\tb\na\tc\na\td\n")
    (tmp_path / "longest").write_text("a\tb\nc\td\ne\tf f f f f\n")
    names = {*os.listdir(tmp_path), "nowhere"}
    given = [str(tmp_path / o) if o in names else o for o in options.split()]
    out = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    refused(["train", *given, *out], words, tmp_path, capsys)


@pytest.mark.parametrize(
    "options", ["--epochs 0", "--dropout 1", "--lr -1", "--vocabulary wings", "--seed -1"]
)
def test_bad_options(options: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        translate.main(["train", *options.split()])
    assert stop.value.code == 2
    assert "error: argument" in capsys.readouterr().err


def test_a_run_is_not_overwritten_unasked(run: Path, data: Path, capsys: Any) -> None:
    refused(["train", "--tsv", str(data), "--out", str(run)], "already holds a run", run, capsys)


def test_a_run_is_overwritten_when_asked(data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path, "--epochs", "2") == 0
    assert train(data, tmp_path, "--epochs", "1", "--overwrite") == 0
    assert len([r for r in (tmp_path / LOG).read_text().splitlines() if '"epoch",' in r]) == 1


def test_resuming_with_something_else(data: Path, tmp_path: Path, capsys: Any) -> None:
    table = tmp_path / "table.tsv"
    table.write_bytes(data.read_bytes())
    out = tmp_path / "run"
    assert train(table, out, "--epochs", "1") == 0
    resume = ["train", "--out", str(out), "--resume"]
    refused([*resume, "--clip", "0.5"], "--clip is 0.5, but the run", out, capsys)
    with table.open("a") as file:
        file.write("one more\tpair\n")
    refused(resume, "the data has changed", out, capsys)


def test_bad_checkpoints(run: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "model"
    whole = (run / BEST).read_bytes()
    command = ["translate", "--run", str(path), "cat"]
    for bad in (whole[:-7], whole[:100], b"", b"\x80\x04 a pickle", b"text, nothing else" * 99):
        path.write_bytes(bad)
        refused(command, str(path), tmp_path, capsys)
    tensors, header = load_file(run / BEST)
    save_file(tensors, path)
    refused(command, "config", tmp_path, capsys)
    vocabulary = json.loads(header["target_vocabulary"])
    vocabulary["words"].append("dragon")
    save_file(tensors, path, {**header, "target_vocabulary": json.dumps(vocabulary)})
    refused(command, "the target vocabulary does not match the model", tmp_path, capsys)
    config = json.loads(header["config"]) | {"d_model": 8}
    save_file(tensors, path, {**header, "config": json.dumps(config)})
    refused(command, "does not hold the weights of this model", tmp_path, capsys)
    path.unlink()
    refused(command, "no trained model", tmp_path, capsys)


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("settings", {"d_model": "16"}, "settings: d_model is '16', expected a number"),
        ("settings", {"d_model": 32}, "settings do not match its model: d_model is 16"),
        ("settings", {"dropout": 1}, "settings: dropout is 1, expected a number of at least 0"),
        ("settings", {"lr": float("nan")}, "settings: lr is nan"),
        ("settings", {"seed": -1}, "settings: seed is -1"),
        ("settings", {"epochs": 1e400}, "settings: epochs is inf"),
        ("settings", {"vocabulary": "wings"}, "settings: vocabulary is 'wings'"),
        ("settings", {"tsv": 3}, "settings: tsv is 3, expected names of files"),
        ("settings", {"tsv": "a\0"}, "settings: tsv is"),
        ("settings", {"wings": 2}, "settings: there is no setting 'wings'"),
        ("settings", {"nhead": 3}, "settings: the width of the model must be divisible"),
        ("progress", {"position": {}}, "progress: its position: epoch is missing"),
        ("progress", {"position": 3}, "progress: its position is 3"),
        ("progress", {"data": 3}, "progress: its progress is"),
    ],
    ids=str,
)
def test_what_a_checkpoint_tells_of_its_run_is_checked(
    key: str, change: dict[str, Any], words: str, run: Path, tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / "model"
    tensors, header = load_file(run / BEST)
    header[key] = json.dumps(json.loads(header[key]) | change)
    save_file(tensors, path, header)
    refused(["translate", "--run", str(path), "cat"], words, tmp_path, capsys)
    for text in ("[" * 10**5, "3", "{", '{"a": 1, "a": 2}'):
        save_file(tensors, path, header | {key: text})
        refused(["translate", "--run", str(path), "cat"], f"{key}: ", tmp_path, capsys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["position"].update(step=-1), "step is -1, expected at least 0"),
        (lambda p: p["position"].update(epoch=0.5), "'epoch' is 0.5"),
        (lambda p: p["position"].update(batch=1), "tokens without batches, or batches without"),
        (lambda p: p["position"].update(wings=2), "'wings' is unknown"),
        (lambda p: p["position"].update(best_loss=float("nan")), "'best_loss' is nan"),
        (lambda p: p.pop("groups"), "its groups is None, expected 1 values"),
        (lambda p: p["groups"][0].update(betas=[2, 2]), "its groups: betas is [2, 2]"),
        (lambda p: p["groups"][0].update(params=[0]), "its groups: 'params' is [0]"),
        (lambda p: p["groups"][0].update(step=3), "its groups: 'step' is unknown"),
        (lambda p: p["groups"][0].pop("lr"), "its groups: lr is missing"),
    ],
)
def test_what_a_run_continues_from_is_checked(
    change: Any, words: str, data: Path, run: Path, tmp_path: Path, capsys: Any
) -> None:
    tensors, header = load_file(run / LAST)
    progress = json.loads(header["progress"])
    change(progress)
    save_file(tensors, tmp_path / LAST, header | {"progress": json.dumps(progress)})
    refused(["train", "--out", str(tmp_path), "--resume"], words, tmp_path, capsys)


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("rng", None, "no state of the random numbers"),
        ("rng", np.zeros(5056, np.uint8), "the state of its random numbers"),
        ("rng", np.zeros(3, np.float32), "the state of its random numbers"),
        ("0.exp_avg", None, "0.exp_avg is missing"),
        ("0.exp_avg", np.zeros(3, np.float32), "0.exp_avg is float32 of shape (3,), expected"),
        ("0.step", np.zeros((), np.int64), "0.step is int64 of shape ()"),
        ("999.step", np.zeros((), np.float32), "unexpected tensor '999.step'"),
        ("wings", np.zeros(1), "unexpected tensor 'wings'"),
    ],
)
def test_the_state_of_the_optimiser_is_checked(
    name: str, tensor: Any, words: str, run: Path, tmp_path: Path, capsys: Any
) -> None:
    tensors: dict[str, Any]
    tensors, header = load_file(run / LAST)
    tensors.pop(TRAINING + name, None)
    if tensor is not None:
        tensors[TRAINING + name] = tensor
    save_file(tensors, tmp_path / LAST, header)
    refused(["train", "--out", str(tmp_path), "--resume"], words, tmp_path, capsys)


def test_a_damaged_log_keeps_every_whole_record(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    assert train(data, tmp_path, "--epochs", "1") == 0
    log = tmp_path / LOG
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) > 6
    resume = ["train", "--out", str(tmp_path), "--resume"]
    lost = [
        b"\xff" + lines[0][2:],
        b"5\n",
        b"[1]\n",
        b'{"kind": "step", "epoch": 0}\n',
        b"[" * 9999,
    ]
    lost += [lines[0].replace(b'"loss"', b'"lost"'), b'{"kind": "epoch", "epoch": 1, "step": 9}\n']
    for bad in lost:
        log.write_bytes(lines[0] + bad.rstrip(b"\n") + b"\n" + b"".join(lines[2:]))
        capsys.readouterr()
        assert translate.main(resume) == 0
        assert capsys.readouterr().err == f"{log}: 1 damaged line left out\n"
        assert log.read_bytes() == lines[0] + b"".join(lines[2:])
        assert translate.main(resume) == 0  # and it is said once
        assert capsys.readouterr().err == ""
    # Records around what was damaged stay: a line break, a brace, a byte between them.
    for bad in (whole.replace(b"}\n{", b"}x{", 1), whole.replace(b"}\n{", b"}\n\xff{", 1)):
        log.write_bytes(bad)
        assert translate.main(resume) == 0
        assert log.read_bytes() == whole
    log.write_bytes(whole + lines[0][:20])  # killed in the middle of a line
    capsys.readouterr()
    assert translate.main(resume) == 0
    assert log.read_bytes() == whole
    assert capsys.readouterr().err == ""


def test_translations_go_through_links_to_devices_and_keep_modes(run: Path, tmp_path: Path) -> None:
    command = ["translate", "--run", str(run), "big cat", "--output"]
    assert translate.main([*command, os.devnull]) == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "link").symlink_to("file")
    assert translate.main([*command, str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "grand chat\n"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_bad_sentences(run: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    out.write_text("precious")
    (tmp_path / "in").write_text("cat\npurple cat\n")
    (tmp_path / "latin").write_bytes(b"\xe9")
    options = ["translate", "--run", str(run), "--output", str(out)]
    words = "line 2: 'purple' in 'purple cat' is not among the 10 words"
    refused([*options, "--input", str(tmp_path / "in")], words, tmp_path, capsys)
    refused([*options, "--input", str(tmp_path / "latin")], "not UTF-8", tmp_path, capsys)
    refused([*options, "--input", "x", "cat"], "not both", tmp_path, capsys)
    nowhere = ["translate", "--run", str(run), "--output", str(tmp_path / "no" / "out"), "cat"]
    refused(nowhere, "cannot write", tmp_path, capsys)


def test_a_sentence_longer_than_the_model_allows(data: Path, tmp_path: Path, capsys: Any) -> None:
    more = ("--epochs", "1", "--positions", "learned", "--max-length", "5")
    assert train(data, tmp_path, *more) == 0
    command = ["translate", "--run", str(tmp_path), "cat", "cat " * 9]
    refused(command, "line 2 has 10 tokens, the model allows 5", tmp_path, capsys)


def test_a_full_disk_loses_nothing(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(data, tmp_path, "--epochs", "1") == 0

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = content(tmp_path)
    capsys.readouterr()
    assert translate.main(["train", "--out", str(tmp_path), "--resume", "--epochs", "2"]) == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert "cannot write" in err
    after = content(tmp_path)
    assert after.pop(LOG).startswith(before.pop(LOG))
    assert after == before


def test_training_stops_when_the_loss_is_no_number(data: Path, tmp_path: Path, capsys: Any) -> None:
    assert train(data, tmp_path, "--lr", "1e30", "--warmup", "1") == 1
    assert "the loss became" in capsys.readouterr().err
    assert all(np.isfinite(w).all() for w in weights(tmp_path / LAST).values())


# The demo


def test_the_demo_trains_measures_and_draws(tiny_demo: Path, capsys: Any) -> None:
    assert demo.main() == 1  # an epoch is not enough to learn this
    out = capsys.readouterr().out
    assert "0 of 2 numbers it never saw" in out
    assert "your number, 79 (it learned from this one)" in out
    assert (tiny_demo / demo.ATTENTION).read_bytes()[:4] == PNG
    picture, page = ((tiny_demo / name).read_text() for name in demo.GRAPH)
    assert "(N, S, E)" in picture
    assert page.startswith("<!doctype html>")
    told = (tiny_demo / demo.WALKTHROUGH).read_text()
    assert str(tiny_demo / demo.WALKTHROUGH) in out
    assert 'One training iteration: \\"seventy-nine\\"' in told
    assert (tiny_demo / CURVES).read_bytes()[:4] == PNG


@pytest.mark.parametrize(
    ("number", "words"), [("many", "not a whole number"), ("1000000", "between 0 and 999,999")]
)
def test_numbers_the_demo_cannot_take(
    number: str, words: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.setenv("NUMBER", number)
    assert demo.main() == 1
    assert words in capsys.readouterr().err


def test_the_kept_weights_are_the_mean_of_the_last_epochs(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--epochs", "2", "--average", "2") == 0
    states = [load_file(out / training.EPOCH.format(number))[0] for number in (2,)]
    one = tmp_path / "one"
    assert train(data, one, "--epochs", "1") == 0
    states.append(load_file(one / BEST)[0])  # the same weights after the first epoch
    best = load_file(out / BEST)[0]
    last = load_file(out / LAST)[0]
    for name, tensor in best.items():
        mean = (states[0][name] + states[1][name]) / 2
        assert np.allclose(tensor.numpy(), mean.numpy(), atol=1e-6)
        assert np.array_equal(last[name].numpy(), states[0][name].numpy())
    assert [p.name for p in out.glob("epoch-*")] == ["epoch-2.safetensors"]


def test_an_averaged_run_that_is_resumed_ends_as_one_left_alone(data: Path, tmp_path: Path) -> None:
    more = ("--average", "3")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(data, whole, "--epochs", "4", *more) == 0
    assert train(data, parts, "--epochs", "2", *more) == 0
    assert translate.main(["train", "--out", str(parts), "--resume", "--epochs", "4"]) == 0
    for name in (BEST, LAST):
        ours, theirs = (load_file(p / name)[0] for p in (whole, parts))
        assert all(np.array_equal(ours[key].numpy(), theirs[key].numpy()) for key in ours)


def test_an_averaged_run_that_fails_to_save_an_epoch_can_average_it_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, save = tmp_path / "run", training.Trainer.save

    def failing(self: training.Trainer, name: str) -> None:
        if name == LAST and self.position.epoch == 3:
            raise command.InputError("the disk is full")
        save(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "save", failing)
        assert train(data, out, "--epochs", "3", "--average", "2") == 1
    assert translate.main(["train", "--out", str(out), "--resume"]) == 0
    assert [p.name for p in out.glob("epoch-*")] == ["epoch-3.safetensors"]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ("linear", [0.25, 0.5, 0.75, 1, 0.8, 0.6, 0.4, 0.2]),
        ("inverse-sqrt", [0.25, 0.5, 0.75, 1, *((4 / s) ** 0.5 for s in (5, 6, 7, 8))]),
    ],
)
def test_the_learning_rate_rises_and_then_follows_its_schedule(
    schedule: str, rates: list[float]
) -> None:
    found = [training.rate_share(step, 4, schedule, 8) for step in range(8)]
    assert found == pytest.approx(rates)


def test_beam_search_and_sampling_from_the_command_line(run: Path, capsys: Any) -> None:
    command = ["translate", "--run", str(run), "big cat"]
    assert translate.main([*command, "--beam", "4", "--n-best", "3", "--max-length", "2"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split("\t") for line in out.splitlines()]
    assert len(lines) == 3
    assert "were cut" in err or err == ""
    scores = [float(score) for score, _ in lines]
    assert scores == sorted(scores, reverse=True)
    drawn = []
    for seed in ("1", "1"):
        assert translate.main([*command, "--temperature", "5", "--top-k", "9", "--seed", seed]) == 0
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1]
    assert translate.main(["evaluate", "--run", str(run), "--beam", "2"]) == 0
    assert "BLEU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--top-p", "0"), "--top-p must be a number above 0 and at most 1, not 0.0"),
        (("--temperature", "-1"), "--temperature must be a number of at least 0"),
        (("--n-best", "3", "--beam", "2"), "--n-best is 3, but --beam follows 2 only"),
        (("--beam", "2", "--top-k", "2"), "give either --beam, or the options of sampling"),
    ],
)
def test_decoding_that_cannot_be_is_refused_in_a_sentence(
    more: tuple[str, ...], words: str, run: Path, tmp_path: Path, capsys: Any
) -> None:
    refused(["translate", "--run", str(run), *more, "big cat"], words, tmp_path, capsys)
