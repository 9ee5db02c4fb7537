"""The plan of a benchmark: the training steps that set all sizes, and how long to measure."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitensor.models.bert_files import BertConfig


@dataclass(frozen=True)
class Step:
    """A training step: a model, and the batch (batch, length) of source and target tokens."""

    name: str
    vocabulary: int
    d_model: int
    heads: int
    layers: int  # of the encoder, and of the decoder
    feedforward: int
    batch: int
    length: int

    @property
    def tokens(self) -> int:
        """The number of source, or of target, tokens in the batch."""
        return self.batch * self.length

    @property
    def flops(self) -> float:
        """The FLOPs of the matrix products of a step, two per multiply-add.

        The backward pass has two products for each of the forward pass. Recomputation is not
        counted, and masked products are.
        """
        width = self.d_model
        layer_flops = self.layers * (12 * width**2 + 4 * width * self.feedforward)
        attention_flops = 3 * self.layers * 2 * self.length * width
        return 3 * 2 * self.tokens * (layer_flops + attention_flops + width * self.vocabulary)

    def config(self, **changes: Any) -> Any:
        """Return the model's TransformerConfig."""
        from minitensor.models.transformer import TransformerConfig

        settings = dict(
            d_model=self.d_model,
            nhead=self.heads,
            num_encoder_layers=self.layers,
            num_decoder_layers=self.layers,
            dim_feedforward=self.feedforward,
            dropout=0.1,
        )
        return TransformerConfig(self.vocabulary, self.vocabulary, **(settings | changes))

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch of random tokens, without padding."""
        from ..compare import random_batches

        source, target = random_batches(
            self.config(), 1, self.batch, self.length, shortest=self.length
        )[0]
        return source, target

    def resized(self, **changes: Any) -> Step:
        """Return the step with other sizes."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Convolution:
    """A convolution of an input (N, C, *) by a weight (F, C / groups, *)."""

    name: str
    input: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    groups: int = 1
    first: bool = False  # in its model, so that its input needs no gradient
    judged: bool = True  # has a target

    @property
    def flops(self) -> float:
        """The FLOPs of the forward pass, two per multiply-add."""
        sizes = zip(self.input[2:], self.weight[2:], strict=True)
        windows = [(n + 2 * self.padding - k) // self.stride + 1 for n, k in sizes]
        return 2.0 * self.input[0] * math.prod(windows) * math.prod(self.weight)


CONVOLUTIONS = (
    Convolution("ViT's patches of 16", (8, 3, 224, 224), (768, 3, 16, 16), 16, first=True),
    Convolution("digits' patches of 4", (64, 1, 28, 28), (64, 1, 4, 4), 4, first=True),
    Convolution("Whisper's stem 1", (1, 80, 3000), (384, 80, 3), 1, 1, first=True),
    Convolution("Whisper's stem 2", (1, 384, 3000), (384, 384, 3), 2, 1),
    Convolution("stem 2, stride 1", (1, 384, 3000), (384, 384, 3), 1, 1),
    Convolution("3x3 of images", (8, 32, 32, 32), (64, 32, 3, 3), 1, 1, judged=False),
    Convolution("1x1 of images", (8, 64, 32, 32), (64, 64, 1, 1), judged=False),
    Convolution("3x3, each channel", (8, 64, 32, 32), (64, 1, 3, 3), 1, 1, 64, judged=False),
)


@dataclass(frozen=True)
class Script:
    """A model of `tests/scripts` and its batch: tokens (N, L), or images (N, 3, L, L)."""

    name: str
    file: str
    vocabulary: int  # or classes
    width: int
    heads: int
    layers: int
    batch: int
    length: int


SCRIPTS = (
    Script("nanoGPT of characters", "train_gpt.py", 65, 128, 4, 4, 12, 64),
    Script("nanoGPT", "train_gpt.py", 65, 384, 6, 6, 8, 256),
    Script("LLaMA, small", "llama.py", 512, 128, 4, 4, 16, 64),
    Script("LLaMA", "llama.py", 4096, 288, 6, 6, 4, 256),
    Script("ViT, small", "vit.py", 10, 128, 4, 4, 32, 32),
    Script("ViT", "vit.py", 100, 192, 3, 12, 32, 32),
)
MINILM = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)


@dataclass(frozen=True)
class Plan:
    """The sizes of a benchmark run, and how long it measures."""

    steps: tuple[Step, ...] = (
        Step("small", 100, 128, 4, 2, 512, 64, 24),
        Step("medium", 8000, 256, 8, 3, 1024, 32, 32),
        Step("large", 8000, 512, 8, 6, 2048, 16, 64),
    )
    attention_lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    attention_scores: int = 2**16  # of one head over the batch, unless one sentence has more
    recurrent_widths: tuple[int, ...] = (128, 512)
    recurrent_batch: tuple[int, int] = (64, 32)  # steps, sequences
    convolutions: tuple[Convolution, ...] = CONVOLUTIONS
    scripts: tuple[Script, ...] = SCRIPTS
    bert: BertConfig = MINILM
    bert_batches: tuple[tuple[int, int], ...] = ((1, 10), (32, 24))  # sentences, tokens of each
    decode_batches: tuple[int, ...] = (1, 32)
    beam: int = 4
    small_ops: tuple[str, ...] = ()  # names of the registry; empty for all
    rounds: int = 5  # in each, every side has a turn
    seconds: float = 0.05  # of a turn
    pause: float = 0.02  # before a turn, repeated until the last side's threads sleep
    roof_megabytes: int = 128  # of each array in the measurement of memory bandwidth
    growth_batches: tuple[int, ...] = (1, 4, 16, 32, 64, 128)
    growth_lengths: tuple[int, ...] = (32, 128, 512, 2048, 8192)
    growth_beside: int = 2048  # the length up to which others are measured too
    growth_layers: tuple[int, ...] = (1, 3, 6, 12)
    growth_vocabularies: tuple[int, ...] = (1000, 8000, 32_000, 100_000)
    growth_memory: int = 512  # the length or vocabulary from which memory is measured too
    growth_rounds: int = 3
    others: tuple[int, ...] = (0, 1, 2, 4)  # processes that compute beside a step, first 0
    turn: float = 2.0  # seconds of a turn beside other processes
    startup: Step = Step("first", 1000, 64, 4, 2, 128, 8, 16)
    startups: int = 5  # repetitions of a warm start
