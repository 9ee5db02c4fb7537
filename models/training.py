"""Train a translation model: its data, its loop, and how a run is kept and continued.

A run lives in a folder: `best.safetensors` and `last.safetensors` (weights, config, vocabularies;
the last one also everything needed to continue), `log.jsonl` and `loss.png`. Everything random is a
function of the seed and of the position in the run, and both are kept: an interrupted and resumed
run ends with the same weights, bit for bit, as an uninterrupted one.

Sources: label smoothing from Szegedy et al., 2016, arXiv:1512.00567; the schedule, and Adam's
settings, from Vaswani et al., 2017, arXiv:1706.03762, section 5.3.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.autograd.nonfinite import bad_value, find_nonfinite
from minitensor.data import PadCollate, TokenBatchSampler
from minitensor.optim import Adam
from minitensor.optim.lr_scheduler import InverseSqrtLR
from minitensor.serialize import CheckpointError, load_file, save_file

from .command import InputError, Stopped, handling, require
from .job import Interrupt, hold
from .number_words import number_pairs, split_numbers
from .pictures import draw_losses
from .run_files import check_training, progress_from_json, read_records
from .settings import Settings, settings_from_json
from .text import (
    EOS,
    PAD,
    Pair,
    Vocabulary,
    read_parallel,
    read_tsv,
    train_vocabulary,
    vocabulary_from_json,
    write_file,
)
from .transformer import Transformer, TransformerConfig, check_state, load_state, read_config

BEST, LAST, LOG, CURVES = "best.safetensors", "last.safetensors", "log.jsonl", "loss.png"
TRAINING = "training."  # begins the names of tensors in a checkpoint that are not the model's
LOG_EVERY = 10  # steps
SAVE_EVERY = 600  # seconds within an epoch: what a power cut can cost
# Of the user's pairs, how many are held out where no validation data is given.
VALID_SHARE, VALID_MOST = 0.05, 1000

EncodedPair = tuple[list[int], list[int]]
Batch = tuple[Tensor, ...]  # source (N, S) and target (N, L), padded
collate = PadCollate(PAD)


# Data


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


def read_pairs(source: str | None, target: str | None, tsv: str | None) -> list[Pair] | None:
    """Read the pairs of two parallel files or of a table; None if neither is named."""
    if tsv:
        return read_tsv(tsv)
    if source and target:
        return read_parallel(source, target)
    return None


def load_pairs(settings: Settings) -> tuple[list[Pair], list[Pair]]:
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


def fits(pair: EncodedPair, settings: Settings) -> bool:
    """Return whether both sides of a pair are short enough."""
    return max(map(len, pair)) <= settings.max_length


def load_data(
    settings: Settings, vocabularies: tuple[Vocabulary, Vocabulary] | None = None
) -> Data:
    """Read the data, hold some out for validation, learn the vocabularies unless given, encode."""
    text = load_pairs(settings)
    train, _ = text
    if vocabularies is None:
        kind, size = settings.vocabulary, settings.vocabulary_size
        source_vocabulary = train_vocabulary(kind, (source for source, _ in train), size)
        target_vocabulary = train_vocabulary(kind, (target for _, target in train), size)
    else:
        source_vocabulary, target_vocabulary = vocabularies
    encoded = [encode_pairs(pairs, (source_vocabulary, target_vocabulary)) for pairs in text]
    kept = [[p for p in part if fits(p, settings)] for part in encoded]
    check_lengths(encoded, kept, settings)
    left_out = sum(map(len, encoded)) - sum(map(len, kept))
    return Data(source_vocabulary, target_vocabulary, kept[0], kept[1], left_out, digest(text))


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
    valid = zip(pairs[1], encode_pairs(pairs[1], checkpoint.vocabularies), strict=True)
    return [pair for pair, tokens in valid if fits(tokens, checkpoint.settings)]


def check_lengths(
    encoded: Sequence[list[EncodedPair]], kept: Sequence[list[EncodedPair]], settings: Settings
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
    """Group pairs of similar length into batches, shuffled by the seed and the epoch."""
    lengths = [(len(source), len(target)) for source, target in pairs]
    return TokenBatchSampler(lengths, settings.batch_tokens, shuffle=shuffle, seed=settings.seed)


def count_tokens(batch: Batch) -> int:
    """Count the target tokens of a batch, without padding."""
    _, tgt_NL = batch
    return int((tgt_NL != PAD).sum().item())


# Checkpoints


@dataclass
class Position:
    """The progress of a run."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done of the current epoch
    step: int = 0  # batches done in all
    loss_sum: float = 0.0  # over the tokens of the current epoch
    tokens: int = 0  # of the current epoch
    best_loss: float = math.inf


@dataclass
class Checkpoint:
    """The content of a checkpoint file; `training` is empty except in the last checkpoint."""

    path: Path
    config: TransformerConfig
    weights: dict[str, Tensor]
    vocabularies: tuple[Vocabulary, Vocabulary]
    settings: Settings
    training: dict[str, Tensor] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Transformer:
        """Build the model with these weights, in evaluation mode."""
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
    """Read the header of a run's checkpoint, except the config; CheckpointError if it is wrong."""
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
        norm_first=settings.norm == "pre",
        positions=settings.positions,
        max_length=settings.max_length,
        tied_output=settings.output == "tied",
    )


def check_settings(path: str | Path, config: TransformerConfig, settings: Settings) -> None:
    """Raise CheckpointError unless the settings in a checkpoint are those of its model."""
    wanted = model_config(settings, config.src_vocab_size, config.tgt_vocab_size)
    for name, value in asdict(config).items():
        if value != getattr(wanted, name):
            raise CheckpointError(
                f"{path}: its settings do not match its model: {name} is {value}, by the settings "
                f"{getattr(wanted, name)}"
            )


# The loop


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


def token_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross entropy of the target tokens that are not padding, in nats."""
    return F.cross_entropy(logits, target, ignore_index=PAD, label_smoothing=smoothing)


def rate_factor(settings: Settings) -> float:
    """Return the schedule's factor that makes `lr` the highest rate, reached after the warm-up."""
    return settings.lr * math.sqrt(settings.d_model * settings.warmup)


class Trainer:
    """A training run: model, optimiser and position. `run` trains from there to the end."""

    def __init__(self, settings: Settings, data: Data, folder: str | Path) -> None:
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
            rate_factor(settings),
        )
        self.order = order_by_tokens(data.train, settings, shuffle=True)
        self.position = Position()
        self.saved = self.position  # what the last checkpoint holds
        self.records: list[dict[str, Any]] = []
        self.interrupt = Interrupt()
        self.place: os.stat_result | None = None  # of the folder, while `run` is at work

    # One step

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, with label smoothing."""
        return token_loss(*predict(self.model, batch), self.settings.label_smoothing)

    def step(self, batch: Batch) -> tuple[float, float]:
        """Learn from a batch; returns the loss and the norm of the gradient before clipping.

        InputError, before the weights are changed, if one of these is NaN or infinite.
        """
        random_state = mt.get_rng_state()
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        for name, value in ("loss", loss.item()), ("norm of the gradient", norm.item()):
            if not math.isfinite(value):
                mt.set_rng_state(random_state)  # so that dropout does the same
                raise self.went_bad(
                    f"the {name} became {value} at step {self.position.step + 1}", batch
                )
        self.optimizer.step()
        self.schedule.step()
        return loss.item(), norm.item()

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

    def went_bad(self, told: str, batch: Batch) -> InputError:
        """Return the error for a batch that gave NaN or infinity, naming the op that made it."""
        cause = find_nonfinite(dict(self.model.named_parameters()), lambda: self.loss(batch))
        return self.cannot_go_on(f"{told}: {cause}")

    def cannot_go_on(self, told: str) -> InputError:
        """Return the error for a run whose weights are lost, and how to continue."""
        return InputError(
            f"{told}; {self.folder / LAST} is that of step {self.saved.step}: go on from there "
            f"with --resume and an --lr below {self.settings.lr:g}"
        )

    @mt.no_grad()
    def validate(self) -> tuple[float, float]:
        """Return the mean loss per validation token: smoothed as in training, and unsmoothed.

        InputError if it is NaN or infinite; Stopped if the job was asked to end.
        """
        self.model.eval()
        sums, tokens = [0.0, 0.0], 0
        for numbers in order_by_tokens(self.data.valid, self.settings, shuffle=False):
            self.interrupt.check()
            batch = collate([self.data.valid[n] for n in numbers])
            logits, target = predict(self.model, batch)
            count = count_tokens(batch)
            for which, smoothing in enumerate((self.settings.label_smoothing, 0.0)):
                loss = token_loss(logits, target, smoothing).item()
                if not math.isfinite(loss):
                    raise self.went_bad(
                        f"the validation loss became {loss} after step {self.position.step}", batch
                    )
                sums[which] += loss * count
            tokens += count
        self.model.train()
        return sums[0] / tokens, sums[1] / tokens

    # All steps

    def run(self, show: Callable[[str], None] = print) -> int:
        """Train to the last epoch; returns 0, or the number of the signal that ended it early.

        Checkpoints are written after each epoch, in a long epoch every ten minutes, and before
        ending early. `show` gets a line about each epoch. InputError, without a new checkpoint, if
        the loss is no longer a number, or if the folder is not there any more.
        """
        tqdm = require("tqdm").tqdm
        position, epochs = self.position, self.settings.epochs
        self.place = self.folder.stat()
        self.interrupt.signal = 0
        if self.settings.label_smoothing and position.epoch < epochs:
            least, unsmoothed = self.least_losses()
            show(
                f"label smoothing {self.settings.label_smoothing:g} teaches the model to be "
                f"{100 * math.exp(-unsmoothed):.0f} % sure of each token, no surer: the loss "
                f"cannot fall\nbelow {least:.4f}, and unsmoothed it may rise towards "
                f"{unsmoothed:.4f} while the translations get better"
            )
        self.model.train()
        with (
            handling(self.interrupt.note),
            tqdm(
                total=len(self.order) * epochs,
                initial=position.step,
                unit="batch",
                disable=None,
                leave=False,
            ) as bar,
        ):
            try:
                while position.epoch < epochs:
                    self.run_epoch(bar, show)
            except Stopped as stopped:
                self.save(LAST)
                return stopped.number
        return 0

    def run_epoch(self, bar: Any, show: Callable[[str], None]) -> None:
        """Run the rest of the current epoch and its validation; write records and checkpoints."""
        position = self.position
        start, tokens_before = time.perf_counter(), position.tokens
        saved = start
        self.order.set_epoch(position.epoch)
        for numbers in list(self.order)[position.batch :]:
            self.interrupt.check()
            batch = collate([self.data.train[n] for n in numbers])
            tokens = count_tokens(batch)
            loss, norm = self.step(batch)
            position.batch += 1
            position.step += 1
            position.tokens += tokens
            position.loss_sum += loss * tokens
            now = time.perf_counter()
            rate = (position.tokens - tokens_before) / (now - start)
            if position.step % LOG_EVERY == 0:
                self.log("step", loss=loss, grad_norm=norm, tokens_per_second=round(rate))
            if now - saved > SAVE_EVERY:
                self.save(LAST)
                saved = now
            bar.set_postfix_str(f"loss {loss:.3f}, {rate:,.0f} tokens/s", refresh=False)
            bar.update()
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
        draw_losses(
            self.records,
            self.folder / CURVES,
            self.least_losses()[0],
            self.settings.label_smoothing,
        )
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
        """Append a record to the log, as a line of JSON, completely or not at all."""
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
        self.check_folder()
        try:
            size = path.stat().st_size
        except FileNotFoundError:  # the first record, or somebody took the file away
            write_log(path, self.records)
            return
        try:
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error

    def check_folder(self) -> None:
        """Raise InputError if the folder is not the one the run began to write to."""
        try:
            here = self.place is None or os.path.samestat(self.place, self.folder.stat())
        except OSError:
            here = False
        if not here:
            raise InputError(
                f"{self.folder} was removed or exchanged while the run went on: "
                "what it learned since is not kept"
            )

    # Keeping and continuing

    def save(self, name: str) -> None:
        """Write a checkpoint: the best to translate with, the last also to continue from.

        InputError, and the checkpoint stays as it was, if a number in it is NaN or infinite.
        """
        self.check_folder()
        tensors = dict(self.model.state_dict())
        progress: dict[str, Any] = {
            "position": asdict(self.position),
            "data": self.data.digest,
            "longest_target": self.data.longest_target,
        }
        if name == LAST:
            optimizer = self.optimizer.state_dict()
            progress["groups"] = optimizer["param_groups"]
            progress["schedule"] = self.schedule.state_dict()
            tensors[TRAINING + "rng"] = mt.from_numpy(mt.get_rng_state())
            for number, values in optimizer["state"].items():
                for key, value in values.items():
                    tensors[f"{TRAINING}{number}.{key}"] = mt.as_tensor(value)
        for key, tensor in tensors.items():
            if value := bad_value([tensor]):
                raise self.cannot_go_on(
                    f"the update of step {self.position.step} made {key} {value}"
                )
        texts = {
            "config": json.dumps(asdict(self.model.config)),
            "source_vocabulary": self.data.source_vocabulary.to_json(),
            "target_vocabulary": self.data.target_vocabulary.to_json(),
            "settings": json.dumps(asdict(self.settings)),
            "progress": json.dumps(progress),
        }
        save_file(tensors, self.folder / name, texts)
        if name == LAST:
            self.saved = replace(self.position)

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
        self.saved = replace(self.position)
        self.records = read_log(self.folder / LOG, self.position)
        write_log(self.folder / LOG, self.records)

    def change_rate(self, lr: float) -> None:
        """Go on with another highest learning rate; the schedule keeps its shape."""
        for group in self.optimizer.param_groups:
            group["lr"] *= lr / self.settings.lr
        self.settings.lr = lr
        self.schedule.factor = rate_factor(self.settings)


def read_log(path: Path, position: Position) -> list[dict[str, Any]]:
    """Read the records of a log up to a position.

    Damaged lines are left out, and a line on standard error counts them. InputError if the file
    cannot be read.
    """
    try:
        records, damaged = read_records(path.read_bytes() if path.exists() else b"")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if damaged:
        print(f"{path}: {damaged} damaged line{'s' * (damaged > 1)} left out", file=sys.stderr)
    return [r for r in records if r["step"] <= position.step and r["epoch"] <= position.epoch]


def write_log(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write the log anew, a line of JSON for each record; InputError if that fails."""
    write_file(path, "".join(json.dumps(record) + "\n" for record in records).encode())


@contextlib.contextmanager
def start_run(settings: Settings, folder: str | Path, overwrite: bool = False) -> Iterator[Trainer]:
    """Start a new run in a folder, which is locked within the block.

    InputError if the folder holds a run, unless it may be overwritten, or is in use.
    """
    settings.check()
    folder = Path(folder)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    with hold(folder):
        try:
            if (folder / LAST).exists() and not overwrite:
                raise InputError(
                    f"{folder} already holds a run: continue it with --resume, "
                    "replace it with --overwrite, or choose another folder"
                )
            trainer = Trainer(settings, load_data(settings), folder)
            trainer.save(LAST)  # a folder that cannot be written to is noticed here
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        for name in (BEST, LOG, CURVES):
            (folder / name).unlink(missing_ok=True)
        yield trainer


CAN_CHANGE = ("epochs", "lr")  # settings that may differ when a run is continued


@contextlib.contextmanager
def resume_run(folder: str | Path, given: dict[str, Any]) -> Iterator[Trainer]:
    """Resume the run in a folder from its last checkpoint; the folder is locked as in `start_run`.

    `given` are settings the user asks for; only those in CAN_CHANGE may differ from the run's.
    """
    folder = Path(folder)
    with hold(folder):
        checkpoint = read_checkpoint(folder / LAST)
        settings = checkpoint.settings
        for name, value in given.items():
            if name not in CAN_CHANGE and value != getattr(settings, name):
                raise InputError(
                    f"--{name.replace('_', '-')} is {value}, but the run in {folder} was started "
                    f"with {getattr(settings, name)}: only "
                    f"{' and '.join(f'--{name}' for name in CAN_CHANGE)} can change"
                )
        settings.epochs = given.get("epochs", settings.epochs)
        trainer = Trainer(settings, load_data(settings, checkpoint.vocabularies), folder)
        trainer.restore(checkpoint)
        trainer.change_rate(given.get("lr", settings.lr))
        yield trainer
