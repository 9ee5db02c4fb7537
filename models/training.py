"""Train a model: the loop, and how a run is kept and continued. One for all tasks (`task.py`).

A run lives in a folder: `best.safetensors` and `last.safetensors` (weights and what the task needs;
the last one also everything needed to continue), `log.jsonl` and `loss.png`. Everything random is a
function of the seed and of the position in the run, and both are kept: an interrupted and resumed
run ends with the same weights, bit for bit, as an uninterrupted one.

Sources: the inverse square root schedule from Vaswani et al., 2017, arXiv:1706.03762, section 5.3,
and there, section 6.1, the mean of the last checkpoints' weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import minitensor as mt
from minitensor import nn
from minitensor.autograd.nonfinite import bad_value, find_nonfinite
from minitensor.serialize import CheckpointError, load_file, save_file

from .checkpoint import read_checkpoint
from .command import InputError, Stopped, handling, require
from .config import TRAINING, load_state
from .job import Interrupt, hold
from .pictures import draw_losses
from .ranks import ALONE, AgreedError, Part, Ranks, shows_progress, together
from .run_files import check_training, read_log, write_log
from .settings import add_settings
from .task import Checkpoint, Position, Task

BEST, LAST, LOG, CURVES = "best.safetensors", "last.safetensors", "log.jsonl", "loss.png"
EPOCH = "epoch-{}.safetensors"  # the weights after an epoch, kept to be averaged
LOG_EVERY = 10  # steps
SAVE_EVERY = 600  # seconds within an epoch; a power cut loses no more


def rate_share(step: int, warmup: int, schedule: str, total: int) -> float:
    """Return the share of the highest learning rate for a step, counted from 0, of `total`."""
    done = step + 1
    if done < warmup:
        return done / warmup
    if schedule == "inverse-sqrt":
        return math.sqrt(warmup / done)
    if schedule == "linear":
        return max(0.0, (total - step) / max(1, total - warmup + 1))
    return 1.0


class Trainer:
    """A training run: model, optimiser and position. `run` trains from there to the end."""

    def __init__(self, task: Task, folder: str | Path, ranks: Ranks = ALONE) -> None:
        ranks.check_same(task)
        self.task = task
        self.ranks = ranks
        self.settings = task.settings
        self.model = task.model
        self.folder = Path(folder)
        self.optimizer = ranks.optimizer(task.optimizer())
        loss = task.loss if self.settings.no_compile else task.compiled_loss(ranks.rows)
        self.loss = ranks.shared(self.model, loss)
        self.steps = len(task.train_batches(0))  # of an epoch
        self.position = Position()
        self.saved = self.position  # the position of the last checkpoint
        self.records: list[dict[str, Any]] = []
        self.interrupt = Interrupt(tells=ranks.first)
        self.place: os.stat_result | None = None  # of the folder, while `run` is at work
        self.set_rate()

    def set_rate(self) -> None:
        """Set the learning rate of the next step."""
        settings, total = self.settings, self.steps * self.settings.epochs
        share = rate_share(self.position.step, settings.warmup, settings.schedule, total)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * share

    # One step

    def step(self, batch: Any) -> tuple[float, float]:
        """Learn from a batch; returns the loss and the norm of the gradient before clipping.

        InputError, before the weights are changed, if one of these is NaN or infinite.
        """
        random_state = mt.get_rng_state()
        self.optimizer.zero_grad()
        part = self.ranks.part(self.task, batch)
        with mt.random.part_of_batch(part.first, part.rows):
            loss = self.loss(part.batch)
            (loss * part.scale).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip).item()
        total = sum(share for (share,) in self.ranks.table(loss.item() * part.weight))
        for name, value in ("loss", total), ("norm of the gradient", norm):
            if not math.isfinite(value):
                mt.set_rng_state(random_state)  # so that dropout does the same
                raise self.went_bad(
                    f"the {name} became {value} at step {self.position.step + 1}", part
                )
        self.optimizer.step()
        return total, norm

    def went_bad(self, problem: str, batch: Any) -> InputError:
        """Return the error for a batch that gave NaN or infinity, naming the op that made it."""
        parameters = dict(self.model.named_parameters())
        if isinstance(batch, Part):
            with mt.random.part_of_batch(batch.first, batch.rows):
                own = find_nonfinite(parameters, lambda: self.task.loss(batch.batch))
            causes = self.ranks.gather(own)  # the others may have found none
            cause = next((each for each in causes if " made " in each), causes[0])
            return self.cannot_go_on(f"{problem}: {cause}", AgreedError)
        cause = find_nonfinite(parameters, lambda: self.task.loss(batch))
        return self.cannot_go_on(f"{problem}: {cause}")

    def cannot_go_on(self, problem: str, kind: type[InputError] = InputError) -> InputError:
        """Return the error for a run whose weights are lost, and how to continue."""
        return kind(
            f"{problem}; {self.folder / LAST} is that of step {self.saved.step}: go on from there "
            f"with --resume and an --lr below {self.settings.lr:g}"
        )

    @mt.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the means of the task's measures over the validation data, "loss" first.

        InputError if one is NaN or infinite; Stopped if the job was asked to end.
        """
        self.model.eval()
        sums: dict[str, float] = {}
        units, ranks = 0, self.ranks
        batches = self.task.valid_batches()
        for number in range(ranks.rank, -(-len(batches) // ranks.size) * ranks.size, ranks.size):
            self.check_interrupt()
            if number >= len(batches):
                continue
            batch = self.task.collate_valid(batches[number])
            count = self.task.count(batch)
            for name, value in self.task.measures(batch).items():
                if not math.isfinite(value):
                    raise self.went_bad(
                        f"the validation {name} became {value} after step {self.position.step}",
                        batch,
                    )
                sums[name] = sums.get(name, 0.0) + value * count
            units += count
        self.model.train()
        found = ranks.gather((sums, units))
        units = sum(count for _, count in found)
        return {name: sum(of.get(name, 0.0) for of, _ in found) / units for name in found[0][0]}

    def check_interrupt(self, due: bool = False) -> bool:
        """Raise Stopped on all ranks if one was asked to end; return rank 0's `due`."""
        asked = self.ranks.table(self.interrupt.signal, due)
        if number := max(signal for signal, _ in asked):
            raise Stopped(int(number))
        return bool(asked[0][1])

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
        if position.epoch < epochs and (advice := self.task.advice()):
            show(advice)
        self.model.train()
        with (
            handling(self.interrupt.note),
            tqdm(
                total=self.steps * epochs,
                initial=position.step,
                unit="batch",
                disable=not (self.ranks.first and shows_progress()),
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
        position, task = self.position, self.task
        start, tokens_before = time.perf_counter(), position.tokens
        saved = start
        batches = task.train_batches(position.epoch)
        for number in range(position.batch, len(batches)):
            if self.check_interrupt(time.perf_counter() - saved > SAVE_EVERY):
                self.save(LAST)
                saved = time.perf_counter()
            batch = task.collate(batches[number])
            tokens = task.count(batch)
            loss, norm = self.step(batch)
            position.batch += 1
            position.step += 1
            self.set_rate()
            position.tokens += tokens
            position.loss_sum += loss * tokens
            now = time.perf_counter()
            rate = (position.tokens - tokens_before) / (now - start)
            if position.step % LOG_EVERY == 0:
                speed = {f"{task.unit}_per_second": round(rate)}
                self.log("step", loss=loss, grad_norm=norm, **speed)
            bar.set_postfix_str(f"loss {loss:.3f}, {rate:,.0f} {task.unit}/s", refresh=False)
            bar.update()
        seconds = time.perf_counter() - start
        rate = (position.tokens - tokens_before) / max(seconds, 1e-9)
        train_loss = position.loss_sum / position.tokens
        self.ranks.share_buffers(self.model)
        with self.averaged():
            measures = self.validate()
            position.epoch, position.batch = position.epoch + 1, 0
            position.loss_sum, position.tokens = 0.0, 0
            self.log(
                "epoch",
                train_loss=train_loss,
                **{f"valid_{name}": value for name, value in measures.items()},
                seconds=round(seconds, 3),
                **{f"{task.unit}_per_second": round(rate)},
            )
            if self.ranks.first:
                draw_losses(self.records, self.folder / CURVES, task.unit, task.floor())
            valid_loss, *others = measures.values()
            if valid_loss < position.best_loss:
                position.best_loss = valid_loss
                self.save(BEST)
        self.save(LAST)
        if self.ranks.first:  # which may have been killed before: a resumed run averages it again
            unneeded = EPOCH.format(position.epoch - self.settings.average + 1)
            (self.folder / unneeded).unlink(missing_ok=True)
        bar.clear()
        names = [task.words.get(name, name) for name in list(measures)[1:]]
        more = ", ".join(f"{value:.4f} {name}" for name, value in zip(names, others, strict=True))
        show(
            f"epoch {position.epoch}/{self.settings.epochs}  step {position.step}  "
            f"training loss {train_loss:.4f}  validation loss {valid_loss:.4f} "
            + f"({more})  " * bool(more)
            + f"{rate:,.0f} {task.unit}/s  {seconds:.0f} s"
        )

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block, at the end of an epoch, the weights are the mean of the last epochs'.

        Each epoch's weights are kept in a file as long as they are needed.
        """
        count, epoch = self.settings.average, self.position.epoch + 1
        if count == 1:
            yield
            return
        own = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.save(EPOCH.format(epoch))
        states = [own]
        for number in range(max(1, epoch - count + 1), epoch):
            states.append(load_file(self.folder / EPOCH.format(number))[0])
        mean = {
            name: sum(state[name] for state in states) / len(states)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in own.items()
        }
        self.model.load_state_dict(mean)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def log(self, kind: str, **values: Any) -> None:
        """Append a record to the log, as a line of JSON, completely or not at all."""
        position = self.position
        rate = self.optimizer.param_groups[0]["lr"]
        record = {
            "kind": kind,
            "epoch": position.epoch,
            "step": position.step,
            "lr": rate,
            **values,
        }
        self.records.append(record)
        if not self.ranks.first:
            return
        path = self.folder / LOG
        self.check_folder()
        try:
            size = path.stat().st_size
        except FileNotFoundError:  # the first record, or somebody took the file away
            write_log(path, self.records)
            return
        try:
            with path.open("a", encoding="utf-8", newline="\n") as file:
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

        InputError, and the checkpoint stays as it was, if a number in it is NaN or infinite. Rank 0
        writes it, but all have to call this.
        """
        optimizer = self.ranks.optimizer_state(self.optimizer) if name == LAST else {}
        if not self.ranks.first:
            self.saved = replace(self.position) if name == LAST else self.saved
            return
        self.check_folder()
        tensors = dict(self.model.state_dict())
        progress: dict[str, Any] = {
            "position": asdict(self.position),
            "data": self.task.digest,
            **self.task.facts(),
        }
        if name == LAST:
            progress["groups"] = optimizer["param_groups"]
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
            "task": json.dumps(self.task.kind),
            **self.task.texts(),
            "settings": json.dumps(asdict(self.settings)),
            "progress": json.dumps(progress),
        }
        save_file(tensors, self.folder / name, texts)
        if name == LAST:
            self.saved = replace(self.position)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a last checkpoint; InputError if the data has changed."""
        progress = checkpoint.progress
        if progress["data"] != self.task.digest:
            raise InputError(
                f"the data has changed since {checkpoint.path} was written: "
                "the run can only continue with the same text"
            )
        try:
            check_training(
                progress,
                checkpoint.training,
                self.task.optimizer().state_dict()["param_groups"],
                [p for p in self.model.parameters() if p.requires_grad],
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
        mt.set_rng_state(checkpoint.training["rng"].numpy())
        self.position = Position(**progress["position"])
        self.saved = replace(self.position)
        self.set_rate()
        if self.ranks.first:
            self.records = read_log(self.folder / LOG, self.position)
            write_log(self.folder / LOG, self.records)


T = TypeVar("T", bound=Task)


def start_task(task: type[T], settings: Any, checkpoint: Checkpoint | None = None) -> T:
    """Seed the random numbers, set the precision of products, read the data and build the model."""
    mt.manual_seed(settings.seed)
    mt.set_float32_matmul_precision(settings.precision)
    return task(settings, checkpoint)


@contextlib.contextmanager
def start_run(
    task: type[Task],
    settings: Any,
    folder: str | Path,
    overwrite: bool = False,
    ranks: Ranks = ALONE,
) -> Iterator[Trainer]:
    """Start a new run in a folder, which is locked within the block.

    InputError if the folder holds a run, unless it may be overwritten, or is in use.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as held:
        made = ranks.first and not folder.exists()
        try:
            with ranks.agreed():
                settings.check()
                if ranks.first:
                    make_folder(folder)
                    held.enter_context(hold(folder))
                    check_free(folder, overwrite)
                begun = start_task(task, settings)
            trainer = Trainer(begun, folder, ranks)
            trainer.save(LAST)  # a folder that cannot be written to is noticed here
        except BaseException:
            held.close()  # on Windows a file in the folder is its lock
            if made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        if ranks.first:
            old = (folder / BEST, folder / LOG, folder / CURVES, *folder.glob(EPOCH.format("*")))
            for path in old:
                path.unlink(missing_ok=True)
        yield trainer


def make_folder(folder: Path) -> None:
    """Make a folder, unless it is there; InputError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror or error}") from error


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise InputError if a folder holds a run, unless it may be overwritten."""
    if (folder / LAST).exists() and not overwrite:
        raise InputError(
            f"{folder} already holds a run: continue it with --resume, "
            "replace it with --overwrite, or choose another folder"
        )


def load_trained(run: str | Path, task: type[Task]) -> Checkpoint:
    """Read the best checkpoint of a run's folder, or a checkpoint file; InputError for none."""
    path = Path(run)
    path = path / BEST if path.is_dir() else path
    if not path.exists():
        raise InputError(f"there is no trained model at {path}: train one first")
    return read_checkpoint(path, task)


CAN_CHANGE = ("epochs", "lr")  # settings that may differ when a run is continued


@contextlib.contextmanager
def resume_run(
    task: type[Task], folder: str | Path, given: dict[str, Any], ranks: Ranks = ALONE
) -> Iterator[Trainer]:
    """Resume the run in a folder from its last checkpoint; the folder is locked as in `start_run`.

    `given` are settings the user asks for; only those in CAN_CHANGE may differ from the run's.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as held:
        with ranks.agreed():
            if ranks.first:
                held.enter_context(hold(folder))
            checkpoint = read_checkpoint(folder / LAST, task)
            settings = checkpoint.settings
            for name, value in given.items():
                if name not in CAN_CHANGE and value != getattr(settings, name):
                    raise InputError(
                        f"--{name.replace('_', '-')} is {value}, but the run in {folder} was "
                        f"started with {getattr(settings, name)}: only "
                        f"{' and '.join(f'--{name}' for name in CAN_CHANGE)} can change"
                    )
            settings.epochs = given.get("epochs", settings.epochs)
            settings.lr = given.get("lr", settings.lr)
            begun = start_task(task, settings, checkpoint)
        trainer = Trainer(begun, folder, ranks)
        with ranks.agreed():
            trainer.restore(checkpoint)
        yield trainer


# Command lines


def add_train(
    commands: Any, task: type[Task], default: str, meaning: str, name: str = "train"
) -> argparse.ArgumentParser:
    """Add the command `name`, with an option for each setting of the task; returns its parser."""
    command = commands.add_parser(name, help=meaning)
    command.add_argument("--out", default=default, help="folder of the run (default: %(default)s)")
    again = command.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the run in the folder")
    again.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    several = command.add_argument_group(
        "several processes", "started with mpiexec -n K; without effect on one process"
    )
    several.add_argument(
        "--shard-optimizer",
        action="store_true",
        help="each process keeps the optimiser's state of its part of the weights alone (ZeRO-1)",
    )
    several.add_argument(
        "--bf16-gradients", action="store_true", help="send gradients rounded to bfloat16"
    )
    add_settings(command, task.settings_class)
    command.set_defaults(command=lambda options: train(task, options))
    return command


def train(task: type[Task], options: argparse.Namespace) -> int:
    """Train a new run, or the rest of one, as the command line asks; returns the exit code."""
    names = {field.name for field in fields(task.settings_class)}
    given = {name: value for name, value in vars(options).items() if name in names}

    def run(ranks: Ranks) -> int:
        if options.resume:
            start = resume_run(task, options.out, given, ranks)
        else:
            settings = task.settings_class(**given)
            start = start_run(task, settings, options.out, options.overwrite, ranks)
        with start as trainer:
            return train_on(trainer)

    return together(
        run, shard_optimizer=options.shard_optimizer, bf16_gradients=options.bf16_gradients
    )


def train_on(trainer: Trainer) -> int:
    """Train the rest of a run, and print how it goes on rank 0; returns the exit code."""
    if not trainer.ranks.first:
        number = trainer.run(lambda line: None)
        return 128 + number if number else 0
    out = trainer.folder
    print(trainer.task.describe() + trainer.ranks.describe(), flush=True)
    epochs = trainer.position.epoch
    if epochs >= trainer.settings.epochs:
        print(
            f"the run in {out} is finished, after {epochs} epoch{'s' * (epochs > 1)}: train on "
            f"with --resume --epochs {epochs + 1} or more"
        )
    number = trainer.run(lambda line: print(line, flush=True))
    if number:
        print(f"interrupted at step {trainer.position.step}: continue with --resume --out {out}")
        return 128 + number
    print(f"best validation loss {trainer.position.best_loss:.4f}", end="")
    print(
        f"; the model is {out / BEST}" if (out / BEST).exists() else f", but {out / BEST} is gone"
    )
    return 0
