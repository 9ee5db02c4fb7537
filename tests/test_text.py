"""Vocabularies lose nothing, files are read or refused in a sentence, numbers are split cleanly."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import text
from models.number_words import TEST_COUNT, VALID_COUNT, in_words, number_pairs, split_numbers
from models.text import (
    BOS,
    EOS,
    PAD,
    UNK,
    BPEVocabulary,
    InputError,
    WordVocabulary,
    normalize,
    read_lines,
    read_parallel,
    read_tsv,
    train_vocabulary,
    vocabulary_from_json,
)

LINES = ["Deux jeunes hommes, dehors.", "l'été à Noël : 3,5 °C", "quatre-vingt-dix-neuf"]


@pytest.fixture(scope="module", params=["word", "bpe"])
def vocabulary(request: Any) -> Any:
    return train_vocabulary(request.param, LINES, 300 if request.param == "bpe" else None)


def test_a_vocabulary_loses_nothing(vocabulary: Any) -> None:
    again = vocabulary_from_json(vocabulary.to_json())
    assert len(again) == len(vocabulary)
    for line in LINES:
        numbers = vocabulary.encode(line)
        assert min(numbers) > UNK
        assert max(numbers) < len(vocabulary)
        assert vocabulary.decode([*numbers, EOS, PAD, 7]) == line
        assert again.encode(line) == numbers
        assert "".join(vocabulary.pieces(numbers)).strip() == line
    assert vocabulary.pieces([PAD, BOS, EOS, UNK]) == ["<pad>", "<s>", "</s>", "<unk>"]


def test_text_cannot_smuggle_in_special_tokens(vocabulary: Any) -> None:
    numbers = vocabulary.encode("</s> <pad>", replace_unknown=True)
    assert not {PAD, BOS, EOS} & set(numbers)


def test_training_a_vocabulary_is_deterministic() -> None:
    for kind, size in ("word", 12), ("bpe", 280):
        first, second = (train_vocabulary(kind, LINES, size) for _ in range(2))
        assert first.to_json() == second.to_json()
        assert len(first) == size


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=30))
def test_words_of_any_text_join_to_it(line: str) -> None:
    assert "".join(WordVocabulary.split(line)).strip() == normalize(line)


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_bpe_of_any_text_is_known_and_decodes_to_it(line: str) -> None:
    bpe = train_vocabulary("bpe", LINES, 300)
    assert normalize(bpe.decode(bpe.encode(line))) == normalize(line)


def test_unknown_words() -> None:
    words = WordVocabulary.train(LINES)
    with pytest.raises(InputError, match="'femmes' in 'Deux femmes' is not among the"):
        words.encode("Deux femmes")
    assert words.encode("Deux femmes", replace_unknown=True)[1] == UNK


def test_the_most_frequent_words_are_kept() -> None:
    words = WordVocabulary.train(["a b b", "c b a"], 6)
    assert words.words == ["<pad>", "<s>", "</s>", "<unk>", " b", " a"]


def test_a_bpe_vocabulary_has_room_for_the_bytes() -> None:
    with pytest.raises(InputError, match="at least 260 tokens, 100"):
        BPEVocabulary.train(LINES, 100)


@pytest.mark.parametrize("json", ["[]", "{}", '{"kind": "wings"}', '{"kind": "word"}', "pickle"])
def test_what_is_no_vocabulary(json: str) -> None:
    with pytest.raises(ValueError):
        vocabulary_from_json(json)


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(InputError, match=r'pip install "minitensor\[demo\]"'):
        text.require("no_such_package.at_all", "demo")


# Files


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_lines_of_plain_and_compressed_files(tmp_path: Path) -> None:
    content = "\ufeffun\r\ndeux\u2028trois\n".encode()
    lines = ["un\r", "deux\u2028trois"]
    assert read_lines(write(tmp_path / "a.txt", content)) == lines
    assert read_lines(write(tmp_path / "a.gz", gzip.compress(content))) == lines


def test_pairs_are_normalised_and_complete(tmp_path: Path) -> None:
    source = write(tmp_path / "a", b"one\ntwo  three \n\nfour\n")
    target = write(tmp_path / "b", "un\r\ndeux e\u0301\r\nx\r\n\r\n".encode())
    assert read_parallel(source, target) == [("one", "un"), ("two three", "deux \u00e9")]
    table = write(tmp_path / "c.tsv", b"one\tun\n\ntwo \tdeux\n")
    assert read_tsv(table) == [("one", "un"), ("two", "deux")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        ("é\nè".encode("latin1"), "not UTF-8 text: line 1 has the byte 0xe9"),
        (b"ok\n\xff", "line 2 has the byte 0xff"),
        (gzip.compress(b"some text to cut")[:-9], "damaged .gz"),
        (gzip.compress(b"some text")[:10] + b"broken inside", "damaged .gz"),
        (None, "No such file"),
    ],
)
def test_unreadable_files(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        read_lines(path)
    assert str(path) in str(error.value)


def test_unequal_line_counts(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a", b"x\ny\n"), write(tmp_path / "b", b"x\n")
    with pytest.raises(InputError, match=r"a has 2 lines and .*b has 1"):
        read_parallel(source, target)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\tb\nc\n", "line 2: .* found 1 column"),
        (b"a\tb\tc\n", "line 1: .* found 3 columns"),
        (b"a\t\n\tb\n", "no line has both"),
    ],
)
def test_bad_tables(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_tsv(write(tmp_path / "t.tsv", content))


# Numbers


def test_numbers_are_split_without_overlap_and_always_alike() -> None:
    split = split_numbers()
    assert split == split_numbers()
    assert (len(split.test), len(split.valid)) == (TEST_COUNT, VALID_COUNT) == (1000, 500)
    together = [*split.train, *split.valid, *split.test]
    assert len(together) == len(set(together)) > 15000
    assert set(range(1000)) < set(together) < set(range(1_000_000))
    for part in (split.train, split.valid, split.test):
        assert sum(n >= 100_000 for n in part) / len(part) == pytest.approx(0.5, abs=0.05)


def test_numbers_in_words() -> None:
    assert in_words(342) == ("three hundred and forty-two", "trois cent quarante-deux")
    assert number_pairs([0, 80])[1] == ("eighty", "quatre-vingts")
    for number in (-1, 1_000_000):
        with pytest.raises(InputError, match="not between 0 and 999,999"):
            in_words(number)
