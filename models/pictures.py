"""Pictures: loss curves, attention maps, and the graph of a model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import minitensor as mt

from .command import require
from .text import write_file
from .transformer import Transformer

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's, for all kinds of colour vision


def new_figure(**settings: Any) -> Any:
    """Return a matplotlib figure that needs no screen."""
    return require("matplotlib.figure").Figure(layout="constrained", **settings)


def write_figure(figure: Any, path: str | Path) -> None:
    """Write a figure, as SVG if the path ends in .svg and else as PNG, whole or not at all."""
    buffer, suffix = io.BytesIO(), Path(path).suffix.lower()
    if suffix == ".svg":
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    else:
        figure.savefig(buffer, format="png", dpi=120)
    write_file(path, buffer.getvalue())


def draw_losses(
    records: Sequence[dict[str, Any]],
    path: str | Path,
    unit: str = "tokens",
    floor: tuple[float, str] | None = None,
) -> None:
    """Draw the training loss of each step and the validation loss of each epoch, from a log.

    Losses are in nats per `unit`; `floor` is the lowest that is possible, and why.
    """
    steps = [r for r in records if r["kind"] == "step"]
    epochs = [r for r in records if r["kind"] == "epoch"]
    figure = new_figure(figsize=(7, 4))
    axes = figure.subplots()
    axes.plot(
        [r["step"] for r in steps],
        [r["loss"] for r in steps],
        color=BLUE,
        lw=1,
        label="training",
    )
    axes.plot(
        [r["step"] for r in epochs],
        [r["valid_loss"] for r in epochs],
        "o--",
        color=ORANGE,
        label="validation",
    )
    if floor:
        lowest, why = floor
        axes.axhline(lowest, color="0.4", ls=":", label=f"{lowest:.2f}, {why}")
    axes.set(xlabel="step", ylabel=f"loss (nats per {unit.removesuffix('s')})", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    write_figure(figure, path)


def draw_graph(model: Transformer, *paths: str | Path) -> None:
    """Draw the graph of the model to each path; its suffix, such as .svg, decides the format."""
    config = model.config
    # Sizes that no setting of the model has, so that each name is clear.
    n, s, length = [i for i in (2, 3, 5, 7, 11, 13) if i not in vars(config).values()][:3]
    dims = {"N": n, "S": s, "L": length}
    dims |= {"E": config.d_model, "H": config.nhead, "F": config.dim_feedforward}
    graph = mt.graph.trace(
        model,
        mt.zeros(n, s, dtype=mt.int64),
        mt.zeros(n, length, dtype=mt.int64),
        tgt_mask=model.generate_square_subsequent_mask(length),
        dims=dims,
        backward=True,
        decompose=True,
    )
    for path in paths:
        graph.save(path)


def draw_attention(
    maps: Sequence[np.ndarray], source: Sequence[str], target: Sequence[str], path: str | Path
) -> None:
    """Draw how much each target token (row) attends to each source token (column).

    `maps` has an array (H, L, S) for each decoder layer, drawn as a row with a panel per head.
    """
    heads, length, source_length = maps[0].shape
    width, height = 0.8 + 0.24 * source_length, 0.8 + 0.24 * length
    figure = new_figure(figsize=(1 + width * heads, 0.6 + height * len(maps)))
    figure.supxlabel("source", fontsize=9)
    figure.supylabel("translation", fontsize=9)
    grid = figure.subplots(len(maps), heads, squeeze=False, sharex=True, sharey=True)
    for layer, weights_HLS in enumerate(maps):
        for head, axes in enumerate(grid[layer]):
            axes.imshow(weights_HLS[head], cmap="Blues", vmin=0, vmax=1)
            axes.set_title(f"layer {layer}, head {head}", fontsize=9)
            axes.set_xticks(range(source_length), source, rotation=90, fontsize=8)
            axes.set_yticks(range(length), target, fontsize=8)
    write_figure(figure, path)
