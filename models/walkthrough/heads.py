"""The chapters of one attention: queries, keys and values, scores, mask, weights, and their sum."""

from __future__ import annotations

from dataclasses import dataclass

from minitensor.graph import Chapter, Node

from .finder import Finder, chapter


@dataclass
class Looks:
    """One attention of a model: who looks at what, and the words for it."""

    path: str  # of its module
    part: str  # the part of the walkthrough
    node: Node  # the fused op, opened
    into: str  # the value that the queries are made of
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
    find = f.inner
    softmax = find(a.node, "softmax")
    weights = softmax.outputs[0]
    scores = softmax.inputs[0]
    scaled = find(a.node, "mul")
    q = scaled.inputs[0]
    product = find(a.node, "matmul", reads=scaled.outputs[0])
    turned = next(key for key in product.inputs if key != scaled.outputs[0])
    k = f.maker(turned).inputs[0]
    mix = find(a.node, "matmul", reads=weights)
    v = next(key for key in mix.inputs if key != weights)
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
            boxes=[a.project.id, a.node.id],
        ),
        chapter(
            a.part,
            "Why the scores are scaled",
            f"Soon each query is multiplied with each key, number by number, and the "
            f"{a.width} products are added up. Of {a.width} random products the sum has a spread "
            f"of \N{SQUARE ROOT}{a.width} = {a.width**0.5:.3g}: the wider a head, the larger its "
            "scores. Large scores would make softmax put everything on one word, and there its "
            "gradient is almost nothing, so the model could not learn. Divided by "
            f"\N{SQUARE ROOT}{a.width}, scores have the same size in heads of any width. It is "
            "done to q, which is smaller than the scores.",
            scaled,
            {q: "q", scaled.outputs[0]: f"q / \N{SQUARE ROOT}{a.width}"},
            f"q / \N{SQUARE ROOT}K = q / {a.width**0.5:.4g}",
        ),
        chapter(
            a.part,
            "Scores: how well does each key fit each query?",
            "The score is the dot product of a query (its row) and a key (its column): large if "
            "both have large numbers in the same places, negative if they are opposite. One "
            "matrix product makes all of them at once, for all heads. Click on a number to see "
            "which numbers it was made of.",
            product,
            {product.outputs[0]: "scores: a row for each that looks, a column for each looked at"},
            "score[i, j] = q[i] \N{MIDDLE DOT} k[j] / \N{SQUARE ROOT}K",
        ),
    ]
    if f.has_inner(a.node, "masked_fill"):
        fill = find(a.node, "masked_fill")
        chapters.append(_mask(a, fill, product.outputs[0], scores))
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
