"""The settings of a training run: defaults, meanings, and options on the command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

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


def files(text: str) -> str:
    """Parse the name of a file; several, or a pattern, may be given (`corpus.Files`)."""
    return text


class OneOrMore(argparse.Action):
    """Stores what an option was given: a tuple, or the value itself if it is one."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store it."""
        setattr(namespace, self.dest, values[0] if len(values) == 1 else tuple(values))


def setting(default: Any, kind: Callable[[str], Any] | tuple[str, ...], meaning: str) -> Any:
    """Return a field: its default, the type of its option or a tuple of choices, its meaning.

    The option of a setting of type bool, which is False by default, takes no value.
    """
    return field(default=default, metadata={"kind": kind, "meaning": meaning})


@dataclass
class Settings:
    """The settings that all training runs have; a task adds its own in a subclass."""

    epochs: int = setting(4, count, "passes over the training data")
    lr: float = setting(2e-3, amount, "highest learning rate, reached after the warm-up")
    warmup: int = setting(100, count, "steps over which the learning rate rises")
    schedule: str = setting(
        "inverse-sqrt",
        ("inverse-sqrt", "linear", "constant"),
        "of the learning rate afterwards: falls with the root of the step, falls to 0, or stays",
    )
    average: int = setting(1, count, "keep the mean of the weights after so many last epochs")
    clip: float = setting(1.0, amount, "norm that gradients are clipped to")
    seed: int = setting(
        0, seed_number, "decides the initial weights, the order of batches, and dropout"
    )
    precision: str = setting(
        "highest",
        ("highest", "high", "medium"),
        "of matrix products: medium rounds to bfloat16 on processors where that is faster",
    )

    no_compile: bool = setting(
        False, bool, "compute the loss as the code says, also where compiling it is faster"
    )

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""


S = TypeVar("S", bound=Settings)


def settings_from_json(text: str, kind: type[S]) -> S:
    """Parse the settings, of class `kind`, that a checkpoint keeps as JSON; ValueError if wrong."""
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"they are {shown(values)}")
    known = {item.name: item for item in fields(kind)}
    for name in values:
        if name not in known:
            raise ValueError(f"there is no setting {shown(name)}")
    settings = kind(**{name: read_value(known[name], value) for name, value in values.items()})
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
    if kind is bool:
        if type(value) is bool:
            return value
        wanted = "true or false"
    elif isinstance(kind, tuple):
        if is_text(value) and value in kind:
            return value
        wanted = f"one of {', '.join(kind)}"
    elif kind in (str, files):
        many = kind is files and isinstance(value, list) and value
        names = value if many else [value]
        if all(is_text(name) and "\0" not in name for name in names):
            return tuple(value) if many else value
        wanted = "a text" if kind is str else "names of files"
    elif type(value) is int or (type(value) is float and type(item.default) is float):
        try:
            return kind(str(value))
        except (argparse.ArgumentTypeError, OverflowError) as error:
            wanted = str(error).removeprefix("expected ")
    else:
        wanted = "a number"
    raise ValueError(f"{item.name} is {shown(value)}, expected {wanted}")


def add_settings(
    parser: argparse.ArgumentParser, settings: type[Settings], leave_out: Sequence[str] = ()
) -> None:
    """Add an option for each setting; those not given are absent from the parsed arguments."""
    for item in fields(settings):
        if item.name in leave_out:
            continue
        kind, meaning = item.metadata["kind"], item.metadata["meaning"]
        if item.default is not None and kind is not bool:
            meaning += f" (default: {item.default})"
        takes: dict[str, Any] = {"choices": kind} if isinstance(kind, tuple) else {"type": kind}
        if kind is bool:
            takes = {"action": "store_true"}
        elif kind is files:
            takes = {"action": OneOrMore, "nargs": "+", "metavar": "FILE"}
        name = "--" + item.name.replace("_", "-")
        parser.add_argument(name, default=argparse.SUPPRESS, help=meaning, **takes)
