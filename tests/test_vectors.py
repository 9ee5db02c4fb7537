"""Pretrained word vectors: read by line, matched to the words, refused in one sentence."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor.models.command import InputError
from minitensor.models.text import SPECIAL, WordVocabulary
from minitensor.models.translate import main
from minitensor.models.vectors import read_vectors
from minitensor.serialize import load_file

WORDS = [*SPECIAL, " the", " The", "the", " Cat", " dog", "-"]
GLOVE = "the 1 2 3\n, 9 9 9\ncat 0.5 -1e-1 0\n- 4 4 4\nThe 7 7 7\nthe 8 8 8\n"


def write(folder: Path, content: str | bytes, name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_words_get_their_vectors_by_one_factor_for_all(tmp_path: Path) -> None:
    table, found = read_vectors(write(tmp_path, GLOVE), WORDS, 3)
    expected = np.array([[1, 2, 3], [7, 7, 7], [1, 2, 3], [0.5, -0.1, 0], [4, 4, 4]])
    got = table.numpy()[[4, 5, 6, 7, 9]]
    assert found == 5
    assert table.shape == (10, 3)
    assert table.dtype == mt.float32
    np.testing.assert_allclose(got / got[0, 0], expected, rtol=1e-5)
    assert np.square(got).mean() == pytest.approx(1 / 3)  # as of the model's own embeddings


def test_words_that_the_file_lacks_are_random_and_padding_is_0(tmp_path: Path) -> None:
    words = [*SPECIAL, " the", *(f" other{n}" for n in range(2000))]
    mt.manual_seed(1)
    table, found = read_vectors(write(tmp_path, GLOVE), words, 3)
    assert found == 1
    assert (table[0] == 0).all()
    assert (table[1:] != 0).any(1).all()
    assert table[5:].std().item() == pytest.approx(3**-0.5, rel=0.05)
    mt.manual_seed(1)
    assert mt.equal(read_vectors(tmp_path / "vectors.txt", words, 3)[0], table)


@pytest.mark.parametrize(
    "content",
    [
        "6 3\n" + GLOVE,  # word2vec
        GLOVE.replace("\n", " \r\n"),  # fastText ends its lines in a space
        "\ufeff" + GLOVE.replace(" ", "\t"),
        GLOVE + ". . 1 2 3\nat name@domain.com 1 2 3\n\n",  # "words" of GloVe
        gzip.compress(GLOVE.encode(), mtime=0),
        GLOVE.encode() + b"\xff\xfe\x85 1 1 1\n",  # a word cut within a character
    ],
    ids=["word2vec", "fastText", "tabs", "spaces", "gz", "bytes"],
)
def test_every_form_of_the_file_gives_the_same(content: str | bytes, tmp_path: Path) -> None:
    found = []
    for text in GLOVE, content:
        mt.manual_seed(0)
        found.append(read_vectors(write(tmp_path, text), WORDS, 3)[0])
    assert mt.equal(*found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "vectors.txt is empty"),
        ("\n\n", "vectors.txt is empty"),
        ("0 3\n", "vectors.txt is empty"),
        ("the 1 2\n", "have the width 2, the model has 3: give --d-model 2, or vectors of width 3"),
        ("400000 300\nthe 1 2\n", "have the width 300, the model has 3: give --d-model 300"),
        ("the 1 2 3\ncat 1 2\n", "line 2: expected a word and 3 numbers, found 'cat' and 2 more"),
        ("the 1 2 3\ncat 1 2 3 4\n", "line 2: expected a word and 3 numbers, found 'cat' and 4"),
        ("the 1 2 3\n\ndog 1 x 3\n", "line 3: 'x' is not a number"),
        ("the 1 2 3\ndog 1 nan 3\n", "line 2: 'nan' is not a number"),
        ("the 1 2 1e300\n", "line 1: '1e300' is not a number"),
        ("the cat sat\n", "line 1: expected a word and 3 numbers, found 'the' and 2 more"),
        ("the cat sat on the mat\n", "line 1: expected a word and 3 numbers, found 'the' and 5"),
        ("word\n", "line 1: expected a word and 3 numbers, found 'word' and 0 more"),
        ("le 1 2 3\nchat 4 5 6\n", "none of the 10 words of the vocabulary"),
        ("the 0 0 0\n", "the vectors of all words of the vocabulary are 0"),
        ("7 3\n" + GLOVE, "was cut: it has 6 of the 7 vectors it names"),
        (b"2 3\nthe \x00\x01\x02\n", "the binary format of word2vec is not read"),
        (gzip.compress(GLOVE.encode(), mtime=0)[:-9], "is a damaged .gz file"),
        (b"the" + b" 1" * 600_000, "line 1 is too long for a vector"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError) as error:
        read_vectors(path, WORDS, 3)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 200 + len(str(path))


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    for path in tmp_path / "nowhere", tmp_path, "a\0b":
        with pytest.raises(InputError, match="cannot read"):
            read_vectors(path, WORDS, 3)


def test_the_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    lines = "".join(f"w{n} {' '.join(['0.123456'] * 50)}\n" for n in range(5000))
    path = write(tmp_path, GLOVE.replace(" 1 2 3", " 1" * 50).split("\n")[0] + "\n" + lines)
    assert path.stat().st_size > 2_000_000
    read_vectors(path, WORDS, 50)
    tracemalloc.start()
    read_vectors(path, WORDS, 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


# In training


def train(folder: Path, *more: str) -> int:
    options = ["--epochs", "1", "--batch-tokens", "60", "--warmup", "5", "--d-model", "8"]
    options += ["--nhead", "2", "--encoder-layers", "1", "--decoder-layers", "1"]
    options += ["--dim-feedforward", "8", "--tsv", str(folder / "pairs.tsv")]
    return main(["train", "--out", str(folder / "run"), *options, *more])


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Pairs, and vectors of some of their words on each side."""
    words = [f"w{n}" for n in range(12)]
    pairs = [(f"{a} {b}", f"x{b} x{a}") for a in words for b in words]
    write(tmp_path, "".join(f"{s}\t{t}\n" for s, t in pairs), "pairs.tsv")
    noise = np.random.RandomState(0)
    table = {
        side: {f"{prefix}w{n}": noise.randn(8).round(3) for n in range(10)}
        for side, prefix in (("source", ""), ("target", "x"))
    }
    for side, vectors in table.items():
        lines = (f"{word} {' '.join(map(str, vector))}\n" for word, vector in vectors.items())
        write(tmp_path, "".join(lines), f"{side}.vec")
    return table


def embedding(folder: Path, side: str, name: str) -> dict[str, np.ndarray]:
    """The vectors of words in a run's last checkpoint."""
    tensors, header = load_file(folder / "run" / "last.safetensors")
    words = json.loads(header[f"{side}_vocabulary"])["words"]
    return dict(zip(map(str.strip, words), tensors[f"{name}.weight"].numpy(), strict=True))


@pytest.mark.parametrize("tied", [False, True])
def test_frozen_vectors_stay_and_the_rest_learns(
    tied: bool, files: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--source-vectors", str(tmp_path / "source.vec"), "--freeze-vectors"]
    options += ["--target-vectors", str(tmp_path / "target.vec")]
    options += ["--output", "tied"] if tied else []
    assert train(tmp_path, *options) == 0
    shown = capsys.readouterr().out
    assert "source.vec has 10 of the source words" in shown
    assert "target.vec has 10 of the target words" in shown
    for _ in range(2):
        for side, name in ("source", "src_embedding"), ("target", "tgt_embedding"):
            found = embedding(tmp_path, side, name)
            got = np.array([found[word] for word in files[side]])
            wanted = np.array(list(files[side].values()))
            np.testing.assert_allclose(got / got[0, 0], wanted / wanted[0, 0], rtol=1e-4)
        for side in files:  # the files are not needed again
            (tmp_path / f"{side}.vec").unlink(missing_ok=True)
        assert main(["train", "--resume", "--epochs", "2", "--out", str(tmp_path / "run")]) == 0
    assert main(["translate", "w1 w2", "--run", str(tmp_path / "run")]) == 0


def test_vectors_that_are_not_frozen_learn(files: dict[str, Any], tmp_path: Path) -> None:
    assert train(tmp_path, "--source-vectors", str(tmp_path / "source.vec")) == 0
    found = embedding(tmp_path, "source", "src_embedding")
    got = np.array([found[word] for word in files["source"]])
    wanted = np.array(list(files["source"].values()))
    cosine = (got * wanted).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(wanted, axis=1)
    assert (cosine > 0.9).all()  # began there
    assert np.abs(got / got[0, 0] - wanted / wanted[0, 0]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source-vectors", "{}/source.vec", "--d-model", "16"], "give --d-model 8"),
        (["--source-vectors", "{}/nowhere.vec"], "cannot read"),
        (["--source-vectors", "{}/source.vec", "--vocabulary", "bpe"], "give --vocabulary word"),
        (["--freeze-vectors"], "--freeze-vectors needs vectors"),
        (["--positions", "rotary", "--d-model", "10"], "heads of even width, not 5"),
    ],
)
def test_bad_options_are_a_sentence_and_leave_no_run(
    options: list[str],
    message: str,
    files: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(tmp_path, *(option.format(tmp_path) for option in options)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_word_vocabulary_is_what_the_words_come_from(tmp_path: Path) -> None:
    vocabulary = WordVocabulary.train(["The cat, the dog"])
    words = vocabulary.pieces(range(len(vocabulary)))
    table, found = read_vectors(write(tmp_path, GLOVE), words, 3)
    assert found == 4  # the, The, cat and the comma
    assert table.shape == (len(vocabulary), 3)
