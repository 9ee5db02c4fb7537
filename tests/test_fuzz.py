"""Damaged files: every reader gives an object, or one sentence that names the file; nothing else.

Files of each kind, as the project writes them, are damaged by a seed and read: 2,000 of each here,
and as many as one likes by hand, from any number on:

    python tests/test_fuzz.py 100000                    all readers
    python tests/test_fuzz.py 100000 model log          these
    python tests/test_fuzz.py 1 model --first 4711      that one, with a traceback
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pytest
from mutate import (
    Damage,
    damage,
    damage_archive,
    damage_header,
    damage_json,
    damage_lines,
    damage_packed,
)

import minitensor as mt
from minitensor.models import bert, gpt, run_files, training, translate
from minitensor.models.checkpoint import read_checkpoint, read_header
from minitensor.models.command import InputError
from minitensor.models.task import Position
from minitensor.models.text import read_lines, read_parallel, read_tsv
from minitensor.models.training import LAST, LOG, Trainer, start_run, start_task
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.models.translation import Translation
from minitensor.models.vectors import read_vectors
from minitensor.models.vit import Vision, VisionSettings
from minitensor.serialize import CheckpointError, load_file

pytestmark = pytest.mark.faults

COUNT = 2000  # of each reader, in a run of the tests
SECONDS = 60  # after which a file hangs its reader
# Bytes that a reader may take for each byte of a file, and beyond: Python's smallest list takes 56
# bytes and stands in JSON as three, and a line of two letters is an object of 51.
TIMES, BESIDE = 40, 3_000_000
ENGLISH, FRENCH = ("red cat", "big dog", "blue"), ("chat rouge", "grand chien", "bleu")
WORDS = [(f"{a} {n}", f"{b} {n}") for n in range(20) for a, b in zip(ENGLISH, FRENCH, strict=True)]
TINY = [
    *("--d-model", "8", "--nhead", "2", "--encoder-layers", "1", "--decoder-layers", "1"),
    *("--dim-feedforward", "8", "--batch-tokens", "30", "--epochs", "4", "--lr", "0.01"),
]  # fmt: skip


@dataclass
class Reader:
    """Files of one kind, two as the project writes them, and what reads them."""

    files: tuple[bytes, bytes]
    ways: tuple[Damage, ...]  # beside those to bytes
    read: Callable[[Path], Any]


def nested() -> dict[Any, Any]:
    """An object of everything that can be saved."""
    shared = mt.arange(6.0).reshape(2, 3)
    return {
        "list": [1, 2.5, None, True, "text", [[]], float("inf"), 2**70],
        "tuple": (1, (2, mt.ones(2, requires_grad=True))),
        3: {(1, "a"): np.arange(4), "dtype": mt.int16},
        "more": [{1, "a"}, b"\xff", mt.device("cpu"), Counter("aab"), argparse.Namespace(a=[1])],
        "types": [mt.zeros(1, 2, dtype=t) for t in (mt.bool, mt.uint8, mt.int64, mt.float16)],
        "shared": [shared, shared.detach(), mt.zeros(0, 3)],
    }


def make_readers(folder: Path) -> dict[str, Reader]:
    """All readers, with files made in a folder."""

    def kept(name: str) -> bytes:
        return (folder / name).read_bytes()

    def run(kind: str, *more: str) -> Path:
        table, out = folder / "pairs.tsv", folder / kind
        table.write_text("".join(f"{s}\t{t}\n" for s, t in WORDS), "utf-8")
        command = ["train", "--tsv", str(table), "--out", str(out), "--vocabulary", kind, *TINY]
        with contextlib.redirect_stdout(io.StringIO()):
            assert translate.main([*command, *more]) == 0
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "LOG_EVERY", 1)
        patch.setattr(training, "draw_losses", lambda *_: None)
        word, bpe = run("word"), run("bpe", "--vocabulary-size", "270", "--output", "tied")
        prose = folder / "prose.txt"
        prose.write_text("".join(f"the {s} and the {t} .\n" for s, t in WORDS), "utf-8")

        def other_run(model: Any, command: str, kind: str, *more: str) -> bytes:
            out = folder / f"{model.__name__}-{kind}"
            given = ["--text", str(prose), "--out", str(out), "--epochs", "1", *more]
            with contextlib.redirect_stdout(io.StringIO()):
                assert model.main([command, *given]) == 0
            return (out / LAST).read_bytes()

        small = ("--num-layers", "1", "--num-heads", "2", "--embed-dim", "8")
        writers: Any = tuple(
            other_run(gpt, "train", kind, *small, "--context-length", "8", *more)
            for kind, more in (
                ("char", ("--variant", "gpt2")),
                ("bpe", ("--vocabulary", "bpe", "--vocabulary-size", "270")),
            )
        )
        readers: Any = tuple(
            other_run(
                bert, "pretrain", kind, "--layers", "1", "--d-model", "8", "--nhead", "2",
                "--dim-feedforward", "8", "--next-sentence", kind,
            )
            for kind in ("yes", "no")
        )  # fmt: skip
        shape = VisionSettings(epochs=1, views=1, embed_dim=8, num_heads=2, depth=1)
        with start_run(Vision, shape, folder / "vit") as trained:
            trained.run(lambda line: None)
        vision = (folder / "vit" / LAST).read_bytes()
    mt.save(nested(), folder / "nested")
    mt.save(nested(), folder / "nested.pt")
    for name in ("new.pt", "old.pt"):
        shutil.copy(Path(__file__).parent / "data" / name, folder)
    mt.save([{"a": mt.ones(3)}, mt.eye(2)], folder / "plain")
    sizes: dict[str, Any] = dict(
        d_model=4, nhead=2, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=4
    )
    Transformer(TransformerConfig(7, 9, **sizes)).save(folder / "model")
    sizes |= dict(tied_output=True, positions="learned", max_length=5)
    Transformer(TransformerConfig(7, 9, **sizes)).save(folder / "tied")
    text = "Deux jeunes hommes, dehors.\r\nl'été à Noël : 3,5 °C\n\nquatre-vingt-dix\n".encode()
    other = "one\u2028two\rthree\x85 \U0001f600\n".encode() * 9
    table = "".join(f"{s}\t{t}\n" for s, t in WORDS[:5]).encode()

    headers = [load_file(out / LAST)[1] for out in (word, bpe)]

    def header(key: str, path: Path) -> None:
        """Read one text of a checkpoint's header from a file of its own."""
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        content, *_ = read_header(path, {**headers[0], key: text}, Translation)
        for vocabulary in (content[f"{side}_vocabulary"] for side in ("source", "target")):
            pieces = vocabulary.pieces(range(len(vocabulary)))
            assert len(pieces) == len(vocabulary) > 4
            line = vocabulary.decode([n for n in range(len(vocabulary)) if n != 2])
            assert not line or line.splitlines() == [line]
            vocabulary.encode("red Żaba \U0001f600", replace_unknown=True)

    def texts(key: str) -> tuple[bytes, bytes]:
        return headers[0][key].encode(), headers[1][key].encode()

    checkpoint = read_checkpoint(word / LAST, Translation)
    target = folder / "resumed"
    target.mkdir()
    trainer = Trainer(start_task(Translation, checkpoint.settings), target)

    def restore(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "write_log", lambda *_: None)  # the log, to the disk
            trainer.restore(read_checkpoint(path, Translation))

    def parallel(path: Path) -> None:
        read_parallel(path, path)

    beginning = Position(10**6, 0, 10**6)
    word_texts, bpe_texts = (texts(f"{side}_vocabulary") for side in ("source", "target"))
    return {
        "load": Reader((kept("nested"), kept("plain")), (damage_header,), mt.load),
        "pytorch": Reader((kept("new.pt"), kept("nested.pt")), (damage_archive,), mt.load),
        "old": Reader((kept("old.pt"), kept("new.pt")), (), mt.load),
        "model": Reader((kept("model"), kept("tied")), (damage_header,), Transformer.load),
        "checkpoint": Reader(
            ((word / LAST).read_bytes(), (bpe / LAST).read_bytes()),
            (damage_header,),
            lambda path: Translation.load_model(read_checkpoint(path, Translation)),
        ),
        "restore": Reader(((word / LAST).read_bytes(),) * 2, (damage_header,), restore),
        "words": Reader(
            (word_texts[0], bpe_texts[0]), (damage_json,), lambda p: header("source_vocabulary", p)
        ),
        "bpe": Reader(
            (word_texts[1], bpe_texts[1]), (damage_json,), lambda p: header("target_vocabulary", p)
        ),
        "settings": Reader(texts("settings"), (damage_json,), lambda p: header("settings", p)),
        "progress": Reader(texts("progress"), (damage_json,), lambda p: header("progress", p)),
        "log": Reader(
            ((word / LOG).read_bytes(), (bpe / LOG).read_bytes()),
            (damage_lines,),
            lambda path: run_files.read_log(path, beginning),
        ),
        "text": Reader((text, other), (), parallel),
        "table": Reader((table, text), (), read_tsv),
        "gz": Reader(
            (gzip.compress(text, mtime=0), gzip.compress(other, mtime=0)),
            (damage_packed,),
            read_lines,
        ),
        "gpt": Reader(writers, (damage_header,), lambda p: gpt.load_run(p)),
        "bert": Reader(readers, (damage_header,), lambda p: read_checkpoint(p, bert.Pretraining)),
        "vit": Reader((vision,) * 2, (damage_header,), lambda p: read_checkpoint(p, Vision)),
        "vectors": Reader(
            (b"4 2\nred 1 2\ncat -1e-3 .5\nbig 3 4\ndog 5 6\n", b"red 1 2\ncat 0 0.25\n"),
            (),
            lambda p: read_vectors(p, ["<pad>", "<s>", "</s>", "<unk>", " red", " cat"], 2),
        ),
        "utf16": Reader((text.decode().encode("utf-16"), text), (), read_lines),
    }


NAMES = [
    *("load", "pytorch", "old", "model", "checkpoint", "restore", "words", "bpe", "settings"),
    *("progress", "log", "text", "table", "gz", "gpt", "bert", "vit", "vectors", "utf16"),
]


class Hangs(BaseException):
    """A reader took longer than any file should."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Warnings are errors, and a reader that hangs is ended."""

    def end(number: int, frame: Any) -> None:
        raise Hangs(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end) if hasattr(signal, "SIGALRM") else None
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("error")
            yield
    finally:
        if before is not None:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


def attack(reader: Reader, name: str, number: int, path: Path, aloud: bool = False) -> str:
    """Read the damaged file of a number: what became of it. AssertionError if that is a fault.

    The memory it took is counted of every eighth, which takes twice the time.
    """
    noise = Random(f"{name} {number}")
    files = reader.files if noise.random() < 0.5 else reader.files[::-1]
    content = damage(*files, reader.ways, noise)
    path.unlink(missing_ok=True)  # some file systems wait for the disk where a file is cut
    path.write_bytes(content)
    if hasattr(signal, "SIGALRM"):
        signal.alarm(SECONDS)
    if number % 8 == 0:
        tracemalloc.start(1)
    place = f"{name} {number}, in {path}"
    try:
        reader.read(path)
        outcome = "read"
    except (CheckpointError, InputError) as error:
        message = str(error)
        outcome = "refused"
        if aloud:
            sys.__stderr__.write(f"{name} {number}: {message}\n")  # type: ignore[union-attr]
        assert str(path) in message, f"{place}: the message names no file: {message}"
        assert message.splitlines() == [message], f"{place}: not one line: {message!r}"
        assert len(message) <= 300 + len(str(path)), f"{place}: too long: {message!r}"
        message.encode()
    except BaseException as error:
        if aloud or isinstance(error, KeyboardInterrupt):
            raise
        raise AssertionError(f"{place}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= TIMES * len(content) + BESIDE, f"{place}: {peak} bytes for {len(content)}"
    return outcome


@pytest.fixture(scope="module")
def readers(tmp_path_factory: Any) -> dict[str, Reader]:
    return make_readers(tmp_path_factory.mktemp("fuzz"))


def test_every_reader_is_tried(readers: dict[str, Reader]) -> None:
    assert list(readers) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_read_or_refused_in_a_sentence(
    name: str, readers: dict[str, Reader], tmp_path: Path
) -> None:
    reader, path = readers[name], tmp_path / "damaged"
    for whole in reader.files[:1]:
        path.write_bytes(whole)
        reader.read(path)  # so that it is the damage that is refused
    with watched():
        outcomes = Counter(attack(reader, name, number, path) for number in range(COUNT))
    assert outcomes["read"] > 0
    assert outcomes["refused"] > COUNT / 20 or name == "log"  # of which all that is whole is read


def main() -> int:
    """Attack readers by hand; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python tests/test_fuzz.py")
    parser.add_argument("count", type=int, help="files of each reader")
    parser.add_argument("names", nargs="*", metavar="reader", help=", ".join(NAMES))
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        readers = make_readers(Path(folder))
        for name in options.names or NAMES:
            outcomes: Counter[str] = Counter()
            start = time.process_time()
            path = Path(folder) / "damaged"
            with watched():
                for number in range(options.first, options.first + options.count):
                    try:
                        aloud = options.count == 1
                        outcomes[attack(readers[name], name, number, path, aloud)] += 1
                    except AssertionError as error:
                        outcomes["FAULTS"] += 1
                        if outcomes["FAULTS"] <= 10:
                            sys.__stderr__.write(f"{error}\n")  # type: ignore[union-attr]
            failed += outcomes["FAULTS"]
            counts = ", ".join(f"{count:,} {what}" for what, count in sorted(outcomes.items()))
            seconds = time.process_time() - start
            print(
                f"{name}: {options.count:,} files damaged: {counts}; {seconds:.1f} s of CPU",
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    sys.exit(main())
