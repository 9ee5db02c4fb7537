"""A gradient against central differences: every element of a small array, or random directions.

The function differentiated is sum(w * f(x)) for weights w. Its slope along a direction v is
(f(x + h v) - f(x - h v)) / 2h and must equal sum(v * gradient). One wrong element changes the slope
of almost every direction; it is found by halving the direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd.gradcheck import direction_in

# The first step is right for most functions; one of the others where the second derivative is
# large, round-off is, or a kink, such as that of relu at 0, lies between the two points.
STEPS = (1e-5, 1e-6, 1e-4, 1e-7)
TOLERANCE = 1e-5  # of the error relative to the slope
ROUNDOFF = 64 * np.finfo(np.float64).eps  # of a result, relative to it
MOST_KINKS = 100  # elements of an array that are left out because there is no derivative


@dataclass
class Place:
    """An element whose gradient is wrong."""

    element: tuple[int, ...]
    expected: float
    found: float

    def __str__(self) -> str:
        return f"element {self.element}: expected {self.expected:.9g}, found {self.found:.9g}"


@dataclass
class Checked:
    """The result of the check of one array."""

    shape: tuple[int, ...]
    tried: str  # "6 elements", "2 projections"
    error: float  # the largest, relative to the size of the slope
    place: Place | None = None  # where it is wrong
    kinks: int = 0  # elements left out, as the function has no derivative there
    problem: str = ""  # the reason why it could not be checked

    @property
    def ok(self) -> bool:
        """Return True if the gradient is right."""
        return self.place is None and not self.problem

    @classmethod
    def failed(cls, shape: tuple[int, ...], problem: str) -> Checked:
        """Return the result for an array that could not be checked."""
        return cls(shape, "nothing", np.inf, problem=problem)


Evaluate = Callable[[], Sequence[np.ndarray]]


class Probe:
    """The slopes of sum(weights * evaluate()) along directions of an array that it reads."""

    def __init__(
        self,
        evaluate: Evaluate,
        weights: Sequence[np.ndarray],
        array: np.ndarray,
        gradient: np.ndarray,
        noise: np.random.RandomState,
    ) -> None:
        self.evaluate, self.weights = evaluate, weights
        self.array, self.gradient, self.noise = array, gradient, noise
        self.before = array.copy()
        finite = np.isfinite(self.before)
        size = np.square(self.before, where=finite, out=np.zeros(array.shape)).sum()
        self.unit = max(1.0, float(np.sqrt(size / max(int(finite.sum()), 1))))

    def check(self, elements: int, projections: int, fixed: np.ndarray | None = None) -> Checked:
        """Try every element of an array of up to `elements`, else that many projections.

        Elements where `fixed` is True have a gradient of 0 whatever their slope, and are left out.
        """
        shape, size = self.array.shape, self.array.size
        left = np.isfinite(self.before).astype(np.float64)  # -inf of a mask stays what it is
        if fixed is not None:
            left[fixed] = 0
        if size <= elements:
            checked = Checked(shape, _counted(size, "element"), 0.0)
            directions = (self._one(number) for number in np.flatnonzero(left))
        else:
            checked = Checked(shape, _counted(projections, "projection"), 0.0)
            length = np.sqrt(size)  # a direction has length 1
            directions = (direction_in(self.noise, shape) / length for _ in range(projections))
        for direction in directions:
            while not self._along(direction * left, checked):
                checked.kinks += 1
                left.flat[self._kink] = 0  # go on without that element
                if checked.kinks > MOST_KINKS:
                    checked.problem = (
                        f"there is no derivative at more than {MOST_KINKS} elements, such as that "
                        "of relu at 0: try other inputs"
                    )
                    return checked
            if not checked.ok:
                break
        return checked

    def _one(self, number: Any) -> np.ndarray:
        direction = np.zeros(self.array.shape)
        direction.flat[number] = 1
        return direction

    def _along(self, direction: np.ndarray, checked: Checked) -> bool:
        """Note the error along a direction; False for a kink, whose element is in `_kink`."""
        best, step = np.inf, STEPS[0]
        for h in STEPS:
            error = self._error(direction, h)
            if error < best:
                best, step = error, h
            if error <= TOLERANCE:
                break
        if best > TOLERANCE:
            number = self._halve(direction, step)
            one = self._one(number)
            if self._is_kink(one):
                self._kink = number
                return False
            element = tuple(map(int, np.unravel_index(number, direction.shape)))
            expected, _ = self._slope(one, step)
            checked.place = Place(element, expected, float(self.gradient.flat[number]))
        checked.error = max(checked.error, best)
        return True

    def _error(self, direction: np.ndarray, h: float) -> float:
        expected, roundoff = self._slope(direction, h)
        parts = self.gradient * direction
        found = float(parts.sum())
        # The size of a sum of these parts, had they not cancelled.
        scale = max(float(np.sqrt(np.square(parts).sum())), abs(expected))
        error = abs(found - expected) / (scale + roundoff / TOLERANCE + 1e-300)
        return error if np.isfinite(error) else np.inf

    def _slope(self, direction: np.ndarray, h: float, low: float = -1.0) -> tuple[float, float]:
        """Return the slope from x + low h v to x + h v, and what round-off may make of it."""
        h *= self.unit
        high, below = self._at(direction, h), self._at(direction, low * h)
        width = (1 - low) * h
        slope = roundoff = 0.0
        with np.errstate(all="ignore"):
            for w, a, b in zip(self.weights, high, below, strict=True):
                same = (a == b) | (w == 0)  # infinities that are masked later, for one
                slope += float(np.where(same, 0.0, w * (a - b)).sum()) / width
                size = np.where(same, 0.0, w * (np.abs(a) + np.abs(b)))
                roundoff += float(np.square(size).sum())
                kept = np.where(np.isfinite(a), w * a, 0.0)
                roundoff += float(np.square(kept).sum())
        return slope, ROUNDOFF * float(np.sqrt(roundoff)) / width

    def _at(self, direction: np.ndarray, distance: float) -> list[np.ndarray]:
        """Return the results where the array is moved along a direction."""
        try:
            self.array[...] = self.before + distance * direction
            return [r.astype(np.float64, copy=True) for r in self.evaluate()]
        finally:
            self.array[...] = self.before

    def _halve(self, direction: np.ndarray, h: float) -> int:
        """Return the element that most of the error along a direction comes from."""
        numbers = np.flatnonzero(direction)
        while len(numbers) > 1:
            halves = np.array_split(numbers, 2)
            wrong = []
            for half in halves:
                part = np.zeros(direction.shape)
                part.flat[half] = direction.flat[half]
                expected, _ = self._slope(part, h)
                difference = abs(float((self.gradient * part).sum()) - expected)
                wrong.append(difference if np.isfinite(difference) else np.inf)
            numbers = halves[int(np.argmax(wrong))]
        return int(numbers[0])

    def _is_kink(self, one: np.ndarray) -> bool:
        """Return True if the slopes to both sides differ and the gradient is between them."""
        h = STEPS[-1]
        right, roundoff = self._slope(one, h, 0.0)
        left = self._slope(-one, h, 0.0)[0] * -1
        found = float((self.gradient * one).sum())
        low, high = min(left, right), max(left, right)
        allowed = 10 * (roundoff + 1e-6 * max(abs(low), abs(high)))
        return high - low > 10 * allowed and low - allowed <= found <= high + allowed


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
