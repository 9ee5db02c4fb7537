"""The chapters that all training iterations share: the loss, the gradients, the update."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitensor import Tensor, nn
from minitensor.graph import Chapter, Graph, Node, Value, trace
from minitensor.graph.data import data_of

from ..command import InputError
from .finder import Finder, chapter

WHOLE = 1 << 28  # bytes of numbers that chapters are told from; the page has a sample of them
LONGEST = 24  # words, so that maps can be read
Watched = tuple[Callable[[Finder], str], str]  # finds a value, and a caption for it

BEFORE, FORWARD, LOSS = "The data", "Into vectors", "The prediction"
BACK, UPDATE, MORE = "Gradients flow back", "The update", "Training"


def learned(
    table: str, words: str, looks: dict[str, Watched], guess: str = "what comes next, by the model"
) -> dict[str, Watched]:
    """Return what a model shows at each step of training.

    These are its probabilities, where it `looks`, and the `table` of vectors with its gradient;
    `words` and `guess` are captions.
    """
    return {
        "probabilities": (lambda f: f.named("", "probabilities"), guess),
        **looks,
        "embedding": (lambda f: f.weight(table), words),
        "gradient": (lambda f: f.arriving(f.weight(table)), "their gradient"),
    }


def split(sentence: str, least: int = 3) -> list[str]:
    """Return the words and signs of a sentence; InputError if it has too few or too many."""
    words = re.findall(r"\w+['\N{RIGHT SINGLE QUOTATION MARK}]?|[^\w\s]", sentence)
    if len(words) < least:
        raise InputError(
            f"the sentence {sentence!r} has {len(words)} words: give it at least {least}"
        )
    if len(words) > LONGEST:
        raise InputError(
            f"the sentence has {len(words)} words and signs: at most {LONGEST} can be shown"
        )
    return words


def loss_chapters(
    f: Finder,
    answers: dict[int, str],
    vocabulary: Sequence[str],
    logits: str,
    path: str,
    seen: str,
) -> list[Chapter]:
    """Return the chapters from the logits to the loss.

    `answers` are the right words by their places, `path` is that of the module that makes the
    logits, `seen` says at which place the first answer is: 'After "The"'.
    """
    probabilities = f.named("", "probabilities")
    project, soft = f.maker(logits), f.maker(probabilities)
    entropy = f.op("", "cross_entropy")
    each = f.inner(entropy, "nll_loss", reads=f.inner(entropy, "log_softmax").outputs[0])
    p = f.array(probabilities).reshape(-1, len(vocabulary))
    first, word = next(iter(answers.items()))
    guess, best = vocabulary[int(p[first].argmax())].strip(), p[first].max()
    right = float(p[first, vocabulary.index(word)])
    word = word.strip()
    verdict = (
        ", and that is right"
        if guess == word
        else f'; right is "{word}", to which it gives {right:.1%}'
    )
    loss = float(f.array(f.named("", "loss")))
    return [
        chapter(
            LOSS,
            "Logits: a score for every word of the vocabulary",
            "At each place, the last vector is compared with one vector for each word that the "
            "model knows: the dot product is that word's score, called its logit. A row is a "
            "place in the sentence, a column is a candidate for the word that comes next.",
            project,
            {
                project.inputs[0]: "the last vectors",
                logits: "logits: any size, positive or negative",
            },
            "logits = x W + b" if len(project.inputs) > 2 else "logits = x W",
            boxes=[project.id, path],
        ),
        chapter(
            LOSS,
            "Probabilities",
            f"Softmax, over the vocabulary: each row adds up to 1. {seen} the model would now say "
            f'"{guess}" with {best:.1%}{verdict}. By pure chance each word would have '
            f"{1 / len(vocabulary):.1%}.",
            soft,
            {probabilities: "a row adds up to 1"},
            "p[word] = e^logit[word] / sum of all e^logit",
        ),
        chapter(
            LOSS,
            "The loss: how surprised is the model?",
            "At each place only the probability of the right word counts: the loss there is "
            "-log p, 0 if the model was certain and right, large if it thought the right word "
            f'unlikely. For "{word}": -log {right:.4f} = {-np.log(right):.3f}. The loss of the '
            f"iteration is the mean over {_places(len(answers))}: {loss:.4f}. Pure "
            f"chance would be log {len(vocabulary)} = {np.log(len(vocabulary)):.3f}. Everything "
            "from here on has one aim: to make this number smaller.",
            entropy,
            {
                f.inner(entropy, "log_softmax").outputs[0]: "log p of every word",
                each.outputs[0]: "-log p of the right word at each place",
                entropy.outputs[0]: "the loss: the mean of -log p",
            },
            "loss = mean of -log p[right word]",
        ),
    ]


def _places(count: int) -> str:
    return f"all {count} places" if count > 1 else "the one place that counts"


def probability_of(f: Finder, word: str, vocabulary: Sequence[str], place: int = 0) -> float:
    """Return the probability that the model gives to a word at a place of the sentence."""
    p = f.array(f.named("", "probabilities")).reshape(-1, len(vocabulary))
    return float(p[place, vocabulary.index(word)])


def seed_chapter(f: Finder, logits: str, place: str) -> Chapter:
    """Return the chapter of the first gradient, that of the logits."""
    entropy = f.op("", "cross_entropy")
    back = f.of(entropy)
    return chapter(
        BACK,
        "Backward: which way is down?",
        "The gradient of a number says how much the loss would grow if that number grew a little. "
        "The loss itself has the gradient 1. For the logits it is simple: the probability, minus 1 "
        "at the right word, divided by the number of places. So each row pushes the right word up "
        "(its gradient is negative) and all others down, the more so the likelier they were "
        f"thought to be. {place}",
        entropy,
        {back.outputs[0]: "the gradient of the logits: negative at the right word"},
        "d loss / d logit = (p - [1 at the right word]) / places",
        boxes=[entropy.id],
    )


def weight_gradient(f: Finder, weight: str, title: str, text: str, at: Node) -> Chapter:
    """Return the chapter of a weight's gradient."""
    gradient = f.arriving(weight)
    return chapter(
        BACK,
        title,
        text,
        at,
        {weight: "the weight", gradient: "its gradient"},
        "d loss / d W = (d loss / d y)^T x",
    )


def update_chapters(
    f: Finder,
    weight: str,
    about: str,
    losses: tuple[float, float],
    lr: float,
    after: Node | None = None,
) -> list[Chapter]:
    """Return the chapters of the optimizer's step, and of the loss after it."""
    update, gradient = f.updated(weight), f.arriving(weight)
    new = update.outputs[0]
    weights = sum(1 for _ in f.updates)
    numbers = sum(int(np.prod(f.value(n.outputs[0]).shape)) for n in f.updates)
    before, then = losses
    key = "loss after"
    f.graph.values.setdefault(key, _constant(key, np.array(then, np.float32), ["loss after"]))
    change = _constant("change", f.array(new) - f.array(weight), ["change"], f.value(weight).dims)
    f.graph.values["change"] = change
    better = (
        f"It fell by {before - then:.4f}. One step makes a small difference; thousands of such "
        "steps, on many sentences, are all that training is."
        if then < before
        else "This step was too large and went past the bottom: the loss grew. A smaller learning "
        "rate would have helped."
    )
    return [
        chapter(
            UPDATE,
            "The update: a small step downhill",
            f"Every weight now has a gradient of its own shape. The optimizer takes a small step "
            f"against it: weight - {lr:g} x gradient, where {lr:g} is the learning rate. All "
            f"{weights} tensors of weights, {numbers:,} numbers, change at once. Here it is "
            f"{about}.",
            update,
            {
                weight: "before",
                gradient: "its gradient",
                "change": f"the change: -{lr:g} x gradient",
                new: "after",
            },
            f"W := W - {lr:g} \N{MIDDLE DOT} d loss / d W",
        ),
        chapter(
            UPDATE,
            "The loss after it",
            f"The same words go through the new weights: the loss was {before:.4f} and is now "
            f"{then:.4f}. {better}",
            after or update,
            {f.named("", "loss"): "the loss before", key: "the loss after the update"},
            boxes=[],
        ),
    ]


def _constant(key: str, array: np.ndarray, names: list[str], dims: tuple[str, ...] = ()) -> Value:
    """Return a value that no op of the graph made, with its numbers."""
    shown = dims or tuple(map(str, array.shape))
    return Value(
        key, "constant", array.shape, str(array.dtype), array.nbytes, shown, names,
        data=data_of(array, array.nbytes),
    )  # fmt: skip


def _name_places(graph: Graph) -> None:
    """Name the rows of the loss, which are all places of all sentences, where they have no name."""
    f = Finder(graph)
    entropy = f.op("", "cross_entropy")
    rows = str(graph.values[entropy.inputs[0]].shape[0])
    for node in graph.nodes.values():
        if node.id.startswith(entropy.id):
            for key in (*node.inputs, *node.outputs):
                value = graph.values[key]
                value.dims = tuple("N*L" if name == rows else name for name in value.dims)


@dataclass
class Iteration:
    """A training step of a model, as a module that is called with `inputs` by name."""

    name: str
    step: nn.Module  # returns the loss, first or alone
    inputs: dict[str, Any]
    dims: dict[str, int | str]
    labels: dict[str, list[str]]

    def run(self, times: int = 1) -> float:
        """Run the step; returns the last loss, before the update."""
        for _ in range(times):
            result = self.step(**self.inputs)
        loss: Tensor = result[0] if isinstance(result, tuple) else result
        return float(loss.item())

    def graph(self) -> Graph:
        """Run the step once more, recorded with all numbers."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "dims: ")
            found = trace(self.step, dims=self.dims, decompose=True, values=WHOLE, **self.inputs)
        found.name, found.labels = self.name, {**self.labels}
        found.notes = [note for note in found.notes if not note.startswith("dims: ")]
        _name_places(found)
        return found

    def training(self, graph: Graph, watched: dict[str, Watched], steps: int) -> Chapter:
        """Return the chapter of a number of steps; this one must not have run before.

        Each watched tensor's numbers at all steps become one value of the graph, with the steps as
        its first axis.
        """
        losses: list[float] = []
        arrays: dict[str, list[np.ndarray]] = {name: [] for name in watched}
        for _ in range(steps + 1):
            seen = Finder(trace(self.step, decompose=True, values=WHOLE, **self.inputs))
            losses.append(float(seen.array(seen.named("", "loss"))))
            for name, (find, _) in watched.items():
                arrays[name].append(seen.array(find(seen)))
        graph.labels["step"] = [f"step {number}" for number in range(steps + 1)]
        made = [_constant("steps/loss", np.array(losses, np.float32), ["loss"], ("step",))]
        here = Finder(graph)
        for name, (find, _) in watched.items():
            dims = ("step", *graph.values[find(here)].dims)
            made.append(_constant(f"steps/{name}", np.stack(arrays[name]), [name], dims))
        captions = ["the loss at each step", *(caption for _, caption in watched.values())]
        graph.values |= {value.id: value for value in made}
        return chapter(
            MORE,
            f"{steps} steps of training",
            f"A new model, with weights from the same random numbers, learns from the same data in "
            f"{steps} steps like the one you have seen. The loss goes from {losses[0]:.3f} to "
            f"{losses[-1]:.3f}. Move a slider called step to see the tensors change.",
            values={value.id: says for value, says in zip(made, captions, strict=True)},
        )
