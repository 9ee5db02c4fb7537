"""A heat map of an array as an HTML element, without script and without other files.

Zero has the colour of the page, below it is blue and above it orange, the stronger the further.
Black and white text, and pages, have a contrast of 4.5 and more to the strongest of both, so the
map reads on light pages and on dark ones, and the two are told apart by the colour-blind. The last
two axes are rows and columns, and each place along the others has a map of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from itertools import islice

import numpy as np

from ..dtype import FLOATING
from ..formatting import Format
from ..rounding import widened

MAPS = 8  # of the places along the leading axes
SIDE = 64  # rows or columns of one map
CELLS = 4096  # in all maps; others have an even sample of their rows and columns
TITLED = 600  # up to so many cells, each tells its number under the pointer
WRITTEN = 200  # up to so many cells, if they fit, each has its number in it
WIDTH, HEIGHT = 640, 320  # pixels of one map
MEASURED = 5_000_000  # elements; of larger tensors, a sample is measured
SAMPLE = 1_000_000
FAR = 1e4  # times the median: further from zero, a number is beyond the scale, as -1e9 in a mask

BELOW, ABOVE, NAN = "#007ac4", "#c05800", "#c0459f"
STEPS = 32  # of strength, on each side
DIGIT = 6.7  # pixels of a monospaced character of 11 pixels
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


def strided(array: np.ndarray, most: int) -> np.ndarray:
    """Return a view of at most so many elements, spread evenly over the array."""
    steps = [1] * array.ndim

    def lengths() -> list[int]:
        return [-(-n // step) for n, step in zip(array.shape, steps, strict=True)]

    while math.prod(lengths()) > most:
        longest = int(np.argmax(lengths()))
        steps[longest] += max(1, steps[longest] // 4)
    return array[tuple(slice(None, None, step) for step in steps)]


@dataclass
class Facts:
    """Facts about all elements of an array, or about those of a sample."""

    text: str
    low: float  # of the scale of colours, not above zero
    high: float  # not below zero


def measure(array: np.ndarray) -> Facts:
    """Return the facts about an array that has elements."""
    part = array if array.size <= MEASURED else strided(array, SAMPLE)
    of = "" if part is array else f", of a sample of {part.size:,}"
    if part.dtype.kind == "b":
        return Facts(f"{np.count_nonzero(part):,} of {part.size:,} True", 0, 1)
    part = widened(part)
    finite = np.isfinite(part) if part.dtype.kind in FLOATING else np.True_
    good = part if finite.all() else part[finite]
    told = []
    low: float = 0
    high: float = 0
    if good.size:
        low, high = good.min().item(), good.max().item()
        mean = good.mean(dtype=np.float64).item()
        if math.isinf(mean):  # the sum is too large
            mean = min(max((good / good.size).sum().item(), low), high)
        told.append(f"min {_short(low)}, max {_short(high)}, mean {_short(mean)}")
    if good is not part:
        for count, name in (
            (np.count_nonzero(np.isnan(part)), "nan"),
            (np.count_nonzero(part == np.inf), "inf"),
            (np.count_nonzero(part == -np.inf), "-inf"),
        ):
            told += [f"{count:,} {name}"] if count else []
    sizes = np.abs(strided(good, 100_000).astype(np.float64))
    sizes = sizes[sizes > 0]
    limit = FAR * float(np.median(sizes)) if sizes.size else math.inf
    if part.dtype.kind in FLOATING and max(-low, high) > limit:
        near = good[np.abs(good) <= limit]
        low, high = near.min().item(), near.max().item()
        told.append(f"{good.size - near.size:,} beyond the scale")
    return Facts(", ".join(told) + of, min(low, 0), max(high, 0))


def _short(number: float) -> str:
    """Write a number in four digits, an integer in full."""
    return f"{number:,}" if isinstance(number, int) else f"{number:.4g}"


def _even(length: int, most: int) -> list[int]:
    """Return at most so many places along an axis, evenly spread, with its first and last."""
    if length <= most:
        return list(range(length))
    return np.linspace(0, length - 1, most).round().astype(int).tolist()


def _picked(rows: int, columns: int, cells: int) -> tuple[list[int], list[int]]:
    """Return the rows and columns of a map of at most so many cells."""
    most = [min(rows, SIDE), min(columns, SIDE)]
    if most[0] * most[1] > cells:
        short, long = sorted((0, 1), key=lambda axis: most[axis])
        most[short] = min(most[short], math.isqrt(cells))
        most[long] = min(most[long], cells // most[short])
    return _even(rows, most[0]), _even(columns, most[1])


def _color(strength: float) -> str:
    """Return the colour of a number, given as a part of the scale, -1 to 1."""
    step = round(min(1.0, abs(strength)) * STEPS)
    return f"{ABOVE if strength > 0 else BELOW}{255 * step // STEPS:02x}" if step else "#0000"


class Maps:
    """The maps of an array of one axis or more, drawn alike."""

    def __init__(self, array: np.ndarray, facts: Facts) -> None:
        self.line = array.ndim == 1  # drawn as one row
        array = np.atleast_2d(array)
        self.shape = array.shape
        self.places = list(islice(np.ndindex(array.shape[:-2]), MAPS))
        rows, columns = array.shape[-2:]
        self.rows, self.columns = _picked(rows, columns, CELLS // len(self.places))
        some = np.ix_(self.rows, self.columns)
        self.shown = widened(np.stack([array[place][some] for place in self.places]))
        self.form = Format(self.shown)
        self.scale = max(-facts.low, facts.high) or 1.0
        self.titled = self.shown.size <= TITLED
        self.wide, self.high = max(DIGIT * self.form.width + 10, 24.0), 20.0
        down, across = len(self.rows), len(self.columns)
        self.written = (
            self.shown.size <= WRITTEN
            and across * self.wide <= WIDTH
            and down * self.high <= HEIGHT
        )
        if not self.written:
            width = WIDTH if len(self.places) == 1 else WIDTH / 4
            size = min(width // across, HEIGHT // down)
            self.wide = self.high = float(min(12, max(5, size)))

    def sampled(self) -> str:
        """Return a note of the part that is shown, "" if all is."""
        told = []
        places = math.prod(self.shape[:-2])
        if places > len(self.places):
            told.append(f"the first {len(self.places)} of {places:,} maps")
        axes = [(self.columns, self.shape[-1], "elements" if self.line else "columns")]
        if not self.line:
            axes.insert(0, (self.rows, self.shape[-2], "rows"))
        for some, length, name in axes:
            if length > len(some):
                told.append(f"{len(some)} of {length:,} {name}, evenly spread")
        return "shown: " + "; ".join(told) if told else ""

    def draw(self, index: int) -> str:
        """Return the SVG element of one map."""
        place, cells = self.places[index], self.shown[index]
        down, across = cells.shape
        left = 1.0 if self.line else DIGIT * len(str(self.rows[-1])) + 6
        top = 16.0 + (18 if place else 0)
        width, height = across * self.wide, down * self.high
        parts = [self._cells(place, cells), *self._marks(cells)]
        parts.append(
            f'<rect width="{width:g}" height="{height:g}" fill="none" stroke="currentColor" '
            'stroke-opacity=".5"/>'
        )
        texts = [] if self.line else _ticks(self.rows, self.high, 11)
        for row, at in texts:
            parts.append(f'<text x="-4" y="{at + 3.5:g}" text-anchor="end">{row}</text>')
        for column, at in _ticks(self.columns, self.wide, DIGIT * len(str(self.columns[-1])) + 5):
            parts.append(f'<text x="{at:g}" y="-4" text-anchor="middle">{column}</text>')
        name = f"[{', '.join(map(str, place))}]" if place else ""
        if name:
            parts.append(f'<text x="0" y="-20" font-weight="bold">{name}</text>')
        inside = f'<g transform="translate({left:g} {top:g})">{"".join(parts)}</g>'
        return _svg(left + width + 10, top + height + 2, f"heat map {name}".strip(), inside)

    def _cells(self, place: tuple[int, ...], cells: np.ndarray) -> str:
        """Return the squares of a map, with their numbers as titles if there are few."""
        titled, plain = [], defaultdict(list)
        for r, row in enumerate(cells.tolist()):
            for c, number in enumerate(row):
                color = "#0000" if number != number else _color(number / self.scale)
                square = f"M{c} {r}h1"  # a line as thick as it is long
                if self.titled:
                    at = [*place, *([] if self.line else [self.rows[r]]), self.columns[c]]
                    title = f"{at} {self.form(number).strip()}"
                    titled.append(
                        f'<path stroke="{color}" d="{square}"><title>{title}</title></path>'
                    )
                elif color != "#0000":
                    plain[color].append(square)
        titled += [f'<path stroke="{color}" d="{"".join(d)}"/>' for color, d in plain.items()]
        return (
            f'<g transform="scale({self.wide:g} {self.high:g}) translate(0 .5)" '
            f'shape-rendering="crispEdges">{"".join(titled)}</g>'
        )

    def _marks(self, cells: np.ndarray) -> list[str]:
        """Return the numbers in the cells, or the marks of those that are not finite."""
        wide, high = self.wide, self.high
        parts, marks = [], defaultdict(list)
        for r, row in enumerate(cells.tolist()):
            for c, number in enumerate(row):
                x, y = (c + 0.5) * wide, (r + 0.5) * high
                if self.written:
                    style = f' fill="{NAN}" font-weight="bold"' if number != number else ""
                    parts.append(
                        f'<text x="{x:g}" y="{y + 4:g}" text-anchor="middle" '
                        f'pointer-events="none"{style}>{self.form(number).strip()}</text>'
                    )
                elif number != number:
                    d = high - 2
                    marks[NAN].append(
                        f"M{x - d / 2:g} {y - d / 2:g}l{d:g} {d:g}m0 {-d:g}l{-d:g} {d:g}"
                    )
                elif math.isinf(number):
                    d = high / 2
                    upright = f"M{x:g} {y - d / 2:g}v{d:g}" if number > 0 else ""
                    marks["currentColor"].append(f"M{x - d / 2:g} {y:g}h{d:g}{upright}")
        for color, lines in marks.items():
            parts.append(
                f'<path fill="none" stroke="{color}" stroke-width="1.5" pointer-events="none" '
                f'd="{"".join(lines)}"/>'
            )
        return parts


def _ticks(places: list[int], size: float, room: float) -> list[tuple[int, float]]:
    """Return the places to write along an axis of cells of a size, and where in pixels."""
    step = max(1, math.ceil(room / size))
    return [(places[i], (i + 0.5) * size) for i in range(0, len(places), step)]


def _svg(width: float, height: float, label: str, inside: str) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return (
        f'<svg {size} role="img" aria-label="{label}" font-family="{FONT}" font-size="11" '
        f'fill="currentColor" style="flex:none;vertical-align:middle">{inside}</svg>'
    )


def _legend(facts: Facts, booleans: bool) -> str:
    """Return the scale of colours as an SVG element, with a line at zero; "" if all are zero."""
    if facts.low == facts.high:
        return ""
    ends = ("False", "True") if booleans else (_short(facts.low), _short(facts.high))
    left, scale = DIGIT * len(ends[0]) + 4, max(-facts.low, facts.high)
    low, high = facts.low / scale, facts.high / scale
    strengths = np.linspace(low, high, 2 if booleans else 32).tolist()
    size, zero = 96 / len(strengths), 96 * low / (low - high)
    bars = "".join(
        f'<rect x="{i * size:g}" width="{size:g}" height="10" fill="{_color(strength)}"/>'
        for i, strength in enumerate(strengths)
    )
    inside = (
        f'<text y="11">{ends[0]}</text><g transform="translate({left:g} 2)" '
        f'shape-rendering="crispEdges">{bars}<path d="M{zero:g} 0v10M0 0h96v10h-96z" fill="none" '
        f'stroke="currentColor" stroke-opacity=".5"/></g>'
        f'<text x="{left + 100:g}" y="11">{ends[1]}</text>'
    )
    label = f"colours from {ends[0]} to {ends[1]}"
    return _svg(left + 104 + DIGIT * len(ends[1]), 14, label, inside)


def element(array: np.ndarray, name: str, told: str, text: str) -> str:
    """Return the HTML element of an array.

    `name` and `told` stand above the map, and `text` below it, or alone if the array has no axis
    or no elements.
    """
    parts = [f"<div><b>{escape(name)}</b> {escape(told)}</div>"]
    if array.size and array.ndim:
        with np.errstate(over="ignore", invalid="ignore"):
            facts = measure(array)
            maps = Maps(array, facts)
        drawn = "".join(maps.draw(i) for i in range(len(maps.places)))
        parts.append(
            '<div style="display:flex;flex-wrap:wrap;gap:2px 14px;overflow-x:auto;margin:4px 0">'
            f"{drawn}</div>"
        )
        legend = _legend(facts, array.dtype.kind == "b")
        parts.append(f"<div>{facts.text} {legend}</div>")
        if sampled := maps.sampled():
            parts.append(f"<div>{sampled}</div>")
    if text:
        parts.append(
            '<pre style="margin:4px 0;font:inherit;color:inherit;background:none;'
            f'white-space:pre;overflow-x:auto">{escape(text)}</pre>'
        )
    style = f"font:12px/1.5 {FONT};text-align:left"
    return f'<div class="minitensor-tensor" style="{style}">{"".join(parts)}</div>'
