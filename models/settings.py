"""The settings of a training run: defaults, meanings, and options on the command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any

from minitensor.files import parse_json, shown

from .command import InputError
from .text import is_text


def count(text: str) -> int:
    """Parse an integer from 1 to 2**31 - 1."""
    value = int(text)
    if not 1 <= value < 2**31:
        raise argparse.ArgumentTypeError("expected an integer of at least 1, and below 2**31")
    return value


def share(text: str) -> float:
    """Parse a number of at least 0 and less than 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("expected a number of at least 0 and less than 1")
    return value


def amount(text: str) -> float:
    """Parse a number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("expected a number above 0")
    return value


def seed_number(text: str) -> int:
    """Parse an integer from 0 to 2**32 - 1."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError("expected an integer from 0 to 2**32 - 1")
    return value


def setting(default: Any, kind: Callable[[str], Any] | tuple[str, ...], meaning: str) -> Any:
    """Return a field: its default, the type of its option or a tuple of choices, its meaning."""
    return field(default=default, metadata={"kind": kind, "meaning": meaning})


@dataclass
class Settings:
    """Everything that decides the outcome of a run. The defaults suit the embedded data."""

    source: str | None = setting(
        None, str, "text to learn from, one sentence per line (plain or .gz)"
    )
    target: str | None = setting(None, str, "its translation, line by line (plain or .gz)")
    tsv: str | None = setting(None, str, "instead of both: a table of source and target")
    valid_source: str | None = setting(None, str, "text to validate with; else some is held out")
    valid_target: str | None = setting(None, str, "its translation")
    valid_tsv: str | None = setting(None, str, "instead of both: a table")
    vocabulary: str = setting("word", ("word", "bpe"), "what a token is")
    vocabulary_size: int | None = setting(
        None, count, "tokens per language; by default all words, or 8000 of BPE"
    )
    max_length: int = setting(256, count, "longer pairs (in tokens) are left out")

    d_model: int = setting(128, count, "width of the model")
    nhead: int = setting(4, count, "heads of each attention")
    encoder_layers: int = setting(2, count, "layers of the encoder")
    decoder_layers: int = setting(2, count, "layers of the decoder")
    dim_feedforward: int = setting(256, count, "width of the feed-forward networks")
    dropout: float = setting(0.1, share, "probability of dropping an activation")
    activation: str = setting("relu", ("relu", "gelu"), "of the feed-forward networks")
    norm: str = setting("pre", ("pre", "post"), "layer norm before or after each sub-layer")
    positions: str = setting("sinusoidal", ("sinusoidal", "learned"), "kind of position embedding")
    output: str = setting(
        "own", ("own", "tied"), "weights of the output, or the target embedding's"
    )

    epochs: int = setting(4, count, "passes over the training data")
    batch_tokens: int = setting(800, count, "target tokens of a batch, padding included")
    lr: float = setting(2e-3, amount, "highest learning rate, reached after the warm-up")
    warmup: int = setting(100, count, "steps over which the learning rate rises")
    label_smoothing: float = setting(0.1, share, "probability spread over all tokens")
    clip: float = setting(1.0, amount, "norm that gradients are clipped to")
    seed: int = setting(
        0, seed_number, "decides the initial weights, the order of batches, and dropout"
    )

    @property
    def embedded(self) -> bool:
        """True if the run learns from the embedded data."""
        return not self.source and not self.tsv

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        if self.d_model % self.nhead:
            raise InputError(
                "the width of the model must be divisible by the number of heads: "
                f"--d-model is {self.d_model}, --nhead is {self.nhead}"
            )
        check_data(self.source, self.target, self.tsv)
        check_data(self.valid_source, self.valid_target, self.valid_tsv, "valid-")
        if (self.valid_tsv or self.valid_source) and self.embedded:
            raise InputError("validation data was given, but no training data")


def settings_from_json(text: str) -> Settings:
    """Parse the settings that a checkpoint keeps as JSON; ValueError if they are wrong."""
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"they are {shown(values)}")
    known = {item.name: item for item in fields(Settings)}
    for name in values:
        if name not in known:
            raise ValueError(f"there is no setting {shown(name)}")
    settings = Settings(**{name: read_value(known[name], value) for name, value in values.items()})
    try:
        settings.check()
    except InputError as error:
        raise ValueError(str(error)) from error
    return settings


def read_value(item: Field[Any], value: Any) -> Any:
    """Check the value of a setting from a checkpoint; ValueError if its option would refuse it."""
    kind = item.metadata["kind"]
    if value is None and item.default is None:
        return None
    if isinstance(kind, tuple):
        if is_text(value) and value in kind:
            return value
        wanted = f"one of {', '.join(kind)}"
    elif kind is str:
        if is_text(value) and "\0" not in value:
            return value
        wanted = "a text"
    elif type(value) is int or (type(value) is float and type(item.default) is float):
        try:
            return kind(str(value))
        except (argparse.ArgumentTypeError, OverflowError) as error:
            wanted = str(error).removeprefix("expected ")
    else:
        wanted = "a number"
    raise ValueError(f"{item.name} is {shown(value)}, expected {wanted}")


def check_data(source: str | None, target: str | None, tsv: str | None, prefix: str = "") -> None:
    """Raise InputError unless two files were named, or one table, or nothing."""
    if bool(source) != bool(target):
        raise InputError(f"--{prefix}source and --{prefix}target belong together: give both files")
    if tsv and source:
        raise InputError(f"give either --{prefix}tsv, or --{prefix}source and --{prefix}target")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting; those not given are absent from the parsed arguments."""
    for item in fields(Settings):
        kind, meaning = item.metadata["kind"], item.metadata["meaning"]
        if item.default is not None:
            meaning += f" (default: {item.default})"
        takes = {"choices": kind} if isinstance(kind, tuple) else {"type": kind}
        name = "--" + item.name.replace("_", "-")
        parser.add_argument(name, default=argparse.SUPPRESS, help=meaning, **takes)
