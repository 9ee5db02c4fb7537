"""Texts larger than memory: read in pieces, encoded, made into folders of tokens, trained from."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_token_shards import damage

from minitensor.data import TokenShardWriter
from minitensor.kernels.words import WordTable
from minitensor.models import corpus, token_folder
from minitensor.models.bert_data import read_documents
from minitensor.models.command import InputError
from minitensor.models.corpus import Encoder, expand, pieces, read_corpus, split
from minitensor.models.gpt import GPTWriting, main
from minitensor.models.pairs import read_pairs
from minitensor.models.settings import settings_from_json
from minitensor.models.text import BPEVocabulary, CharVocabulary
from minitensor.models.token_folder import Sample, held_out, open_tokens
from minitensor.models.training import start_run, start_task
from minitensor.models.writing import WritingSettings
from minitensor.serialize import load_file

ROOT = Path(__file__).parent.parent
SMALL: Any = dict(embed_dim=16, num_layers=1, num_heads=2, context_length=16, batch_size=4)


def words(count: int) -> str:
    """A text of numbers, odd spaces and letters that are not ASCII."""
    more = ["\n\n  ", " — ", "\t", "\u00a0é ", "e\u0301 ", " 世界。 ", "!\x1c ", " it's ", "\n"]
    return "".join(f"{n * n} makes {n}{more[n % len(more)]}" for n in range(count))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces, shards and reads are small, so that a short text has many."""
    monkeypatch.setattr(corpus, "PIECE", 500)
    monkeypatch.setattr(corpus, "READ", 301)
    monkeypatch.setattr(token_folder, "SHARD", 2000)


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """Three files of a text, the second packed, none with a line break at its end."""
    paths = [tmp_path / f"part-{n}.txt" for n in range(3)]
    for number, path in enumerate(paths):
        data = words(500 + number).encode()
        path.write_bytes(gzip.compress(data) if number == 1 else data)
    return [str(path) for path in paths]


# Texts


@pytest.mark.posix
def test_a_text_comes_from_a_pipe(tmp_path: Path) -> None:
    for name, content in ("plain", b"one\ntwo\n"), ("packed", gzip.compress(b"one\ntwo\n")):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        with subprocess.Popen(["tee", str(pipe)], stdin=-1, stdout=-3) as writer:
            assert writer.stdin is not None
            writer.stdin.write(content)
            writer.stdin.close()
            assert "".join(pieces([str(pipe)], lambda count: None)) == "one\ntwo\n"


def test_files_are_named_by_patterns_and_taken_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md", "[x].txt"):
        (tmp_path / name).write_text("text\n")
    (tmp_path / "folder.txt").mkdir()
    here = [str(tmp_path / name) for name in ("[x].txt", "a.txt", "b.txt")]
    assert expand(f"{tmp_path}/*.txt") == here
    assert expand([here[1], f"{tmp_path}/**/?.txt"]) == here[1:]
    assert expand(here[0]) == here[:1]  # a file of this name, though it looks like a pattern
    with pytest.raises(InputError, match=r"there is no file .*\.gz"):
        expand(f"{tmp_path}/*.gz")
    with pytest.raises(InputError, match="is a folder: name its files"):
        expand(str(tmp_path))


@pytest.mark.usefixtures("small")
def test_pieces_are_the_text(texts: list[str]) -> None:
    whole = "\n".join(words(n).replace("e\u0301", "é") for n in (500, 501, 502))
    found = list(pieces(texts))
    assert "".join(found) == whole == read_corpus(texts)
    assert len(found) > 40
    assert max(map(len, found)) <= 500
    for before, after in itertools.pairwise(found):
        assert after[0] in " \n"
        assert not before[-1].isspace()


@pytest.mark.usefixtures("small")
def test_a_text_without_spaces_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(piece) for piece in split(["x" * 700, "y" * 700, " z"])] == [1400, 2]
    monkeypatch.setattr(corpus, "LONGEST", 1000)
    with pytest.raises(InputError, match="1,400 characters without a space"):
        list(split(["x" * 700, "y" * 700]))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n" * 400, "is empty"),
        (b"line\n" * 100 + b"caf\xe9 au lait\n", "line 101 has the byte 0xe9"),
        (b"line\n" * 100 + b"a\0b\n", "line 101 has the byte 0x00"),
        (gzip.compress(b"line\n" * 1000)[:-20], "damaged .gz file"),
        ("x\n".encode("utf-16")[:-1], "begins as UTF-16 text, but is none"),
        (None, "cannot read .*No such file"),
    ],
    ids=["empty", "blank", "latin1", "nul", "gz", "utf-16", "missing"],
)
def test_a_bad_file_among_many_is_named(
    content: bytes | None, message: str, texts: list[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        list(pieces([texts[0], str(bad), texts[2]]))
    assert str(bad) in str(caught.value)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitensor.models.text.GZIP_MOST", 1000)
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(b" a" * 2_000_000))
    with pytest.raises(InputError, match="unpacks to more than"):
        list(pieces([str(path)]))


def test_encoded_text_of_other_marks_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        path = tmp_path / encoding
        path.write_bytes("one\r\ntwo\rthe\u0301\n".encode(encoding))
        assert read_corpus(str(path)) == "one\ntwo\nth\u00e9\n"


def test_pairs_and_documents_come_from_many_files(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"{n}.en").write_text(f"one {n}\n\ntwo {n}\n")
        (tmp_path / f"{n}.de").write_text(f"eins {n}\n\nzwei {n}\n")
        (tmp_path / f"{n}.tsv").write_text(f"a {n}\tb\n")
    found = read_pairs(f"{tmp_path}/*.en", f"{tmp_path}/*.de", None)
    assert found == [
        ("one 0", "eins 0"), ("two 0", "zwei 0"), ("one 1", "eins 1"), ("two 1", "zwei 1")
    ]  # fmt: skip
    assert read_pairs(None, None, f"{tmp_path}/*.tsv") == [("a 0", "b"), ("a 1", "b")]
    with pytest.raises(InputError, match=r"is 2 files and .* 1: each"):
        read_pairs(f"{tmp_path}/*.en", f"{tmp_path}/0.de", None)
    assert read_documents(f"{tmp_path}/*.en") == [["one 0"], ["two 0"], ["one 1"], ["two 1"]]


def test_settings_keep_one_file_or_many() -> None:
    for given, kept in (("a", "a"), (["a", "b"], ("a", "b"))):
        assert settings_from_json(json.dumps({"text": given}), WritingSettings).text == kept
    for wrong in ([], ["a", 1], [["a"]], 3, "a\0"):
        with pytest.raises(ValueError, match="expected names of files"):
            settings_from_json(json.dumps({"text": wrong}), WritingSettings)


# Encoding


@pytest.mark.parametrize("seed", range(4))
def test_the_tokens_of_pieces_are_those_of_the_text(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of odd characters, of which some are white space to Python or to Unicode alone."""
    pytest.importorskip("tokenizers")
    random = np.random.default_rng(seed)
    odd = [*" \n\t\r\x0b\x0c\x1c\x1f\x7f\x85\u00a0\u1680\u2003\u2028\u202f\u205f\u3000\u200b\u180e"]
    letters = [*"ab'sZ19.,!-éсрß世。ー😀\u0301", "'ll", "'t", " don't", " a", "\n\n"]
    chosen = random.choice([*odd, *letters, *(" " * 12)], size=4000)
    text = "".join(chosen)
    vocabulary = BPEVocabulary.train([text, "a b ab sab " * 9], 400)
    expected = vocabulary.encode_text(text)
    monkeypatch.setattr(corpus, "PIECE", 97)
    assert Encoder(vocabulary).text(text).tolist() == expected
    table = WordTable(lambda new: [[len(w.encode())] for w in new])
    assert table(text).sum() == len(text.encode())  # no byte is lost


@pytest.mark.usefixtures("small")
def test_a_full_table_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    table = WordTable(lambda new: [[int(word)] for word in new])
    text = "".join(f" {n % 700}" for n in range(1000))
    expected = [n % 700 for n in range(1000)]
    assert table(text).tolist() == expected
    before = table.used.copy()
    table.used[1] = table.letters.size - 5  # no room for a word more
    assert table(text + " 1234567").tolist() == [*expected, 1234567]
    assert before[0] == 700
    assert table.used[0] == 701
    assert not table("").size


def test_a_character_outside_the_vocabulary_is_named() -> None:
    encode = Encoder(CharVocabulary.train("abc"))
    assert encode.text("cab").tolist() == [6, 4, 5]
    with pytest.raises(InputError, match="'x' is not among the 3 characters"):
        encode.text("cabx")


# Tokenising, and training from it


def tokenize(texts: list[str], folder: Path, kind: str = "char", *more: str) -> int:
    size = ("--vocabulary-size", "300") if kind == "bpe" else ()
    return main(["tokenize", *texts, "--out", str(folder), "--vocabulary", kind, *size, *more])


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_training_from_tokens_is_training_from_the_text(
    kind: str, texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    assert tokenize(texts, tmp_path / "tokens", kind) == 0
    printed = capsys.readouterr().out
    assert "characters in 3 files" in printed
    assert "s left" in printed
    assert len(open_tokens(tmp_path / "tokens").train.shards) > 2
    one = start_task(
        GPTWriting,
        WritingSettings(text=tuple(texts), vocabulary=kind, vocabulary_size=300, **SMALL),
    )
    two = start_task(GPTWriting, WritingSettings(tokens=str(tmp_path / "tokens"), **SMALL))
    text = read_corpus(texts)
    for task in (one, two):
        assert task.vocabulary.encode_text(text[: -held_out(len(text))]) == task.train[:].tolist()
        assert task.vocabulary.encode_text(text[-held_out(len(text)) :]) == task.valid[:].tolist()
    assert one.vocabulary.to_json() == two.vocabulary.to_json()
    assert one.tokens_per_character == two.tokens_per_character
    for epoch in (0, 1):
        for a, b in zip(one.train_batches(epoch), two.train_batches(epoch), strict=True):
            pairs = zip(one.collate(a), two.collate(b), strict=True)
            assert all(np.array_equal(x.numpy(), y.numpy()) for x, y in pairs)
    assert one.loss(one.collate(one.train_batches(0)[3])).item() == pytest.approx(
        two.loss(two.collate(two.train_batches(0)[3])).item(), abs=0
    )


@pytest.mark.usefixtures("small")
def test_a_run_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(words(200))
    assert tokenize([str(tmp_path / "text")], tmp_path / "tokens") == 0
    settings = WritingSettings(tokens=str(tmp_path / "tokens"), epochs=1, **SMALL)
    with start_run(GPTWriting, settings, tmp_path / "a") as trainer:
        assert trainer.run(lambda line: None) == 0
        whole = {name: t.numpy().copy() for name, t in trainer.model.state_dict().items()}
    with start_run(GPTWriting, settings, tmp_path / "b") as trainer:
        step = trainer.step

        def interrupted(batch: Any) -> tuple[float, float]:
            if trainer.position.step == 20:
                trainer.interrupt.signal = signal.SIGTERM
            return step(batch)

        trainer.step = interrupted  # type: ignore[method-assign]
        assert trainer.run(lambda line: None) == signal.SIGTERM
        assert trainer.position.batch == 21
    assert main(["train", "--out", str(tmp_path / "b"), "--resume"]) == 0
    found = load_file(tmp_path / "b" / "last.safetensors")[0]
    assert all(np.array_equal(found[name].numpy(), value) for name, value in whole.items())


@pytest.mark.usefixtures("small")
def test_another_text_or_vocabulary_is_noticed(
    texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tokens"
    assert tokenize(texts, folder) == 0
    first = content(folder)
    assert tokenize(texts, folder) == 0
    assert content(folder) == first  # there was nothing to do
    assert tokenize(texts[:2], folder) == 1
    assert "of another text, or the text has changed" in capsys.readouterr().err
    assert tokenize(texts, folder, "bpe") == 1
    assert "with another vocabulary" in capsys.readouterr().err
    assert content(folder) == first
    assert tokenize(texts[:2], folder, "char", "--overwrite") == 0
    assert len(open_tokens(folder).train) < sum(len(words(n)) for n in (500, 501, 502))
    assert tokenize([*texts, f"{tmp_path}/none"], folder) == 1
    assert "none: No such file" in capsys.readouterr().err
    (folder / "vocabulary.json").write_text(CharVocabulary.train("abc").to_json())
    with pytest.raises(InputError, match="has tokens of another text or vocabulary"):
        open_tokens(folder)
    (folder / "corpus.json").unlink()
    assert main(["train", "--tokens", str(folder), "--out", str(tmp_path / "run")]) == 1
    assert "corpus.json is missing" in capsys.readouterr().err
    assert main(["train", "--tokens", str(folder), "--text", "a", "--out", str(tmp_path)]) == 1
    assert "give either --text or --tokens" in capsys.readouterr().err
    given = ["train", "--tokens", str(folder), "--vocabulary", "bpe", "--out", str(tmp_path)]
    assert main(given) == 1
    assert "--tokens brings its vocabulary" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_a_text_that_changes_while_it_is_read_is_noticed(
    texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    survey = token_folder.survey

    def then_changed(*arguments: Any) -> Any:
        found = survey(*arguments)
        Path(texts[2]).write_text(words(9))
        return found

    monkeypatch.setattr(token_folder, "survey", then_changed)
    assert tokenize(texts, tmp_path / "tokens") == 1
    assert "the text has changed while it was read" in capsys.readouterr().err
    assert not list((tmp_path / "tokens").rglob("index.json"))  # nothing is kept


@pytest.mark.usefixtures("small")
def test_a_damaged_shard_is_named_and_made_again(
    texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tokens"
    assert tokenize(texts, folder) == 0
    first = content(folder)
    name = damage("short", folder / "train")
    assert main(["train", "--tokens", str(folder), "--out", str(tmp_path / "run")]) == 1
    assert f"{name} is damaged" in capsys.readouterr().err
    assert tokenize(texts, folder) == 0
    assert content(folder) == first


@pytest.mark.usefixtures("small")
def test_a_full_disk_is_said_and_nothing_whole_is_lost(
    texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, save = tmp_path / "tokens", np.save
    written: list[Any] = []

    def full(file: Any, tokens: np.ndarray) -> None:
        if len(written) == 3:
            file.write(b"a part")
            raise OSError(28, "No space left on device")
        written.append(save(file, tokens))

    monkeypatch.setattr(np, "save", full)
    assert tokenize(texts, folder) == 1
    assert "No space left on device; what is whole is kept" in capsys.readouterr().err
    assert len(list((folder / "train").iterdir())) == 4  # three shards and the index
    monkeypatch.setattr(np, "save", save)
    assert tokenize(texts, folder) == 0
    assert tokenize(texts, tmp_path / "other") == 0
    assert content(folder) == content(tmp_path / "other")


PROGRAM = """
import sys
from minitensor.data import tokens
from minitensor.models import corpus, gpt, token_folder

corpus.PIECE, corpus.READ, token_folder.SHARD = 500, 301, 2000
sys.exit(gpt.main(sys.argv[1:]))
"""


def test_a_job_that_is_stopped_and_killed_goes_on(texts: list[str], tmp_path: Path) -> None:
    folder, other = tmp_path / "tokens", tmp_path / "other"
    command = [sys.executable, "-c", PROGRAM, "tokenize", *texts, "--vocabulary", "char", "--out"]
    options: Any = dict(cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."})
    kept: dict[Path, int] = {}
    for number, files in ((signal.SIGTERM, b" 2 files,"), (signal.SIGKILL, b" 5 files,")):
        process = subprocess.Popen([*command, str(folder)], **options)
        for line in iter(process.stdout.readline, b""):
            if files in line:
                process.send_signal(number)
        process.stdout.close()
        assert process.wait() in (-signal.SIGKILL, 128 + signal.SIGTERM)
        index = json.loads((folder / "train" / "index.json").read_text())
        assert not index["complete"]
        listed = [folder / "train" / shard["file"] for shard in index["shards"]]
        now = {path: path.stat().st_mtime_ns for path in listed}
        assert now.items() >= kept.items()  # what was there was not written again
        assert len(now) > len(kept)
        kept = now
    for target in (folder, other):
        assert subprocess.run([*command, str(target)], timeout=60, **options).returncode == 0
    assert content(folder) == content(other)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_that_of_a_batch(tmp_path: Path) -> None:
    """A folder of 48 MB is sampled by a process whose own memory grows by less than 15 MB."""
    writer = TokenShardWriter(tmp_path, 50_000)
    for _ in range(4):
        writer.add(np.full(6_000_000, 49_999, np.uint16))
    writer.finish()
    program = """
        import sys, numpy as np
        from minitensor.data import BlockSampler, TokenShards

        def anonymous():
            lines = open("/proc/self/status").read().splitlines()
            return int(next(l for l in lines if l.startswith("RssAnon")).split()[1]) / 1024

        before = anonymous()
        tokens = TokenShards(sys.argv[1])
        sampler = BlockSampler(len(tokens), 512, 16)
        for number in range(200):
            block = tokens[sampler[number * 10][:, None] + np.arange(513)]
            assert block.min() == block.max() == 49_999
        print(anonymous() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert float(subprocess.check_output(command, env=env)) < 15


def test_a_sample_of_a_text_is_spread_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_folder, "SAMPLE", 1000)
    sample = Sample()
    for number in range(64):
        sample.add(100 * number, f"{number:100}")
    assert sample.every == 8
    assert [int(piece) for piece in sample.text(6400)] == list(range(0, 64, 8))
    assert "".join(sample.text(850)) == f"{0:100}{8:100}"[:150]
