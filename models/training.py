"""The training of a translation model: its data, its loop, and how a run is kept and continued.

A run lives in a folder: `best.safetensors` and `last.safetensors` (weights, config, vocabularies;
the last one also all that is needed to continue), `log.jsonl` and `loss.png`. All that is random is
a function of the seed and of the position in the run, and both are kept: a run that was interrupted
and resumed ends with the same weights, bit for bit, as one that was not.

Sources: label smoothing from Szegedy et al., 2016, arXiv:1512.00567; the schedule, and Adam's
settings, from Vaswani et al., 2017, arXiv:1706.03762, section 5.3.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.data import PadCollate, TokenBatchSampler
from minitensor.optim import Adam
from minitensor.optim.lr_scheduler import InverseSqrtLR
from minitensor.serialize import CheckpointError, load_file, save_file

from .number_words import number_pairs, split_numbers
from .pictures import draw_losses
from .run_files import check_training, progress_from_json, read_records
from .settings import Settings, settings_from_json
from .text import (
    EOS,
    PAD,
    InputError,
    Pair,
    Vocabulary,
    read_parallel,
    read_tsv,
    require,
    train_vocabulary,
    vocabulary_from_json,
    write_file,
)
from .transformer import Transformer, TransformerConfig, check_state, load_state, read_config

BEST, LAST, LOG, CURVES = "best.safetensors", "last.safetensors", "log.jsonl", "loss.png"
TRAINING = "training."  # begins the names of tensors in a checkpoint that are not the model's
LOG_EVERY = 10  # steps
# Of the user's pairs, how many are held out where no validation data is given.
VALID_SHARE, VALID_MOST = 0.05, 1000

EncodedPair = tuple[list[int], list[int]]
Batch = tuple[Tensor, ...]  # source (N, S) and target (N, L), padded
collate = PadCollate(PAD)


# Data


@dataclass
class Data:
    """Pairs of token numbers, each ending in the end token, and what they were made with."""

    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    train: list[EncodedPair]
    valid: list[EncodedPair]
    left_out: int  # pairs too long
    digest: str  # of the text


def read_pairs(source: str | None, target: str | None, tsv: str | None) -> list[Pair] | None:
    """The pairs of two parallel files or of a table; None where neither is named."""
    if tsv:
        return read_tsv(tsv)
    if source and target:
        return read_parallel(source, target)
    return None


def load_data(
    settings: Settings, vocabularies: tuple[Vocabulary, Vocabulary] | None = None
) -> Data:
    """Read the data, hold some out for validation, learn the vocabularies unless given, encode."""
    if settings.embedded:
        split = split_numbers()
        train, valid = number_pairs(split.train), number_pairs(split.valid)
    else:
        train = read_pairs(settings.source, settings.target, settings.tsv) or []
        given = read_pairs(settings.valid_source, settings.valid_target, settings.valid_tsv)
        if given is None:
            train, valid = hold_out(train)
        else:
            valid = given
    digest = hashlib.sha256(json.dumps([train, valid]).encode()).hexdigest()
    if vocabularies is None:
        kind, size = settings.vocabulary, settings.vocabulary_size
        source_vocabulary = train_vocabulary(kind, (source for source, _ in train), size)
        target_vocabulary = train_vocabulary(kind, (target for _, target in train), size)
    else:
        source_vocabulary, target_vocabulary = vocabularies
    encoded = [
        [
            (
                [*source_vocabulary.encode(source, replace_unknown=True), EOS],
                [*target_vocabulary.encode(target, replace_unknown=True), EOS],
            )
            for source, target in pairs
        ]
        for pairs in (train, valid)
    ]
    kept = [[p for p in part if max(map(len, p)) <= settings.max_length] for part in encoded]
    check_lengths(encoded, kept, settings)
    left_out = sum(map(len, encoded)) - sum(map(len, kept))
    return Data(source_vocabulary, target_vocabulary, kept[0], kept[1], left_out, digest)


def check_lengths(
    encoded: Sequence[list[EncodedPair]], kept: Sequence[list[EncodedPair]], settings: Settings
) -> None:
    """InputError if all pairs to learn from, or all to validate with, are too long."""
    for use, whole, part in zip(("learn from", "validate with"), encoded, kept, strict=True):
        if not part:
            shortest = min(max(map(len, pair)) for pair in whole)
            raise InputError(
                f"no pair to {use} is short enough for --max-length {settings.max_length}: of "
                f"{len(whole):,} the shortest has {shortest:,} tokens"
            )


def hold_out(pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs: every n-th is held out, with all others of the same source."""
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
    pairs: Sequence[EncodedPair], settings: Settings, shuffle: bool
) -> TokenBatchSampler:
    """Which pairs make which batch: those of like length, as the seed and the epoch decide."""
    lengths = [(len(source), len(target)) for source, target in pairs]
    return TokenBatchSampler(lengths, settings.batch_tokens, shuffle=shuffle, seed=settings.seed)


def count_tokens(batch: Batch) -> int:
    """The target tokens of a batch, without padding."""
    _, tgt_NL = batch
    return int((tgt_NL != PAD).sum().item())


# Checkpoints


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done of the current epoch
    step: int = 0  # batches done in all
    loss_sum: float = 0.0  # over the tokens of the current epoch
    tokens: int = 0  # of the current epoch
    best_loss: float = math.inf


@dataclass
class Checkpoint:
    """What a file of a run holds; `training` is empty but in the last checkpoint."""

    path: Path
    config: TransformerConfig
    weights: dict[str, Tensor]
    vocabularies: tuple[Vocabulary, Vocabulary]
    settings: Settings
    training: dict[str, Tensor] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Transformer:
        """The model, in evaluation mode."""
        model = Transformer(self.config)
        load_state(self.path, model, self.weights)
        return model.eval()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of a run; CheckpointError, naming the file, if it is anything else."""
    tensors, header = load_file(path)
    config = read_config(path, header)
    vocabularies, settings, progress = read_header(path, header)
    sizes = (config.src_vocab_size, config.tgt_vocab_size)
    for name, vocabulary, size in zip(("source", "target"), vocabularies, sizes, strict=True):
        if len(vocabulary) != size:
            raise CheckpointError(
                f"{path}: the {name} vocabulary does not match the model: it has {len(vocabulary)} "
                f"tokens, the model {size}"
            )
    weights = {k: t for k, t in tensors.items() if not k.startswith(TRAINING)}
    check_state(path, config, weights)
    check_settings(path, config, settings)
    training = {k.removeprefix(TRAINING): t for k, t in tensors.items() if k not in weights}
    return Checkpoint(Path(path), config, weights, vocabularies, settings, training, progress)


def read_header(
    path: str | Path, header: dict[str, str]
) -> tuple[tuple[Vocabulary, Vocabulary], Settings, dict[str, Any]]:
    """What the header of a run's checkpoint tells beside the config; CheckpointError if not."""
    readers: dict[str, Callable[[str], Any]] = {
        "source_vocabulary": vocabulary_from_json,
        "target_vocabulary": vocabulary_from_json,
        "settings": settings_from_json,
        "progress": lambda text: progress_from_json(text, asdict(Position())),
    }
    found = {}
    for name, read in readers.items():
        try:
            if name not in header:
                raise ValueError("there is none")
            found[name] = read(header[name])
        except ValueError as error:
            raise CheckpointError(
                f"{path} is not a checkpoint of a translation run: {name}: {error}"
            ) from error
    source, target, settings, progress = found.values()
    return (source, target), settings, progress


def model_config(settings: Settings, source_size: int, target_size: int) -> TransformerConfig:
    """The config of the model that settings ask for, with vocabularies of so many tokens."""
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
        norm_first=settings.norm == "pre",
        positions=settings.positions,
        max_length=settings.max_length,
        tied_output=settings.output == "tied",
    )


def check_settings(path: str | Path, config: TransformerConfig, settings: Settings) -> None:
    """CheckpointError unless the settings in a checkpoint are those of its model."""
    wanted = model_config(settings, config.src_vocab_size, config.tgt_vocab_size)
    for name, value in asdict(config).items():
        if value != getattr(wanted, name):
            raise CheckpointError(
                f"{path}: its settings do not match its model: {name} is {value}, by the settings "
                f"{getattr(wanted, name)}"
            )


# The loop


class Interrupt:
    """While entered, notes Ctrl-C or a request to end in `signal`; a second one acts at once."""

    def __init__(self) -> None:
        self.signal = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        """Called by the system."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

    def __enter__(self) -> Interrupt:
        self.before = {n: signal.signal(n, self.note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def predict(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """The scores (N * L, V) of all target tokens of a batch, and the tokens (N * L)."""
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


def token_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """The mean cross entropy of the target tokens that are not padding, in nats."""
    return F.cross_entropy(logits, target, ignore_index=PAD, label_smoothing=smoothing)


class Trainer:
    """A run: the model, its optimiser, and where it stands. `run` goes on from there."""

    def __init__(self, settings: Settings, data: Data, folder: str | Path) -> None:
        """Start at the beginning; the initial weights follow from the seed."""
        self.settings = settings
        self.data = data
        self.folder = Path(folder)
        mt.manual_seed(settings.seed)
        sizes = len(data.source_vocabulary), len(data.target_vocabulary)
        self.model = Transformer(model_config(settings, *sizes))
        self.optimizer = Adam(self.model.parameters(), betas=(0.9, 0.98), eps=1e-9)
        self.schedule = InverseSqrtLR(
            self.optimizer,
            settings.d_model,
            settings.warmup,
            settings.lr * math.sqrt(settings.d_model * settings.warmup),
        )
        self.order = order_by_tokens(data.train, settings, shuffle=True)
        self.position = Position()
        self.records: list[dict[str, Any]] = []

    # One step

    def step(self, batch: Batch) -> tuple[float, float]:
        """Learn from a batch; returns the loss and the norm of the gradient before clipping."""
        self.optimizer.zero_grad()
        loss = token_loss(*predict(self.model, batch), self.settings.label_smoothing)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.schedule.step()
        return loss.item(), norm.item()

    @mt.no_grad()
    def validate(self) -> tuple[float, float]:
        """The mean loss of the validation tokens, smoothed as in training and not smoothed."""
        self.model.eval()
        sums, tokens = [0.0, 0.0], 0
        for numbers in order_by_tokens(self.data.valid, self.settings, shuffle=False):
            batch = collate([self.data.valid[n] for n in numbers])
            logits, target = predict(self.model, batch)
            count = count_tokens(batch)
            for which, smoothing in enumerate((self.settings.label_smoothing, 0.0)):
                sums[which] += token_loss(logits, target, smoothing).item() * count
            tokens += count
        self.model.train()
        return sums[0] / tokens, sums[1] / tokens

    # All steps

    def run(self, show: Callable[[str], None] = print) -> int:
        """Train to the last epoch; returns 0, or the number of the signal that ended it early.

        Checkpoints are written after each epoch and before ending early. `show` gets a line about
        each epoch. InputError if the loss is no longer a number.
        """
        tqdm = require("tqdm", "demo").tqdm
        position, epochs = self.position, self.settings.epochs
        self.model.train()
        with (
            Interrupt() as interrupt,
            tqdm(
                total=len(self.order) * epochs,
                initial=position.step,
                unit="batch",
                disable=None,
                leave=False,
            ) as bar,
        ):
            while position.epoch < epochs and not interrupt.signal:
                self.run_epoch(interrupt, bar, show)
        return interrupt.signal

    def run_epoch(self, interrupt: Interrupt, bar: Any, show: Callable[[str], None]) -> None:
        """What is left of the current epoch, its validation, and its records and checkpoints."""
        position = self.position
        start, tokens_before = time.perf_counter(), position.tokens
        self.order.set_epoch(position.epoch)
        for numbers in list(self.order)[position.batch :]:
            batch = collate([self.data.train[n] for n in numbers])
            tokens = count_tokens(batch)
            loss, norm = self.step(batch)
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss became {loss} at step {position.step + 1}: try a lower --lr; "
                    f"{self.folder / LAST} is as it was"
                )
            position.batch += 1
            position.step += 1
            position.tokens += tokens
            position.loss_sum += loss * tokens
            rate = (position.tokens - tokens_before) / (time.perf_counter() - start)
            if position.step % LOG_EVERY == 0:
                self.log("step", loss=loss, grad_norm=norm, tokens_per_second=round(rate))
            bar.set_postfix_str(f"loss {loss:.3f}, {rate:,.0f} tokens/s", refresh=False)
            bar.update()
            if interrupt.signal:
                self.save(LAST)
                return
        seconds = time.perf_counter() - start
        rate = (position.tokens - tokens_before) / max(seconds, 1e-9)
        train_loss = position.loss_sum / position.tokens
        valid_loss, valid_nll = self.validate()
        position.epoch, position.batch, position.loss_sum, position.tokens = (
            position.epoch + 1,
            0,
            0.0,
            0,
        )
        self.log(
            "epoch",
            train_loss=train_loss,
            valid_loss=valid_loss,
            valid_nll=valid_nll,
            seconds=round(seconds, 3),
            tokens_per_second=round(rate),
        )
        draw_losses(self.records, self.folder / CURVES)
        if valid_loss < position.best_loss:
            position.best_loss = valid_loss
            self.save(BEST)
        self.save(LAST)
        bar.clear()
        show(
            f"epoch {position.epoch}/{self.settings.epochs}  step {position.step}  "
            f"training loss {train_loss:.4f}  validation loss {valid_loss:.4f} "
            f"({valid_nll:.4f} unsmoothed)  "
            f"{rate:,.0f} tokens/s  {seconds:.0f} s"
        )

    def log(self, kind: str, **values: Any) -> None:
        """Append a record to the log: a line of JSON, whole or not at all."""
        position = self.position
        rate = self.schedule.get_last_lr()[0]
        record = {
            "kind": kind,
            "epoch": position.epoch,
            "step": position.step,
            "lr": rate,
            **values,
        }
        self.records.append(record)
        path = self.folder / LOG
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            if path.exists():
                os.truncate(path, size)
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error

    # Keeping and continuing

    def save(self, name: str) -> None:
        """Write a checkpoint: the best to translate with, the last also to continue from."""
        tensors = dict(self.model.state_dict())
        progress: dict[str, Any] = {"position": asdict(self.position), "data": self.data.digest}
        if name == LAST:
            optimizer = self.optimizer.state_dict()
            progress["groups"] = optimizer["param_groups"]
            progress["schedule"] = self.schedule.state_dict()
            tensors[TRAINING + "rng"] = mt.from_numpy(mt.get_rng_state())
            for number, values in optimizer["state"].items():
                for key, value in values.items():
                    tensors[f"{TRAINING}{number}.{key}"] = mt.as_tensor(value)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {self.folder}: {error.strerror or error}"
            ) from error
        save_file(
            tensors,
            self.folder / name,
            {
                "config": json.dumps(asdict(self.model.config)),
                "source_vocabulary": self.data.source_vocabulary.to_json(),
                "target_vocabulary": self.data.target_vocabulary.to_json(),
                "settings": json.dumps(asdict(self.settings)),
                "progress": json.dumps(progress),
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a last checkpoint; InputError if the data is not what it was."""
        progress = checkpoint.progress
        if progress["data"] != self.data.digest:
            raise InputError(
                f"the data has changed since {checkpoint.path} was written: "
                "the run can only continue with the same text"
            )
        try:
            check_training(
                progress,
                checkpoint.training,
                self.optimizer.state_dict()["param_groups"],
                self.schedule.state_dict(),
                list(self.model.parameters()),
            )
        except ValueError as error:
            raise CheckpointError(f"cannot continue from {checkpoint.path}: {error}") from error
        load_state(checkpoint.path, self.model, checkpoint.weights)
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in checkpoint.training.items():
            if name != "rng":
                number, key = name.split(".", 1)
                state.setdefault(int(number), {})[key] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": progress["groups"]})
        self.schedule.load_state_dict(progress["schedule"])
        mt.set_rng_state(checkpoint.training["rng"].numpy())
        self.position = Position(**progress["position"])
        self.records = read_log(self.folder / LOG, self.position)
        lines = "".join(json.dumps(record) + "\n" for record in self.records)
        write_file(self.folder / LOG, lines.encode())


def read_log(path: Path, position: Position) -> list[dict[str, Any]]:
    """The records up to a position, without what was logged after it or was cut off.

    Damaged lines are left out, and standard error tells how many. InputError if the file cannot be
    read.
    """
    try:
        records, damaged = read_records(path.read_bytes() if path.exists() else b"")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if damaged:
        print(f"{path}: {damaged} damaged line{'s' * (damaged > 1)} left out", file=sys.stderr)
    return [r for r in records if r["step"] <= position.step and r["epoch"] <= position.epoch]


def start_run(settings: Settings, folder: str | Path, overwrite: bool = False) -> Trainer:
    """A new run in a folder; InputError if a run is there already, unless it may be overwritten."""
    settings.check()
    folder = Path(folder)
    if (folder / LAST).exists() and not overwrite:
        raise InputError(
            f"{folder} already holds a run: continue it with --resume, "
            "replace it with --overwrite, or choose another folder"
        )
    trainer = Trainer(settings, load_data(settings), folder)
    trainer.save(LAST)  # a folder that cannot be written to is noticed here
    for name in (BEST, LOG, CURVES):
        (folder / name).unlink(missing_ok=True)
    return trainer


def resume_run(folder: str | Path, given: dict[str, Any]) -> Trainer:
    """The run in a folder, as it was at its last checkpoint.

    `given` are settings the user asks for; only the number of epochs may differ from the run's.
    """
    checkpoint = read_checkpoint(Path(folder) / LAST)
    settings = checkpoint.settings
    for name, value in given.items():
        if name != "epochs" and value != getattr(settings, name):
            raise InputError(
                f"--{name.replace('_', '-')} is {value}, but the run in {folder} was started with "
                f"{getattr(settings, name)}: only --epochs can change"
            )
    settings.epochs = given.get("epochs", settings.epochs)
    trainer = Trainer(settings, load_data(settings, checkpoint.vocabularies), folder)
    trainer.restore(checkpoint)
    return trainer
