"""Attention from nothing up: first without any weights, then with queries, keys and values."""

from __future__ import annotations

import math
import warnings

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.graph import Chapter, Graph, trace

from ..attention import (
    ANSWER,
    ASK,
    FEATURES,
    GIVE,
    SENTENCE,
    VECTORS,
    Head,
    attend,
    dot,
)
from ..command import InputError
from .finder import Finder, chapter
from .training import split

PLAIN, HEAD = "Without weights", "With q, k and v"


class Attention(nn.Module):
    """Attention without weights, then one head with them, of the same words."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = Head(width, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new vectors (L, E) without weights, and those of the head (L, K)."""
        score = dot(x, x)
        new, _ = attend(score, x)
        out, _ = self.head(x)
        return new, out


def walkthrough(sentence: str | None = None, seed: int = 0, steps: int = 0) -> Graph:
    """Return the graph of both attentions, with its chapters; nothing is trained."""
    if steps:
        raise InputError("attention is not trained here: --steps is for the other models")
    words = split(sentence) if sentence else SENTENCE
    mt.manual_seed(seed)
    model = Attention(len(FEATURES))
    by_hand = all(word in VECTORS for word in words)
    if by_hand:
        x = mt.tensor([VECTORS[word] for word in words])
        with mt.no_grad():
            for weight, values in (
                (model.head.w_q, ASK),
                (model.head.w_k, ANSWER),
                (model.head.w_v, GIVE),
            ):
                weight.copy_(mt.tensor(values))
    else:  # one vector for each word, wherever it stands
        table = {word: mt.randn(len(FEATURES)) for word in dict.fromkeys(words)}
        x = mt.stack([table[word] for word in words])
    dims = {"x": "L E", **{f"head.w_{name}": "E K" for name in "qkv"}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dims: ")
        graph = trace(model, x, dims=dims, decompose=True, values=True)
    graph.name = "Attention from nothing up"
    graph.labels = {"L": list(words)}
    if by_hand:
        graph.labels["E"] = FEATURES
    graph.notes = [note for note in graph.notes if not note.startswith("dims: ")]
    graph.chapters = chapters(Finder(graph), list(words), by_hand)
    return graph


def chapters(f: Finder, words: list[str], by_hand: bool) -> list[Chapter]:
    """Return the chapters of both attentions."""
    x = f.input("x")
    product = f.op("", "matmul", reads=x)
    softmax = f.op("", "softmax", reads=product.outputs[0])
    mix = f.op("", "matmul", reads=softmax.outputs[0])
    first, twice = words[0], next((w for w in words if words.count(w) > 1), "")
    weights = f.array(softmax.outputs[0])
    most = int(weights[0].argmax())
    made = (
        "This table was made by hand, so that each column means something; a model learns it."
        if by_hand
        else "These vectors are random, as in a model that has learned nothing yet."
    )
    same = (
        f' Both "{twice}" have the same result: attention alone does not know the order of words, '
        "which is why models add positions."
        if twice
        else " Attention alone does not know the order of words, which is why models add positions."
    )
    return [
        chapter(
            PLAIN,
            f'Words as vectors: "{" ".join(words)}"',
            f"Each word is a vector, a row of {len(FEATURES)} numbers. {made} Attention lets every "
            "word take something from the others. First we do it without any weight to learn, then "
            "with the queries, keys and values of a real model. Step with the arrow keys; click on "
            "any number to see where it comes from.",
            product,
            {x: "x: a row for each word"},
            facts={
                "words": str(len(words)),
                "embed_dim": str(len(FEATURES)),
                "head_size": "2",
                "num_head": "1",
            },
            boxes=[x],
        ),
        chapter(
            PLAIN,
            "Similarity: how alike are two words?",
            "Multiply two vectors number by number and add up: the dot product. It is large if "
            "both have much of the same. One matrix product compares every word with every other: "
            "a row for the word that looks, a column for the word it looks at.",
            product,
            {x: "x", product.outputs[0]: "scores: each word with each"},
            "score[i, j] = x[i] \N{MIDDLE DOT} x[j]",
        ),
        chapter(
            PLAIN,
            "Softmax: scores become weights",
            "Softmax makes each number positive by e^score and divides by the sum of its row: all "
            "are above 0, and a row adds up to 1. A row says where its word looks: "
            f'"{first}" looks most at "{words[most]}", with {weights[0, most]:.0%}.',
            softmax,
            {
                product.outputs[0]: "scores",
                softmax.outputs[0]: "weights: each row adds up to 1",
            },
            "weight[i, j] = e^score[i, j] / sum over j of e^score[i, j]",
        ),
        chapter(
            PLAIN,
            "The new vectors",
            "The new vector of a word is the mean of all vectors by these weights. Each word has "
            f"now something of the words it looked at.{same}",
            mix,
            {x: "before", softmax.outputs[0]: "weights", mix.outputs[0]: "after"},
            "new[i] = sum over j of weight[i, j] x[j]",
        ),
        *head_chapters(f, words, by_hand),
    ]


def head_chapters(f: Finder, words: list[str], by_hand: bool) -> list[Chapter]:
    """Return the chapters of the head."""
    path = "head"
    made = {
        name: f.op(path, "matmul", reads=f.weight(f"head.w_{name}")) for name in ("q", "k", "v")
    }
    q, k, v = (node.outputs[0] for node in made.values())
    product = next(n for n in f.runs(path) if n.op == "matmul" and q in n.inputs)
    scale = f.op(path, "div", reads=product.outputs[0])
    softmax = f.op(path, "softmax", reads=scale.outputs[0])
    mix = f.op(path, "matmul", reads=softmax.outputs[0])
    weights = f.array(softmax.outputs[0])
    most = int(weights[0].argmax())
    origin = (
        "A model learns these matrices. Here they are made by hand: animals look for nice words, "
        "and nice words for animals."
        if by_hand
        else "A model learns these matrices; here they are random."
    )
    return [
        chapter(
            HEAD,
            "Why one vector is not enough",
            "Without weights a word can only look for what is like itself. But a noun may want "
            "its adjective, which is nothing like it. So each word gets three vectors, made from "
            "its own by three matrices W^Q, W^K and W^V: what it looks for, what it can be found "
            f"by, and what it gives. {origin}",
            made["q"],
            {f.weight(f"head.w_{name}"): f"W^{name.upper()}" for name in "qkv"},
            boxes=["head"],
        ),
        chapter(
            HEAD,
            "Queries, keys and values: q, k and v",
            "The query q says what a word looks for, its key k what it can be found by, and its "
            "value v what it gives. It is like a dictionary that finds a little of everything, by "
            "how well each key fits the query.",
            made["q"],
            {
                q: "q: what each word looks for",
                k: "k: what it can be found by",
                v: "v: what it gives",
            },
            "q = x W^Q      k = x W^K      v = x W^V",
            boxes=[node.id for node in made.values()],
        ),
        chapter(
            HEAD,
            "Scores: each query with each key",
            "The dot product again, but of queries and keys: a word need not be like the word it "
            "looks at, its query has to fit the other's key.",
            product,
            {q: "q", k: "k", product.outputs[0]: "q \N{MIDDLE DOT} k"},
            "score[i, j] = q[i] \N{MIDDLE DOT} k[j]",
        ),
        chapter(
            HEAD,
            "Why the scores are scaled",
            "The wider the vectors, the more products are added up, and the larger the scores: of "
            "K random products the sum has a spread of \N{SQUARE ROOT}K. Large scores would make "
            "softmax put everything on one word, and there its gradient is almost nothing. Divided "
            f"by \N{SQUARE ROOT}K, here \N{SQUARE ROOT}2 = {math.sqrt(2):.4g}, they have the same "
            "size in heads of any width.",
            scale,
            {product.outputs[0]: "before", scale.outputs[0]: "after"},
            "score = q \N{MIDDLE DOT} k / \N{SQUARE ROOT}K",
        ),
        chapter(
            HEAD,
            "Where each word looks now",
            f'Softmax as before. "{words[0]}" looks most at "{words[most]}" now, with '
            f"{weights[0, most]:.0%}.",
            softmax,
            {scale.outputs[0]: "scores", softmax.outputs[0]: "weights: each row adds up to 1"},
            "weight[i, j] = e^score[i, j] / sum over j of e^score[i, j]",
        ),
        chapter(
            HEAD,
            "The new vectors, of the values",
            "The mean of the values by these weights. Each word has found what it asked for. A "
            "model has several such heads side by side, each of which asks for something else, "
            "and a matrix that mixes what they found. And a model that writes adds a mask, so that "
            "no word looks at a later one: see the walkthrough of gpt.",
            mix,
            {softmax.outputs[0]: "weights", v: "values", mix.outputs[0]: "the head's result"},
            "new[i] = sum over j of weight[i, j] v[j]",
        ),
    ]
