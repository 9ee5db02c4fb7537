"""Numbers, durations and arguments as every picture and text writes them."""

from __future__ import annotations

from typing import Any


def number(value: float, unit: str = "") -> str:
    """Write a number in three digits: 3152384 -> "3.15 M", with a unit "3.15 MB"."""
    prefixes = ("", "k", "M", "G", "T", "P")
    power = 0
    while abs(value) >= 999.5 and power < len(prefixes) - 1:
        value, power = value / 1000, power + 1
    digits = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{digits} {prefixes[power]}{unit}".rstrip()


def span(least: float, most: float, unit: str = "") -> str:
    """Write from where to where numbers go: "9.22-13.8 kB", or a single one, "9.22 kB"."""
    low, high = number(least, unit), number(most, unit)
    if low == high:
        return high
    start, _, of = low.partition(" ")
    return f"{start}-{high}" if of == high.partition(" ")[2] else f"{low} - {high}"


def products(forward: int, backward: int = 0, least: int | None = None) -> str:
    """Write FLOPs, those of matrix products, all that are counted; "" if there are none.

    Those of the backward pass may begin with `least` for some of several.
    """
    low = backward if least is None else least
    ways = {"forward": (forward, forward), "backward": (low, backward)}
    told = [f"{span(*each, 'FLOP')} {way}" for way, each in ways.items() if each[1]]
    return f"matrix products: {', '.join(told)}" if told else ""


def seconds(amount: float) -> str:
    """Write a duration in three digits: 0.00123 -> "1.23 ms"."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("\N{MICRO SIGN}s", 1e6)):
        if amount * scale >= 1 or unit == "\N{MICRO SIGN}s":
            break
    return f"{amount * scale:.3g} {unit}"


def percent(amount: float) -> str:
    """Write a share in percent, in three digits: 0.25 -> "25 %"."""
    return f"{100 * amount:.3g} %"


def argument(value: Any) -> str:
    """Write an argument of an op as Python does, a long float in four digits."""
    if not isinstance(value, float):
        return str(value)
    text = repr(value).removesuffix(".0")
    return text if len(text) <= 7 else format(value, ".4g")
