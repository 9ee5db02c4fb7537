"""The task of writing: a model learns a text token by token, and continues a prompt."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.data import BlockSampler, TokenShards
from minitensor.optim import AdamW, Optimizer
from minitensor.serialize import CheckpointError

from .command import InputError
from .config import config_from_json
from .corpus import Encoder, named, read_corpus, split
from .decoding import Sampling, never, stop_at, stream
from .gpt_files import VARIANTS, GPTConfig, check_state
from .python_text import python_text
from .settings import Settings, amount, count, files, setting, share
from .task import Checkpoint, CompiledForShapes, Rows, Task
from .text import BPEVocabulary, CharVocabulary, vocabulary_from_json, whole_characters
from .token_folder import held_out, open_tokens

# Learning


@dataclass
class WritingSettings(Settings):
    """Everything that decides the outcome of a run. The defaults suit the embedded text."""

    text: str | tuple[str, ...] | None = setting(
        None,
        files,
        "text to learn from: files (plain or .gz), or patterns such as 'texts/*.gz'; by default "
        "Python's own reference",
    )
    tokens: str | None = setting(
        None, str, "instead: a folder that `tokenize` wrote, with its vocabulary"
    )
    vocabulary: str = setting("char", ("char", "bpe"), "what a token is: a character, or by BPE")
    vocabulary_size: int = setting(2000, count, "tokens of BPE")
    variant: str = setting("llama", VARIANTS, "positions, norm and feed-forward network as in")
    context_length: int = setting(128, count, "tokens that the model sees at a time")
    embed_dim: int = setting(128, count, "width of the model")
    num_layers: int = setting(4, count, "layers")
    num_heads: int = setting(4, count, "heads of each attention")
    num_kv_heads: int | None = setting(None, count, "heads of keys and values; by default as many")
    dropout: float = setting(0.0, share, "probability of dropping an activation")
    batch_size: int = setting(6, count, "pieces of text, of context_length tokens, in a batch")

    epochs: int = setting(5, count, "passes over the text")
    lr: float = setting(4e-3, amount, "highest learning rate, reached after the warm-up")
    schedule: str = setting(
        "linear", ("inverse-sqrt", "linear", "constant"), "of the learning rate"
    )

    def config(self, vocab_size: int) -> GPTConfig:
        """Return the config of the model; ValueError for settings that contradict each other."""
        names = ("variant", "context_length", "embed_dim", "num_layers", "num_heads", "dropout")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return GPTConfig(vocab_size, num_kv_heads=self.num_kv_heads or 0, **given)

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        if self.text and self.tokens:
            raise InputError("give either --text or --tokens")
        other = (WritingSettings.vocabulary, WritingSettings.vocabulary_size)
        if self.tokens and (self.vocabulary, self.vocabulary_size) != other:
            raise InputError(
                "--tokens brings its vocabulary: --vocabulary and --vocabulary-size are options of "
                "--text, and of `tokenize`"
            )
        try:
            self.config(1)
        except ValueError as error:
            raise InputError(str(error)) from error


def next_token_loss(model: nn.Module, tokens: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross entropy, in nats, of the tokens (N, L) after each of `tokens`."""
    tokens_NL, next_NL = tokens, target
    logits_NLV = model(tokens_NL)
    return F.cross_entropy(logits_NLV.flatten(0, 1), next_NL.flatten())


class Writing(Task):
    """A text, of which a model learns to predict each next token."""

    kind = "gpt"
    words = {"bits": "bits per character"}
    settings_class = WritingSettings
    readers = {
        "config": partial(config_from_json, kind=GPTConfig),
        "vocabulary": vocabulary_from_json,
    }

    model_class: ClassVar[Any]  # made from a config; a subclass sets it

    def __init__(self, settings: WritingSettings, checkpoint: Checkpoint | None = None) -> None:
        self.settings: WritingSettings = settings
        self.train: np.ndarray | TokenShards
        self.valid: np.ndarray | TokenShards
        if settings.tokens is not None:
            folder = open_tokens(settings.tokens)
            self.digest, self.vocabulary = folder.digest, folder.vocabulary
            self.train, self.valid = folder.train, folder.valid
            valid_characters = folder.valid_characters
        else:
            text = python_text() if settings.text is None else read_corpus(settings.text)
            self.digest = hashlib.sha256(text.encode()).hexdigest()
            valid_characters = held_out(len(text))
            train, valid = text[:-valid_characters], text[-valid_characters:]
            if checkpoint is not None:
                self.vocabulary = checkpoint.content["vocabulary"]
            elif settings.vocabulary == "char":
                self.vocabulary = CharVocabulary.train(text)
            else:
                size = settings.vocabulary_size
                self.vocabulary = BPEVocabulary.train(split([train]), size, pieces=True)
            encoder = Encoder(self.vocabulary)
            self.train, self.valid = encoder.text(train), encoder.text(valid)
        if min(len(self.train), len(self.valid)) <= settings.context_length:
            raise InputError(
                f"{settings.tokens or named(settings.text or 'the embedded text')} is too short: "
                f"of its {len(self.train) + len(self.valid):,} tokens {len(self.valid):,} are held "
                f"out to validate with, but the context has {settings.context_length}: choose a "
                "smaller --context-length, or add text"
            )
        self.tokens_per_character = len(self.valid) / valid_characters
        self.model: Any = type(self).model_class(settings.config(len(self.vocabulary)))

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        """Raise CheckpointError unless vocabulary, weights and settings fit the config."""
        path, config = checkpoint.path, checkpoint.content["config"]
        size = len(checkpoint.content["vocabulary"])
        if size != config.vocab_size:
            raise CheckpointError(
                f"{path}: the vocabulary does not match the model: it has {size} tokens, the model "
                f"{config.vocab_size}"
            )
        check_state(path, config, checkpoint.weights)
        if checkpoint.settings.config(size) != config:
            raise CheckpointError(f"{path}: its settings do not match its model")

    def train_batches(self, epoch: int) -> Sequence[Any]:
        """Return batches of places, in random order; pieces begin elsewhere in each epoch."""
        length, size = self.settings.context_length, self.settings.batch_size
        batches = BlockSampler(len(self.train), length, size, seed=self.settings.seed)
        batches.set_epoch(epoch)
        return batches

    def valid_batches(self) -> Sequence[Any]:
        """Return batches of places, in order."""
        length, size = self.settings.context_length, self.settings.batch_size
        places = np.arange(0, len(self.valid) - length, length)
        return [places[i : i + size] for i in range(0, len(places), size)]

    def collate(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the tokens (N, L) at the places, and the token after each of them (N, L)."""
        return self.cut(self.train, places)

    def collate_valid(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the same of the text that is held out."""
        return self.cut(self.valid, places)

    def cut(self, tokens: np.ndarray | TokenShards, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Cut pieces of a text."""
        pieces = tokens[places[:, None] + np.arange(self.settings.context_length + 1)]
        pieces = pieces.astype(np.int64, copy=False)
        return mt.tensor(pieces[:, :-1]), mt.tensor(pieces[:, 1:])

    def count(self, batch: tuple[Tensor, Tensor]) -> int:
        """Count the tokens of a batch."""
        return batch[0].numel()

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross entropy of the next tokens, in nats."""
        return next_token_loss(self.model, *batch)

    def compiled_loss(self, rows: Rows = int) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
        """Return `loss`, compiled."""
        loss = CompiledForShapes(partial(next_token_loss, self.model))
        return lambda batch: loss(*batch)

    def measures(self, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
        """Return the loss, and the same in bits per character, whatever a token is."""
        loss = self.loss(batch).item()
        return {"loss": loss, "bits": loss * self.tokens_per_character / math.log(2)}

    def optimizer(self) -> Optimizer:
        """Return AdamW with the settings of GPT-3 (Brown et al., 2020, arXiv:2005.14165)."""
        return AdamW(self.model.parameters(), self.settings.lr, betas=(0.9, 0.95), weight_decay=0.1)

    def texts(self) -> dict[str, str]:
        """Return the config and the vocabulary as JSON."""
        config = json.dumps(asdict(self.model.config))
        return {"config": config, "vocabulary": self.vocabulary.to_json()}

    def describe(self) -> str:
        """Return the numbers of tokens and parameters."""
        return (
            f"{len(self.train):,} tokens to learn from, {len(self.valid):,} to validate with, "
            f"{len(self.vocabulary):,} different ones; {super().describe()}"
        )


# Writing


@dataclass
class Writer:
    """A trained model, its vocabulary, and the tokens that end a text."""

    model: Any  # with config, start and advance
    vocabulary: Any  # with encode_text and decode_text
    ends: Sequence[int] = ()

    def write(self, prompt: str, max_length: int, choose: Sampling) -> None:
        """Print the prompt and what follows, as it comes; then on standard error a line about it.

        InputError if the prompt is empty, longer than the context, or outside the vocabulary.
        """
        tokens, limit = self.vocabulary.encode_text(prompt), self.model.config.context_length
        if not tokens:
            raise InputError("the prompt is empty: give the beginning of a text")
        if len(tokens) > limit:
            raise InputError(
                f"the prompt has {len(tokens):,} tokens, but the context of this model only "
                f"{limit:,}: shorten it"
            )
        if max(tokens) >= self.model.config.vocab_size:
            raise InputError(
                f"the tokenizer gives token {max(tokens)}, but the model knows only "
                f"{self.model.config.vocab_size}: they do not belong together"
            )
        state, written = self.model.start(), []
        stop = stop_at(*self.ends) if self.ends else never
        start = time.perf_counter()

        def new() -> Iterator[int]:
            for token in stream(self.model, [tokens], state, max_length, choose, stop):
                written.append(token[0])
                yield token[0]

        print(prompt, end="", flush=True)
        for piece in whole_characters(self.vocabulary.decode_text, tokens, new()):
            print(piece, end="", flush=True)
        seconds = time.perf_counter() - start
        reason = "the text ended" if stop(written) else "--max-length"
        slid = f"; it outgrew the context: the model saw its last {limit // 2} to {limit} tokens"
        print(
            f"\n[{len(written):,} tokens ({reason}), {len(written) / seconds:,.0f} tokens/s"
            f"{slid if state.slides else ''}]",
            file=sys.stderr,
        )
