"""Text to numbers: files of sentences, and the vocabularies that number their words.

`encode_text` and `decode_text` of characters and of BPE keep a text as it is, for models that write
texts; all else is for single lines, as follows.

A vocabulary turns a line into token numbers and back again without loss, up to white space: each
token holds the space before it, so that joining tokens gives the text. Numbers 0 to 3 are padding,
begin, end and unknown, in every vocabulary. One line in is one line out, whatever the tokens hold.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from minitensor.files import atomic_write, parse_json, shown

from .command import InputError, require

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
# A .gz file may grow to so many bytes, or to so many times its own size where that is more: real
# text grows to some ten times, and a file made to fill the memory to a thousand times.
GZIP_MOST, GZIP_TIMES = 64 << 20, 100
GZIP = b"\x1f\x8b"  # how such a file begins
# The marks that begin a text in another encoding than UTF-8; the longer ones first.
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
    (b"", "UTF-8-sig"),
)
Pair = tuple[str, str]


# Files


def normalize(line: str) -> str:
    """Return the line in Unicode form NFC, stripped, with single spaces."""
    return unicodedata.normalize("NFC", one_line(line))


def one_line(text: str) -> str:
    """Return the text stripped, with a single space for every run of white space or line breaks."""
    return " ".join(text.split())


def read_lines(path: str | Path) -> list[str]:
    """Read the lines of a text file, plain or .gz, by `split_lines`; InputError if unreadable.

    A .gz file that unpacks to more than 64 MB and 100 times its size is refused.
    """
    return split_lines(read_data(path), str(path))


def read_data(path: str | Path) -> bytes:
    """Read a file, plain or .gz; InputError if it cannot be read, or unpacks to too much."""
    with reading(path):
        data = Path(path).read_bytes()
        return unpack(data, str(path)) if data[:2] == GZIP else data


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn what can go wrong with a file that is read in the block into an InputError."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is a damaged .gz file: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}") from error


def unpack(packed: bytes, name: str) -> bytes:
    """Unpack a .gz file; InputError if it grows more than text does."""
    length, parts = 0, []
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        while part := file.read(1 << 20):
            parts.append(part)
            length += len(part)
            check_growth(length, len(packed), name)
    return b"".join(parts)


def check_growth(length: int, packed: int, name: str) -> None:
    """Raise InputError if a .gz file of `packed` bytes grows to `length`, more than text does."""
    most = max(GZIP_MOST, GZIP_TIMES * packed)
    if length > most:
        raise InputError(f"{name} unpacks to more than {most:,} bytes: unpack it first")


def split_lines(data: bytes, name: str) -> list[str]:
    """Split text that was read from `name` into lines; InputError if it is empty or not text.

    A line ends in a line feed, or in a carriage return where there is no line feed at all.
    """
    text = decode(data, name)
    end = "\n" if "\n" in text else "\r"
    return text.removesuffix(end).split(end)


def decode(data: bytes, name: str) -> str:
    """Decode text that was read from `name`; InputError if it is empty or not text.

    The text is UTF-8, or has the mark of UTF-16 or UTF-32 at its beginning.
    """
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise not_text(error, encoding, name) from error
    check_nul(text, name)
    if not text.strip():
        raise InputError(f"{name} is empty")
    return text


def encoding_of(data: bytes) -> str:
    """Return the encoding of text by the mark at its beginning."""
    return next(name for mark, name in MARKS if data.startswith(mark))


def not_text(error: UnicodeDecodeError, encoding: str, name: str, before: int = 0) -> InputError:
    """Return the error for a file that is not text, in a part of it with so many lines before."""
    if encoding in ("UTF-16", "UTF-32"):
        return InputError(f"{name} begins as {encoding} text, but is none: {error.reason}")
    line = before + error.object.count(b"\n", 0, error.start) + 1
    return InputError(
        f"{name} is not UTF-8 text: line {line} has the byte 0x{error.object[error.start]:02x}; "
        "convert it first, for example with iconv -f latin1 -t utf-8"
    )


def check_nul(text: str, name: str, before: int = 0) -> None:
    """Raise InputError for a part of a file, with so many lines before, that has the byte 0."""
    if "\0" in text:
        line = before + text.count("\n", 0, text.index("\0")) + 1
        raise InputError(
            f"{name} is not UTF-8 text: line {line} has the byte 0x00; if it is UTF-16, "
            "convert it first with iconv -f utf-16le -t utf-8"
        )


def read_parallel(source: str | Path, target: str | Path) -> list[Pair]:
    """Pair line n of `source` with line n of `target`; leave out pairs with an empty side."""
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise InputError(
            f"{source} has {len(sources)} lines and {target} has {len(targets)}: "
            "each line must have its translation on the same line of the other file"
        )
    return complete(zip(sources, targets, strict=True), f"{source} with {target}")


def read_tsv(path: str | Path) -> list[Pair]:
    """Read the two columns of a tab-separated file; leave out pairs with an empty side."""
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        columns = line.split("\t")
        if len(columns) == 2:
            pairs.append((columns[0], columns[1]))
        elif line.strip():
            raise InputError(
                f"{path}, line {number}: expected a source and a target with a tab between them, "
                f"found {len(columns)} column{'s' * (len(columns) > 1)}"
            )
    return complete(pairs, str(path))


def complete(pairs: Iterable[Pair], name: str) -> list[Pair]:
    """Normalise pairs and keep those with text on both sides; InputError if there are none."""
    clean = ((normalize(source), normalize(target)) for source, target in pairs)
    found = [pair for pair in clean if pair[0] and pair[1]]
    if not found:
        raise InputError(f"{name}: no line has both a source and a target")
    return found


def write_file(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all; InputError if it cannot be."""
    try:
        with atomic_write(path) as file:
            file.write(content)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {path}: {reason}") from error


# Vocabularies


class Vocabulary(Protocol):
    """Numbers for the words, or pieces of words, of one language."""

    def __len__(self) -> int: ...

    def encode(self, line: str, replace_unknown: bool = False) -> list[int]:
        """Return the token numbers of a line, without begin and end.

        Raises InputError for a token outside the vocabulary, unless `replace_unknown`.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the line that the token numbers stand for, up to the end token.

        Padding and begin are left out, an unknown word is `<unk>`.
        """
        ...

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token."""
        ...

    def to_json(self) -> str:
        """Return everything `vocabulary_from_json` needs to make it again."""
        ...


class WordVocabulary:
    """Words and punctuation marks, each with the space before it: " forty", "-", "two"."""

    PATTERN = re.compile(r" ?\w+| ?[^\w\s]")

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.numbers = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def train(cls, lines: Iterable[str], size: int | None = None) -> WordVocabulary:
        """Take the most frequent words of `lines`: at most `size`, with the four specials."""
        least = len(SPECIAL) + 1
        if size is not None and size < least:
            raise InputError(
                f"a word vocabulary needs at least {least} tokens, {size} were asked for"
            )
        counts = Counter(word for line in lines for word in cls.split(line))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([*SPECIAL, *ranked][:size])

    @classmethod
    def split(cls, line: str) -> list[str]:
        """Return the tokens of a line."""
        return cls.PATTERN.findall(" " + normalize(line))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, line: str, replace_unknown: bool = False) -> list[int]:
        """Return the tokens of a line; InputError for an unknown word unless `replace_unknown`."""
        numbers = [self.numbers.get(word, UNK) for word in self.split(line)]
        if UNK in numbers and not replace_unknown:
            word = self.split(line)[numbers.index(UNK)]
            raise InputError(
                f"{shown(word.strip())} in {shown(line)} is not among the {len(self)} words of the "
                "vocabulary"
            )
        return numbers

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the line that the token numbers stand for, up to the end token."""
        pieces = self.pieces(until_end(tokens))
        return one_line("".join(f" {p}" if p == SPECIAL[UNK] else p for p in pieces))

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token."""
        return [self.words[token] for token in tokens]

    def to_json(self) -> str:
        """Return the words as JSON."""
        return json.dumps({"kind": "word", "words": self.words}, ensure_ascii=False)


class CharVocabulary:
    """Characters, line breaks and spaces included: a text comes back as it was."""

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = [*SPECIAL, *characters]
        self.numbers = {character: n for n, character in enumerate(self.characters)}

    @classmethod
    def train(cls, text: str) -> CharVocabulary:
        """Take all characters of a text, in order of their code points."""
        return cls(sorted(set(text)))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, line: str, replace_unknown: bool = False) -> list[int]:
        """Return the tokens of a text; InputError for one unknown unless `replace_unknown`."""
        numbers = [self.numbers.get(character, UNK) for character in line]
        if UNK in numbers and not replace_unknown:
            raise InputError(
                f"{shown(line[numbers.index(UNK)])} is not among the "
                f"{len(self) - len(SPECIAL)} characters of the vocabulary"
            )
        return numbers

    encode_text = encode

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that the token numbers stand for, up to the end token."""
        return self.decode_text(until_end(tokens))

    def decode_text(self, tokens: Sequence[int]) -> str:
        """Return the text that the token numbers stand for; special tokens are left out."""
        return "".join(self.characters[token] for token in tokens if token >= len(SPECIAL))

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token."""
        return [self.characters[token] for token in tokens]

    def to_json(self) -> str:
        """Return the characters as JSON."""
        characters = "".join(self.characters[len(SPECIAL) :])
        return json.dumps({"kind": "char", "characters": characters}, ensure_ascii=False)


class BPEVocabulary:
    """Pieces of words by byte pair encoding (Sennrich et al., 2016), on bytes: none is unknown."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # "<s>" in a text is text

    @classmethod
    def make(cls, vocab: dict[str, int], merges: list[tuple[str, str]]) -> BPEVocabulary:
        """Make a vocabulary from numbered pieces and the merges of pieces, in order of priority."""
        tokenizers = require("tokenizers")
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        if vocab:
            tokenizer.add_special_tokens(list(SPECIAL))
        return cls(tokenizer)

    @classmethod
    def train(cls, lines: Iterable[str], size: int, *, pieces: bool = False) -> BPEVocabulary:
        """Learn `size` pieces from `lines`, including the 256 bytes and the four specials.

        - `pieces`: they are no lines, but one text that was cut before spaces or line breaks.
        """
        tokenizers = require("tokenizers")
        alphabet = byte_alphabet()
        least = len(alphabet) + len(SPECIAL)
        if size < least:
            raise InputError(
                f"a BPE vocabulary needs at least {least} tokens, {size} were asked for"
            )
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        )
        made = cls.make({}, [])
        if pieces:  # only the first has no space before it
            before, lines = made.tokenizer.pre_tokenizer, iter(lines)
            made.tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(False)
            first = next(lines, "")
            lines = chain([first if first.startswith(" ") else f" {first}"], lines)
        made.tokenizer.train_from_iterator(lines, trainer)
        if pieces:
            made.tokenizer.pre_tokenizer = before
        return made

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, line: str, replace_unknown: bool = False) -> list[int]:
        """Return the token numbers of a line; nothing is unknown."""
        return self.tokenizer.encode(normalize(line), add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the line that the token numbers stand for, up to the end token."""
        return one_line(self.tokenizer.decode(until_end(tokens)))

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of a text, line breaks and spaces included."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode_text(self, tokens: Sequence[int]) -> str:
        """Return the text that the token numbers stand for; special tokens are left out."""
        return str(self.tokenizer.decode(list(tokens)))

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token; part of a character becomes a replacement character."""
        return [
            SPECIAL[token] if token < len(SPECIAL) else self.tokenizer.decode([token])
            for token in tokens
        ]

    def to_json(self) -> str:
        """Return the tokenizer as JSON."""
        return json.dumps({"kind": "bpe", "tokenizer": json.loads(self.tokenizer.to_str())})


def whole_characters(
    decode: Callable[[Sequence[int]], str], before: Sequence[int], tokens: Iterable[int]
) -> Iterator[str]:
    """Yield the text of tokens that follow those `before`, as they come.

    A token can be a part of a character: its text waits for the tokens that complete it.
    """
    known, waiting = list(before)[-8:], []  # 8 tokens decide how the next begins
    for token in tokens:
        waiting.append(token)
        text = decode([*known, *waiting])
        if not text.endswith("\ufffd"):
            yield text[len(decode(known)) :]
            known, waiting = [*known, *waiting][-8:], []
    if waiting:
        yield decode([*known, *waiting])[len(decode(known)) :]


def until_end(tokens: Sequence[int]) -> list[int]:
    """Return the tokens before the first end token, without padding and begin."""
    found = []
    for token in tokens:
        if token == EOS:
            break
        if token not in (PAD, BOS):
            found.append(token)
    return found


def train_vocabulary(kind: str, lines: Iterable[str], size: int | None) -> Vocabulary:
    """Learn a vocabulary of the kind "word" or "bpe" from the lines of one language."""
    if kind == "word":
        return WordVocabulary.train(lines, size)
    return BPEVocabulary.train(lines, size or 8000)


def byte_alphabet() -> list[str]:
    """Return the characters that stand for the 256 bytes in the pieces of BPE."""
    return list(require("tokenizers").pre_tokenizers.ByteLevel.alphabet())


def tokenizer_from_json(text: str) -> Any:
    """Return the tokenizer of the package tokenizers in a JSON text; ValueError if damaged."""
    tokenizers = require("tokenizers")
    try:
        return tokenizers.Tokenizer.from_str(text)
    except BaseException as error:  # Exception itself, or a panic of the package
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ValueError(f"it is not a tokenizer: {shown(str(error))}") from error


def vocabulary_from_json(text: str) -> Vocabulary:
    """Parse the vocabulary that `to_json` wrote; ValueError if it is damaged."""
    try:
        values = parse_json(text)
        kind = values.get("kind") if isinstance(values, dict) else None
        if kind == "word":
            return WordVocabulary(read_words(values))
        if kind == "char":
            return CharVocabulary(read_characters(values))
        if kind == "bpe":
            return BPEVocabulary.make(*read_bpe(values))
        raise ValueError(f"its kind is {shown(kind)}, expected 'word', 'char' or 'bpe'")
    except ValueError as error:
        raise ValueError(f"not a vocabulary: {error}") from error


def read_words(values: dict[str, Any]) -> list[str]:
    """Read the words of a vocabulary; ValueError if they are damaged."""
    words = values.get("words")
    if not isinstance(words, list) or not all(map(is_text, words)):
        raise ValueError(f"its words are {shown(words)}, expected a list of texts")
    if tuple(words[: len(SPECIAL)]) != SPECIAL:
        raise ValueError(f"its words do not begin with {', '.join(SPECIAL)}")
    if len(set(words)) != len(words):
        raise ValueError(f"its word {shown(Counter(words).most_common(1)[0][0])} occurs twice")
    return words


def read_characters(values: dict[str, Any]) -> str:
    """Read the characters of a vocabulary; ValueError if they are damaged."""
    characters = values.get("characters")
    if not isinstance(characters, str) or not is_text(characters):
        raise ValueError(f"its characters are {shown(characters)}, expected a text")
    if len(set(characters)) != len(characters):
        raise ValueError(f"its character {Counter(characters).most_common(1)[0][0]!r} occurs twice")
    return characters


def read_bpe(values: dict[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Read the pieces and merges of a tokenizer; ValueError if `BPEVocabulary` did not write it.

    A tokenizer can hold patterns of any cost, and the library may panic over a bad one. So only
    pieces and merges are taken from a file, and the rest must be as expected.
    """
    tokenizer = values.get("tokenizer")
    if not isinstance(tokenizer, dict):
        raise ValueError(f"its tokenizer is {shown(tokenizer)}")
    for key in ("normalizer", "post_processor", "truncation", "padding"):
        if tokenizer.get(key) is not None:
            raise ValueError(f"its {key} is {shown(tokenizer[key])}, expected none")
    for key, wanted in (("model", "BPE"), ("pre_tokenizer", "ByteLevel"), ("decoder", "ByteLevel")):
        part = tokenizer.get(key)
        if not isinstance(part, dict) or part.get("type") != wanted:
            raise ValueError(f"its {key} is {shown(part)}, expected one of type {wanted!r}")
    model = tokenizer["model"]
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(key):
            raise ValueError(f"its {key} is {shown(model[key])}, expected none")
    for key in ("add_prefix_space", "use_regex"):
        if tokenizer["pre_tokenizer"].get(key, True) is not True:
            raise ValueError(f"its {key} is not true")
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list):
        raise ValueError(f"its vocab and merges are {shown(vocab)} and {shown(merges)}")
    numbers = {number: piece for piece, number in vocab.items() if type(number) is int}
    if sorted(numbers) != list(range(len(vocab))):
        raise ValueError("its pieces are not numbered from 0 without a gap")
    if tuple(map(numbers.get, range(len(SPECIAL)))) != SPECIAL:
        raise ValueError(f"its pieces do not begin with {', '.join(SPECIAL)}")
    alphabet = set(byte_alphabet())
    pieces = vocab.keys() - set(SPECIAL)
    odd = next((p for p in pieces if not p or not alphabet.issuperset(p)), None)
    if odd is not None:
        raise ValueError(f"its piece {shown(odd)} does not stand for bytes")
    if not alphabet <= pieces:
        raise ValueError("it does not have a piece for every byte")
    return vocab, [read_merge(merge, pieces) for merge in merges]


def read_merge(merge: Any, pieces: set[str]) -> tuple[str, str]:
    """Read a merge: two pieces in a list or, in old files, as "a b"; ValueError otherwise."""
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2 or not all(map(is_text, pair)):
        raise ValueError(f"its merge {shown(merge)} is no pair of pieces")
    if not {*pair, "".join(pair)} <= pieces:
        raise ValueError(f"its merge {shown(merge)} is not of two pieces that make a third")
    return pair[0], pair[1]


def is_text(x: Any) -> bool:
    """Return True if `x` is a string without half surrogate pairs."""
    return isinstance(x, str) and not re.search("[\ud800-\udfff]", x)
