"""Train a translation model: the loop, and how a run is kept and continued.

A run lives in a folder: `best.safetensors` and `last.safetensors` (weights, config, vocabularies;
the last one also everything needed to continue), `log.jsonl` and `loss.png`. Everything random is a
function of the seed and of the position in the run, and both are kept: an interrupted and resumed
run ends with the same weights, bit for bit, as an uninterrupted one.

Sources: label smoothing from Szegedy et al., 2016, arXiv:1512.00567; the schedule, and Adam's
settings, from Vaswani et al., 2017, arXiv:1706.03762, section 5.3.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.autograd.nonfinite import bad_value, find_nonfinite
from minitensor.optim import Adam
from minitensor.optim.lr_scheduler import InverseSqrtLR
from minitensor.serialize import CheckpointError, save_file

from .checkpoint import TRAINING, Checkpoint, Position, model_config, read_checkpoint
from .command import InputError, Stopped, handling, require
from .config import load_state
from .job import Interrupt, hold
from .pairs import Batch, Data, collate, count_tokens, load_data, order_by_tokens
from .pictures import draw_losses
from .run_files import check_training, read_records
from .settings import Settings
from .text import (
    PAD,
    write_file,
)
from .transformer import Transformer

BEST, LAST, LOG, CURVES = "best.safetensors", "last.safetensors", "log.jsonl", "loss.png"
LOG_EVERY = 10  # steps
SAVE_EVERY = 600  # seconds within an epoch; a power cut loses no more


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
        self.saved = self.position  # the position of the last checkpoint
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

    def went_bad(self, problem: str, batch: Batch) -> InputError:
        """Return the error for a batch that gave NaN or infinity, naming the op that made it."""
        cause = find_nonfinite(dict(self.model.named_parameters()), lambda: self.loss(batch))
        return self.cannot_go_on(f"{problem}: {cause}")

    def cannot_go_on(self, problem: str) -> InputError:
        """Return the error for a run whose weights are lost, and how to continue."""
        return InputError(
            f"{problem}; {self.folder / LAST} is that of step {self.saved.step}: go on from there "
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
        the loss is no longer a number, or if the folder has disappeared.
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
        """Continue from a last checkpoint; InputError if the data has changed."""
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
        """Continue with another highest learning rate; the schedule keeps its shape."""
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
    """Rewrite the log, a line of JSON for each record; InputError if that fails."""
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
