"""The chapters of one attention: queries, keys and values, scores, mask, weights, and their sum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from minitensor.graph import Chapter, Node

from .finder import Finder, chapter


@dataclass
class Looks:
    """One attention of a model: who looks at what, and the words for it."""

    path: str  # of its module
    part: str  # the part of the walkthrough
    node: Node | None  # the fused op, opened; None where the module takes the steps itself
    project: Node  # the op that makes q, k and v, or the first of these
    out: str  # the path of the projection that joins the heads
    heads: int
    width: int  # of a head
    cross: bool = False  # looks at another sentence
    causal: bool = False
    across: str = "S"  # the name of the axis that is looked at
    words: str = "word"


def attention_chapters(f: Finder, a: Looks) -> list[Chapter]:
    """Return the chapters of an attention."""
    find = partial(f.op, a.path) if a.node is None else partial(f.inner, a.node)
    softmax, product = find("softmax"), find("matmul")
    scores, weights = softmax.inputs[0], softmax.outputs[0]
    scaled = find("div" if a.node is None else "mul")  # the scores, or the queries before them
    q = (product if a.node is None else scaled).inputs[0]
    k = f.maker(product.inputs[1]).inputs[0]
    filled = [node.outputs[0] for node in f.readers(weights, "masked_fill")]  # if all is blocked
    mix = find("matmul", reads=(filled or [weights])[0])
    v = mix.inputs[1]
    who = "the target's words" if a.cross else f"each {a.words}"
    from_where = (
        "The queries come from the decoder, the keys and values from the encoder's memory: "
        "this is cross attention, where the sentence that is being written looks at the one "
        "that is being read."
        if a.cross
        else f"All three come from the same vectors: the {a.words}s look at each other, which is "
        "called self-attention."
    )
    chapters = [
        chapter(
            a.part,
            "Queries, keys and values: q, k and v",
            f"Each vector is multiplied by three learned matrices. Its query q says what the "
            f"{a.words} looks for, its key k what it can be found by, and its value v what it "
            "gives to those that look at it. With one vector for all three, a word could only "
            f"look for what it is itself. {from_where}\n\n"
            f"Each of the {a.heads} heads has its own part of q, k and v, {a.width} numbers wide, "
            "so that each can look for something else. Move the slider to see another head.",
            a.project,
            {
                q: f"q: what {who} look for" if a.cross else f"q: what {who} looks for",
                k: "k: what each can be found by",
                v: "v: what each gives",
            },
            "q = x W^Q      k = x W^K      v = x W^V"
            if not a.cross
            else "q = x W^Q      k = memory W^K      v = memory W^V",
            boxes=[a.path] if a.node is None else [a.project.id, a.node.id],
        ),
    ]
    chapters += _scores(a, q, product, scaled)
    mask = "add" if a.node is None else "masked_fill"
    if f.has(a.path, mask) if a.node is None else f.has_inner(a.node, mask):
        blocks = find(mask)
        before = (scaled if a.node is None else product).outputs[0]
        chapters.append(_mask(a, blocks, before, blocks.outputs[0]))
    elif a.cross:
        chapters[-1].text += (
            "\n\nThere is no mask here: the whole source sentence is known before the first "
            "word is written, so every target word may look at all of it."
        )
    else:
        chapters[-1].text += (
            f"\n\nThere is no mask here: the sentence is known as a whole, so each {a.words} may "
            "look at those before it and after it."
        )
    looked = "source" if a.cross else "sentence"
    chapters += [
        chapter(
            a.part,
            "Softmax: scores become shares",
            "Softmax makes each score positive by e^score and divides by the sum of its row: each "
            f"row is now from 0 to 1 and adds up to 1. It says how much of its attention a "
            f"{a.words} gives to each of the {looked}. This is the attention map.",
            softmax,
            {
                scores: "scores",
                weights: "weights: each row adds up to 1",
            },
            "weight[i, j] = e^score[i, j] / sum over j of e^score[i, j]",
        ),
        chapter(
            a.part,
            "The new vectors: a weighted sum of the values",
            f"Each {a.words} takes from every value as much as its weight says. A weight of 1 "
            "would copy one value, equal weights make the mean of all. What comes out is as wide "
            "as a value, and knows of the words that were looked at.",
            mix,
            {
                weights: "weights",
                v: "v: the values",
                mix.outputs[0]: "the sum of the values by these weights",
            },
            "new[i] = sum over j of weight[i, j] v[j]",
        ),
        _join(f, a, mix.outputs[0]),
    ]
    return chapters


def _scores(a: Looks, q: str, product: Node, scaled: Node) -> list[Chapter]:
    """Return the chapters of the product and of the scale, in the order of the program."""
    root, late = f"\N{SQUARE ROOT}{a.width}", a.node is None
    what, before, after = "q", q, scaled.outputs[0]
    if late:
        what, before = "scores", product.outputs[0]
    scale = chapter(
        a.part,
        "Why the scores are scaled",
        f"{'Each query was' if late else 'Soon each query is'} multiplied with each key, number by "
        f"number, and the {a.width} products {'were' if late else 'are'} added up. Of {a.width} "
        f"random products the sum has a spread of {root} = {a.width**0.5:.3g}: the wider a head, "
        "the larger its scores. Large scores would make softmax put everything on one word, and "
        "there its gradient is almost nothing, so the model could not learn. Divided by "
        f"{root}, scores have the same size in heads of any width."
        + ("" if late else " It is done to q, which is smaller than the scores."),
        scaled,
        {before: what, after: f"{what} / {root}"},
        f"{what.removesuffix('s')} / \N{SQUARE ROOT}K = {what.removesuffix('s')} / "
        f"{a.width**0.5:.4g}",
    )
    fit = chapter(
        a.part,
        "Scores: how well does each key fit each query?",
        "The score is the dot product of a query (its row) and a key (its column): large if "
        "both have large numbers in the same places, negative if they are opposite. One "
        "matrix product makes all of them at once, for all heads. Click on a number to see "
        "which numbers it was made of.",
        product,
        {product.outputs[0]: "scores: a row for each that looks, a column for each looked at"},
        f"score[i, j] = q[i] \N{MIDDLE DOT} k[j]{'' if late else ' / ' + chr(0x221A) + 'K'}",
    )
    return [fit, scale] if late else [scale, fit]


def _mask(a: Looks, fill: Node, before: str, after: str) -> Chapter:
    if a.causal:
        title = "The mask: nobody looks ahead"
        text = (
            "The model learns to predict the next word, and the next word is right there in the "
            "input. A word that could look at it would copy it and learn nothing; and when the "
            "model writes, later words do not exist yet. So every score of a word with a later "
            "one, above the diagonal, is set to minus infinity; softmax makes it 0. The first "
            "word sees itself alone.\n\n"
            "This is why all words can go in at once: each row sees only what stands before it, "
            "as if the words had come one by one, so one pass trains on every place in parallel."
        )
    else:
        title = "The mask: padding is not looked at"
        text = (
            "Sentences of a batch have different lengths, and the short ones are filled up. What "
            "fills them means nothing, so every score with it is set to minus infinity, which "
            "softmax makes 0."
        )
    values = {before: "scores before the mask", after: "scores after it: -inf where it blocks"}
    return chapter(
        a.part, title, text, fill, values, "score[i, j] = -inf where j comes after i" * a.causal
    )


def _join(f: Finder, a: Looks, heads: str) -> Chapter:
    linear = f.op(a.out, "linear")
    return chapter(
        a.part,
        "The heads side by side, and projected",
        f"The {a.heads} heads' results of width {a.width} stand side by side again, {a.heads} x "
        f"{a.width} = {a.heads * a.width}. Up to here no head knows of another: one more learned "
        "matrix, W^O, mixes them into one vector for each word, as wide as the input was.",
        linear,
        {
            heads: "one result for each head",
            linear.inputs[0]: "side by side",
            linear.outputs[0]: "after W^O",
        },
        "out = concat(head 1, ..., head H) W^O + b",
        boxes=[linear.id, linear.group],
    )
