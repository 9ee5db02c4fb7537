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


def seconds(value: float) -> str:
    """Write a duration in three digits: 0.00123 -> "1.23 ms"."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("\N{MICRO SIGN}s", 1e6)):
        if value * scale >= 1 or unit == "\N{MICRO SIGN}s":
            break
    return f"{value * scale:.3g} {unit}"


def argument(value: Any) -> str:
    """Write an argument of an op as Python does, a float in four digits."""
    return format(value, ".4g") if isinstance(value, float) else str(value)
