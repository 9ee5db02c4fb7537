"""The task of translation: a sequence-to-sequence model learns pairs of sentences.

Source: label smoothing from Szegedy et al., "Rethinking the Inception Architecture", 2016,
arXiv:1512.00567.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor
from minitensor.serialize import CheckpointError

from .command import InputError
from .config import TransformerConfig, check_state, config_from_json, load_state
from .pairs import (
    Batch,
    PairSettings,
    TranslationSettings,
    collate,
    count_tokens,
    digest,
    encode_pairs,
    fits,
    load_data,
    load_pairs,
    order_by_tokens,
)
from .task import Checkpoint, CompiledForShapes, Task, common_shapes
from .text import PAD, Pair, Vocabulary, vocabulary_from_json
from .transformer import Transformer
from .vectors import read_vectors


def predict(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the scores (N * L, V) of all target tokens of a batch, and the tokens (N * L)."""
    src_NS, tgt_NL = batch
    padding_NS = model.generate_source_key_padding_mask(src_NS)
    logits_NLV = model(
        src_NS,
        model.shift_right(tgt_NL),
        tgt_mask=model.generate_square_subsequent_mask(tgt_NL.shape[1]),
        src_key_padding_mask=padding_NS,
        memory_key_padding_mask=padding_NS,
    )
    return logits_NLV.flatten(0, 1), tgt_NL.flatten()


def pair_loss(model: Transformer, smoothing: float, src: Tensor, tgt: Tensor) -> Tensor:
    """Return the loss, with label smoothing, of source (N, S) and target (N, L) tokens."""
    return token_loss(*predict(model, (src, tgt)), smoothing)


def token_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross entropy of the target tokens that are not padding, in nats."""
    return F.cross_entropy(logits, target, ignore_index=PAD, label_smoothing=smoothing)


class Translation(Task):
    """Pairs of sentences for the encoder-decoder Transformer."""

    kind = "translation"
    words = {"nll": "unsmoothed"}
    settings_class: ClassVar[type[PairSettings]] = TranslationSettings
    readers = {
        "config": partial(config_from_json, kind=TransformerConfig),
        "source_vocabulary": vocabulary_from_json,
        "target_vocabulary": vocabulary_from_json,
    }

    def __init__(self, settings: PairSettings, checkpoint: Checkpoint | None = None) -> None:
        self.settings = settings
        self.data = load_data(settings, None if checkpoint is None else vocabularies(checkpoint))
        self.digest = self.data.digest
        sizes = len(self.data.source_vocabulary), len(self.data.target_vocabulary)
        self.model: Any = self.make_model(self.make_config(settings, *sizes))
        self.found = ""  # how many words have pretrained vectors
        for side, embedding, vocabulary, path in (
            ("source", "src_embedding", self.data.source_vocabulary, settings.source_vectors),
            ("target", "tgt_embedding", self.data.target_vocabulary, settings.target_vectors),
        ):
            if path is None:
                continue
            weight = getattr(self.model, embedding).weight
            if checkpoint is None:
                words = vocabulary.pieces(range(len(vocabulary)))
                vectors, count = read_vectors(path, words, weight.shape[1])
                with mt.no_grad():
                    weight.copy_(vectors)
                self.found += f"; {path} has {count:,} of the {side} words"
            weight.requires_grad_(not settings.freeze_vectors)
        self.order = order_by_tokens(self.data.train, settings, shuffle=True)

    # The model

    @classmethod
    def make_config(cls, settings: Any, source_size: int, target_size: int) -> Any:
        """Return the config of the model that the settings ask for, with these vocabulary sizes."""
        return TransformerConfig(
            src_vocab_size=source_size,
            tgt_vocab_size=target_size,
            d_model=settings.d_model,
            nhead=settings.nhead,
            num_encoder_layers=settings.encoder_layers,
            num_decoder_layers=settings.decoder_layers,
            dim_feedforward=settings.dim_feedforward,
            dropout=settings.dropout,
            activation=settings.activation,
            norm=settings.norm_kind,
            norm_first=settings.norm == "pre",
            positions=settings.positions,
            max_length=settings.max_length,
            tied_output=settings.output == "tied",
        )

    @classmethod
    def make_model(cls, config: Any) -> Any:
        """Build the model of a config."""
        return Transformer(config)

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        """Raise CheckpointError unless vocabularies, weights and settings fit the config."""
        path = checkpoint.path
        config = checkpoint.content["config"]
        sizes = (config.src_vocab_size, config.tgt_vocab_size)
        for name, vocabulary, size in zip(
            ("source", "target"), vocabularies(checkpoint), sizes, strict=True
        ):
            if len(vocabulary) != size:
                raise CheckpointError(
                    f"{path}: the {name} vocabulary does not match the model: it has "
                    f"{len(vocabulary)} tokens, the model {size}"
                )
        cls.check_weights(path, config, checkpoint.weights)
        wanted = asdict(cls.make_config(checkpoint.settings, *sizes))
        for name, value in asdict(config).items():
            if value != wanted[name]:
                raise CheckpointError(
                    f"{path}: its settings do not match its model: {name} is {value}, by the "
                    f"settings {wanted[name]}"
                )

    @classmethod
    def check_weights(cls, path: Path, config: Any, weights: dict[str, Tensor]) -> None:
        """Raise CheckpointError unless weights have the names and shapes that the config asks."""
        check_state(path, config, weights)

    @classmethod
    def load_model(cls, checkpoint: Checkpoint) -> Any:
        """Build the model of a checkpoint, with its weights, in evaluation mode."""
        model = cls.make_model(checkpoint.content["config"])
        load_state(checkpoint.path, model, checkpoint.weights)
        return model.eval()

    @classmethod
    def attention_maps(cls, model: Any, src: Tensor, tgt: Tensor) -> list[np.ndarray]:
        """Return the attention of a sentence's translation (1, L) to it (1, S).

        That is an array (H, L, S) for each layer that attends to the source; InputError if there
        is none.
        """
        tgt_NL = model.shift_right(tgt)
        causal_LL = model.generate_square_subsequent_mask(tgt_NL.shape[1])
        _, maps = model.explain(src, tgt_NL, tgt_mask=causal_LL)
        return [m[0].numpy() for name, m in maps.items() if name.endswith("multihead_attn")]

    # Data

    def train_batches(self, epoch: int) -> Sequence[Any]:
        """Return the batches of an epoch: pairs of similar length, by their numbers."""
        self.order.set_epoch(epoch)
        return list(self.order)

    def valid_batches(self) -> Sequence[Any]:
        """Return the batches of validation pairs, by their numbers."""
        return list(order_by_tokens(self.data.valid, self.settings, shuffle=False))

    def collate(self, numbers: Sequence[int]) -> Batch:
        """Return the source (N, S) and target (N, L) tokens of training pairs."""
        return collate([self.data.train[n] for n in numbers])

    def collate_valid(self, numbers: Sequence[int]) -> Batch:
        """Return the source (N, S) and target (N, L) tokens of validation pairs."""
        return collate([self.data.valid[n] for n in numbers])

    def count(self, batch: Batch) -> int:
        """Count the target tokens of a batch, without padding."""
        return count_tokens(batch)

    # Learning

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the scores (N * L, V) of all target tokens of a batch, and the tokens (N * L)."""
        return predict(self.model, batch)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, with label smoothing."""
        return token_loss(*self.predict(batch), self.settings.label_smoothing)

    def compiled_loss(self) -> Callable[[Batch], Tensor]:
        """Return `loss`, compiled for batches of the shapes that come often."""
        data = self.data.train
        shapes = []
        for numbers in self.train_batches(0):
            sides = zip(*(data[n] for n in numbers), strict=True)
            shapes.append(tuple((len(numbers), max(map(len, side))) for side in sides))
        loss = CompiledForShapes(
            partial(pair_loss, self.model, self.settings.label_smoothing), common_shapes(shapes)
        )
        return lambda batch: loss(*batch)

    def measures(self, batch: Batch) -> dict[str, float]:
        """Return the loss with label smoothing as in training, and without, in nats per token."""
        logits, target = self.predict(batch)
        smoothing = self.settings.label_smoothing
        return {
            "loss": token_loss(logits, target, smoothing).item(),
            "nll": token_loss(logits, target, 0.0).item(),
        }

    def least_losses(self) -> tuple[float, float]:
        """Return the lowest loss possible with label smoothing, and the unsmoothed loss there.

        Label smoothing e asks for the probability 1 - e + e / V of the right token among V, and
        e / V of every other one. The lowest loss is the entropy of that distribution, not 0.
        """
        each = self.settings.label_smoothing / len(self.data.target_vocabulary)
        right = 1 - self.settings.label_smoothing + each
        others = len(self.data.target_vocabulary) - 1
        entropy = -right * math.log(right) - (others * each * math.log(each) if each else 0.0)
        return entropy, -math.log(right)

    def floor(self) -> tuple[float, str] | None:
        """Return the lowest loss that label smoothing leaves possible."""
        smoothing = self.settings.label_smoothing
        if not smoothing:
            return None
        return self.least_losses()[0], f"the least possible with label smoothing {smoothing:g}"

    # Words

    def texts(self) -> dict[str, str]:
        """Return the config and the vocabularies as JSON."""
        return {
            "config": json.dumps(asdict(self.model.config)),
            "source_vocabulary": self.data.source_vocabulary.to_json(),
            "target_vocabulary": self.data.target_vocabulary.to_json(),
        }

    def facts(self) -> dict[str, Any]:
        """Return the length of the longest target: translations may become as long."""
        return {"longest_target": self.data.longest_target}

    def describe(self) -> str:
        """Return the numbers of pairs, tokens and parameters."""
        data = self.data
        return (
            f"{len(data.train):,} pairs to learn from, {len(data.valid):,} to validate with"
            + (f" ({data.left_out:,} were too long)" if data.left_out else "")
            + f"; {len(data.source_vocabulary):,} source and "
            f"{len(data.target_vocabulary):,} target tokens; {super().describe()}{self.found}"
        )

    def advice(self) -> str:
        """Return how low the loss can get with label smoothing."""
        if not self.settings.label_smoothing:
            return ""
        least, unsmoothed = self.least_losses()
        return (
            f"label smoothing {self.settings.label_smoothing:g} teaches the model to be "
            f"{100 * math.exp(-unsmoothed):.0f} % sure of each token, no surer: the loss "
            f"cannot fall\nbelow {least:.4f}, and unsmoothed it may rise towards "
            f"{unsmoothed:.4f} while the translations get better"
        )


def vocabularies(checkpoint: Checkpoint) -> tuple[Vocabulary, Vocabulary]:
    """Return the source and the target vocabulary of a checkpoint."""
    return checkpoint.content["source_vocabulary"], checkpoint.content["target_vocabulary"]


def held_out_pairs(checkpoint: Checkpoint) -> list[Pair]:
    """Read a run's validation pairs again; InputError if the data has changed since.

    Pairs that are too long for the run are left out, as in training.
    """
    advice = "name the pairs to evaluate with: --source and --target, or --tsv"
    try:
        pairs = load_pairs(checkpoint.settings)
    except InputError as error:
        raise InputError(f"{error}, which {checkpoint.path} was trained with: {advice}") from error
    if digest(pairs) != checkpoint.progress["data"]:
        raise InputError(f"the data has changed since {checkpoint.path} was trained: {advice}")
    valid = zip(pairs[1], encode_pairs(pairs[1], vocabularies(checkpoint)), strict=True)
    return [pair for pair, tokens in valid if fits(tokens, checkpoint.settings)]
