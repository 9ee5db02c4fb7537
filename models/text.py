"""Text in, numbers out: files of sentences, and the vocabularies that number their words.

A vocabulary turns a line into token numbers and back again without loss, up to white space: each
token holds the space before it, so that joining tokens gives the text. Numbers 0 to 3 are padding,
begin, end and unknown, in every vocabulary.
"""

from __future__ import annotations

import gzip
import importlib
import json
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from minitensor.serialize import atomic_write

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
Pair = tuple[str, str]


class InputError(Exception):
    """Something the user gave cannot be used; the message is a sentence for them."""


def require(module: str, extra: str) -> Any:
    """Import a package that an extra installs; InputError names the extra if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(
            f'{package} is not installed: install it with pip install "minitensor[{extra}]"'
        ) from error


# Files


def normalize(line: str) -> str:
    """The line with single spaces, none at the ends, and composed Unicode characters (NFC)."""
    return unicodedata.normalize("NFC", " ".join(line.split()))


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, plain or .gz; InputError if it is unreadable or empty."""
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is a damaged .gz file: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return split_lines(data, str(path))


def split_lines(data: bytes, name: str) -> list[str]:
    """The lines of UTF-8 text from `name`; InputError if it is something else, or empty."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name} is not UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}; "
            "convert it first, for example with iconv -f latin1 -t utf-8"
        ) from error
    if not text.strip():
        raise InputError(f"{name} is empty")
    return text.removesuffix("\n").split("\n")


def read_parallel(source: str | Path, target: str | Path) -> list[Pair]:
    """Line n of `source` with line n of `target`; pairs with an empty side are left out."""
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise InputError(
            f"{source} has {len(sources)} lines and {target} has {len(targets)}: "
            "each line must have its translation on the same line of the other file"
        )
    return complete(zip(sources, targets, strict=True), f"{source} with {target}")


def read_tsv(path: str | Path) -> list[Pair]:
    """The two columns of a tab-separated file; pairs with an empty side are left out."""
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
    """The normalised pairs with text on both sides; InputError if there is none."""
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
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


# Vocabularies


class Vocabulary(Protocol):
    """Numbers for the words, or pieces of words, of one language."""

    def __len__(self) -> int: ...

    def encode(self, line: str, replace_unknown: bool = False) -> list[int]:
        """The token numbers of a line, without begin and end.

        Raises InputError for a token outside the vocabulary, unless `replace_unknown`.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The line that the token numbers stand for, up to the end token; specials are left out."""
        ...

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token."""
        ...

    def to_json(self) -> str:
        """Everything `from_json` needs to make it again."""
        ...


class WordVocabulary:
    """Words and punctuation marks, each with the space before it: " forty", "-", "two"."""

    PATTERN = re.compile(r" ?\w+| ?[^\w\s]")

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.numbers = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def train(cls, lines: Iterable[str], size: int | None = None) -> WordVocabulary:
        """The most frequent words of `lines`: at most `size` with the four specials."""
        counts = Counter(word for line in lines for word in cls.split(line))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([*SPECIAL, *ranked][:size])

    @classmethod
    def split(cls, line: str) -> list[str]:
        """The tokens of a line."""
        return cls.PATTERN.findall(" " + normalize(line))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, line: str, replace_unknown: bool = False) -> list[int]:
        """The token numbers of a line; InputError for an unknown word unless `replace_unknown`."""
        numbers = [self.numbers.get(word, UNK) for word in self.split(line)]
        if UNK in numbers and not replace_unknown:
            word = self.split(line)[numbers.index(UNK)]
            raise InputError(
                f"{word.strip()!r} in {line!r} is not among the {len(self)} words of the vocabulary"
            )
        return numbers

    def decode(self, tokens: Sequence[int]) -> str:
        """The line that the token numbers stand for, up to the end token."""
        return "".join(self.pieces(until_end(tokens))).strip()

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token."""
        return [self.words[token] for token in tokens]

    def to_json(self) -> str:
        """The words as JSON."""
        return json.dumps({"kind": "word", "words": self.words}, ensure_ascii=False)


class BPEVocabulary:
    """Pieces of words by byte pair encoding (Sennrich et al., 2016), on bytes: none is unknown."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # "<s>" in a text is text

    @classmethod
    def train(cls, lines: Iterable[str], size: int) -> BPEVocabulary:
        """`size` pieces for `lines`, the 256 bytes and the four specials among them."""
        tokenizers = require("tokenizers", "text")
        byte_level = tokenizers.pre_tokenizers.ByteLevel
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = byte_level(add_prefix_space=True)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        least = len(byte_level.alphabet()) + len(SPECIAL)
        if size < least:
            raise InputError(
                f"a BPE vocabulary needs at least {least} tokens, {size} were asked for"
            )
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(byte_level.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines, trainer)
        return cls(tokenizer)

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, line: str, replace_unknown: bool = False) -> list[int]:
        """The token numbers of a line; nothing is unknown."""
        return self.tokenizer.encode(normalize(line), add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The line that the token numbers stand for, up to the end token."""
        return self.tokenizer.decode(until_end(tokens)).strip()

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token; a piece of a character shows as a replacement character."""
        return [
            SPECIAL[token] if token < len(SPECIAL) else self.tokenizer.decode([token])
            for token in tokens
        ]

    def to_json(self) -> str:
        """The tokenizer as JSON."""
        return json.dumps({"kind": "bpe", "tokenizer": json.loads(self.tokenizer.to_str())})


def until_end(tokens: Sequence[int]) -> list[int]:
    """The tokens before the first end token, without padding and begin."""
    found = []
    for token in tokens:
        if token == EOS:
            break
        if token not in (PAD, BOS):
            found.append(token)
    return found


def train_vocabulary(kind: str, lines: Iterable[str], size: int | None) -> Vocabulary:
    """A vocabulary of the kind "word" or "bpe" for the lines of one language."""
    if kind == "word":
        return WordVocabulary.train(lines, size)
    return BPEVocabulary.train(lines, size or 8000)


def vocabulary_from_json(text: str) -> Vocabulary:
    """The vocabulary that `to_json` wrote; ValueError if it is none."""
    values = json.loads(text)
    try:
        if values["kind"] == "word":
            return WordVocabulary(values["words"])
        if values["kind"] == "bpe":
            tokenizers = require("tokenizers", "text")
            return BPEVocabulary(tokenizers.Tokenizer.from_str(json.dumps(values["tokenizer"])))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a vocabulary: {error}") from error
    raise ValueError(f"not a vocabulary: kind {values['kind']!r}")
