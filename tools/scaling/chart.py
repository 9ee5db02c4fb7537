"""The chart of a prediction: the step over the number of ranks, beside what was measured."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minitensor.models.command import require
from minitensor.models.pictures import BLUE, ORANGE, new_figure

from .model import LARGEST, OURS, Network, Scaling, Work, told, waiting

GREY = "#7b7b7b"  # visible on white and on black, as the picture has no background
GREEN = "#009E73"
BESIDE = "reduce_scatter_allgather"  # the algorithm drawn beside that of minitensor.distributed


@dataclass(frozen=True)
class Point:
    """A measured step over `ranks`.

    - compute: seconds of a step of as many ranks at once that do not communicate.
    - predicted, measured: seconds of the step that they make together.
    """

    ranks: int
    scaling: Scaling
    compute: float
    predicted: float
    measured: float


def draw(
    title: str,
    work: Work,
    network: Network,
    scalings: Mapping[Scaling, int | None],
    points: Sequence[Point],
) -> bytes:
    """Return an SVG with a panel for each way to scale.

    - scalings: with the number of ranks from which on communication dominates.
    """
    picture = new_figure(figsize=(4.4 * len(scalings), 4.6), dpi=72)
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(picture)
    picture.patch.set_alpha(0)
    picture.suptitle(title, color=GREY, fontsize=10)
    panels = picture.subplots(1, len(scalings), squeeze=False)[0]
    for axes, (scaling, crossing) in zip(panels, scalings.items(), strict=True):
        draw_panel(axes, work, network, scaling, crossing)
        for point in points:
            if point.scaling == scaling:
                axes.plot(point.ranks, point.predicted, "o", mfc="none", color=BLUE, ms=9)
                axes.plot(point.ranks, point.measured, "o", color=ORANGE, ms=4.5)
    key = [
        *((axes.plot([], [], color=colour, ls=style)[0], name) for colour, style, name in LINES),
        (axes.plot([], [], "o", mfc="none", color=BLUE, ms=9)[0], "predicted, sharing these cores"),
        (axes.plot([], [], "o", color=ORANGE, ms=4.5)[0], "measured"),
    ]
    picture.legend(
        *zip(*key, strict=True), loc="outside lower center", ncols=3, frameon=False,
        labelcolor=GREY, fontsize=9,
    )  # fmt: skip
    buffer = io.BytesIO()
    picture.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


LINES = (
    (BLUE, "-", "step, a core for each rank"),
    (GREEN, "--", "its computation"),
    (ORANGE, "--", "its wait for communication"),
    (GREY, ":", "the wait with Rabenseifner's algorithm"),
)


def draw_panel(
    axes: Any, work: Work, network: Network, scaling: Scaling, crossing: int | None
) -> None:
    """Draw the seconds of a step, and of its parts, over the ranks."""
    axes.patch.set_alpha(0)
    ranks = [2**power for power in range(scaling.most.bit_length())]
    compute = [work.compute(scaling.on(count)) for count in ranks]
    waits = {
        algorithm: [
            waiting(work, seconds, count, network, algorithm)
            for count, seconds in zip(ranks, compute, strict=True)
        ]
        for algorithm in (OURS, BESIDE)
    }
    whole = [a + b for a, b in zip(compute, waits[OURS], strict=True)]
    for (colour, style, _), seconds in zip(
        LINES, (whole, compute, waits[OURS], waits[BESIDE]), strict=True
    ):
        shown = [(x, y) for x, y in zip(ranks, seconds, strict=True) if y > 0]
        axes.plot(*zip(*shown, strict=True), ls=style, color=colour, lw=1.5)
    axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="seconds of a step")
    axes.set_xlim(0.8, LARGEST * 1.3)
    axes.set_title(f"{scaling}\n{told(scaling, crossing)}", color=GREY, fontsize=10)
    if crossing is not None:
        axes.axvline(crossing, color=GREY, lw=1)
    frame(axes)


def frame(axes: Any) -> None:
    """Draw the axes in grey, with plain numbers."""
    ticker = require("matplotlib.ticker")
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(alpha=0.25, color=GREY)
    axes.tick_params(which="both", colors=GREY)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)
    for name, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(name not in ("top", "right"))
