"""BERT, an encoder that learns a language by filling in blanks: complete, with its tasks.

Sources:
- Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
  Understanding", 2018, arXiv:1810.04805: the model and its tasks. Numbers in parentheses, such as
  (3.1), are its sections.
- Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415.
- Reimers, Gurevych, "Sentence-BERT", 2019, arXiv:1908.10084: one vector for a sentence.
- Wang et al., "MiniLM", 2020, arXiv:2002.10957: the pretrained model of `make pretrained`.

A tensor's name ends in its dimensions, and a test holds the names to it:

    N batch   L length   E model width   H heads   K width of a head, E = H * K
    F feed-forward width   V vocabulary

Parameters have the names they have in Hugging Face's BertForPreTraining, so that its weights load
as they are.

    python -m models.bert      learn to count in words, in a minute, and fill in blanks
    python -m models.bert embed "A cat sat." "A kitten was sitting."      with real weights
"""

# ruff: noqa: RET504 - a result gets its name before it is returned, so that its shape is checked

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import accumulate, combinations
from pathlib import Path
from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.data import TokenBatchSampler
from minitensor.files import parse_json, shown
from minitensor.serialize import CheckpointError

from .bert_data import (
    FOLLOWS,
    IGNORED,
    ClassificationSettings,
    Examples,
    PretrainingSettings,
    blocks,
    counting,
    digest,
    hold_out,
    read_documents,
    read_table,
    stretches,
)
from .bert_files import (
    ACTIVATIONS,
    READERS,
    Tokenizer,
    check_sizes,
    is_token,
    pad,
    read_pretrained,
)
from .bert_files import BertConfig as BertConfig
from .bert_fused import FusedBert
from .checkpoint import read_checkpoint
from .command import InputError, exit_code, program
from .settings import count
from .task import Checkpoint, CompiledForShapes, Task, common_shapes
from .text import normalize, read_lines
from .training import BEST, add_train, start_run, train_on

DEFAULT_RUN, COUNTING_RUN, CLASSIFIER_RUN = "runs/bert", "runs/counting", "runs/classifier"


class Bert(nn.Module):
    """Tokens (N, L) -> a vector for each of them that knows of all others (N, L, E).

    Parameters have the names of Hugging Face's BertModel.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
        initialize(self, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Encode tokens (N, L).

        - attention_mask (N, L): 1 or True for a token, 0 or False for padding; all are tokens if
          it is None.
        - token_type_ids (N, L): the number of each token's segment; all are 0 if it is None.

        Raises IndexError for a token outside the vocabulary, a segment or a position never learned.
        """
        x_NLE = self.embeddings(input_ids, token_type_ids)
        mask_N11L = None
        if attention_mask is not None:
            mask_N11L = attention_mask.bool().unsqueeze(1).unsqueeze(2)
        return self.encoder(x_NLE, mask_N11L)


class Embeddings(nn.Module):
    """The sum of a token's, its position's and its segment's vector, normalised: (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        E = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, E, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, E)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, E)
        self.LayerNorm = nn.LayerNorm(E, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embed tokens (N, L) of segments (N, L), which are all 0 if None."""
        input_ids_NL = input_ids
        L, most = input_ids_NL.shape[1], self.position_embeddings.num_embeddings
        if most < L:
            raise IndexError(
                f"the text has {L} tokens, but this model learned only {most} positions"
            )
        segments_NL = mt.zeros_like(input_ids_NL) if token_type_ids is None else token_type_ids
        words_NLE = self.word_embeddings(input_ids_NL)
        segments_NLE = self.token_type_embeddings(segments_NL)
        positions_LE = self.position_embeddings(mt.arange(L))
        return self.dropout(self.LayerNorm(words_NLE + segments_NLE + positions_LE))


class SelfAttention(nn.Module):
    """H heads, each softmax(q k^T / sqrt(K)) v, side by side: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        E = config.hidden_size
        self.nhead = config.num_attention_heads
        self.query = nn.Linear(E, E)
        self.key = nn.Linear(E, E)
        self.value = nn.Linear(E, E)
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `x` (N, L, E) to itself where `mask` (N, 1, 1, L) is True."""
        x_NLE = x
        q_NHLK = self.split_heads(self.query(x_NLE))
        k_NHLK = self.split_heads(self.key(x_NLE))
        v_NHLK = self.split_heads(self.value(x_NLE))
        dropout = self.dropout if self.training else 0.0
        heads_NHLK = F.scaled_dot_product_attention(q_NHLK, k_NHLK, v_NHLK, mask, dropout)
        concatenation_NLE = heads_NHLK.transpose(1, 2).flatten(2)
        return concatenation_NLE

    def split_heads(self, x: Tensor) -> Tensor:
        """Return each head's part: (N, L, E) -> (N, H, L, K)."""
        x_NLE = x
        x_NHLK = x_NLE.unflatten(2, (self.nhead, -1)).transpose(1, 2)
        return x_NHLK


class Output(nn.Module):
    """The end of a sub-layer: norm(residual + dropout(x w^T + b))."""

    def __init__(self, config: BertConfig, in_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Project `x`, (N, L, E) or (N, L, F), and add the residual (N, L, E)."""
        residual_NLE = residual
        return self.LayerNorm(residual_NLE + self.dropout(self.dense(x)))


class Attention(nn.Module):
    """The first sub-layer, self-attention: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend where `mask` (N, 1, 1, L) is True."""
        x_NLE = x
        return self.output(self.self(x_NLE, mask), x_NLE)


class Intermediate(nn.Module):
    """The wide part of the feed-forward network: (N, L, E) -> (N, L, F)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x w^T + b)."""
        x_NLE = x
        hidden_NLF = self.activation(self.dense(x_NLE))
        return hidden_NLF


class Layer(nn.Module):
    """Self-attention, then the feed-forward network: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend where `mask` (N, 1, 1, L) is True."""
        x_NLE = self.attention(x, mask)
        return self.output(self.intermediate(x_NLE), x_NLE)


class Encoder(nn.Module):
    """A stack of layers: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run `x` through all layers; `mask` (N, 1, 1, L) is True at tokens, False at padding."""
        x_NLE = x
        for layer in self.layer:
            x_NLE = layer(x_NLE, mask)
        return x_NLE


class Pooler(nn.Module):
    """One vector for a whole text, from that of [CLS]: (N, L, E) -> (N, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return tanh(w h + b) of the first token's vector h."""
        first_NE = hidden[:, 0]
        return self.dense(first_NE).tanh()


class BertForPreTraining(nn.Module):
    """BERT with the heads of both tasks it learns from (3.1).

    The output of words is the word embedding itself.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.cls = PreTrainingHeads(config)
        initialize(self.cls, config)
        self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        self.cls.predictions.decoder.bias = self.cls.predictions.bias

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return scores of the token at each place (N, L, V), and of "follows" and "random" (N, 2).

        The arguments are those of `Bert`.
        """
        hidden_NLE = self.bert(input_ids, attention_mask, token_type_ids)
        logits_NLV = self.cls.predictions(hidden_NLE)
        follows = self.cls.seq_relationship(self.bert.pooler(hidden_NLE))
        return logits_NLV, follows


class PreTrainingHeads(nn.Module):
    """The heads for masked words and for the next sentence."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.predictions = WordHead(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)


class WordHead(nn.Module):
    """Scores of the word at a place: (*, E) -> (*, V)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bias = nn.Parameter(mt.zeros(config.vocab_size))
        self.transform = Transform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Score all words."""
        return self.decoder(self.transform(hidden))


class Transform(nn.Module):
    """A layer before the scores: norm(f(x w^T + b)), (*, E) -> (*, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform vectors."""
        return self.LayerNorm(self.activation(self.dense(hidden)))


class BertClassifier(nn.Module):
    """BERT with a head that tells classes apart: tokens (N, L) -> scores (N, C)."""

    def __init__(self, config: BertConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, classes)
        initialize(self.classifier, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Score each text's classes (N, C); the arguments are those of `Bert`."""
        pooled_NE = self.bert.pooler(self.bert(input_ids, attention_mask, token_type_ids))
        return self.classifier(self.dropout(pooled_NE))


def initialize(model: nn.Module, config: BertConfig) -> None:
    """Draw matrices from a normal distribution; biases and the vector of padding are 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with mt.no_grad():
                module.weight[module.padding_idx].zero_()


# One vector for a sentence


class SentenceEncoder:
    """A pretrained model that gives texts of similar meaning similar vectors.

    `folder` is that of a Hugging Face BERT; by default that of the package that `make pretrained`
    installs. InputError or CheckpointError, naming the file, for a folder that is not a BERT's.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        pretrained = read_pretrained(folder)
        self.tokenizer, self.pools_first = pretrained.tokenizer, pretrained.pools_first
        self.model = nn.utils.skip_init(Bert, pretrained.config).eval()
        pretrained.load_into(self.model, "bert.", new=("pooler.",))
        self.fused = FusedBert(self.model)

    @mt.no_grad()
    def encode(
        self, texts: Sequence[str], max_length: int | None = None, replace_unknown: bool = False
    ) -> Tensor:
        """Return a vector of length 1 for each text, (N, E): their products are cosines.

        InputError as from `Tokenizer.encode`: texts are cut only to the `max_length` given.
        """
        limit = self.model.config.max_position_embeddings
        encoded = [
            ids for ids, _ in self.tokenizer.encode(texts, limit, max_length, replace_unknown)
        ]
        vectors_NE = mt.zeros(len(texts), self.model.config.hidden_size)
        for numbers in group_by_length([len(ids) for ids in encoded]):
            vectors_NE[mt.tensor(numbers)] = self.pool([encoded[n] for n in numbers])
        return vectors_NE

    def pool(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return the mean of the vectors of each row's tokens, at length 1: (N, E)."""
        tokens_NL = pad(rows, self.tokenizer.pad)
        mask_NL = None if len(set(map(len, rows))) == 1 else is_token(rows)
        hidden_NLE = self.fused(tokens_NL, mask_NL)
        if self.pools_first:
            pooled_NE = hidden_NLE[:, 0]
        elif mask_NL is None:
            pooled_NE = hidden_NLE.mean(1)
        else:
            weight_NL1 = mask_NL.unsqueeze(2).to(hidden_NLE.dtype)
            pooled_NE = (hidden_NLE * weight_NL1).sum(1) / weight_NL1.sum(1)
        return F.normalize(pooled_NE, dim=1)


GROUP_COST = 64  # a batch costs as much as so many more tokens
GROUP_TOKENS = 4096  # of a batch, padding included


def group_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Group the numbers of texts of similar length, with little padding and in few batches."""
    groups: list[list[int]] = []
    longest = 0
    for number in sorted(range(len(lengths)), key=lambda n: lengths[n]):
        length = lengths[number]
        count = len(groups[-1]) if groups else 0
        if (
            not count
            or count * (length - longest) > GROUP_COST
            or (count + 1) * length > GROUP_TOKENS
        ):
            groups.append([])
        groups[-1].append(number)
        longest = length
    return groups


# Tasks


def share_right(logits: Tensor, label: Tensor) -> Tensor:
    """Return the share of rows (N, C) whose largest score is that of the label (N)."""
    return (logits.argmax(1) == label).float().mean()


def text_label_loss(model: nn.Module, tokens: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    """Return the mean cross entropy, in nats, of the labels (N) of texts (N, L)."""
    tokens_NL, mask_NL, label_N = tokens, mask, label
    return F.cross_entropy(model(tokens_NL, mask_NL), label_N)


INPUTS = "input_ids", "attention_mask", "token_type_ids"  # of the model below the heads


class Pretraining(Task):
    """Fill in blanks (3.1), and tell by choice if a line follows another."""

    kind = "bert"
    unit = "blanks"
    words = {"accuracy": "of the blanks right", "follows": "of the pairs right"}
    settings_class = PretrainingSettings
    readers = READERS

    def __init__(self, settings: PretrainingSettings, checkpoint: Checkpoint | None = None) -> None:
        self.settings: PretrainingSettings = settings
        text = read_documents(settings.text) if settings.text else counting()
        self.digest = digest(text)
        self.tokenizer: Tokenizer = (
            Tokenizer.learn([line for d in text for line in d], settings.vocabulary_size)
            if checkpoint is None
            else checkpoint.content["tokenizer"]
        )
        encoded = [self.tokenizer.lines(document) for document in text]
        self.unknown = sum(line.count(self.tokenizer.unknown) for d in encoded for line in d)
        if settings.next_sentence == "yes":
            parts = [self.paired(part) for part in hold_out(blocks(encoded))]
        else:
            whole = stretches(encoded, settings.max_length - 2)
            parts = [Examples(part, None, self.tokenizer, settings) for part in hold_out(whole)]
        self.train, self.valid = parts
        self.model: Any = BertForPreTraining(settings.config(len(self.tokenizer)))

    def paired(self, part: Sequence[Sequence[list[int]]]) -> Examples:
        """Return the pairs of neighbouring lines in blocks."""
        lines = [line for block in part for line in block]
        ends = set(accumulate(len(block) for block in part))
        pairs = [(n, n + 1) for n in range(len(lines)) if n + 1 not in ends]
        examples = Examples(lines, pairs, self.tokenizer, self.settings)
        if not len(examples):
            raise InputError(
                f"no pair of lines is short enough for --max-length {self.settings.max_length}"
            )
        return examples

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        """Raise CheckpointError unless tokenizer, weights and settings fit the config."""
        content = checkpoint.content
        check_sizes(checkpoint.path, content["config"], content["tokenizer"], checkpoint.weights)
        if checkpoint.settings.config(len(content["tokenizer"])) != content["config"]:
            raise CheckpointError(f"{checkpoint.path}: its settings do not match its model")

    def train_batches(self, epoch: int) -> Sequence[Any]:
        """Return the batches of an epoch, by the numbers of lines."""
        return self.train.batches(epoch)

    def valid_batches(self) -> Sequence[Any]:
        """Return the batches to validate with, by the numbers of lines."""
        return self.valid.batches(None)

    def collate(self, numbers: Any) -> dict[str, Tensor]:
        """Return the tensors of a training batch, with new blanks each time."""
        return self.train.collate(numbers)

    def collate_valid(self, numbers: Any) -> dict[str, Tensor]:
        """Return the tensors of a validation batch, with the same blanks each time."""
        return self.valid.collate(numbers, mt.Generator().manual_seed(numbers[0][0]))

    def count(self, batch: dict[str, Tensor]) -> int:
        """Count the blanks."""
        return int((batch["labels"] != IGNORED).sum().item())

    def predict(
        self, batch: dict[str, Tensor], encode: Callable[..., Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores (B, V) and labels (B) of the B blanks, and scores of pairs (N, 2).

        `encode` is the model below the heads, or the same compiled.
        """
        hidden_NLE = encode(*(batch[name] for name in INPUTS))
        blanks_NL = batch["labels"] != IGNORED
        logits = self.model.cls.predictions(hidden_NLE[blanks_NL])
        follows = self.model.cls.seq_relationship(self.model.bert.pooler(hidden_NLE))
        return logits, batch["labels"][blanks_NL], follows

    def total(self, batch: dict[str, Tensor], predicted: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the sum of the mean losses of blanks and of pairs, of what `predict` returned."""
        logits, labels, follows = predicted
        loss = F.cross_entropy(logits, labels)
        if self.settings.next_sentence == "yes":
            loss = loss + F.cross_entropy(follows, batch["follows"])
        return loss

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the sum of the mean losses of blanks and of pairs, in nats."""
        return self.total(batch, self.predict(batch, self.model.bert))

    def compiled_loss(self) -> Callable[[dict[str, Tensor]], Tensor]:
        """Return `loss`, the model below the heads compiled: the number of blanks varies."""
        shapes = []
        with mt.random.fork_rng():
            for numbers in self.train_batches(0):
                batch = self.collate(numbers)
                shapes.append(tuple(tuple(batch[name].shape) for name in INPUTS))
        encode = CompiledForShapes(self.model.bert, common_shapes(shapes))
        return lambda batch: self.total(batch, self.predict(batch, encode))

    def measures(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Return the loss and the shares of blanks and of pairs that are right."""
        predicted = self.predict(batch, self.model.bert)
        logits, labels, follows = predicted
        means = {"loss": self.total(batch, predicted), "accuracy": share_right(logits, labels)}
        if self.settings.next_sentence == "yes":
            means["follows"] = share_right(follows, batch["follows"])
        return {name: mean.item() for name, mean in means.items()}

    def texts(self) -> dict[str, str]:
        """Return the config and the tokenizer as JSON."""
        return {
            "config": json.dumps(asdict(self.model.config)),
            "tokenizer": self.tokenizer.to_json(),
        }

    def describe(self) -> str:
        """Return the sizes of data, vocabulary and model."""
        kind = "stretches of text" if self.train.pairs is None else "pairs of lines"
        left_out = self.train.left_out + self.valid.left_out
        return (
            f"{len(self.train):,} {kind} to learn from, {len(self.valid):,} to validate with"
            + (f" ({left_out:,} were too long)" if left_out else "")
            + f"; {len(self.tokenizer):,} tokens in the vocabulary"
            + (f", {self.unknown:,} of the text's are not" if self.unknown else "")
            + f"; {super().describe()}"
        )


class Classification(Task):
    """Fine-tune a pretrained model to tell the labels of texts (4.1)."""

    kind = "bert-classification"
    unit = "texts"
    words = {"accuracy": "right"}
    settings_class = ClassificationSettings
    readers = {**READERS, "labels": lambda text: labels_from_json(text)}

    def __init__(
        self, settings: ClassificationSettings, checkpoint: Checkpoint | None = None
    ) -> None:
        self.settings: ClassificationSettings = settings
        rows = read_table(settings.tsv or "")
        parts = (rows, read_table(settings.valid_tsv)) if settings.valid_tsv else hold_out(rows)
        self.digest = digest(parts)
        if checkpoint is None:
            pretrained = read_pretrained(settings.model)
            config, self.tokenizer = pretrained.config, pretrained.tokenizer
            self.labels = sorted({label for label, _ in rows})
            if len(self.labels) < 2:
                raise InputError(f"{settings.tsv}: all texts have the label {self.labels[0]!r}")
            self.model: Any = BertClassifier(config, len(self.labels))
            pretrained.load_into(self.model, new=("bert.pooler.", "classifier."))
        else:
            config, self.tokenizer, self.labels = checkpoint.content.values()
            self.model = BertClassifier(config, len(self.labels))
        if settings.learn == "head":
            self.model.bert.embeddings.requires_grad_(False)
            self.model.bert.encoder.requires_grad_(False)
        encoded = self.encode([*parts[0], *parts[1]])
        self.train, self.valid = encoded[: len(parts[0])], encoded[len(parts[0]) :]

    def encode(self, rows: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
        """Return the tokens and the number of the label of each row."""
        for label, _ in rows:
            if label not in self.labels:
                raise InputError(f"no text to learn from has the label {label!r}")
        limit = self.model.config.max_position_embeddings
        encoded = self.tokenizer.encode(
            [text for _, text in rows], limit, self.settings.max_length, replace_unknown=True
        )
        return [
            (ids, self.labels.index(label))
            for (ids, _), (label, _) in zip(encoded, rows, strict=True)
        ]

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        """Raise CheckpointError unless tokenizer and weights fit the config."""
        content = checkpoint.content
        check_sizes(checkpoint.path, content["config"], content["tokenizer"], checkpoint.weights)

    def order(self, rows: Sequence[tuple[list[int], int]], shuffle: bool) -> TokenBatchSampler:
        """Group texts of similar length into batches."""
        lengths = [len(ids) for ids, _ in rows]
        settings = self.settings
        return TokenBatchSampler(
            lengths, settings.batch_tokens, shuffle=shuffle, seed=settings.seed
        )

    def train_batches(self, epoch: int) -> Sequence[Any]:
        """Return the batches of an epoch, by the numbers of texts."""
        order = self.order(self.train, shuffle=True)
        order.set_epoch(epoch)
        return list(order)

    def valid_batches(self) -> Sequence[Any]:
        """Return the batches to validate with, by the numbers of texts."""
        return list(self.order(self.valid, shuffle=False))

    def collate(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tensors of texts to learn from, as `tensors` does."""
        return self.tensors([self.train[n] for n in numbers])

    def collate_valid(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tensors of texts to validate with, as `tensors` does."""
        return self.tensors([self.valid[n] for n in numbers])

    def tensors(self, rows: Sequence[tuple[list[int], int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens (N, L), a mask (N, L) that is True at them, and labels (N)."""
        tokens = [ids for ids, _ in rows]
        labels_N = mt.tensor([label for _, label in rows])
        return pad(tokens, self.tokenizer.pad), is_token(tokens), labels_N

    def count(self, batch: tuple[Tensor, Tensor, Tensor]) -> int:
        """Count the texts."""
        return len(batch[2])

    def loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the mean cross entropy of the labels, in nats."""
        return text_label_loss(self.model, *batch)

    def compiled_loss(self) -> Callable[[tuple[Tensor, Tensor, Tensor]], Tensor]:
        """Return `loss`, compiled for batches of the shapes that come often."""
        shapes = []
        for numbers in self.train_batches(0):
            tokens = len(numbers), max(len(self.train[n][0]) for n in numbers)
            shapes.append((tokens, tokens, tokens[:1]))
        loss = CompiledForShapes(partial(text_label_loss, self.model), common_shapes(shapes))
        return lambda batch: loss(*batch)

    def measures(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
        """Return the loss and the share of labels that are right."""
        tokens_NL, mask_NL, labels_N = batch
        logits = self.model(tokens_NL, mask_NL)
        return {
            "loss": F.cross_entropy(logits, labels_N).item(),
            "accuracy": share_right(logits, labels_N).item(),
        }

    def texts(self) -> dict[str, str]:
        """Return the config, the tokenizer and the labels as JSON."""
        return {
            "config": json.dumps(asdict(self.model.config)),
            "tokenizer": self.tokenizer.to_json(),
            "labels": json.dumps(self.labels),
        }

    def describe(self) -> str:
        """Return the sizes of data and model."""
        learning = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return (
            f"{len(self.train):,} texts to learn from, {len(self.valid):,} to validate with"
            f"; {len(self.labels)} labels; {super().describe()}, of which {learning:,} learn"
        )


def labels_from_json(text: str) -> list[str]:
    """Parse the labels that a checkpoint keeps; ValueError if they are damaged."""
    labels = parse_json(text)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"they are {shown(labels)}")
    return labels


# Commands


@mt.no_grad()
def fill_blanks(options: argparse.Namespace) -> int:
    """Print the most probable words for each [MASK], and if a second text follows the first."""
    pretrained = read_pretrained(options.model)
    if not any(name.startswith("cls.predictions.") for name in pretrained.weights):
        raise InputError(
            f"{pretrained.path} has no head for masked words: it cannot fill in blanks"
        )
    model = nn.utils.skip_init(BertForPreTraining, pretrained.config).eval()
    pretrained.load_into(model, new=("bert.pooler.", "cls.seq_relationship."))
    if len(options.text) > 2:
        raise InputError("give one text, or two of which the second may follow the first")
    text = tuple(map(normalize, options.text))
    tokenizer = pretrained.tokenizer
    [(ids, segments)] = tokenizer.encode(
        [text[0] if len(text) == 1 else (text[0], text[1])],
        pretrained.config.max_position_embeddings,
        options.max_length,
        options.replace_unknown,
    )
    places = [place for place, token in enumerate(ids) if token == tokenizer.mask]
    if not places and len(text) == 1:
        raise InputError("there is no [MASK] in the text, so there is nothing to fill in")
    logits_NLV, follows = model(mt.tensor([ids]), token_type_ids=mt.tensor([segments]))
    for number, place in enumerate(places, 1):
        probabilities_V = logits_NLV[0, place].softmax(0)
        best = probabilities_V.topk(min(options.count, len(tokenizer)))
        words = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        shares = "  ".join(f"{tokenizer.word(token)} {100 * p:.1f} %" for p, token in words)
        print(f"[MASK] {number}: {shares}" if len(places) > 1 else f"[MASK]: {shares}")
        ids[place] = int(best.indices[0].item())
    print(f"  {tokenizer.tokens.decode(ids)}")
    if len(text) == 2 and any(
        name.startswith("cls.seq_relationship.") for name in pretrained.weights
    ):
        probability = follows[0].softmax(0)[FOLLOWS].item()
        print(f"  the second text follows the first: {100 * probability:.1f} %")
    return 0


def embed(options: argparse.Namespace) -> int:
    """Print the cosine similarity of every two texts."""
    texts = [normalize(text) for text in options.text]
    if len(texts) < 2:
        raise InputError("give at least two texts to compare")
    vectors_NE = SentenceEncoder(options.model).encode(
        texts, options.max_length, options.replace_unknown
    )
    cosines = (vectors_NE @ vectors_NE.T).tolist()
    for a, b in combinations(range(len(texts)), 2):
        print(f"{cosines[a][b]:7.4f}  {texts[a]}  |  {texts[b]}")
    return 0


def search(options: argparse.Namespace) -> int:
    """Print the lines of a file whose meaning is nearest to a text's."""
    lines = [
        (number, line) for number, line in enumerate(read_lines(options.input), 1) if line.strip()
    ]
    encoder = SentenceEncoder(options.model)
    settings = options.max_length, options.replace_unknown
    query_E = encoder.encode([normalize(options.text)], *settings)[0]
    vectors_NE = encoder.encode([normalize(line) for _, line in lines], *settings)
    best = (vectors_NE @ query_E).topk(min(options.count, len(lines)))
    for cosine, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        number, line = lines[place]
        print(f"{cosine:7.4f}  line {number}: {normalize(line)}")
    return 0


class Classifier:
    """The best model of a classification run."""

    def __init__(self, run: str | Path) -> None:
        path = Path(run)
        path = path / BEST if path.is_dir() else path
        if not path.exists():
            raise InputError(f"there is no trained classifier at {path}: train one first")
        checkpoint = read_checkpoint(path, Classification)
        config, self.tokenizer, self.labels = checkpoint.content.values()
        self.model = nn.utils.skip_init(BertClassifier, config, len(self.labels)).eval()
        self.model.load_state_dict(checkpoint.weights)
        self.max_length = checkpoint.settings.max_length

    @mt.no_grad()
    def classify(
        self, texts: Sequence[str], replace_unknown: bool = False
    ) -> list[tuple[str, float]]:
        """Return the most probable label of each text, and its probability."""
        limit = self.model.config.max_position_embeddings
        encoded = [
            ids for ids, _ in self.tokenizer.encode(texts, limit, self.max_length, replace_unknown)
        ]
        found = [("", 0.0)] * len(texts)
        for numbers in group_by_length([len(ids) for ids in encoded]):
            rows = [encoded[n] for n in numbers]
            best = self.model(pad(rows, self.tokenizer.pad), is_token(rows)).softmax(1).max(1)
            for n, p, label in zip(
                numbers, best.values.tolist(), best.indices.tolist(), strict=True
            ):
                found[n] = self.labels[label], p
        return found


def evaluate(options: argparse.Namespace) -> int:
    """Print the share of a table's texts whose label a classifier finds."""
    rows = read_table(options.tsv)
    found = Classifier(options.run).classify([text for _, text in rows], replace_unknown=True)
    right = sum(label == wanted for (label, _), (wanted, _) in zip(found, rows, strict=True))
    print(f"{right} of {len(rows)} labels are right: {right / len(rows):.2%}")
    return 0


def label_texts(options: argparse.Namespace) -> int:
    """Print the label of each text, and its probability."""
    texts = [normalize(text) for text in options.text]
    for text, (label, p) in zip(
        texts, Classifier(options.run).classify(texts, options.replace_unknown), strict=True
    ):
        print(f"{label}\t{100 * p:.1f} %\t{text}")
    return 0


def learn_to_count() -> int:
    """Learn to count in words, then fill in blanks."""
    settings = PretrainingSettings(
        dropout=0.0, batch_tokens=1000, epochs=8, lr=2e-3, schedule="linear"
    )
    with start_run(Pretraining, settings, COUNTING_RUN, overwrite=True) as trainer:
        if code := train_on(trainer):
            return code
    for text in COUNTED:
        print(f"\n{text}")
        given = dict(model=COUNTING_RUN, max_length=None, replace_unknown=False, count=3)
        fill_blanks(argparse.Namespace(text=[text], **given))
    command = f"{program(f'{__package__}.bert')} fill --model {COUNTING_RUN}"
    print(f'\nmore: {command} "{COUNTED[0]}"')
    return 0


COUNTED = (
    "eight thousand and forty-one eight thousand and forty-[MASK] eight thousand and forty-three",
    "two thousand, [MASK] hundred and thirty-four two thousand, nine hundred and thirty-five "
    "two thousand, nine hundred and thirty-six",
    "five thousand, one hundred and [MASK]-three five thousand, one hundred and eighty-four "
    "five thousand, one hundred and eighty-five",
)


def example() -> tuple[nn.Module, dict[str, Tensor], dict[str, int]]:
    """Return a small model, its inputs, and the names of their sizes."""
    N, L, E, H, F, V, P = 3, 7, 32, 4, 48, 61, 16
    config = BertConfig(V, E, 2, H, F, max_position_embeddings=P)
    tokens_NL = mt.randint(1, V, (N, L))
    sizes = {"N": N, "L": L, "E": E, "H": H, "F": F, "V": V, "P": P}
    return Bert(config), {"input_ids": tokens_NL}, sizes


# The command line


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the commands."""
    parser = argparse.ArgumentParser(
        prog=program(f"{__package__}.bert"),
        description="Pretrain and use BERT. Without a command: learn to count, and fill in blanks.",
    )
    commands = parser.add_subparsers(metavar="COMMAND")

    add_train(commands, Pretraining, DEFAULT_RUN, "learn a language from text", name="pretrain")

    command = commands.add_parser("fill", help="fill in the blanks of a text")
    command.add_argument("text", nargs="+", help="a text with [MASK], or two of a pair")
    command.add_argument("--count", type=count, default=5, help="words to show for each")
    add_model(command, DEFAULT_RUN)
    command.set_defaults(command=fill_blanks)

    command = commands.add_parser("embed", help="compare the meanings of texts")
    command.add_argument("text", nargs="+", help="texts to compare")
    add_model(command)
    command.set_defaults(command=embed)

    command = commands.add_parser("search", help="find the lines of a file by their meaning")
    command.add_argument("text", help="text to look for")
    command.add_argument("--input", required=True, help="file to search (plain or .gz)")
    command.add_argument(
        "--count", type=count, default=5, help="lines to show (default: %(default)s)"
    )
    add_model(command)
    command.set_defaults(command=search)

    classify = commands.add_parser("classify", help="learn to label texts, and label them")
    classes = classify.add_subparsers(required=True, metavar="COMMAND")
    add_train(classes, Classification, CLASSIFIER_RUN, "fine-tune a model to labels")
    command = classes.add_parser("evaluate", help="count the labels that are right")
    command.add_argument("--tsv", required=True, help="table of labels and texts")
    command.add_argument("--run", default=CLASSIFIER_RUN, help="folder (default: %(default)s)")
    command.set_defaults(command=evaluate)
    command = classes.add_parser("label", help="label texts")
    command.add_argument("text", nargs="+", help="texts to label")
    command.add_argument("--run", default=CLASSIFIER_RUN, help="folder (default: %(default)s)")
    add_unknown(command)
    command.set_defaults(command=label_texts)
    return parser


def add_model(command: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the options that name a model and say what to do with odd texts."""
    known = default or "the installed sentence encoder"
    command.add_argument(
        "--model", default=default, help=f"folder of a BERT, or of a run (default: {known})"
    )
    command.add_argument("--max-length", type=count, help="cut longer texts to so many tokens")
    add_unknown(command)


def add_unknown(command: argparse.ArgumentParser) -> None:
    """Add the option for characters outside the vocabulary."""
    command.add_argument(
        "--replace-unknown", action="store_true", help="read what the vocabulary lacks as [UNK]"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    options = build_parser().parse_args(arguments)
    if "command" not in options:
        return exit_code(learn_to_count)
    return exit_code(lambda: options.command(options))


if __name__ == "__main__":
    sys.exit(main())
