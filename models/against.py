"""Compare models that translate: the same data, as many parameters, and the same time or tokens.

`compare` trains each contestant, measures it and returns the figures; `show` prints them as a table
and `draw` draws them. They are:

- the speed of training, in target tokens per second;
- the quality of greedy translations of sentences never seen, by their length too: the share that is
  right in every word, and BLEU. It is measured after an equal time, and after as many target tokens
  as the first contestant learned from in that time;
- the reach of the gradient: the norm of the gradient of the loss at the last step with respect to
  each embedded token, of the source and of the target before it;
- the share of a step's multiplications that can run in parallel. In the recorded graph of one
  sentence's forward pass, with every fused op opened, an op takes as long as one row of its result,
  as if there were a processor for each row: the longest chain of ops that wait for each other is
  what no number of processors makes shorter. The backward pass runs along the same chain;
- the time that greedy decoding takes for a token, for one sentence at a time.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

import minitensor as mt
from minitensor import Tensor
from minitensor.graph.model import Graph, Node

from .command import require
from .decoding import generate, never, stop_at
from .number_words import number_pairs, split_numbers
from .pairs import EncodedPair, PairSettings, collate, encode_pairs
from .pictures import new_figure, write_figure
from .text import EOS
from .training import Trainer, start_task
from .translation import Translation

LENGTHS = 8, 16, 32, 64  # of the sentences whose graphs are recorded
WRITTEN = 16, 64, 256  # tokens that are decoded to be timed
REACH = 64  # tokens over which gradients are followed
BINS = 4  # groups of sentences by length
MOST = 1000  # sentences to translate
COLORS = "#999999", "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#009E73", "#CC79A7"


@dataclass(frozen=True)
class Contestant:
    """A model to compare: what it is called, its task and its settings."""

    name: str
    task: type[Translation]
    settings: PairSettings


@dataclass
class Quality:
    """The quality of the translations, in percent, and what it was reached with."""

    tokens: int
    seconds: float
    exact: float
    bleu: float
    by_length: list[tuple[str, float]]  # of lengths such as "3 - 5": exact matches, or BLEU


@dataclass
class Figures:
    """The figures of one contestant."""

    name: str
    parameters: int
    speed: float = 0.0  # target tokens per second of training
    equal_time: Quality | None = None
    equal_tokens: Quality | None = None
    # Gradient norms relative to the largest: of target tokens by their distance to the last, and of
    # source tokens by their distance to the end.
    target_reach: list[float] = field(default_factory=list)
    source_reach: list[float] = field(default_factory=list)
    # Of each of LENGTHS: the share of multiplications on the longest chain, and its ops.
    in_sequence: list[float] = field(default_factory=list)
    chain: list[int] = field(default_factory=list)
    decoding: list[float] = field(default_factory=list)  # ms per token, of each of WRITTEN


def compare(contestants: Sequence[Contestant], seconds: float) -> list[Figures]:
    """Train and measure all contestants, the first one first; prints a line about each."""
    found: list[Figures] = []
    pairs: list[EncodedPair] = []
    for contestant in contestants:
        task = start_task(contestant.task, contestant.settings)
        if not found:
            pairs = unseen_pairs(task)
            print(task.describe(), flush=True)
        figures = Figures(contestant.name, sum(p.numel() for p in task.model.parameters()))
        found.append(figures)
        first = found[0].equal_time
        train(contestant, pairs, seconds, None if first is None else first.tokens, figures)
    return found


# Training and quality


def unseen_pairs(task: Translation) -> list[EncodedPair]:
    """Return pairs that nothing was learned from: the test numbers, or those held out."""
    data = task.data
    if not task.settings.embedded:
        return data.valid[:MOST]
    vocabularies = data.source_vocabulary, data.target_vocabulary
    return encode_pairs(number_pairs(split_numbers().test), vocabularies)


def train(
    contestant: Contestant,
    pairs: Sequence[EncodedPair],
    seconds: float,
    tokens: int | None,
    figures: Figures,
) -> None:
    """Train for `seconds` and, if that is later, for `tokens`, and measure at both moments.

    Only the steps are timed. The model has run before, so that kernels are compiled.
    """
    warm = Trainer(start_task(contestant.task, contestant.settings), "")
    warm.step(warm.task.collate(warm.task.train_batches(0)[0]))
    task = start_task(contestant.task, contestant.settings)
    trainer = Trainer(task, "")
    task.model.train()
    spent, learned, rates, epoch = 0.0, 0, list[float](), 0
    while figures.equal_time is None or figures.equal_tokens is None:
        for numbers in task.train_batches(epoch):
            start = time.perf_counter()
            batch = task.collate(numbers)
            trainer.step(batch)
            trainer.position.step += 1
            trainer.set_rate()
            took = time.perf_counter() - start
            count = task.count(batch)
            spent, learned = spent + took, learned + count
            rates.append(count / took)
            if spent >= seconds and figures.equal_time is None:
                figures.equal_time = measure(task, pairs, learned, spent)
                tokens = learned if tokens is None else tokens
            if tokens is not None and learned >= tokens and figures.equal_tokens is None:
                figures.equal_tokens = measure(task, pairs, learned, spent)
            if figures.equal_time and figures.equal_tokens:
                break
        epoch += 1
    figures.speed = statistics.median(rates)
    task.model.eval()
    figures.target_reach, figures.source_reach = reach(task, pairs)
    for length in LENGTHS:
        share, chain = in_sequence(task, length)
        figures.in_sequence.append(share)
        figures.chain.append(chain)
    figures.decoding = [time_per_token(task, pairs, length) for length in WRITTEN]
    print(
        f"{figures.name}: {figures.parameters:,} parameters, {figures.speed:,.0f} tokens/s; "
        f"after {figures.equal_time.seconds:.0f} s {figures.equal_time.exact:.1f} % right, "
        f"after {figures.equal_tokens.tokens:,} tokens {figures.equal_tokens.exact:.1f} %",
        flush=True,
    )


def measure(
    task: Translation, pairs: Sequence[EncodedPair], tokens: int, seconds: float
) -> Quality:
    """Translate the sources of pairs greedily, and compare with the targets."""
    sacrebleu = require("sacrebleu")
    task.model.eval()
    config, decode = task.model.config, task.data.target_vocabulary.decode
    order = sorted(range(len(pairs)), key=lambda n: len(pairs[n][0]))
    found = [""] * len(pairs)
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        (src_NS,) = collate([(pairs[n][0],) for n in chosen])
        outputs = generate(
            task.model,
            [[config.bos_id]] * len(chosen),
            task.model.start(src_NS),
            2 * src_NS.shape[1] + 20,
            stop=stop_at(config.eos_id),
        )
        for n, output in zip(chosen, outputs, strict=True):
            found[n] = decode(output.tokens)
    task.model.train()
    references = [decode(target) for _, target in pairs]

    def score(numbers: Sequence[int]) -> tuple[float, float]:
        some, right = [found[n] for n in numbers], [references[n] for n in numbers]
        exact = sum(f == r for f, r in zip(some, right, strict=True)) / len(numbers)
        return 100 * exact, sacrebleu.corpus_bleu(some, [right]).score

    exact, bleu = score(order)
    by_length = []
    for group in np.array_split(np.array(order), min(BINS, len(order))):
        shortest, longest = (len(pairs[n][0]) - 1 for n in (group[0], group[-1]))
        name = f"{shortest}" if shortest == longest else f"{shortest} - {longest}"
        by_length.append((name, score(group.tolist())[0 if task.settings.embedded else 1]))
    return Quality(tokens, seconds, exact, bleu, by_length)


# Gradients


def long_pair(pairs: Sequence[EncodedPair]) -> tuple[Tensor, Tensor]:
    """Return one source (1, S) and target (1, L), joined from many, of REACH tokens each."""
    joined = []
    for side in (0, 1):
        tokens = [token for pair in pairs for token in pair[side] if token != EOS]
        joined.append(mt.tensor([[*islice(cycle(tokens), REACH - 1), EOS]]))
    return joined[0], joined[1]


def reach(task: Translation, pairs: Sequence[EncodedPair]) -> tuple[list[float], list[float]]:
    """Return the norms of the gradients that reach each target and each source token.

    They are of the loss at the last step with respect to the embedded tokens, the nearest token
    first, relative to the largest. Means over several texts, each joined from many sentences.
    """
    model, embedded = task.model, dict[str, Tensor]()

    def keep(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            output.retain_grad()
            embedded[name] = output

        return hook

    sides = "tgt", "src"
    handles = [getattr(model, f"{s}_embedding").register_forward_hook(keep(s)) for s in sides]
    sums: dict[str, Any] = dict.fromkeys(sides, 0.0)
    try:
        for start in range(0, len(pairs), max(1, len(pairs) // 8)):
            src, tgt = long_pair([*pairs[start:], *pairs[:start]])
            logits, target = task.predict((src, tgt))
            loss = mt.nn.functional.cross_entropy(logits[-1:], target[-1:])
            loss.backward()
            for side in sides:
                gradient = embedded[side].grad
                assert gradient is not None  # every embedded token reaches the last step
                sums[side] = sums[side] + np.linalg.norm(gradient.numpy()[0], axis=1)
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad()
    tgt_norms, src_norms = (sums[side][::-1] / (sums[side].max() or 1.0) for side in sides)
    return tgt_norms.tolist(), src_norms.tolist()


# Parallel work


def in_sequence(task: Translation, length: int) -> tuple[float, int]:
    """Return the share of multiplications on the longest chain, and the ops on the longest one.

    For a sentence of `length` tokens and its translation of as many.
    """
    tokens = mt.full((1, length), 4)

    def forward(src: Tensor, tgt: Tensor) -> Tensor:
        return task.predict((src, tgt))[0]

    with mt.no_grad():
        graph = mt.graph.trace(forward, tokens, tokens.clone(), decompose=True)
    work, chain, ops = longest_chain(graph)
    return chain / work, ops


def longest_chain(graph: Graph) -> tuple[int, float, int]:
    """Return all FLOPs of a graph, those of its longest chain with a row at a time, and its ops.

    The chains that are longest in FLOPs and in ops need not be the same.
    """
    inner: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes.values():
        if node.inside is not None:
            inner[node.inside].append(node)
    ends: dict[str, tuple[float, int]] = {}  # of each value: FLOPs and ops before it is there
    work = 0

    def latest(values: Sequence[str]) -> tuple[float, int]:
        known = [ends[v] for v in values if v in ends]
        return max((f for f, _ in known), default=0.0), max((n for _, n in known), default=0)

    def run(node: Node) -> None:
        nonlocal work
        if node.id in inner:  # an opened op is done when all that it does is done
            for part in inner[node.id]:
                run(part)
            flops, ops = latest([v for part in inner[node.id] for v in part.outputs])
        else:
            work += node.flops
            flops, ops = latest(node.inputs)
            shape = graph.values[node.outputs[0]].shape
            flops, ops = flops + node.flops / max(1, math.prod(shape[:-1])), ops + 1
        for value in node.outputs:
            ends[value] = flops, ops

    for node in graph.nodes.values():
        if node.inside is None:
            run(node)
    flops, ops = latest(list(ends))
    return work, flops, ops


# Decoding


def time_per_token(task: Translation, pairs: Sequence[EncodedPair], length: int) -> float:
    """Return the milliseconds per token of the fastest of several greedy translations."""
    src_NS = mt.tensor([max((source for source, _ in pairs), key=len)])
    times = []
    for _ in range(3):
        start = time.perf_counter()
        state = task.model.start(src_NS)
        generate(task.model, [[task.model.config.bos_id]], state, length, stop=never)
        times.append(time.perf_counter() - start)
    return 1000 * min(times) / length


# Showing


def show(found: Sequence[Figures], unit: str) -> str:
    """Return the figures as a table; `unit` is that of the quality by length."""
    first = found[0]
    assert first.equal_time is not None
    lengths = [name for name, _ in first.equal_time.by_length]
    longest = LENGTHS[-1]
    rows = [["", *(figures.name for figures in found)]]

    def add(name: str, form: str, *values: Any) -> None:
        rows.append([name, *(format(value, form) for value in values)])

    def quality(figures: Figures, which: str) -> Quality:
        reached: Quality = getattr(figures, which)
        return reached

    add("parameters", ",d", *(f.parameters for f in found))
    add("training, tokens/s", ",.0f", *(f.speed for f in found))
    for which, title in (
        ("equal_time", f"after {first.equal_time.seconds:.0f} s: "),
        ("equal_tokens", f"after {first.equal_time.tokens:,} tokens: "),
    ):
        add(title + "seconds", ".0f", *(quality(f, which).seconds for f in found))
        add(title + "tokens", ",d", *(quality(f, which).tokens for f in found))
        add(title + "exact match, %", ".1f", *(quality(f, which).exact for f in found))
        add(title + "BLEU", ".2f", *(quality(f, which).bleu for f in found))
        for i, length in enumerate(lengths):
            values = [quality(f, which).by_length[i][1] for f in found]
            add(f"  of {length} source tokens, {unit}", ".1f", *values)
    for distance in (1, 8, 32, REACH - 1):
        add(
            f"gradient, {distance} before the last",
            ".1e",
            *(f.target_reach[distance] for f in found),
        )
    add("gradient, least of the source", ".1e", *(min(f.source_reach) for f in found))
    add(f"in sequence, of {longest} tokens, %", ".1f", *(100 * f.in_sequence[-1] for f in found))
    add(f"longest chain, of {LENGTHS[0]} tokens, ops", ",d", *(f.chain[0] for f in found))
    add(f"longest chain, of {longest} tokens, ops", ",d", *(f.chain[-1] for f in found))
    for place in (0, -1):
        name = f"decoding {WRITTEN[place]} tokens, ms/token"
        add(name, ".2f", *(f.decoding[place] for f in found))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *aligned]).rstrip())
    return "\n".join(lines)


def draw(found: Sequence[Figures], unit: str, path: str | Path) -> None:
    """Draw the figures in six panels; the suffix of the path decides the format."""
    figure = new_figure(figsize=(13, 7))
    (quality, target, source), (speed, parallel, decoding) = figure.subplots(2, 3)
    for number, (figures, color) in enumerate(zip(found, COLORS, strict=False)):
        assert figures.equal_time is not None
        line = {"color": color, "label": figures.name, "lw": 1.8}
        names, scores = zip(*figures.equal_time.by_length, strict=True)
        quality.plot(names, scores, "o-", **line)
        target.semilogy(range(REACH), figures.target_reach, **line)
        source.semilogy(range(REACH), figures.source_reach, **line)
        speed.barh(number, figures.speed / 1000, color=color)
        parallel.loglog(LENGTHS, [1 / share for share in figures.in_sequence], "o-", **line)
        decoding.semilogx(WRITTEN, figures.decoding, "o-", **line)
    seconds = found[0].equal_time.seconds if found[0].equal_time else 0
    quality.set(
        title=f"Quality after {seconds:.0f} s of training", xlabel="source tokens", ylabel=unit
    )
    target.set(
        title="Gradient of the last step's loss: target",
        xlabel="tokens before the last", ylabel="norm, relative", ylim=(1e-6, 2),
    )  # fmt: skip
    source.set(
        title="Gradient of the last step's loss: source",
        xlabel="tokens before the source's end", ylabel="norm, relative", ylim=(1e-6, 2),
    )  # fmt: skip
    speed.set(title="Training", xlabel="thousand target tokens per second")
    speed.set_yticks(range(len(found)), [figures.name for figures in found])
    speed.invert_yaxis()
    parallel.set(
        title="Speed-up with unlimited processors",
        xlabel="tokens of the sentence", ylabel="all work / longest chain", ylim=(1, None),
    )  # fmt: skip
    decoding.set(
        title="Greedy decoding, one sentence",
        xlabel="tokens written", ylabel="ms per token", ylim=(0, None),
    )  # fmt: skip
    for axes, ticks in (parallel, LENGTHS), (decoding, WRITTEN):
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
    for axes in (quality, target, source, speed, parallel, decoding):
        axes.grid(alpha=0.3)
    parallel.legend(fontsize=9)
    write_figure(figure, path)


def to_json(found: Sequence[Figures]) -> str:
    """Return the figures as JSON."""
    return json.dumps([asdict(figures) for figures in found], indent=1)
