"""Train the same model here and in PyTorch, side by side in one process.

    python -m tools.compare steps                      # 50 SGD steps: the same losses, parameters?
    python -m tools.compare train EN FR VAL_EN VAL_FR  # real text: losses, tokens per second
    python -m tools.compare memory                     # 2,000 steps: does memory stay flat?

`steps` and `train` need PyTorch (extra: torch); `train` needs the extras of `models.translate`.
Both sides start from the same weights and see the same batches, taking turns batch by batch.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import minitensor as mt
from minitensor import nn
from minitensor.models.command import program
from minitensor.models.positions import SinusoidalPositions
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.models.translation import predict, token_loss

Batch = tuple[np.ndarray, ...]  # source (N, S) and target (N, L), padded


def torch_twin(model: Transformer) -> Any:
    """Build the same model from `torch.nn.Transformer`, with the same weights."""
    import torch

    config = model.config

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = config.d_model
            self.src_embedding = torch.nn.Embedding(config.src_vocab_size, width, config.pad_id)
            self.tgt_embedding = torch.nn.Embedding(config.tgt_vocab_size, width, config.pad_id)
            self.dropout = torch.nn.Dropout(config.dropout)
            self.transformer = torch.nn.Transformer(
                width,
                config.nhead,
                config.num_encoder_layers,
                config.num_decoder_layers,
                config.dim_feedforward,
                config.dropout,
                config.activation,
                batch_first=True,
                norm_first=config.norm_first,
            )
            self.output = torch.nn.Linear(width, config.tgt_vocab_size)
            if config.tied_output:
                self.output.weight = self.tgt_embedding.weight
            table = SinusoidalPositions(width).compute(8192).numpy()
            self.register_buffer("positions", torch.from_numpy(table), persistent=False)

        def embed(self, tokens: Any, table: Any) -> Any:
            x = (
                table(tokens) * math.sqrt(config.d_model)
                + self.get_buffer("positions")[: tokens.shape[1]]
            )
            return self.dropout(x)

        def forward(self, src: Any, tgt: Any) -> Any:
            padding = src == config.pad_id
            length = tgt.shape[1]
            hidden = self.transformer(
                self.embed(src, self.src_embedding),
                self.embed(tgt, self.tgt_embedding),
                tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
                src_key_padding_mask=padding,
                memory_key_padding_mask=padding,
                tgt_is_causal=True,
            )
            return self.output(hidden)

    twin = Twin()
    twin.load_state_dict({twin_name(k): to_torch(v) for k, v in model.state_dict().items()})
    return twin


def twin_name(name: str) -> str:
    """Return the name that a parameter has in the twin."""
    return f"transformer.{name}" if name.startswith(("encoder.", "decoder.")) else name


def to_torch(x: Any) -> Any:
    """Copy an array or a tensor to a PyTorch tensor."""
    import torch

    return torch.from_numpy(np.array(x.detach().numpy() if isinstance(x, mt.Tensor) else x))


class Ours:
    """The training step here."""

    def __init__(self, model: Transformer, smoothing: float, clip: float) -> None:
        self.model, self.smoothing, self.clip = model, smoothing, clip

    def loss(self, batch: Batch) -> Any:
        """Return the mean loss of the target tokens."""
        return self.loss_of(*map(mt.from_numpy, batch))

    def loss_of(self, src: mt.Tensor, tgt: mt.Tensor) -> mt.Tensor:
        """Return the mean loss of the target tokens (N, L), the source being (N, S)."""
        return token_loss(*predict(self.model, (src, tgt)), self.smoothing)

    def step(self, batch: Batch, optimizer: Any) -> float:
        """Train on a batch; return the loss before the step."""
        loss = self.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        optimizer.step()
        return float(loss.item())


class Compiled(Ours):
    """The training step here, its loss compiled."""

    def __init__(self, model: Transformer, smoothing: float, clip: float) -> None:
        super().__init__(model, smoothing, clip)
        self.loss_of = mt.compile(self.loss_of)  # type: ignore[method-assign]


class Theirs:
    """The training step in PyTorch."""

    def __init__(self, twin: Any, config: TransformerConfig, smoothing: float, clip: float) -> None:
        self.model, self.config, self.smoothing, self.clip = twin, config, smoothing, clip

    def loss(self, batch: Batch) -> Any:
        """Return the mean loss of the target tokens."""
        import torch

        src, tgt = (torch.from_numpy(side) for side in batch)
        begin = torch.full((len(tgt), 1), self.config.bos_id)
        logits = self.model(src, torch.cat([begin, tgt[:, :-1]], dim=1))
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1),
            tgt.flatten(),
            ignore_index=self.config.pad_id,
            label_smoothing=self.smoothing,
        )

    def step(self, batch: Batch, optimizer: Any) -> float:
        """Train on a batch; return the loss before the step."""
        import torch

        loss = self.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        optimizer.step()
        return float(loss.item())

    def evaluate(self, batches: Iterable[Batch]) -> float:
        """Return the mean loss per target token."""
        import torch

        self.model.eval()
        with torch.no_grad():
            result = mean_loss(lambda b: float(self.loss(b).item()), batches, self.config)
        self.model.train()
        return result


def mean_loss(
    loss: Callable[[Batch], float], batches: Iterable[Batch], config: TransformerConfig
) -> float:
    """Return the loss of all batches, weighted by their target tokens."""
    total = tokens = 0.0
    for batch in batches:
        count = int((batch[1] != config.pad_id).sum())
        total += loss(batch) * count
        tokens += count
    return total / tokens


def random_batches(
    config: TransformerConfig, count: int, size: int, longest: int, shortest: int = 3
) -> list[Batch]:
    """Make batches of random tokens, of several lengths, with end token and padding."""
    noise = np.random.RandomState(0)
    batches: list[Batch] = []
    for _ in range(count):
        sides = []
        for vocabulary in (config.src_vocab_size, config.tgt_vocab_size):
            tokens = noise.randint(3, vocabulary, (size, longest))
            for row, length in zip(tokens, noise.randint(shortest, longest + 1, size), strict=True):
                row[length - 1] = config.eos_id
                row[length:] = config.pad_id
            sides.append(tokens)
        batches.append((sides[0], sides[1]))
    return batches


def compare_steps(count: int = 50) -> tuple[float, float]:
    """Return the largest relative difference of a loss and absolute one of a parameter."""
    import torch

    mt.manual_seed(0)
    config = TransformerConfig(
        200,
        200,
        d_model=64,
        nhead=4,
        num_encoder_layers=2,
        num_decoder_layers=2,
        dim_feedforward=128,
        dropout=0.0,
        activation="gelu",  # at the kink of relu, the last bit of a sum decides about a gradient
    )
    model = Transformer(config)
    twin = torch_twin(model)
    ours, theirs = Ours(model, 0.1, 1.0), Theirs(twin, config, 0.1, 1.0)
    sgd = mt.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch_sgd = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    worst = 0.0
    for number, batch in enumerate(random_batches(config, count, 16, 20), 1):
        mine, other = ours.step(batch, sgd), theirs.step(batch, torch_sgd)
        worst = max(worst, abs(mine - other) / abs(other))
        if number in (1, count) or number % 10 == 0:
            print(f"step {number:3d}  loss here {mine:.6f}  in PyTorch {other:.6f}")
    named = dict(twin.named_parameters())
    apart = max(
        float(np.abs(p.detach().numpy() - named[twin_name(k)].detach().numpy()).max())
        for k, p in model.named_parameters()
    )
    print(f"largest relative difference of a loss      {worst:.2e}")
    print(f"largest absolute difference of a parameter {apart:.2e}")
    return worst, apart


def compare_training(options: argparse.Namespace) -> None:
    """Train both on real text; print losses after each epoch, tokens per second, translations."""
    import torch

    from minitensor.models.pairs import TranslationSettings
    from minitensor.models.training import Trainer, start_task
    from minitensor.models.translation import Translation

    torch.set_num_threads(mt.get_num_threads())
    source, target, valid_source, valid_target = options.files
    settings = TranslationSettings(
        source=source,
        target=target,
        valid_source=valid_source,
        valid_target=valid_target,
        vocabulary="bpe",
        vocabulary_size=8000,
        d_model=256,
        nhead=8,
        encoder_layers=3,
        decoder_layers=3,
        dim_feedforward=1024,
        dropout=0.1,
        label_smoothing=0.1,
        batch_tokens=2500,
        epochs=options.epochs,
    )
    task = start_task(Translation, settings)
    trainer, data = Trainer(task, ""), task.data
    model, config = task.model, task.model.config
    twin = torch_twin(model)
    torch.manual_seed(settings.seed)
    theirs = Theirs(twin, config, settings.label_smoothing, settings.clip)
    adam = torch.optim.Adam(twin.parameters(), betas=(0.9, 0.98), eps=1e-9)
    count = sum(p.numel() for p in model.parameters())
    print(f"{describe()}\n{len(data.train)} pairs, {count / 1e6:.1f} M parameters", flush=True)

    def here(batch: Any) -> None:
        trainer.step(batch)

    def there(batch: Any) -> None:
        adam.param_groups[0]["lr"] = rate
        theirs.step(tuple(side.numpy() for side in batch), adam)

    held_out = [task.collate_valid(numbers) for numbers in task.valid_batches()]
    arrays = [tuple(side.numpy() for side in batch) for batch in held_out]
    for epoch in range(options.epochs):
        clocks, tokens, ratios = np.zeros(2), 0, []
        for number, numbers in enumerate(task.train_batches(epoch)):
            batch = task.collate(numbers)
            rate = trainer.optimizer.param_groups[0]["lr"]
            if number % options.every:
                here(batch)
                continue
            times = np.zeros(2)
            for side in (0, 1) if number // options.every % 2 else (1, 0):
                start = time.perf_counter()
                (here, there)[side](batch)
                times[side] = time.perf_counter() - start
            if number or epoch:  # the very first step compiles
                tokens += int((batch[1] != config.pad_id).sum().item())
                clocks += times
                ratios.append(times[1] / times[0])
        losses = f"validation loss here {trainer.validate()['nll']:.4f}"
        if options.every == 1:
            theirs.smoothing = 0.0
            losses += f", in PyTorch {theirs.evaluate(arrays):.4f}"
            theirs.smoothing = settings.label_smoothing
        print(
            f"epoch {epoch + 1}: {losses}; target tokens/s here {tokens / clocks[0]:.0f}, in "
            f"PyTorch {tokens / clocks[1]:.0f}; speed ratio {clocks[1] / clocks[0]:.2f}, median "
            f"of {len(ratios)} steps {np.median(ratios):.2f}",
            flush=True,
        )
    model.eval()
    for i in np.random.RandomState(0).choice(len(data.valid), 5, replace=False):
        source_tokens, target_tokens = data.valid[i]
        found = model.generate(mt.tensor([source_tokens]), 60)[0].tolist()
        print(
            f"\n  {data.source_vocabulary.decode(source_tokens)}"
            f"\n  -> {data.target_vocabulary.decode(found)}"
            f"\n  reference: {data.target_vocabulary.decode(target_tokens)}"
        )


def watch_memory(count: int = 2000) -> list[int]:
    """Train for `count` steps on batches of changing shape; the resident memory along the way."""
    mt.manual_seed(0)
    config = TransformerConfig(
        1000,
        1000,
        d_model=64,
        nhead=4,
        num_encoder_layers=2,
        num_decoder_layers=2,
        dim_feedforward=256,
    )
    ours = Ours(Transformer(config), 0.1, 1.0)
    adam = mt.optim.Adam(ours.model.parameters(), lr=1e-3)
    batches = [b for n in range(5, 25) for b in random_batches(config, 1, 32, n)]
    seen = []
    for step in range(count):
        ours.step(batches[step % len(batches)], adam)
        if step % (count // 10) == count // 10 - 1:
            seen.append(resident())
            print(f"step {step + 1:5d}  {seen[-1] / 2**20:7.1f} MiB resident", flush=True)
    return seen


def resident() -> int:
    """Return the bytes of memory this process has now (its peak, where only that is known)."""
    import resource  # not on Windows

    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text("utf-8").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe() -> str:
    """Describe the machine and the versions, for a line above the figures."""
    import numba

    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        lines = [
            line for line in cpu.read_text("utf-8").splitlines() if line.startswith("model name")
        ]
        name = lines[0].split(":")[1].strip() if lines else name
    versions = (
        f"Python {platform.python_version()}, NumPy {np.__version__}, Numba {numba.__version__}"
    )
    return f"{name}, {mt.get_num_threads()} threads, {versions}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=program(f"{__package__}.compare"), description=__doc__.split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("steps", help="50 SGD steps: the same losses and parameters?")
    memory = commands.add_parser("memory", help="does memory stay flat over many steps?")
    memory.add_argument("--steps", type=int, default=2000, help="(default: %(default)s)")
    train = commands.add_parser("train", help="real text: losses and tokens per second")
    train.add_argument("files", nargs=4, metavar=("SRC", "TGT", "VALID_SRC", "VALID_TGT"))
    train.add_argument("--epochs", type=int, default=3)
    train.add_argument("--every", type=int, default=1, help="PyTorch takes every N-th batch only")
    options = parser.parse_args(arguments)
    if options.command == "train":
        compare_training(options)
        return 0
    if options.command == "memory":
        seen = watch_memory(options.steps)
        grown = seen[-1] / seen[len(seen) // 2 - 1] - 1
        print(f"growth over the second half: {grown:+.2%}")
        return int(grown > 0.02)
    worst, apart = compare_steps()
    return int(worst > 1e-4 or apart > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
