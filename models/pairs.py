"""The data of a translation run: pairs of sentences, read, held out, encoded and batched."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from minitensor import Tensor
from minitensor.data import PadCollate, TokenBatchSampler

from .command import InputError
from .config import NORMS, POSITIONS
from .corpus import Files, expand, named
from .number_words import number_pairs, split_numbers
from .settings import Settings, count, files, setting, share
from .text import (
    EOS,
    PAD,
    Pair,
    Vocabulary,
    read_parallel,
    read_tsv,
    train_vocabulary,
)

# Of the user's pairs, how many are held out where no validation data is given.
VALID_SHARE, VALID_MOST = 0.05, 1000

EncodedPair = tuple[list[int], list[int]]
Batch = tuple[Tensor, ...]  # source (N, S) and target (N, L), padded
collate = PadCollate(PAD)


@dataclass
class PairSettings(Settings):
    """The settings of any run that learns from pairs of sentences."""

    source: str | tuple[str, ...] | None = setting(
        None,
        files,
        "text to learn from, one sentence per line: files (plain or .gz), or patterns such as "
        "'texts/*.en'",
    )
    target: str | tuple[str, ...] | None = setting(
        None, files, "its translation, file by file and line by line"
    )
    tsv: str | tuple[str, ...] | None = setting(
        None, files, "instead of both: tables of source and target"
    )
    valid_source: str | tuple[str, ...] | None = setting(
        None, files, "text to validate with; else some is held out"
    )
    valid_target: str | tuple[str, ...] | None = setting(None, files, "its translation")
    valid_tsv: str | tuple[str, ...] | None = setting(None, files, "instead of both: tables")
    vocabulary: str = setting("word", ("word", "bpe"), "what a token is")
    vocabulary_size: int | None = setting(
        None, count, "tokens per vocabulary; by default all words, or 8000 of BPE"
    )
    vocabularies: str = setting("own", ("own", "joint"), "one for each language, or one for both")
    max_length: int = setting(256, count, "longer pairs (in tokens) are left out")
    batch_tokens: int = setting(800, count, "target tokens of a batch, padding included")
    label_smoothing: float = setting(0.1, share, "probability spread over all tokens")
    source_vectors: str | None = setting(
        None, str, "pretrained vectors of source words: a text file of GloVe or word2vec"
    )
    target_vectors: str | None = setting(None, str, "the same for target words")
    freeze_vectors: bool = setting(
        False, bool, "do not train the embeddings that began with pretrained vectors"
    )

    @property
    def embedded(self) -> bool:
        """True if the run learns from the embedded data."""
        return not self.source and not self.tsv

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        if self.source_vectors or self.target_vectors:
            if self.vocabulary != "word":
                raise InputError("pretrained vectors are of words: give --vocabulary word")
        elif self.freeze_vectors:
            raise InputError(
                "--freeze-vectors needs vectors: give --source-vectors or --target-vectors"
            )
        check_data(self.source, self.target, self.tsv)
        check_data(self.valid_source, self.valid_target, self.valid_tsv, "valid-")
        if (self.valid_tsv or self.valid_source) and self.embedded:
            raise InputError("validation data was given, but no training data")


@dataclass
class TranslationSettings(PairSettings):
    """The settings of a translation run of the Transformer. The defaults suit the embedded data."""

    d_model: int = setting(128, count, "width of the model")
    nhead: int = setting(4, count, "heads of each attention")
    encoder_layers: int = setting(2, count, "layers of the encoder")
    decoder_layers: int = setting(2, count, "layers of the decoder")
    dim_feedforward: int = setting(256, count, "width of the feed-forward networks")
    dropout: float = setting(0.1, share, "probability of dropping an activation")
    activation: str = setting("relu", ("relu", "gelu"), "of the feed-forward networks")
    norm: str = setting("pre", ("pre", "post"), "norm before or after each sub-layer")
    norm_kind: str = setting("layer", tuple(NORMS), "kind of norm")
    positions: str = setting("sinusoidal", POSITIONS, "kind of positions")
    output: str = setting(
        "own", ("own", "tied"), "weights of the output, or the target embedding's"
    )

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        if self.d_model % self.nhead:
            raise InputError(
                "the width of the model must be divisible by the number of heads: "
                f"--d-model is {self.d_model}, --nhead is {self.nhead}"
            )
        if self.positions == "rotary" and self.d_model // self.nhead % 2:
            raise InputError(
                f"rotary positions need heads of even width, not {self.d_model // self.nhead}: "
                f"--d-model is {self.d_model}, --nhead is {self.nhead}"
            )
        super().check()


def check_data(
    source: Files | None, target: Files | None, tsv: Files | None, prefix: str = ""
) -> None:
    """Raise InputError unless source and target were named, or tables, or nothing."""
    if bool(source) != bool(target):
        raise InputError(f"--{prefix}source and --{prefix}target belong together: give both files")
    if tsv and source:
        raise InputError(f"give either --{prefix}tsv, or --{prefix}source and --{prefix}target")


@dataclass
class Data:
    """The encoded pairs of a run, each side ending in the end token, and their vocabularies."""

    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    train: list[EncodedPair]
    valid: list[EncodedPair]
    left_out: int  # pairs too long
    digest: str  # of the text

    @property
    def longest_target(self) -> int:
        """The number of tokens in the longest training target."""
        return max(len(target) for _, target in self.train)


def read_pairs(source: Files | None, target: Files | None, tsv: Files | None) -> list[Pair] | None:
    """Read the pairs of parallel files, each with its own, or of tables; None if none is named."""
    if tsv:
        return [pair for path in expand(tsv) for pair in read_tsv(path)]
    if source and target:
        sources, targets = expand(source), expand(target)
        if len(sources) != len(targets):
            raise InputError(
                f"{named(source)} is {len(sources)} files and {named(target)} {len(targets)}: each "
                "must have its translation in a file of its own"
            )
        both = zip(sources, targets, strict=True)
        return [pair for paths in both for pair in read_parallel(*paths)]
    return None


def load_pairs(settings: PairSettings) -> tuple[list[Pair], list[Pair]]:
    """Read the training and the validation pairs, as text."""
    if settings.embedded:
        split = split_numbers()
        return number_pairs(split.train), number_pairs(split.valid)
    train = read_pairs(settings.source, settings.target, settings.tsv) or []
    given = read_pairs(settings.valid_source, settings.valid_target, settings.valid_tsv)
    return hold_out(train) if given is None else (train, given)


def digest(pairs: tuple[list[Pair], list[Pair]]) -> str:
    """Return a hash of the text, to notice that it has changed."""
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def encode_pairs(
    pairs: Sequence[Pair], vocabularies: tuple[Vocabulary, Vocabulary]
) -> list[EncodedPair]:
    """Encode both sides of each pair, each ending in the end token."""
    source_vocabulary, target_vocabulary = vocabularies
    return [
        (
            [*source_vocabulary.encode(source, replace_unknown=True), EOS],
            [*target_vocabulary.encode(target, replace_unknown=True), EOS],
        )
        for source, target in pairs
    ]


def fits(pair: EncodedPair, settings: PairSettings) -> bool:
    """Return True if both sides of a pair are short enough."""
    return max(map(len, pair)) <= settings.max_length


def load_data(
    settings: PairSettings, vocabularies: tuple[Vocabulary, Vocabulary] | None = None
) -> Data:
    """Read the data, hold some out for validation, learn the vocabularies unless given, encode."""
    text = load_pairs(settings)
    train, _ = text
    if vocabularies is None:
        kind, size = settings.vocabulary, settings.vocabulary_size
        sides = [[source for source, _ in train], [target for _, target in train]]
        if settings.vocabularies == "joint":
            source_vocabulary = target_vocabulary = train_vocabulary(kind, chain(*sides), size)
        else:
            source_vocabulary, target_vocabulary = (
                train_vocabulary(kind, side, size) for side in sides
            )
    else:
        source_vocabulary, target_vocabulary = vocabularies
    encoded = [encode_pairs(pairs, (source_vocabulary, target_vocabulary)) for pairs in text]
    kept = [[p for p in part if fits(p, settings)] for part in encoded]
    check_lengths(encoded, kept, settings)
    left_out = sum(map(len, encoded)) - sum(map(len, kept))
    return Data(source_vocabulary, target_vocabulary, kept[0], kept[1], left_out, digest(text))


def check_lengths(
    encoded: Sequence[list[EncodedPair]],
    kept: Sequence[list[EncodedPair]],
    settings: PairSettings,
) -> None:
    """Raise InputError if all training pairs, or all validation pairs, are too long."""
    for use, whole, part in zip(("learn from", "validate with"), encoded, kept, strict=True):
        if not part:
            shortest = min(max(map(len, pair)) for pair in whole)
            raise InputError(
                f"no pair to {use} is short enough for --max-length {settings.max_length}: of "
                f"{len(whole):,} the shortest has {shortest:,} tokens"
            )


def hold_out(pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Split off every n-th pair, and all of the same source, to validate; return both parts."""
    count = min(VALID_MOST, math.ceil(len(pairs) * VALID_SHARE))
    step = len(pairs) // count
    valid = pairs[step - 1 :: step][:count]
    held_out = {source for source, _ in valid}
    train = [pair for pair in pairs if pair[0] not in held_out]
    if not train:
        if len(pairs) == 1:
            why = "there is too little text to hold some of it out"
        elif len(held_out) == 1:
            why = f"all {len(pairs):,} pairs have the same source, so none can be held out"
        else:
            why = f"the sources of all {len(pairs):,} pairs are among the {len(held_out)} held out"
        raise InputError(f"{why}: give validation data too")
    return train, valid


def order_by_tokens(
    pairs: Sequence[EncodedPair], settings: PairSettings, shuffle: bool
) -> TokenBatchSampler:
    """Group pairs of similar length into batches, shuffled by the seed and the epoch."""
    lengths = [(len(source), len(target)) for source, target in pairs]
    return TokenBatchSampler(lengths, settings.batch_tokens, shuffle=shuffle, seed=settings.seed)


def count_tokens(batch: Batch) -> int:
    """Count the target tokens of a batch, without padding."""
    _, tgt_NL = batch
    return int((tgt_NL != PAD).sum().item())
