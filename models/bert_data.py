"""The data that a BERT learns from: settings, examples, and blanks to fill in.

For masked words, text is cut into stretches of equal length; with next sentences, an example is a
pair of lines, of which the second follows the first or comes from anywhere. For classification it
is a text and its label.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

import minitensor as mt
from minitensor import Tensor
from minitensor.data import TokenBatchSampler

from .bert_files import BertConfig, Tokenizer, is_token, pad
from .command import InputError
from .corpus import Files, expand
from .number_words import in_words
from .settings import Settings, amount, count, files, setting, share
from .text import normalize, read_lines

VALID_SHARE, VALID_MOST = 0.05, 1000  # of what is learned from, held out to validate with
BLOCK = 20  # lines that are held out together
FOLLOWS, RANDOM = 0, 1  # labels of pairs, as in Hugging Face's models
IGNORED = -100  # label of tokens that were not blanked

T = TypeVar("T")
Block = list[list[int]]  # the tokens of consecutive lines


@dataclass
class PretrainingSettings(Settings):
    """Settings of pretraining. The defaults suit small texts."""

    text: str | tuple[str, ...] | None = setting(
        None,
        files,
        "text to learn from, an empty line between documents: files (plain or .gz), or patterns "
        "such as 'texts/*.gz'; by default, numbers counted in words",
    )
    next_sentence: str = setting(
        "no", ("no", "yes"), "also learn if a line follows another; examples are then pairs of them"
    )
    mask: float = setting(0.15, share, "share of the tokens that are to be guessed")
    vocabulary_size: int = setting(8000, count, "most tokens of the vocabulary: words and pieces")
    max_length: int = setting(128, count, "tokens of a stretch of text; longer pairs are left out")

    d_model: int = setting(128, count, "width of the model")
    nhead: int = setting(4, count, "heads of each attention")
    layers: int = setting(2, count, "layers of the encoder")
    dim_feedforward: int = setting(512, count, "width of the feed-forward networks")
    dropout: float = setting(0.1, share, "probability of dropping an activation")

    batch_tokens: int = setting(2000, count, "tokens of a batch, padding included")

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        if self.d_model % self.nhead:
            raise InputError(
                "the width of the model must be divisible by the number of heads: "
                f"--d-model is {self.d_model}, --nhead is {self.nhead}"
            )
        if self.max_length < 4:
            raise InputError(f"--max-length is {self.max_length}, an example has at least 4 tokens")
        if not self.mask:
            raise InputError("--mask is 0: there would be nothing to learn")

    def config(self, vocab_size: int) -> BertConfig:
        """Return the config of the model that the settings ask for."""
        return BertConfig(
            vocab_size=vocab_size,
            hidden_size=self.d_model,
            num_hidden_layers=self.layers,
            num_attention_heads=self.nhead,
            intermediate_size=self.dim_feedforward,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            max_position_embeddings=self.max_length,
            initializer_range=self.d_model**-0.5,
        )


@dataclass
class ClassificationSettings(Settings):
    """Settings of fine-tuning to a classification."""

    tsv: str | tuple[str, ...] | None = setting(
        None, files, "tables to learn from: a label, a tab and a text in a line"
    )
    valid_tsv: str | tuple[str, ...] | None = setting(
        None, files, "tables to validate with; else some is held out"
    )
    model: str | None = setting(
        None, str, "folder of a BERT, or of a run; by default the installed sentence encoder"
    )
    learn: str = setting("all", ("all", "head"), "weights that learn")
    max_length: int | None = setting(None, count, "cut longer texts to so many tokens")
    batch_tokens: int = setting(1000, count, "tokens of a batch, padding included")

    epochs: int = setting(3, count, "passes over the training data")
    lr: float = setting(1e-4, amount, "highest learning rate, reached after the warm-up")
    schedule: str = setting(
        "linear",
        ("inverse-sqrt", "linear", "constant"),
        "of the learning rate afterwards: falls with the root of the step, falls to 0, or stays",
    )

    def check(self) -> None:
        """Raise InputError if there is nothing to learn from."""
        if not self.tsv:
            raise InputError("name a table to learn from with --tsv: a label, a tab, a text")


# Text


def counting() -> list[list[str]]:
    """Return the embedded text: the numbers from 0 to 9,999 in words, in documents of three."""
    return [
        [in_words(n)[0] for n in range(start, min(start + 3, 10_000))]
        for start in range(0, 10_000, 3)
    ]


def read_documents(files: Files) -> list[list[str]]:
    """Read the lines of documents, which are separated by empty lines or in files of their own."""
    documents: list[list[str]] = []
    for path in expand(files):
        documents.append([])
        for line in map(normalize, read_lines(path)):
            if line:
                documents[-1].append(line)
            elif documents[-1]:
                documents.append([])
    return [document for document in documents if document]


def stretches(documents: Sequence[Sequence[list[int]]], length: int) -> list[list[int]]:
    """Cut the tokens of each document into stretches of at most `length`."""
    found = []
    for document in documents:
        tokens = [token for line in document for token in line]
        found += [tokens[start : start + length] for start in range(0, len(tokens), length)]
    return found


def blocks(documents: Sequence[Sequence[list[int]]]) -> list[Block]:
    """Cut documents into blocks of lines; those of a single line have no pair and are left out."""
    cut = (d[start : start + BLOCK] for d in documents for start in range(0, len(d), BLOCK))
    return [list(block) for block in cut if len(block) > 1]


def hold_out(items: list[T]) -> tuple[list[T], list[T]]:
    """Split off every n-th item to validate with; return both parts."""
    if len(items) < 2:
        raise InputError("there is too little text to hold some of it out: give more")
    number = min(VALID_MOST, math.ceil(len(items) * VALID_SHARE))
    step = len(items) // number
    chosen = set(range(step - 1, step * number, step))
    train = [item for n, item in enumerate(items) if n not in chosen]
    return train, [items[n] for n in sorted(chosen)]


def read_tables(files: Files) -> list[tuple[str, str]]:
    """Read tables of labels and texts, one after the other."""
    return [row for path in expand(files) for row in read_table(path)]


def read_table(path: str) -> list[tuple[str, str]]:
    """Read a table of labels and texts; InputError, with its number, for a line without a tab."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        label, tab, text = line.partition("\t")
        label, text = normalize(label), normalize(text)
        if not tab:
            raise InputError(f"{path}, line {number}: expected a label and a text, found no tab")
        if not label or not text:
            raise InputError(
                f"{path}, line {number}: there is no {'text' if label else 'label'} "
                f"{'after' if label else 'before'} the tab"
            )
        rows.append((label, text))
    return rows


def digest(data: object) -> str:
    """Return a hash of the data, to notice that it has changed."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


# Examples


class Examples:
    """Examples of encoded text, in batches of similar length.

    `lines` are the tokens of each line, or stretch; `pairs` the numbers of those of which the
    second follows the first, None if examples are single lines. Pairs of more than `limit` tokens
    are left out, and `left_out` counts them.
    """

    def __init__(
        self,
        lines: Sequence[list[int]],
        pairs: Sequence[tuple[int, int]] | None,
        tokenizer: Tokenizer,
        settings: PretrainingSettings,
    ) -> None:
        self.lines, self.tokenizer, self.settings = lines, tokenizer, settings
        self.pairs = None if pairs is None else [p for p in pairs if self.fits(*p)]
        self.left_out = 0 if self.pairs is None else len(pairs or ()) - len(self.pairs)

    def fits(self, first: int, second: int) -> bool:
        """Return True if a pair, with [CLS] and twice [SEP], is short enough."""
        length = len(self.lines[first]) + len(self.lines[second]) + 3
        return length <= self.settings.max_length

    def __len__(self) -> int:
        return len(self.lines if self.pairs is None else self.pairs)

    def batches(self, epoch: int | None) -> list[list[tuple[int, int, int]]]:
        """Return batches of (line, second line, label), in the order of an epoch.

        The second line is -1 if examples are single lines; otherwise half of the pairs get a
        second line from anywhere. None is the order to validate in.
        """
        noise = np.random.RandomState((self.settings.seed + 1000003 * (epoch or 0)) % 2**32)
        if self.pairs is None:
            examples = [(n, -1, FOLLOWS) for n in range(len(self.lines))]
        else:
            examples = []
            others = noise.randint(len(self.lines), size=len(self.pairs))
            swapped = noise.random_sample(len(self.pairs)) < 0.5
            for (first, second), other, swap in zip(self.pairs, others, swapped, strict=True):
                swap = swap and other != second and self.fits(first, int(other))
                examples.append(
                    (first, int(other) if swap else second, RANDOM if swap else FOLLOWS)
                )
        lengths = [
            len(self.lines[a]) + (len(self.lines[b]) + 3 if b >= 0 else 2) for a, b, _ in examples
        ]
        order = TokenBatchSampler(
            lengths, self.settings.batch_tokens, shuffle=epoch is not None, seed=self.settings.seed
        )
        order.set_epoch(epoch or 0)
        return [[examples[n] for n in numbers] for numbers in order]

    def collate(
        self, chosen: Sequence[tuple[int, int, int]], generator: mt.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the tensors of a batch, with blanks drawn from `generator`."""
        cls, sep = self.tokenizer.cls, self.tokenizer.sep
        tokens, segments = [], []
        for first, second, _ in chosen:
            row = [cls, *self.lines[first], sep]
            ends = len(row)
            if second >= 0:
                row += [*self.lines[second], sep]
            tokens.append(row)
            segments.append([0] * ends + [1] * (len(row) - ends))
        tokens_NL = pad(tokens, self.tokenizer.pad)
        blanked_NL, labels_NL = blank(tokens_NL, self.tokenizer, self.settings.mask, generator)
        return {
            "input_ids": blanked_NL,
            "attention_mask": is_token(tokens),
            "token_type_ids": pad(segments, 0),
            "labels": labels_NL,
            "follows": mt.tensor([label for _, _, label in chosen]),
        }


def blank(
    tokens: Tensor, tokenizer: Tokenizer, mask: float, generator: mt.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Blank a share `mask` of the tokens (N, L), at least one of each row; return them and labels.

    Of the chosen tokens 80 % become [MASK], 10 % any token, 10 % stay (3.1). A label is the token
    that was there, or IGNORED for those that were not chosen.
    """
    tokens_NL = tokens
    special_NL = (tokens_NL == tokenizer.pad) | (tokens_NL == tokenizer.cls)
    special_NL = special_NL | (tokens_NL == tokenizer.sep)
    draw_NL = mt.rand(*tokens_NL.shape, generator=generator).masked_fill(special_NL, 2.0)
    chosen_NL = (draw_NL < mask) | (draw_NL == draw_NL.amin(1, keepdim=True))
    chosen_NL = chosen_NL & ~special_NL
    labels_NL = tokens_NL.masked_fill(~chosen_NL, IGNORED)
    fate_NL = mt.rand(*tokens_NL.shape, generator=generator)
    any_NL = mt.randint(0, len(tokenizer), tuple(tokens_NL.shape), generator=generator)
    blanked_NL = mt.where(chosen_NL & (fate_NL < 0.9), any_NL, tokens_NL)
    blanked_NL = blanked_NL.masked_fill(chosen_NL & (fate_NL < 0.8), tokenizer.mask)
    return blanked_NL, labels_NL
