"""GPT: a decoder-only Transformer that learns to write by predicting the next token of a text.

Sources:
- Radford et al., "Language Models are Unsupervised Multitask Learners", 2019: GPT-2, with learned
  positions, layer norm before each sub-layer, GELU, and the embedding as the output projection.
- Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023, arXiv:2302.13971:
  the modern variant, made of
- Su et al., 2021, arXiv:2104.09864: rotary positions, which turn queries and keys by their place;
- Zhang, Sennrich, 2019, arXiv:1910.07467: RMSNorm, which divides by the root mean square alone;
- Shazeer, 2020, arXiv:2002.05202: SwiGLU, a feed-forward network with a gate;
- Ainslie et al., 2023, arXiv:2305.13245: grouped queries, which share heads of keys and values.

A tensor's name ends in its dimensions, and a test holds the names to it:

    N batch   L length, new tokens   S tokens to attend to, the new ones included   E model width
    H heads   G heads of keys and values   K width of a head, E = H * K   V vocabulary

    python -m models.gpt                                learn to write, in a minute
    python -m models.gpt train --text FILE              learn from a text of yours
    python -m models.gpt generate "Once upon a time"    write, by the run or a --model FOLDER
"""

# ruff: noqa: RET504 - a result gets its name before it is returned, so that its shape is checked

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.files import parse_json, shown
from minitensor.optim import AdamW, Optimizer
from minitensor.serialize import CheckpointError

from .checkpoint import read_checkpoint
from .command import InputError, exit_code, program
from .config import load_state
from .decoding import KVCache, Sampling, never, stop_at, stream
from .gpt_files import VARIANTS, Tokenizer, check_state, read_folder
from .gpt_files import GPTConfig as GPTConfig
from .positions import RotaryPositions
from .python_text import python_text
from .settings import Settings, amount, count, seed_number, setting, share
from .task import Checkpoint, Task
from .text import BPEVocabulary, CharVocabulary, read_text, vocabulary_from_json, whole_characters
from .training import BEST, add_train, rate_share, start_task

DEFAULT_RUN = "runs/gpt"
VALID_SHARE, VALID_MOST = 0.1, 100_000  # of the characters of a text: its end is held out


# The model


class GPT(nn.Module):
    """Tokens (N, L) -> scores of the token after each of them (N, L, V); L <= context_length."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        if config.variant == "gpt2":
            self.position_embedding = nn.Embedding(config.context_length, config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = make_norm(config)
        self.output = nn.Linear(config.embed_dim, config.vocab_size, bias=False)
        if config.tied_output:
            self.output.weight = self.token_embedding.weight
        self.initialize()

    def initialize(self) -> None:
        """Initialise as GPT-2: matrices N(0, 0.02), smaller where a sub-layer joins the sum."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                joins = name.endswith(("out.weight", "down.weight"))
                scale = (2 * self.config.num_layers) ** -0.5 if joins else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores (N, L, V); IndexError for a token outside the vocabulary, or too many."""
        x_NLE = self.read(tokens)
        return self.output(x_NLE)

    def read(self, tokens: Tensor, state: State | None = None) -> Tensor:
        """Return the last block's output (N, L, E), normalised, for tokens that follow `state`."""
        tokens_NL = tokens
        start = 0 if state is None else state.length
        end = start + tokens_NL.shape[1]
        if end > self.config.context_length:
            raise IndexError(
                f"{end} tokens are longer than the context, {self.config.context_length}: shorten "
                "the text, or build the model with a larger context_length"
            )
        x_NLE = self.token_embedding(tokens_NL)
        if self.config.variant == "gpt2":
            position_LE = self.position_embedding(mt.arange(start, end))
            x_NLE = x_NLE + position_LE
        x_NLE = self.dropout(x_NLE)
        for number, block in enumerate(self.blocks):
            x_NLE = block(x_NLE, None if state is None else state.caches[number])
        return self.norm(x_NLE)

    # Writing, by models/decoding.py

    def start(self) -> State:
        """Return the state before the first token."""
        return State(self.config.num_layers)

    @mt.no_grad()
    def advance(self, tokens: Tensor, state: State) -> Tensor:
        """Read tokens (N, L), which follow those in `state`: scores (N, V) of the next token.

        When the text outgrows the context, the model forgets all but the last half of it, reads
        that again from position 0, and goes on; `state.slides` counts how often.
        """
        tokens_NL, limit = tokens, self.config.context_length
        if state.length + tokens_NL.shape[1] > limit and state.length:
            kept = max(limit // 2, tokens_NL.shape[1])
            tokens_NL = mt.cat([state.tokens, tokens_NL], dim=1)[:, -kept:]
            state.forget()
            state.slides += 1
        x_NLE = self.read(tokens_NL, state)
        state.append(tokens_NL)
        logits_NV = self.output(x_NLE[:, -1])
        return logits_NV

    @classmethod
    def from_folder(cls, path: str | Path) -> GPT:
        """Load a GPT-2 or LLaMA from a folder with config.json and model.safetensors.

        InputError for a missing file, CheckpointError, naming the file, for a wrong one.
        """
        config, weights = read_folder(path)
        model = cls(config)
        model.load_state_dict(weights)
        return model.eval()


class Block(nn.Module):
    """Attention, then the feed-forward network, each added to its input: (N, L, E) -> the same."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm1 = make_norm(config)
        self.attention = CausalAttention(config)
        self.norm2 = make_norm(config)
        self.feed_forward = SwiGLU(config) if config.variant == "llama" else FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Let each position look back, then compute on its own."""
        x_NLE = x
        x_NLE = x_NLE + self.dropout(self.attention(self.norm1(x_NLE), cache))
        x_NLE = x_NLE + self.dropout(self.feed_forward(self.norm2(x_NLE)))
        return x_NLE


class CausalAttention(nn.Module):
    """H heads, in which a position attends to itself and those before it: (N, L, E) -> the same.

    With fewer heads of keys and values than of queries (G < H), H / G queries share each.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        E, H, G, K = config.embed_dim, config.num_heads, config.kv_heads, config.head_size
        self.parts = [H, G, G]
        self.head_size = K
        self.dropout = config.dropout
        self.rotary = RotaryPositions(K, config.rotary_base) if config.variant == "llama" else None
        self.qkv = nn.Linear(E, (H + 2 * G) * K, bias=config.variant == "gpt2")
        self.out = nn.Linear(E, E, bias=config.variant == "gpt2")

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Attend to the tokens of `x`, and to those before them in `cache`, which grows by them."""
        x_NLE = x
        qkv = self.qkv(x_NLE).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
        q_NHLK, k_NGLK, v_NGLK = qkv.split(self.parts, dim=1)
        if self.rotary is not None:
            start = 0 if cache is None else cache.length
            q_NHLK, k_NGLK = self.rotary(q_NHLK, start), self.rotary(k_NGLK, start)
        y_NHLK = self.attend(q_NHLK, k_NGLK, v_NGLK, cache)
        y_NLE = y_NHLK.transpose(1, 2).flatten(2)
        return self.out(y_NLE)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cache: KVCache | None) -> Tensor:
        """Mix the values: q (N, H, L, K), k and v (N, G, L, K) -> (N, H, L, K)."""
        q_NHLK, k_NGSK, v_NGSK = q, k, v
        if cache is not None:
            new = mt.cat([k, v], dim=1).transpose(1, 2)  # (N, L, 2G, K)
            k_NGSK, v_NGSK = cache.append(new).transpose(1, 2).chunk(2, dim=1)
        L, S = q_NHLK.shape[2], k_NGSK.shape[2]
        mask_LS = None
        if 1 < L < S:  # the last of the tokens may attend to all, the one before it to one less
            mask_LS = mt.ones(L, S, dtype=mt.bool).tril(S - L)
        y_NHLK = F.scaled_dot_product_attention(
            q_NHLK,
            k_NGSK,
            v_NGSK,
            mask_LS,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=L == S,
            enable_gqa=True,
        )
        return y_NHLK


class FeedForward(nn.Module):
    """down(gelu(up(x))), for each position on its own: (N, L, E) -> the same."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.embed_dim, config.hidden)
        self.down = nn.Linear(config.hidden, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Compute it, with the approximation of GELU that GPT-2 was trained with."""
        x_NLE = x
        return self.down(F.gelu(self.up(x_NLE), approximate="tanh"))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), for each position on its own: (N, L, E) -> the same."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.embed_dim, config.hidden, bias=False)
        self.up = nn.Linear(config.embed_dim, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute it."""
        x_NLE = x
        return self.down(F.silu(self.gate(x_NLE)) * self.up(x_NLE))


def make_norm(config: GPTConfig) -> nn.Module:
    """Return the norm of the variant: (N, L, E) -> the same."""
    if config.variant == "llama":
        return nn.RMSNorm(config.embed_dim, config.norm_eps)
    return nn.LayerNorm(config.embed_dim, config.norm_eps)


class State:
    """What a model remembers while it writes: the tokens (N, S), and their keys and values."""

    def __init__(self, num_layers: int) -> None:
        self.caches = [KVCache() for _ in range(num_layers)]
        self.tokens: Tensor = mt.zeros(1, 0, dtype=mt.int64)
        self.slides = 0

    @property
    def length(self) -> int:
        """The number of tokens of each row."""
        return self.tokens.shape[1]

    def append(self, tokens: Tensor) -> None:
        """Note the tokens (N, L), whose keys and values are in the caches."""
        self.tokens = mt.cat([self.tokens, tokens], dim=1) if self.length else tokens

    def forget(self) -> None:
        """Return to the state before the first token."""
        self.caches = [KVCache() for _ in self.caches]
        self.tokens = self.tokens[:, :0]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be repeated."""
        self.tokens = self.tokens[list(rows)]
        for cache in self.caches:
            cache.select(rows)


def example() -> tuple[nn.Module, dict[str, Tensor], dict[str, int]]:
    """Return a small model, its inputs, and names for their sizes, to draw its graph."""
    config = GPTConfig(vocab_size=50, context_length=16, embed_dim=32, num_layers=2, num_heads=4)
    sizes = {"N": 3, "L": 7, "E": 32, "H": 4, "K": 8, "F": 128, "V": 50}
    return GPT(config), {"tokens": mt.randint(0, 50, (3, 7))}, sizes


# Learning


@dataclass
class WritingSettings(Settings):
    """Everything that decides the outcome of a run. The defaults suit the embedded text."""

    text: str | None = setting(
        None, str, "text to learn from (plain or .gz); by default Python's own reference"
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
        names = ("variant", "context_length", "embed_dim", "num_layers", "num_heads")
        more = ("num_kv_heads", "dropout")
        return GPTConfig(vocab_size, **{name: getattr(self, name) for name in (*names, *more)})

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        try:
            self.config(1)
        except ValueError as error:
            raise InputError(str(error)) from error


def config_from_json(text: str) -> GPTConfig:
    """Parse the config in a checkpoint's header; ValueError if it is wrong."""
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"it is {shown(values)}")
    try:
        return GPTConfig(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error


class Writing(Task):
    """A text, of which the model learns to predict each next token."""

    kind = "gpt"
    words = {"bits": "bits per character"}
    settings_class = WritingSettings
    readers = {"config": config_from_json, "vocabulary": vocabulary_from_json}

    def __init__(self, settings: WritingSettings, checkpoint: Checkpoint | None = None) -> None:
        self.settings: WritingSettings = settings
        text = python_text() if settings.text is None else read_text(settings.text)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        held_out = min(math.ceil(VALID_SHARE * len(text)), VALID_MOST)
        train, valid = text[:-held_out], text[-held_out:]
        if checkpoint is not None:
            self.vocabulary = checkpoint.content["vocabulary"]
        elif settings.vocabulary == "char":
            self.vocabulary = CharVocabulary.train(text)
        else:
            self.vocabulary = BPEVocabulary.train([train], settings.vocabulary_size)
        self.train = np.array(self.vocabulary.encode_text(train))
        self.valid = np.array(self.vocabulary.encode_text(valid))
        if min(len(self.train), len(self.valid)) <= settings.context_length:
            raise InputError(
                f"{settings.text or 'the embedded text'} is too short: of its "
                f"{len(self.train) + len(self.valid):,} tokens {len(self.valid):,} are held out to "
                f"validate with, but the context has {settings.context_length}: choose a smaller "
                "--context-length, or add text"
            )
        self.tokens_per_character = len(self.valid) / len(valid)
        self.model: GPT = GPT(settings.config(len(self.vocabulary)))

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
        random = np.random.default_rng((self.settings.seed, epoch))
        number = max(1, (len(self.train) - 1) // length - 1)
        first = random.integers(len(self.train) - number * length)
        places = random.permutation(first + length * np.arange(number))
        return [places[i : i + size] for i in range(0, number, size)]

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

    def cut(self, tokens: np.ndarray, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Cut pieces of a text."""
        pieces = tokens[places[:, None] + np.arange(self.settings.context_length + 1)]
        return mt.tensor(pieces[:, :-1]), mt.tensor(pieces[:, 1:])

    def count(self, batch: tuple[Tensor, Tensor]) -> int:
        """Count the tokens of a batch."""
        return batch[0].numel()

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross entropy of the next tokens, in nats."""
        tokens_NL, next_NL = batch
        logits_NLV = self.model(tokens_NL)
        return F.cross_entropy(logits_NLV.flatten(0, 1), next_NL.flatten())

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

    model: GPT
    vocabulary: Any  # with encode_text and decode_text
    ends: Sequence[int] = ()

    @classmethod
    def of_run(cls, run: str | Path) -> Writer:
        """Load the best model of a run's folder, or of a checkpoint."""
        path = Path(run)
        path = path / BEST if path.is_dir() else path
        if not path.exists():
            raise InputError(f"there is no trained model at {path}: train one first")
        checkpoint = read_checkpoint(path, Writing)
        model = GPT(checkpoint.content["config"])
        load_state(path, model, checkpoint.weights)
        return cls(model.eval(), checkpoint.content["vocabulary"])

    @classmethod
    def of_folder(cls, folder: str | Path) -> Writer:
        """Load a GPT-2 or LLaMA as Hugging Face keeps it."""
        model, tokenizer = GPT.from_folder(folder), Tokenizer(folder)
        return cls(model, tokenizer, tokenizer.ends)

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


# Commands


def demo() -> int:
    """Learn from the embedded text for a minute, then write; keeps nothing."""
    settings = WritingSettings()
    task = start_task(Writing, settings)
    print(task.describe(), flush=True)
    optimizer, step, start = task.optimizer(), 0, time.perf_counter()
    total = settings.epochs * len(task.train_batches(0))
    for epoch in range(settings.epochs):
        for places in task.train_batches(epoch):
            share_of_lr = rate_share(step, settings.warmup, settings.schedule, total)
            optimizer.param_groups[0]["lr"] = settings.lr * share_of_lr
            loss = task.loss(task.collate(places))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(task.model.parameters(), settings.clip)
            optimizer.step()
            step += 1
            if step % 100 == 0:
                seconds = time.perf_counter() - start
                print(f"step {step}/{total}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)
    task.model.eval()
    with mt.no_grad():
        found = [task.measures(task.collate_valid(places)) for places in task.valid_batches()]
    loss, bits = (sum(each[name] for each in found) / len(found) for name in ("loss", "bits"))
    print(f"on the text held out: loss {loss:.3f}, {bits:.2f} bits per character\n", flush=True)
    Writer(task.model, task.vocabulary).write("The ", 600, Sampling(0.7))
    return 0


def generate(options: argparse.Namespace) -> int:
    """Write a continuation of a prompt."""
    try:
        choose = Sampling(
            0.0 if options.greedy else options.temperature,
            options.top_k,
            options.top_p,
            None if options.seed is None else mt.Generator().manual_seed(options.seed),
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    writer = Writer.of_folder(options.model) if options.model else Writer.of_run(options.run)
    if options.seed is None:
        mt.seed()
    writer.write(options.prompt, options.max_length, choose)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the commands."""
    parser = argparse.ArgumentParser(
        prog=program(f"{__package__}.gpt"),
        description="Train a GPT on a text; let it write. Without a command: a demonstration.",
    )
    parser.set_defaults(command=lambda options: demo())
    commands = parser.add_subparsers(metavar="COMMAND")
    add_train(commands, Writing, DEFAULT_RUN, "learn from a text")
    command = commands.add_parser("generate", help="write")
    command.add_argument("prompt", nargs="?", default="\n", help="beginning (default: a new line)")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--run", default=DEFAULT_RUN, help="folder of a run (default: %(default)s)")
    source.add_argument("--model", help="folder of a GPT-2 or LLaMA, as Hugging Face keeps it")
    command.add_argument(
        "--max-length", type=count, default=500, help="most tokens to write (default: %(default)s)"
    )
    command.add_argument(
        "--temperature", type=float, default=0.8, help="below 1 is safer (default: %(default)s)"
    )
    command.add_argument("--top-k", type=int, help="choose from the k most probable tokens")
    command.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        help="choose from the most probable tokens that have the probability p together",
    )
    command.add_argument("--greedy", action="store_true", help="the most probable token each time")
    command.add_argument("--seed", type=seed_number, help="for the same text again")
    command.set_defaults(command=generate)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: options.command(options))


if __name__ == "__main__":
    sys.exit(main())
