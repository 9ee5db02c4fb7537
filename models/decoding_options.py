"""The options of sampling, for all command lines of models that write."""

from __future__ import annotations

import argparse
from typing import Any

import minitensor as mt

from .command import InputError
from .decoding import Sampling
from .settings import seed_number


def add_sampling(command: Any) -> None:
    """Add the options to a parser, or to a group of one."""
    command.add_argument(
        "--temperature",
        type=float,
        help="draw tokens at random; below 1 the probable ones more often, 0 only the first",
    )
    command.add_argument("--top-k", type=int, help="draw from the K most probable tokens only")
    command.add_argument(
        "--top-p", type=float, help="draw from the most probable tokens that sum to P"
    )
    command.add_argument("--seed", type=seed_number, help="of the random numbers (default: none)")


def sampling_of(options: argparse.Namespace) -> Sampling | None:
    """Return the sampling that the options ask for, or None; InputError for a value out of range.

    Seeds the random numbers if a seed was given.
    """
    if options.seed is not None:
        mt.manual_seed(options.seed)
    if (options.temperature, options.top_k, options.top_p) == (None, None, None):
        return None
    temperature = 1.0 if options.temperature is None else options.temperature
    top_p = 1.0 if options.top_p is None else options.top_p
    try:
        return Sampling(temperature, options.top_k, top_p)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise InputError(f"--{name.replace('_', '-')} {rest}") from error
