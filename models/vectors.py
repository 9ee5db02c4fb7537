"""Read pretrained word vectors: text files of GloVe, word2vec or fastText, plain or .gz.

Sources:
- Pennington, Socher, Manning, "GloVe: Global Vectors for Word Representation", 2014: lines of a
  word and its numbers.
- Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality",
  2013, arXiv:1310.4546: word2vec, whose text files say first how many vectors they have, how wide.
"""

from __future__ import annotations

import codecs
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.files import shown

from .command import InputError
from .text import PAD

LONGEST = 1 << 20  # bytes of a line; no vector is as long


def read_vectors(path: str | Path, words: Sequence[str], width: int) -> tuple[Tensor, int]:
    """Return an embedding (V, E) of V `words` by the vectors in a file, and how many it had.

    A word is looked up without the space before it, and if the file lacks it, in lower case; of two
    vectors for a word the first counts. The words that the file lacks get random vectors, and
    `words[PAD]`, padding, gets zeros. One factor for all brings the vectors found to the mean
    square 1 / E of the random ones, with which a Transformer's embeddings begin, since larger ones
    would drown the positions.

    The file is read line by line. Raises InputError for a file that cannot be read, is empty or
    cut, has a damaged line, vectors of another width than E = `width`, or none of the words.
    """
    exact: dict[bytes, list[int]] = {}
    lower: dict[bytes, list[int]] = {}
    for number, word in enumerate(words):
        if number != PAD:
            exact.setdefault(word.strip().encode(), []).append(number)
            lower.setdefault(word.strip().lower().encode(), []).append(number)
    table = np.zeros((len(words), width))
    rank = np.zeros(len(words), np.int8)  # of the vectors found: 1 for lower case, 2 for the word
    for line_number, word_read, numbers in read_entries(path, width):
        for choice, wanted in (2, exact), (1, lower):
            rows = [n for n in wanted.get(word_read, ()) if rank[n] < choice]
            if rows:
                table[rows] = parse_vector(numbers, f"{path}, line {line_number}")
                rank[rows] = choice
    found = rank > 0
    if not found.any():
        raise InputError(
            f"{path} has none of the {len(words):,} words of the vocabulary: give vectors of words "
            "in the same language"
        )
    size = math.sqrt(np.square(table[found]).mean())
    if not size:
        raise InputError(f"{path}: the vectors of all words of the vocabulary are 0")
    embedding = nn.init.normal_(mt.empty(len(words), width), std=width**-0.5)
    embedding[PAD] = 0
    embedding[mt.from_numpy(found)] = mt.tensor(table[found] / (size * math.sqrt(width))).float()
    return embedding, int(found.sum())


def read_entries(path: str | Path, width: int) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """Yield the line number, the word and the numbers, not parsed yet, of each vector in a file.

    InputError for vectors of another width, a line without a vector, a file that is empty or cut.
    """
    announced, entries = None, 0
    for number, line in read_numbered(path):
        if not (fields := line.split()):
            continue
        word = fields.pop(0)
        if number == 1 and len(fields) == 1 and word.isdigit() and fields[0].isdigit():
            announced = int(word)
            check_width(path, int(fields[0]), width)
            continue
        if number == 1 and fields and all(map(is_number, fields)):
            check_width(path, len(fields), width)
        if len(fields) != width and not is_spaced(fields, width):
            hint = "" if announced is None else "; the binary format of word2vec is not read"
            raise InputError(
                f"{path}, line {number}: expected a word and {width} numbers, found "
                f"{shown(word[:20].decode(errors='replace'))} and {len(fields)} more{hint}"
            )
        entries += 1
        if len(fields) == width:
            yield number, word, fields
    if announced is not None and entries < announced:
        raise InputError(
            f"{path} was cut: it has {entries:,} of the {announced:,} vectors it names"
        )
    if not entries:
        raise InputError(f"{path} is empty")


def read_numbered(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, plain or .gz, and their numbers; InputError if it is unreadable.

    No more than a line is in memory at a time, and a line of more than 1 MB is an error.
    """
    try:
        with Path(path).open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            file = gzip.GzipFile(fileobj=plain) if packed else plain
            lines = iter(lambda: file.readline(LONGEST), b"")
            for number, line in enumerate(lines, 1):
                if len(line) == LONGEST:
                    raise InputError(f"{path}, line {number} is too long for a vector")
                yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is a damaged .gz file: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}") from error


def check_width(path: str | Path, found: int, width: int) -> None:
    """Raise InputError unless the vectors of a file are as wide as the model."""
    if found != width:
        raise InputError(
            f"the vectors in {path} have the width {found}, the model has {width}: "
            f"give --d-model {found}, or vectors of width {width}"
        )


def is_spaced(fields: Sequence[bytes], width: int) -> bool:
    """Return True for the rest of a "word" with spaces in it, of which GloVe has a few."""
    return (
        len(fields) > width
        and all(map(is_number, fields[-width:]))
        and not all(map(is_number, fields[:-width]))
    )


def parse_vector(fields: Sequence[bytes], place: str) -> list[float]:
    """Parse the numbers of a vector; InputError, naming the place, for anything else."""
    wrong = next((field for field in fields if not is_number(field)), None)
    if wrong is not None:
        raise InputError(f"{place}: {shown(wrong.decode(errors='replace'))} is not a number")
    return list(map(float, fields))


def is_number(field: bytes) -> bool:
    """Return True for the text of a number that float32 can hold."""
    try:
        return abs(float(field)) < 1e38  # not NaN either
    except ValueError:
        return False
