"""Vocabularies lose nothing, files are read or refused in a sentence, numbers are split cleanly."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitensor.models import text
from minitensor.models.command import InputError, python, require
from minitensor.models.number_words import (
    TEST_COUNT,
    VALID_COUNT,
    in_words,
    number_pairs,
    split_numbers,
)
from minitensor.models.text import (
    BOS,
    EOS,
    PAD,
    UNK,
    BPEVocabulary,
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


def test_a_word_vocabulary_has_room_for_a_word() -> None:
    for size in (1, 3, 4):
        with pytest.raises(InputError, match=f"at least 5 tokens, {size} were asked for"):
            WordVocabulary.train(LINES, size)
    assert len(WordVocabulary.train(LINES, 5)) == 5


def test_an_unknown_word_stands_apart() -> None:
    words = WordVocabulary.train(["grand chat, rouge"])
    grand, chat, comma = words.encode("grand chat,")
    assert words.decode([grand, UNK, chat]) == "grand <unk> chat"
    assert words.decode([UNK, UNK, comma]) == "<unk> <unk>,"
    assert words.decode([PAD, BOS, grand, UNK, EOS, chat]) == "grand <unk>"


BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def test_one_line_comes_out_whatever_the_tokens_hold() -> None:
    bpe: Any = train_vocabulary("bpe", LINES, 300)
    space = bpe.tokenizer.encode("a b", add_special_tokens=False).ids
    for mark in (*BREAKS, "\t", "\r\n"):
        tokens = bpe.tokenizer.encode(f"a{mark}b", add_special_tokens=False).ids
        assert tokens != space
        assert bpe.decode(tokens) == "a b"
    everything = list(range(UNK + 1, len(bpe)))
    assert bpe.decode(everything).splitlines() == [bpe.decode(everything)]
    words = WordVocabulary([*text.SPECIAL, " a", *(f"{mark}b" for mark in BREAKS)])
    assert words.decode(range(UNK + 1, len(words))) == "a" + " b" * len(BREAKS)


def bpe_json(change: Any) -> str:
    """A vocabulary of bytes as JSON, changed in place."""
    values = json.loads(train_vocabulary("bpe", LINES, 265).to_json())
    change(values["tokenizer"])
    return json.dumps(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(normalizer={"type": "Replace"}), "its normalizer is"),
        (lambda t: t.update(pre_tokenizer={"type": "Split"}), "its pre_tokenizer is"),
        (lambda t: t["pre_tokenizer"].update(add_prefix_space=False), "add_prefix_space is not"),
        (lambda t: t.update(decoder=None), "its decoder is None"),
        (lambda t: t.update(padding=3), "its padding is 3"),
        (lambda t: t.pop("model"), "its model is None"),
        (lambda t: t["model"].update(type="WordLevel"), "its model is"),
        (lambda t: t["model"].update(dropout=0.5), "its dropout is 0.5"),
        (lambda t: t["model"].update(vocab=[]), r"its vocab and merges are \[\]"),
        (lambda t: t["model"]["vocab"].update(x=10**9), "numbered from 0 without a gap"),
        (lambda t: t["model"]["vocab"].update(x="4"), "numbered from 0 without a gap"),
        (lambda t: t["model"]["vocab"].update({"a": True}), "numbered from 0 without a gap"),
        (lambda t: t["model"]["vocab"].update({"<s>": 2, "</s>": 1}), "do not begin with <pad>"),
        (lambda t: t["model"]["vocab"].update({" ": 265}), "' ' does not stand for bytes"),
        (lambda t: t["model"]["vocab"].update({"": 265}), "'' does not stand for bytes"),
        (lambda t: t["model"].update(merges=[["x", "q"]]), "two pieces that make a third"),
        (lambda t: t["model"].update(merges=[["a"]]), "no pair of pieces"),
        (lambda t: t["model"].update(merges=[3]), "its merge 3 is no pair"),
        (lambda t: t["model"].update(merges=["a b c"]), "'a b c' is no pair"),
        (lambda t: t["model"].update(merges={}), "vocab and merges"),
    ],
)
def test_a_tokenizer_that_bpe_did_not_write_is_refused(change: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        vocabulary_from_json(bpe_json(change))
    assert len(str(error.value)) < 250


def test_a_tokenizer_is_the_same_when_it_is_read() -> None:
    bpe = train_vocabulary("bpe", LINES, 300)
    again = vocabulary_from_json(bpe.to_json())
    assert again.to_json() == bpe.to_json()
    old = json.loads(bpe.to_json())  # pairs were texts once
    model = old["tokenizer"]["model"]
    model["merges"] = [" ".join(pair) for pair in model["merges"]]
    assert vocabulary_from_json(json.dumps(old)).to_json() == bpe.to_json()


@pytest.mark.parametrize(
    "json",
    [
        *("[]", "{}", '{"kind": "wings"}', '{"kind": "word"}', "pickle", '{"kind": ["word"]}'),
        *('{"kind": "word", "words": "<pad>"}', '{"kind": "word", "words": ["a", "b", "c", "d"]}'),
        '{"kind": "word", "words": ["<pad>", "<s>", "</s>", "<unk>", "a", "a"]}',
        '{"kind": "word", "words": ["<pad>", "<s>", "</s>", "<unk>", "\\ud800"]}',
        '{"kind": "word", "words": ["<pad>", "<s>", "</s>", "<unk>", 3]}',
        *("[" * 10**5, '{"kind": ' * 999, '{"kind": "bpe"}', '{"kind": "bpe", "tokenizer": 3}'),
        '{"kind": "' + "x" * 9999 + '"}',
    ],
    ids=lambda x: x[:40],
)
def test_what_is_no_vocabulary(json: str) -> None:
    with pytest.raises(ValueError) as error:
        vocabulary_from_json(json)
    assert len(str(error.value)) < 250


def test_a_missing_package_is_named_with_the_others_that_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("num2words", "tqdm", "matplotlib", "tokenizers", "sacrebleu"):
        there = None if name in ("tqdm", "tokenizers") else ModuleType(name)
        if there is not None:
            there.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, there)
    advice = f"{python()} -m pip install no_such_package tqdm tokenizers"
    with pytest.raises(InputError, match=f"^no_such_package is not installed: .* {advice}$"):
        require("no_such_package.at_all")


# Files


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_lines_of_plain_and_compressed_files(tmp_path: Path) -> None:
    content = "\ufeffun\r\ndeux\u2028trois\n".encode()
    lines = ["un\r", "deux\u2028trois"]
    assert read_lines(write(tmp_path / "a.txt", content)) == lines
    assert read_lines(write(tmp_path / "a.gz", gzip.compress(content, mtime=0))) == lines


def test_a_text_with_a_mark_is_read_in_its_encoding(tmp_path: Path) -> None:
    content = "une l\u00e9g\u00e8re\r\nd\u00e9\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        data = content.encode(encoding)
        assert read_lines(write(tmp_path / "a", data)) == ["une l\u00e9g\u00e8re\r", "d\u00e9"]
        assert read_lines(write(tmp_path / "b", gzip.compress(data, mtime=0)))[1] == "d\u00e9"
    for mark, encoding in (("\ufeff", "utf-16-be"), ("\ufeff", "utf-32-be")):
        data = (mark + content).encode(encoding)
        assert read_lines(write(tmp_path / "a", data))[1] == "d\u00e9"


def test_lines_that_end_in_carriage_returns_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b"one\rtwo\r\rthree\r")
    assert read_lines(path) == ["one", "two", "", "three"]
    table = write(tmp_path / "t", b"one\tun\rtwo\tdeux\r")
    assert read_tsv(table) == [("one", "un"), ("two", "deux")]
    assert read_lines(write(tmp_path / "b", b"one\rtwo\n")) == ["one\rtwo"]


def test_a_gz_file_made_to_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "GZIP_MOST", 1 << 20)
    path = tmp_path / "bomb.gz"
    bomb = gzip.compress(bytes(100 << 20), mtime=0)
    write(path, bomb)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"bomb\.gz unpacks to more than [0-9,]+ bytes"):
            read_lines(path)
        assert tracemalloc.get_traced_memory()[1] < 130 * len(bomb)
    finally:
        tracemalloc.stop()
    lines = read_lines(write(path, gzip.compress(b"the same line\n" * 50_000, mtime=0)))
    assert len(lines) == 50_000  # which packs well, and is small


def test_names_that_no_file_can_have() -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(InputError, match="cannot read"):
            read_lines(name)
        with pytest.raises(InputError, match="cannot write"):
            text.write_file(name, b"x")


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
        (b"\xef\xbb\xbfok\nab\xe9", "line 2 has the byte 0xe9"),
        ("é\nè".encode("utf-16-le"), "not UTF-8"),
        ("a\nb".encode("utf-16-le"), "line 1 has the byte 0x00; if it is UTF-16"),
        ("é\nè".encode("utf-16")[:-1], "begins as UTF-16 text, but is none: truncated data"),
        (b"\xff\xfe\x00\xd8a\x00", "begins as UTF-16 text, but is none"),
        (gzip.compress(b"some text to cut", mtime=0)[:-9], "damaged .gz"),
        (gzip.compress(b"some text", mtime=0)[:10] + b"broken inside", "damaged .gz"),
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
