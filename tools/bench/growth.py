"""Topic `growth`: a training step at growing sizes, one of them at a time, and its curves.

Each curve begins at the second step of the plan and changes its batch, its length (as many tokens
in fewer sentences), its depth or its vocabulary. With the vocabulary the scores (tokens, V) become
the largest arrays of a step: there the loss is `linear_cross_entropy`, and the loss of whole scores
is measured beside it.

With dropout PyTorch's attention keeps all scores (N, H, L, S), and a mask of that size: a step at
length 8,192 takes a minute and many GB, so that the longest lengths are measured here alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from minitensor import Tensor
from minitensor.models.command import require
from minitensor.models.pictures import BLUE, ORANGE, new_figure
from minitensor.nn import functional as F

from ..compare import Compiled
from .measure import HERE, Figure, Sides, from_times, take_turns
from .plan import Plan, Step
from .training import run_worker, training_step

WHOLE = "here, whole scores"
CURVES = {
    "batch": "sentences in a batch",
    "length": "tokens in a sentence",
    "depth": "layers of encoder and of decoder",
    "vocabulary": "words in the vocabulary",
}
GREY = "#7b7b7b"  # visible on white and on black
COLOURS = {HERE: ORANGE, "torch": BLUE, WHOLE: "#009E73"}
NAMES = {"torch": "PyTorch"}


class InChunks(Compiled):
    """The training step here, with a loss that never has all scores."""

    def loss_of(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Return the mean loss of the target tokens (N, L), the source being (N, S)."""
        model = self.model
        padding = model.generate_source_key_padding_mask(src)
        hidden = model.decode(
            model.shift_right(tgt),
            model.encode(src, src_key_padding_mask=padding),
            tgt_mask=model.generate_square_subsequent_mask(tgt.shape[1]),
            memory_key_padding_mask=padding,
        )
        return F.linear_cross_entropy(
            hidden.flatten(0, 1),
            model.output.weight,
            tgt.flatten(),
            linear_bias=model.output.bias,
            ignore_index=model.config.pad_id,
            label_smoothing=self.smoothing,
        )


def steps(plan: Plan) -> Iterator[tuple[str, int, Step]]:
    """Yield the points of the curves: curve, size, and the step of that size."""
    base = plan.steps[min(1, len(plan.steps) - 1)]
    for batch in plan.growth_batches:
        yield "batch", batch, base.resized(batch=batch)
    for length in plan.growth_lengths:
        batch = max(1, base.tokens // length)
        yield "length", length, base.resized(length=length, batch=batch, layers=1)
    for layers in plan.growth_layers:
        yield "depth", layers, base.resized(layers=layers)
    for words in plan.growth_vocabularies:
        yield "vocabulary", words, base.resized(vocabulary=words)


def measure_growth(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure training steps along the curves, then the memory of those that need the most."""
    others = [side for side in against if side == "torch"]
    for curve, size, step in steps(plan):
        beside = others if step.length <= plan.growth_beside else []
        sides: Sides = {side: training_step(side, step) for side in (HERE, *beside)}
        if curve == "vocabulary":
            sides[WHOLE] = sides[HERE]
            sides[HERE] = training_step(HERE, step, ours=InChunks)
        times = take_turns(sides, plan.growth_rounds, 0.0, plan.pause)
        whole = {WHOLE: times.pop(WHOLE)} if WHOLE in times else {}
        yield point(curve, size, from_times("growth", described(curve, step), times, target=1.0))
        for name, seconds in whole.items():
            times[HERE] = seconds
            figure = from_times("growth", f"{described(curve, step)}, whole scores", times)
            yield point(curve, size, figure, name)
    for curve, size, step in steps(plan):
        if curve in ("length", "vocabulary") and size >= plan.growth_memory:
            chunks = curve == "vocabulary"
            beside = others if step.length <= plan.growth_beside else []
            values = {s: memory(s, step, chunks and s == HERE) for s in (HERE, *beside)}
            yield remembered(described(curve, step), values, 1.0)
            if chunks:
                values[HERE] = memory(HERE, step, False)
                yield remembered(f"{described(curve, step)}, whole scores", values, None)


def memory(side: str, step: Step, chunks: bool) -> float:
    """Return the bytes by which training steps raise the peak of memory, in a fresh process."""
    settings: dict[str, Any] = dict(side=side, step=asdict(step), optimizer=True, chunks=chunks)
    return float(run_worker("memory", **settings))


def remembered(name: str, values: dict[str, float], target: float | None) -> Figure:
    """Return the figure of a peak of memory."""
    ratios = {side: values[HERE] / value for side, value in values.items() if side != HERE}
    return Figure("growth", f"{name}, memory", values, "bytes", ratios, target=target)


def described(curve: str, step: Step) -> str:
    """Format the size of a point, and what changes with it."""
    return {
        "batch": f"batch {step.batch}",
        "length": f"length {step.length:,}, N={step.batch}, 1+1 layers",
        "depth": f"depth {step.layers}+{step.layers} layers",
        "vocabulary": f"vocabulary {step.vocabulary:,}",
    }[curve]


def point(curve: str, size: int, figure: Figure, side: str = HERE) -> Figure:
    """Return a figure as the point of a curve; `side` is what "here" is called in the picture."""
    figure.curve, figure.size, figure.drawn_as = curve, size, side
    return figure


def draw_growth(figures: Sequence[Figure]) -> bytes:
    """Return an SVG with a panel for each curve: seconds of a step over the size, on both sides."""
    picture, ticker = new_figure(figsize=(10, 7), dpi=72), require("matplotlib.ticker")
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(picture)
    picture.patch.set_alpha(0)
    for axes, (curve, label) in zip(picture.subplots(2, 2).flat, CURVES.items(), strict=True):
        axes.patch.set_alpha(0)
        lines: dict[str, list[tuple[float, float]]] = {}
        for figure in figures:
            if figure.curve == curve:
                for side, seconds in figure.values.items():
                    name = figure.drawn_as if side == HERE else side
                    lines.setdefault(name, []).append((figure.size, seconds))
        ends: list[float] = []
        for side in sorted(lines, key=lambda side: lines[side][-1][1]):
            x, y = np.array(sorted(set(lines[side]))).T
            axes.plot(x, y, "o-", color=COLOURS[side], ms=4, lw=1.5)
            # Names that would touch are moved up: each is a tenth of a decade above the last.
            ends.append(max(y[-1], *(1.35 * end for end in ends[-1:])) if ends else y[-1])
            ends_early = x[-1] < max(max(line)[0] for line in lines.values())
            axes.annotate(
                NAMES.get(side, side), (x[-1], ends[-1]), (0, 10) if ends_early else (6, 0),
                textcoords="offset points", ha="center" if ends_early else "left", va="center",
                color=COLOURS[side], fontsize=10, annotation_clip=False,
            )  # fmt: skip
        sizes = sorted({size for line in lines.values() for size, _ in line})
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds of a training step")
        axes.set_xticks(sizes, [f"{size:,g}" for size in sizes], minor=False)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.25, color=GREY)
        axes.tick_params(which="both", colors=GREY)
        axes.xaxis.label.set_color(GREY)
        axes.yaxis.label.set_color(GREY)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        for spine in axes.spines.values():
            spine.set_color(GREY)
        for name in ("top", "right"):
            axes.spines[name].set_visible(False)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
