"""The embedded data: numbers in English words and in French, "forty-two" and "quarante-deux".

The words are those of the num2words package. Translating them takes more than a dictionary: French
counts 70 and 90 from 60 and 80, agrees in "deux cents" but not in "deux cent mille", and has no
"one" in "mille".
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .command import InputError, require
from .text import Pair

LIMIT = 1_000_000
PER_LENGTH = {4: 3000, 5: 5000, 6: 9000}  # how many numbers of so many digits; all of fewer digits
VALID_COUNT, TEST_COUNT = 500, 1000


@dataclass(frozen=True)
class Split:
    """Disjoint lists of numbers: for training, validation and test."""

    train: list[int]
    valid: list[int]
    test: list[int]


def split_numbers() -> Split:
    """Return the split, always the same; each part has the same mix of short and long numbers."""
    noise = random.Random(0)
    numbers = list(range(1000))
    for digits, count in PER_LENGTH.items():
        numbers += noise.sample(range(10 ** (digits - 1), 10**digits), count)
    noise.shuffle(numbers)
    held_out = TEST_COUNT + VALID_COUNT
    return Split(numbers[held_out:], numbers[TEST_COUNT:held_out], numbers[:TEST_COUNT])


def in_words(number: int) -> Pair:
    """Return a number in English and French words; InputError unless it is from 0 to 999,999."""
    if not 0 <= number < LIMIT:
        raise InputError(f"{number} is not between 0 and {LIMIT - 1:,}")
    num2words = require("num2words").num2words
    return num2words(number), num2words(number, lang="fr")


def number_pairs(numbers: Sequence[int]) -> list[Pair]:
    """Return the words of each number, English and French."""
    return [in_words(number) for number in numbers]
