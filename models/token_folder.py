"""Texts that are tokenised once, into files that a training run maps: for those larger than memory.

A folder of tokens holds `vocabulary.json`, `corpus.json`, and two folders of shards
(`minitensor/data/tokens.py`): `train`, and `valid` with the end of the text, which is held out.

The text is read twice: to check and count it and to learn the vocabulary, then to encode it. What
is written survives an interruption, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minitensor.data import TokenShards, TokenShardWriter
from minitensor.data.tokens import INDEX
from minitensor.files import parse_json, shown

from .command import InputError, Stopped, require
from .corpus import Encoder, expand, pieces
from .job import hold
from .settings import count
from .text import BPEVocabulary, CharVocabulary, reading, vocabulary_from_json, write_file

VOCABULARY, CORPUS, TRAIN, VALID = "vocabulary.json", "corpus.json", "train", "valid"
VALID_SHARE, VALID_MOST = 0.1, 100_000  # of the characters of a text: its end is held out
SHARD = 1 << 26  # tokens of a shard
SAMPLE = 1 << 24  # characters that BPE is learned from, spread evenly over a longer text


def held_out(characters: int) -> int:
    """Return how many of the characters of a text are held out."""
    return min(math.ceil(VALID_SHARE * characters), VALID_MOST)


# Reading


@dataclass
class Facts:
    """The content of `corpus.json`: of the text, and how it is tokenised."""

    text: str  # its hash
    characters: int
    files: list[str]
    vocabulary: str
    vocabulary_size: int | None


@dataclass
class TokenFolder:
    """Tokens to learn from, and to validate with."""

    vocabulary: CharVocabulary | BPEVocabulary
    train: TokenShards
    valid: TokenShards
    valid_characters: int
    digest: str  # of text and vocabulary


def open_tokens(folder: str | Path) -> TokenFolder:
    """Open a folder that `tokenize` wrote; InputError, naming the file, if it is not whole."""
    folder = Path(folder)
    try:
        facts = read_facts(folder)
        text = (folder / VOCABULARY).read_text("utf-8")
        train, valid = TokenShards(folder / TRAIN), TokenShards(folder / VALID)
        vocabulary: Any = vocabulary_from_json(text)
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename} is missing: {folder} is not a folder that `tokenize` has finished"
        ) from error
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from error
    of = {"text": facts.text, "vocabulary": digest_of(text)}
    for shards in (train, valid):
        if shards.metadata != of or shards.vocab_size != len(vocabulary):
            raise InputError(
                f"{shards.folder} has tokens of another text or vocabulary than {folder / CORPUS} "
                f"and {folder / VOCABULARY} say"
            )
    held, digest = held_out(facts.characters), f"{of['text']} {of['vocabulary']}"
    return TokenFolder(vocabulary, train, valid, held, digest)


def read_facts(folder: Path) -> Facts:
    """Read what a folder is of; ValueError if the file is damaged."""
    path = folder / CORPUS
    try:
        facts = Facts(**parse_json(path.read_bytes()))
        if type(facts.characters) is not int or facts.characters < 1:
            raise ValueError(f"its number of characters is {shown(facts.characters)}")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return facts


def digest_of(text: str) -> str:
    """Return a hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


# Writing


class Sample:
    """Every n-th piece of a text, n a power of two, so that they have SAMPLE characters at most."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, str]] = []  # with the number of characters before
        self.every, self.seen = 1, 0

    def add(self, before: int, piece: str) -> None:
        """Take note of the next piece."""
        if self.seen % self.every == 0:
            self.pieces.append((before, piece))
        self.seen += 1
        while len(self.pieces) > 1 and sum(len(piece) for _, piece in self.pieces) > SAMPLE:
            self.pieces, self.every = self.pieces[::2], 2 * self.every

    def text(self, end: int) -> Iterator[str]:
        """Yield the pieces of the first `end` characters."""
        for before, piece in self.pieces:
            if before < end:
                yield piece[: end - before]


@contextmanager
def progress(total: int, unit: str, meaning: str) -> Iterator[Any]:
    """Show a bar with rate and time left on a terminal."""
    bar = require("tqdm").tqdm(
        total=total, unit=unit, unit_scale=True, desc=meaning, disable=None, leave=False
    )
    with bar:
        yield bar


def survey(paths: list[str], vocabulary: str, size: int | None) -> tuple[Facts, Sample, np.ndarray]:
    """Read a text once: what is to be said of it, pieces of it, and a flag for each character."""
    digest, characters, sample = hashlib.sha256(), 0, Sample()
    found = np.zeros(0x110000, np.bool_)
    with progress(sum(map(size_of, paths)), "B", "reading") as bar:
        for piece in pieces(paths, bar.update):
            digest.update(piece.encode())
            if vocabulary == "char":
                found[np.frombuffer(piece.encode("utf-32-le"), np.uint32)] = True
            else:
                sample.add(characters, piece)
            characters += len(piece)
    names = [os.path.abspath(path) for path in paths]
    return Facts(digest.hexdigest(), characters, names, vocabulary, size), sample, found


def size_of(path: str) -> int:
    """Return the size of a file in bytes; InputError if there is none."""
    with reading(path):
        return os.path.getsize(path)


def same_text(folder: Path, facts: Facts) -> bool:
    """Return True if a folder holds tokens of this text already, or some of them.

    InputError if those are of another text, or tokenised otherwise.
    """
    if not (folder / CORPUS).exists():
        return False
    try:
        before = read_facts(folder)
    except ValueError as error:
        raise InputError(f"{error}; start again with --overwrite") from error
    wrong = ""
    if (before.vocabulary, before.vocabulary_size) != (facts.vocabulary, facts.vocabulary_size):
        wrong = "with another vocabulary"
    elif before.text != facts.text:
        wrong = "of another text, or the text has changed"
    if wrong:
        raise InputError(
            f"{folder} has tokens {wrong}: replace them with --overwrite, or choose another folder"
        )
    return (folder / VOCABULARY).exists()


def tokenize(options: argparse.Namespace) -> int:
    """Tokenise a text into a folder, or the rest of it; returns the exit code."""
    folder, paths = Path(options.out), expand(options.text)
    size = options.vocabulary_size if options.vocabulary == "bpe" else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder):
            write_tokens(folder, paths, options.vocabulary, size, options.overwrite)
    except Stopped as stopped:
        print(f"interrupted: the same command goes on with what is in {folder}")
        return 128 + stopped.number
    except OSError as error:
        raise InputError(
            f"cannot write {error.filename or folder}: {error.strerror or error}; what is whole is "
            "kept: the same command goes on from there"
        ) from error
    return 0


def write_tokens(
    folder: Path, paths: list[str], kind: str, size: int | None, overwrite: bool
) -> None:
    """Write a folder of tokens, or what is missing of it."""
    if overwrite:
        (folder / CORPUS).unlink(missing_ok=True)
    facts, sample, found = survey(paths, kind, size)
    files = f"{len(paths):,} file{'s' * (len(paths) > 1)}"
    print(f"{facts.characters:,} characters in {files}", flush=True)
    train_characters = facts.characters - held_out(facts.characters)
    if not same_text(folder, facts):
        if kind == "char":
            made: Any = CharVocabulary([chr(code) for code in np.flatnonzero(found)])
        else:
            made = BPEVocabulary.train(sample.text(train_characters), size or 0, pieces=True)
        write_file(folder / VOCABULARY, made.to_json().encode())
        write_file(folder / CORPUS, json.dumps(asdict(facts)).encode())
    del sample, found
    text = (folder / VOCABULARY).read_text("utf-8")
    try:
        vocabulary: Any = vocabulary_from_json(text)
    except ValueError as error:
        raise InputError(f"{folder / VOCABULARY}: {error}; start again with --overwrite") from error
    of = {"text": facts.text, "vocabulary": digest_of(text)}
    writers = [TokenShardWriter(folder / part, len(vocabulary), of) for part in (TRAIN, VALID)]
    encode, rest = Encoder(vocabulary), ""
    with progress(facts.characters, "char", "tokenising") as bar:
        rest = write_train(writers[0], encode, pieces(paths), train_characters, bar)
    if len(rest) != facts.characters - train_characters:
        (folder / TRAIN / INDEX).unlink(missing_ok=True)
        raise InputError("the text has changed while it was read: start again with --overwrite")
    train, valid = writers
    valid.shards.clear()
    valid.add(encode.text(rest))
    train.finish()
    valid.finish()
    print(
        f"{len(train):,} tokens to learn from in {len(train.shards):,} files, {len(valid):,} to "
        f"validate with, {len(vocabulary):,} different ones: {folder}"
    )


def write_train(
    writer: TokenShardWriter, encode: Encoder, text: Iterable[str], end: int, bar: Any
) -> str:
    """Write the tokens of the first `end` characters that are missing; return what follows them.

    Each shard is of whole pieces, and says how many.
    """
    kept, start = sum(shard["pieces"] for shard in writer.shards), time.perf_counter()
    parts: list[np.ndarray] = []
    done, before, after = 0, 0, []
    begun = 0  # characters that were encoded before
    for number, piece in enumerate(text):
        inside, outside = piece[: max(0, end - done)], piece[max(0, end - done) :]
        done += len(piece)
        after.append(outside)
        bar.update(len(piece))
        if number < kept:
            begun = done
            continue
        if inside:
            parts.append(encode(inside, number == 0))
            before += len(parts[-1])
        if parts and (before >= SHARD or done >= end):
            writer.add(np.concatenate(parts), pieces=len(parts))
            parts, before = [], 0
            seconds = time.perf_counter() - start
            rate = (done - begun) / seconds
            bar.clear()
            print(
                f"{min(done, end) / end:.0%}, {len(writer.shards)} files, {rate / 1e6:,.1f} M "
                f"characters/s, {max(0, end - done) / rate:,.0f} s left",
                flush=True,
            )
    return "".join(after)


def add_tokenize(commands: Any) -> None:
    """Add the command `tokenize`."""
    command = commands.add_parser("tokenize", help="make tokens of a text larger than memory, once")
    command.add_argument(
        "text", nargs="+", help="files (plain or .gz), or patterns such as 'texts/*.gz'"
    )
    command.add_argument("--out", required=True, help="folder of the tokens")
    command.add_argument("--overwrite", action="store_true", help="replace what the folder holds")
    command.add_argument(
        "--vocabulary",
        choices=("bpe", "char"),
        default="bpe",
        help="what a token is: a part of a word by BPE, or a character (default: %(default)s)",
    )
    command.add_argument(
        "--vocabulary-size", type=count, default=8000, help="tokens of BPE (default: %(default)s)"
    )
    command.set_defaults(command=tokenize)
