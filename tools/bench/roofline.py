"""The roofline plot: the speed of kernels over their FLOPs per byte, below the machine's roofs.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for
multicore architectures", 2009.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minitensor.models.command import require
from minitensor.models.pictures import ORANGE, new_figure

from .measure import Figure, Roofs

# Visible on white and on black: the picture has no background.
BLUE, GREEN, GREY = "#2b84c4", "#009E73", "#7b7b7b"
COLOURS = {"ops": BLUE, "gemm": ORANGE, "attention": GREEN}


def draw_roofline(figures: Sequence[Figure], roofs: Roofs) -> bytes:
    """Return an SVG with a dot for each figure that has a label, FLOPs and bytes."""
    import_svg()
    shown = [figure for figure in figures if figure.label and figure.flops and figure.bytes]
    x = np.array([figure.flops / figure.bytes for figure in shown])
    y = np.array([figure.gflops for figure in shown], float)
    picture = new_figure(figsize=(10, 7), dpi=72)
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(picture)
    picture.patch.set_alpha(0)
    axes = picture.subplots()
    axes.patch.set_alpha(0)
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(x.min() / 2.5, max(x.max(), roofs.gflops / roofs.gbytes) * 2.5),
        ylim=(y.min() / 2.5, max(y.max(), roofs.gflops) * 2),
        xlabel="operations per byte that must be moved (FLOP/B)",
        ylabel="GFLOP/s",
    )
    intensity = np.geomspace(x.min() / 2.5, axes.get_xlim()[1], 400)
    roof = np.minimum(intensity * roofs.gbytes, roofs.gflops)
    axes.plot(intensity, roof, color=GREY, lw=1.5)
    axes.set_title(
        f"roofs: {roofs.gflops:.0f} GFLOP/s of multiply-adds, {roofs.gbytes:.0f} GB/s from memory "
        "(caches are faster); ′ is the backward pass",
        fontsize=10,
        color=GREY,
    )
    for topic, colour in COLOURS.items():
        mine = [n for n, figure in enumerate(shown) if figure.topic == topic]
        if mine:
            axes.plot(x[mine], y[mine], "o", color=colour, ms=5, label=topic)
    legend = axes.legend(loc="lower right", frameon=False, labelcolor=GREY)
    axes.grid(alpha=0.25, color=GREY)
    axes.tick_params(which="both", colors=GREY)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    picture.draw_without_rendering()  # fixes the position of the axes
    line = axes.transData.transform(np.stack([intensity, roof], 1))
    dots = axes.transData.transform(np.stack([x, y], 1))
    place_labels(axes, shown, dots, line, legend.get_window_extent())
    picture.set_layout_engine("none")
    buffer = io.BytesIO()
    picture.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def import_svg() -> None:
    """Raise InputError without matplotlib."""
    require("matplotlib.figure")


def place_labels(
    axes: Any, figures: Sequence[Figure], dots: np.ndarray, line: np.ndarray, legend: Any
) -> None:
    """Place labels near their dots in free space, with a thin line to those far away.

    `dots` and `line` are in points of the picture, as is everything here.
    """
    inside = axes.get_window_extent()
    steps = np.linspace(0, 1, 20)[:, None]
    obstacles = np.concatenate([dots, line])
    boxes = [np.array(legend.extents)]
    for number in np.argsort(-dots[:, 0]):
        dot, figure = dots[number], figures[number]
        note = axes.annotate(
            figure.label, (0, 0), xycoords="figure points", fontsize=9, ha="center", va="center",
            color=COLOURS[figure.topic],
        )  # fmt: skip
        extent = note.get_window_extent()
        half = np.array([extent.width, extent.height]) / 2 + 1
        best, place = math.inf, dot
        for distance in (3, 6, 12, 20, 30, 42, 56, 72, 90, 110, 135, 165, 200):
            for angle in np.linspace(0, 2 * math.pi, 24, endpoint=False):
                way = np.array([math.cos(angle), math.sin(angle)])
                reach = min(half / np.maximum(abs(way), 1e-9))  # from the centre to the edge
                middle = dot + way * (reach + 3 + distance)
                low, high = middle - half, middle + half
                if (low < inside.min).any() or (high > inside.max).any():
                    continue
                path = dot + (middle - way * reach - dot) * steps
                hidden = ((obstacles > low) & (obstacles < high)).all(1).sum()
                hidden += sum(bool((low < b[2:]).all() and (high > b[:2]).all()) for b in boxes)
                crossed = sum(bool(((path > b[:2]) & (path < b[2:])).all(1).any()) for b in boxes)
                cost = 1000 * (hidden + crossed) + distance
                if cost < best:
                    best, place, edge = cost, middle, path
            if best < 1000:
                break
        note.set_position(place)
        boxes.append(np.concatenate([place - half, place + half]))
        if best < math.inf and np.linalg.norm(edge[-1] - dot) > 12:
            axes.annotate(
                "", edge[-1], dot, xycoords="figure points", textcoords="figure points",
                arrowprops=dict(arrowstyle="-", color=GREY, lw=0.5, shrinkA=0, shrinkB=0),
            )  # fmt: skip
            obstacles = np.concatenate([obstacles, edge])
