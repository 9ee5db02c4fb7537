"""Colours and borders: those of Okabe and Ito, each with its partner for dark mode.

Every role has a colour of its own, so that a stylesheet can exchange it wherever it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

FONT = "Helvetica,Arial,sans-serif"

PAPER, INK, QUIET = "#fffffe", "#1b1b1f", "#5c5c66"
SHADES = ("#f6f7fa", "#eceff5", "#e2e7f0", "#d8dfeb")  # of open boxes, by depth
FRAME, BACK, BACK_FILL, SKIP = "#8b93a3", "#d55e00", "#fdeee4", "#0072b2"
RAMP = ("#fff7e6", "#feebc4", "#fdd49e", "#fdbb74", "#f78f4b", "#d9541e", "#9c2a06")
RAMP_INK = ("#1b1b1e",) * 5 + ("#fffffd",) * 2  # legible on it


@dataclass(frozen=True)
class Look:
    """The style of one kind of box; its border identifies it without colour."""

    line: str
    fill: str
    dark: tuple[str, str] = ("", "")  # the same in dark mode
    border: int = 1
    style: str = "solid"  # or rounded, dashed, dotted
    bars: bool = False  # upright bars at both sides
    says: str = ""  # in the legend


LOOKS = {
    "module": Look(
        "#3d4450", "#fafbfc", ("#a9b3c4", "#1d2129"), border=2, style="rounded", says="module"
    ),
    "run": Look(
        "#3d4451", "#fafbfd", ("#a9b3c3", "#1d212a"), border=2, style="dashed", says="several ops"
    ),
    "calls": Look(
        "#3d444f",
        "#fafbfb",
        ("#a9b3c5", "#1d2128"),
        border=3,
        style="rounded",
        says="called several times",
    ),
    "source": Look(
        "#5c5c65", "#fffff8", ("#b0b3bc", "#16181d"), style="dashed", says="constant or buffer"
    ),
    "input": Look("#1b1b1d", "#fffffc", ("#f0f0f3", "#15171d")),
    "output": Look("#1b1b1a", "#fffffb", ("#f0f0f2", "#15171e"), border=2),
    "product": Look("#0072b3", "#dcebf8", ("#5cb3ec", "#12334a"), border=2, says="matrix product"),
    "norm": Look("#009e73", "#daf1e9", ("#33c79a", "#0f3a2e"), bars=True, says="norm"),
    "activation": Look(
        "#b87a00", "#fdeecb", ("#f0b23c", "#46330a"), style="rounded", says="activation"
    ),
    "elementwise": Look(
        "#968a00", "#fbf7c9", ("#d8cc3a", "#3c390c"), style="rounded", says="elementwise"
    ),
    "reduction": Look("#a8568a", "#f8e6f0", ("#dd8fc0", "#43243a"), says="reduction"),
    "random": Look("#a8568b", "#f8e7f0", ("#dd8fc1", "#43243b"), style="dotted", says="random"),
    "lookup": Look(
        "#2a86bd", "#e4f4fd", ("#7cc4f0", "#16364a"), style="rounded", says="table lookup"
    ),
    "shape": Look("#7f7f88", "#f7f7f7", ("#9a9aa3", "#24262b"), style="dashed", says="shape only"),
    "loss": Look("#d55e01", "#fde3d1", ("#ff9148", "#522611"), border=3, says="loss"),
    "backward": Look(BACK, BACK_FILL, ("#ff9147", "#42220e"), says="backward"),
    "update": Look(
        "#cc79a7", "#faeaf3", ("#e79cc6", "#43243c"), border=2, bars=True, says="weight update"
    ),
    "other": Look("#55555e", "#f2f2f3", ("#b5b5bd", "#2b2c31"), says="other op"),
}

_RAMP_DARK = ("#2b2013", "#462c12", "#663a10", "#8c4a0f", "#a35410", "#f0923c", "#ffc98a")
DARK = {
    PAPER: "#15171c",
    INK: "#f0f0f4",
    QUIET: "#b0b3bd",
    FRAME: "#7d8798",
    SKIP: "#5cb3ed",
    RAMP_INK[0]: "#f0f0f5",
    RAMP_INK[-1]: "#1b1b1c",
    **dict(zip(SHADES, ("#1c1f26", "#232832", "#2b313d", "#333b49"), strict=True)),
    **dict(zip(RAMP, _RAMP_DARK, strict=True)),
    **{look.line: look.dark[0] for look in LOOKS.values()},
    **{look.fill: look.dark[1] for look in LOOKS.values()},
}
