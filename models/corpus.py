"""Corpora: many files as one text, read piece by piece, and encoded so.

A text is cut into pieces before a space or a line break that follows something else. Unicode's form
NFC changes nothing across such a cut, and BPE has no token across it: the pieces' tokens, one after
the other, are those of the whole text.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from unicodedata import normalize

import numpy as np

from minitensor.data.tokens import token_dtype
from minitensor.kernels import words

from .command import InputError, require
from .text import (
    GZIP,
    UNK,
    BPEVocabulary,
    CharVocabulary,
    check_growth,
    check_nul,
    encoding_of,
    not_text,
    reading,
)

Files = str | Sequence[str]  # names of files, or patterns of names such as "texts/*.gz"
PIECE = 1 << 20  # characters of a piece
LONGEST = 1 << 28  # characters without a place to cut
READ = 1 << 20  # bytes that are read at a time


# Text


def expand(files: Files) -> list[str]:
    """Return the names of all files, those of a pattern in order; InputError if it has none.

    A file is taken once. `**` in a pattern stands for any folders.
    """
    found: dict[str, None] = {}
    for name in [files] if isinstance(files, str) else files:
        names = [name]
        if glob.has_magic(name) and not os.path.lexists(name):
            names = [n for n in sorted(glob.glob(name, recursive=True)) if not os.path.isdir(n)]
            if not names:
                raise InputError(f"there is no file {name}")
        elif os.path.isdir(name):
            raise InputError(f"{name} is a folder: name its files, for example '{name}/*.txt'")
        found.update(dict.fromkeys(names))
    return list(found)


def named(files: Files) -> str:
    """Return the names of files for a message."""
    return files if isinstance(files, str) else " ".join(files)


def read_corpus(files: Files) -> str:
    """Return the text of all files: in Unicode form NFC, lines end in "\\n".

    InputError if one cannot be read, is empty or not text.
    """
    return "".join(pieces(expand(files)))


def pieces(
    paths: Iterable[str], moved: Callable[[int], object] = lambda size: None
) -> Iterator[str]:
    """Yield the text of files, plain or .gz, as `read_corpus` returns it, in pieces.

    - `moved`: called with the number of bytes of a file, as it lies on the disk, that were read.

    A file begins on a line of its own.
    """

    def texts() -> Iterator[str]:
        end = "\n"
        for path in paths:
            if end != "\n":
                yield "\n"
            blank = True
            for text in decoded(path, moved):
                blank = blank and (not text or text.isspace())
                end = text[-1:] or end
                yield text
            if blank:
                raise InputError(f"{path} is empty")

    for piece in split(texts()):
        yield normalize("NFC", piece)


def decoded(path: str, moved: Callable[[int], object]) -> Iterator[str]:
    """Yield the text of a file as it is read; errors are those of `text.decode`."""
    decoder, lines, length = None, 0, 0
    with reading(path), open(path, "rb") as raw:
        size, at = os.fstat(raw.fileno()).st_size, 0
        packed = raw.peek(2)[:2] == GZIP
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        encoding = ""
        while data := file.read(READ):
            if decoder is None:
                encoding = encoding_of(data)
                inner = codecs.getincrementaldecoder(encoding)()
                decoder = io.IncrementalNewlineDecoder(inner, translate=True)
            length += len(data)
            if packed and raw.seekable():
                check_growth(length, size, path)
            yield checked(decoder, data, encoding, path, lines)
            lines += data.count(b"\n")
            now = raw.tell() if raw.seekable() else at + len(data)  # a pipe has no place
            moved(now - at)
            at = now
        if decoder is not None:
            yield checked(decoder, b"", encoding, path, lines, final=True)


def checked(
    decoder: Any, data: bytes, encoding: str, path: str, lines: int, final: bool = False
) -> str:
    """Decode the next bytes of a file, which has so many lines before; InputError if not text."""
    try:
        text: str = decoder.decode(data, final=final)
    except UnicodeDecodeError as error:
        raise not_text(error, encoding, path, lines) from error
    check_nul(text, path, lines)
    return text


def split(texts: Iterable[str]) -> Iterator[str]:
    """Cut the text that `texts` are parts of into pieces of about PIECE characters."""
    rest = ""
    for text in texts:
        rest, start = rest + text, 0
        while len(rest) - start >= PIECE:
            middle = start + PIECE
            cut = last_cut(rest, start + 1, middle) or last_cut(rest, middle, len(rest))
            if not cut:
                break
            yield rest[start:cut]
            start = cut
        rest = rest[start:]
        if len(rest) > LONGEST:
            raise InputError(
                f"the text has {len(rest):,} characters without a space or a line break: "
                "break its lines first"
            )
    if rest:
        yield rest


def last_cut(text: str, start: int, end: int) -> int:
    """Return the last place from `start` to `end` where a text can be cut, 0 if there is none."""
    while (place := max(text.rfind(" ", start, end), text.rfind("\n", start, end))) > 0:
        if not text[place - 1].isspace():
            return place
        end = place
    return 0


# Tokens


class Encoder:
    """Pieces of a text to arrays of tokens, many times faster than by `encode_text`."""

    def __init__(self, vocabulary: CharVocabulary | BPEVocabulary) -> None:
        self.vocabulary = vocabulary
        self.dtype = token_dtype(len(vocabulary))
        if isinstance(vocabulary, CharVocabulary):
            self.numbers = np.full(0x110000, UNK, self.dtype)
            for character, number in vocabulary.numbers.items():
                if len(character) == 1:
                    self.numbers[ord(character)] = number
        else:
            tokenizers = require("tokenizers")
            # BPE puts a space before a text that begins without; not before a later piece.
            within = tokenizers.Tokenizer.from_str(vocabulary.tokenizer.to_str())
            within.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
            within.encode_special_tokens = True
            self.table = words.WordTable(
                lambda new: [
                    found.ids for found in within.encode_batch_fast(new, add_special_tokens=False)
                ]
            )

    def __call__(self, piece: str, first: bool) -> np.ndarray:
        """Return the tokens (n,) of a piece; `first` is True if the text begins with it.

        InputError for a character that the vocabulary lacks.
        """
        if isinstance(self.vocabulary, CharVocabulary):
            found = self.numbers[np.frombuffer(piece.encode("utf-32-le"), np.uint32)]
            if (found == UNK).any():
                self.vocabulary.encode(piece)  # raises
            return found
        if first and not piece.startswith(" "):
            piece = f" {piece}"
        return self.table(piece).astype(self.dtype)

    def text(self, text: str) -> np.ndarray:
        """Return the tokens of a whole text."""
        parts = [self(piece, number == 0) for number, piece in enumerate(split([text]))]
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)
