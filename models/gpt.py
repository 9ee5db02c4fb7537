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
    python -m models.gpt train --text FILES             learn from a text of yours
    python -m models.gpt tokenize FILES --out FOLDER    the same in two steps, for a text larger
    python -m models.gpt train --tokens FOLDER          than memory
    python -m models.gpt generate "Once upon a time"    write, by the run or a --model FOLDER
"""

# ruff: noqa: RET504 - a result gets its name before it is returned, so that its shape is checked

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn

from .command import exit_code, program
from .config import load_state
from .decoding import KVCache, Sampling
from .decoding_options import add_sampling, sampling_of
from .gpt_files import GPTConfig as GPTConfig
from .gpt_files import Tokenizer, read_folder
from .positions import RotaryPositions
from .settings import count
from .token_folder import add_tokenize
from .training import add_train, load_trained, rate_share, start_task
from .writing import Writer, Writing, WritingSettings

DEFAULT_RUN = "runs/gpt"
TEMPERATURE = 0.8  # where no option of sampling is given
PROMPT = "The "  # of the demonstration


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
        H = config.num_heads
        G = config.num_kv_heads
        E = config.embed_dim
        K = E // H
        self.parts = [H, G, G]
        self.dropout = config.dropout
        self.rotary = None
        if config.variant == "llama":
            self.rotary = RotaryPositions(K, config.rotary_base, config.context_length)
        self.qkv = nn.Linear(E, (H + 2 * G) * K, bias=config.variant == "gpt2")
        self.out = nn.Linear(E, E, bias=config.variant == "gpt2")

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Attend to the tokens of `x`, and to those before them in `cache`, which grows by them."""
        x_NLE = x
        qkv = self.qkv(x_NLE).unflatten(-1, (sum(self.parts), -1)).transpose(1, 2)
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
        self.up = nn.Linear(config.embed_dim, config.hidden_dim)
        self.down = nn.Linear(config.hidden_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Compute it, with the approximation of GELU that GPT-2 was trained with."""
        x_NLE = x
        return self.down(F.gelu(self.up(x_NLE), approximate="tanh"))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), for each position on its own: (N, L, E) -> the same."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.embed_dim, config.hidden_dim, bias=False)
        self.up = nn.Linear(config.embed_dim, config.hidden_dim, bias=False)
        self.down = nn.Linear(config.hidden_dim, config.embed_dim, bias=False)

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
    """The memory of a model while it writes: the tokens (N, S), and their keys and values."""

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
    config = GPTConfig(
        vocab_size=50, context_length=64, embed_dim=48, num_layers=3, num_heads=6, num_kv_heads=2,
        hidden_dim=72,
    )  # fmt: skip
    sizes = {"N": 5, "L": 7, "E": 48, "H": 6, "G": 2, "F": 72, "V": 50, "C": 64}
    return GPT(config), {"tokens": mt.randint(0, 50, (5, 7))}, sizes


# Learning and writing, by models/training.py and models/writing.py


class GPTWriting(Writing):
    """A text, of which a GPT learns to predict each next token."""

    model_class = GPT


def load_run(run: str | Path) -> Writer:
    """Load the best model of a run's folder, or of a checkpoint."""
    checkpoint = load_trained(run, GPTWriting)
    model = GPT(checkpoint.content["config"])
    load_state(checkpoint.path, model, checkpoint.weights)
    return Writer(model.eval(), checkpoint.content["vocabulary"])


def load_folder(folder: str | Path) -> Writer:
    """Load a GPT-2 or LLaMA and its tokenizer as Hugging Face keeps them."""
    model, tokenizer = GPT.from_folder(folder), Tokenizer(folder)
    return Writer(model, tokenizer, tokenizer.ends)


def demo() -> int:
    """Learn from the embedded text for a minute, then write; keeps nothing."""
    settings = WritingSettings()
    task = start_task(GPTWriting, settings)
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
            if step % 50 == 0:
                seconds = time.perf_counter() - start
                print(f"step {step}/{total}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)
    task.model.eval()
    with mt.no_grad():
        found = [task.measures(task.collate_valid(places)) for places in task.valid_batches()]
    bits = sum(each["bits"] for each in found) / len(found)
    print(f"the text held out takes {bits:.2f} bits per character\n", flush=True)
    Writer(task.model, task.vocabulary).write(PROMPT, 600, Sampling(0.7))
    return 0


def generate(options: argparse.Namespace) -> int:
    """Write a continuation of a prompt."""
    mt.seed()
    choose = sampling_of(options) or Sampling(TEMPERATURE)
    if options.greedy:
        choose = Sampling(0.0)
    writer = load_folder(options.model) if options.model else load_run(options.run)
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
    add_train(commands, GPTWriting, DEFAULT_RUN, "learn from a text")
    add_tokenize(commands)
    command = commands.add_parser("generate", help="write")
    command.add_argument("prompt", nargs="?", default="\n", help="beginning (default: a new line)")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--run", default=DEFAULT_RUN, help="folder of a run (default: %(default)s)")
    source.add_argument("--model", help="folder of a GPT-2 or LLaMA, as Hugging Face keeps it")
    command.add_argument(
        "--max-length", type=count, default=500, help="most tokens to write (default: %(default)s)"
    )
    command.add_argument("--greedy", action="store_true", help="the most probable token each time")
    add_sampling(command)
    command.set_defaults(command=generate)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: options.command(options))


if __name__ == "__main__":
    sys.exit(main())
