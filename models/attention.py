"""Attention from nothing up: each step small enough to print.

    python -m models.attention                        read along, in a second
    python -m models.attention --picture weights.png  and see the weights as a picture

Sources:
- Bahdanau, Cho, Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate",
  2014, arXiv:1409.0473: attention, with the additive similarity.
- Graves, Wayne, Danihelka, "Neural Turing Machines", 2014, arXiv:1410.5401: the cosine similarity.
- Luong, Pham, Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015,
  arXiv:1508.04025: the dot and the general (bilinear) similarity.
- Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, section 3.2: queries, keys
  and values, the scaled dot product, several heads.

A tensor's name ends in its dimensions, and a test holds the names to it:

    N batch   L length   S length of the keys, where it is another   E model width   H heads
    K width of a head, E = H * K

Functions here take any dimensions in front, written as *.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.nn.masks import causal_mask

from .command import exit_code, program
from .pictures import new_figure, write_figure

# Similarities of each query to each key


def dot(query: Tensor, key: Tensor) -> Tensor:
    """Return q · k: (*, L, E), (*, S, E) -> (*, L, S)."""
    return query @ key.transpose(-2, -1)


def scaled_dot(query: Tensor, key: Tensor) -> Tensor:
    """Return q · k / sqrt(E): (*, L, E), (*, S, E) -> (*, L, S).

    Of random vectors, q · k has the variance E. Scaled, it has 1 whatever the width, and softmax
    does not put everything on one key.
    """
    return dot(query, key) / math.sqrt(query.shape[-1])


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """Return q · k / (|q| |k|), from -1 to 1: (*, L, E), (*, S, E) -> (*, L, S)."""
    return dot(F.normalize(query, dim=-1), F.normalize(key, dim=-1))


def general(query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
    """Return qᵀ W k, with a learned W (Q, E): (*, L, Q), (*, S, E) -> (*, L, S)."""
    return dot(query @ weight, key)


def additive(
    query: Tensor, key: Tensor, query_weight: Tensor, key_weight: Tensor, v: Tensor
) -> Tensor:
    """Return v · tanh(q W₁ + k W₂), all three learned: (*, L, Q), (*, S, E) -> (*, L, S).

    - query_weight: W₁, (Q, A), of any inner width A.
    - key_weight: W₂, (E, A).
    - v: (A).
    """
    q, k = query @ query_weight, key @ key_weight
    return (q.unsqueeze(-2) + k.unsqueeze(-3)).tanh() @ v  # each query with each key


# From similarities to attention


def attend(score: Tensor, value: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean of the values (*, S, E) by the scores (*, L, S), and its weights (*, L, S).

    weights = softmax(score + mask), in each row from 0 to 1 with the sum 1. output = weights @
    value, (*, L, E). A mask of -inf, broadcast to the scores, blocks a key.
    """
    if mask is not None:
        score = score + mask
    weight = score.softmax(-1)
    return weight @ value, weight


class Head(nn.Module):
    """One head: softmax(q kᵀ / sqrt(K)) v of q = x W^Q, k = x W^K, v = x W^V.

    - embed_dim: E, the width of the input.
    - head_dim: K, the width of queries, keys and values. Each weight is (E, K).
    """

    def __init__(self, embed_dim: int, head_dim: int) -> None:
        super().__init__()
        self.w_q = nn.Parameter(mt.empty(embed_dim, head_dim))
        self.w_k = nn.Parameter(mt.empty(embed_dim, head_dim))
        self.w_v = nn.Parameter(mt.empty(embed_dim, head_dim))
        for weight in self.parameters():
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the head's output (*, L, K) for `x` (*, L, E), and its weights (*, L, L)."""
        q, k, v = x @ self.w_q, x @ self.w_k, x @ self.w_v
        return attend(scaled_dot(q, k), v, mask)


class MultiheadAttention(nn.Module):
    """Several heads side by side, joined and projected: concat(head₁, ..., headₕ) W^O.

    - embed_dim: E, the width of input and output.
    - num_heads: H, which divides E; each head has the width K = E / H. W^O is (E, E).

    ValueError if E is not divisible by H.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(
                "the width of the model must be divisible by the number of heads: "
                f"embed_dim={embed_dim}, num_heads={num_heads}"
            )
        self.heads = nn.ModuleList(
            Head(embed_dim, embed_dim // num_heads) for _ in range(num_heads)
        )
        self.w_o = nn.Parameter(mt.empty(embed_dim, embed_dim))
        nn.init.xavier_uniform_(self.w_o)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the output (*, L, E) for `x` (*, L, E), and the heads' weights (*, H, L, L)."""
        outputs, weights = zip(*(head(x, mask) for head in self.heads), strict=True)
        joined = mt.cat(outputs, dim=-1)
        return joined @ self.w_o, mt.stack(weights, dim=-3)


# The packed form: the same numbers from one large product


def packed_weight(attention: MultiheadAttention) -> Tensor:
    """Return all heads' W^Q, then all W^K, then all W^V, side by side: (E, 3E)."""
    names = "w_q", "w_k", "w_v"
    return mt.cat([getattr(head, name) for name in names for head in attention.heads], dim=1)


def packed_attention(
    x: Tensor, weight: Tensor, w_o: Tensor, num_heads: int, mask: Tensor | None = None
) -> Tensor:
    """Return the output of all heads at once: (N, L, E), (E, 3E), (E, E) -> (N, L, E)."""
    x_NLE = x
    q_NHLK, k_NHLK, v_NHLK = (
        part_NLE.unflatten(2, (num_heads, -1)).transpose(1, 2)
        for part_NLE in (x_NLE @ weight).chunk(3, 2)
    )
    head_NHLK = F.scaled_dot_product_attention(q_NHLK, k_NHLK, v_NHLK, attn_mask=mask)
    joined_NLE = head_NHLK.transpose(1, 2).flatten(2)
    return joined_NLE @ w_o


@mt.no_grad()
def as_module(attention: MultiheadAttention) -> nn.MultiheadAttention:
    """Return PyTorch's layer with the same weights. It keeps them transposed: (3E, E)."""
    embed_dim = len(attention.w_o)
    module = nn.MultiheadAttention(embed_dim, len(attention.heads), bias=False, batch_first=True)
    module.in_proj_weight.copy_(packed_weight(attention).T)
    module.out_proj.weight.copy_(attention.w_o.T)
    return module


def example() -> tuple[nn.Module, dict[str, Tensor], dict[str, int]]:
    """Return a small layer, its inputs, and the names of their sizes, to draw its graph."""
    mt.manual_seed(0)
    sizes = {"N": 3, "L": 7, "E": 16, "H": 2}
    return MultiheadAttention(16, 2), {"x": mt.randn(3, 7, 16)}, sizes


# Printing


def show(
    sentence: str,
    rows: Sequence[str],
    blocks: dict[str, tuple[Tensor, Sequence[str]]],
    form: str = ".2f",
) -> None:
    """Print a sentence, and below it tables side by side with the same rows.

    `blocks` has, by its title, each table's values (rows, columns) and heads of columns.
    """
    print(f"\n{textwrap.fill(sentence, 88)}\n")
    side = max(map(len, rows))
    lines = [" " * side, " " * side, *(row.rjust(side) for row in rows)]
    for number, (title, (values, columns)) in enumerate(blocks.items()):
        texts = [columns, *([written(value, form) for value in row] for row in values.tolist())]
        width = max(len(text) for row in texts for text in row)
        cells = ["  ".join(text.rjust(width) for text in row) for row in texts]
        full = max(len(title), len(cells[0]))
        cells = [title.center(full), *(cell.rjust(full) for cell in cells)]
        bar = "  |  " if number else "  "
        lines = [line + bar + cell for line, cell in zip(lines, cells, strict=True)]
    print("\n".join(f"    {line}".rstrip() for line in lines if line.strip()))


def written(value: float, form: str) -> str:
    """Return a number as text, without the sign of a zero."""
    text = format(value, form)
    return text.removeprefix("-") if not text.strip("-0.") else text


def numbered(name: str, count: int) -> list[str]:
    """Return heads of columns: "q0", "q1", ..."""
    return [f"{name}{number}" for number in range(count)]


def heading(text: str) -> None:
    """Print the title of a step, underlined."""
    print(f"\n\n{text}\n{'-' * len(text)}")


# The steps

SENTENCE = ["Bark", "is", "very", "cute", "and", "he", "is", "a", "dog"]
FEATURES = ["animal", "male", "nice", "filler"]
VECTORS = {
    "Bark": [1.0, 1.0, 0.5, 0.0],
    "is": [0.0, 0.0, 0.0, 1.0],
    "very": [0.0, 0.0, 0.5, 0.5],
    "cute": [0.5, 0.0, 1.5, 0.0],
    "and": [0.0, 0.0, 0.0, 0.5],
    "he": [0.5, 1.5, 0.0, 0.5],
    "a": [0.0, 0.0, 0.0, 0.5],
    "dog": [1.5, 0.5, 0.5, 0.0],
}
WORDS = ["I", "like", "apples"]
# One head that asks: animals look for nice words, and nice words for animals.
ASK = [[3.0, 0.0], [0.0, 0.0], [0.0, 3.0], [0.0, 0.0]]
ANSWER = [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
GIVE = [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


def embed() -> Tensor:
    """Return the vectors of the sentence's words, (L, E)."""
    return mt.tensor([VECTORS[word] for word in SENTENCE])


def without_weights() -> Tensor:
    """Print attention without anything learned; returns its weights (L, L)."""
    heading("1. Attention without any trained weight")
    x_LE = embed()
    show(
        "Each word is a vector. This table was made by hand, so that each column means something; "
        "a model learns it.",
        SENTENCE,
        {"": (x_LE, FEATURES)},
        form=".1f",
    )
    score_LL = dot(x_LE, x_LE)
    show(
        "How similar is each word to each other one? Multiply their vectors feature by feature "
        "and add up: the dot product. It is large where both have much of the same feature.",
        SENTENCE,
        {"": (score_LL, SENTENCE)},
    )
    new_LE, weight_LL = attend(score_LL, x_LE)
    show(
        "Softmax makes weights of each row: all above 0, the sum of a row is 1. A row says where "
        'its word looks: "Bark" at itself, at "dog" and at "he"; "and", which is like nothing '
        "here, looks everywhere.",
        SENTENCE,
        {"": (weight_LL, SENTENCE)},
    )
    show(
        "The new vector of a word is the mean of all vectors by these weights. Each word has now "
        'something of the words it looked at. The two "is" have the same result: attention alone '
        "does not know the order of words, which is why models add positions.",
        SENTENCE,
        {"before": (x_LE, FEATURES), "after": (new_LE, FEATURES)},
    )
    return weight_LL


def by_similarity() -> None:
    """Print where one word looks by each similarity."""
    heading("2. The similarity is a choice")
    x_LE = embed()
    bark_1E = x_LE[:1]
    ask_EE = mt.tensor(ASK) @ mt.tensor(ANSWER).T
    mt.manual_seed(0)
    query_weight, key_weight, v = mt.randn(4, 3), mt.randn(4, 3), mt.randn(3)
    weights = {
        "dot": dot(bark_1E, x_LE),
        "scaled dot": scaled_dot(bark_1E, x_LE),
        "cosine": cosine(bark_1E, x_LE),
        "general": general(bark_1E, x_LE, ask_EE),
        "additive": additive(bark_1E, x_LE, query_weight, key_weight, v),
    }
    show(
        'Where "Bark" looks, by five similarities. The scaled dot divides by sqrt(4), the cosine '
        "by the lengths of both vectors: the weights become more equal. The other two have weights "
        "to learn, so that a word may look for something else than itself. The general one, qᵀ W "
        "k, has a W made by hand here, with which animals look for nice words; the additive one, "
        "v · tanh(q W₁ + k W₂), has random weights, and no preference that makes sense.",
        list(weights),
        {"": (mt.cat([score_1L.softmax(-1) for score_1L in weights.values()]), SENTENCE)},
    )


def lookup() -> None:
    """Print a dictionary's hard lookup, and attention as the soft one."""
    heading("3. Query, key and value: a soft lookup")
    speeds = {"dog": 45.0, "cat": 48.0, "eagle": 160.0}
    print(
        "\nA dictionary has keys and values, and a query finds one or none: in\n\n"
        f"    {speeds}\n\n"
        f"""the query "cat" finds {speeds["cat"]}, and "fox" finds nothing: KeyError."""
    )
    key_SE = mt.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    value_S1 = mt.tensor([[speed] for speed in speeds.values()])
    show(
        "Let keys and queries be vectors, and each query finds something of each value, by how "
        "well it fits the key.",
        list(speeds),
        {"key": (key_SE, ["barks", "climbs", "flies"]), "value": (value_S1, ["km/h"])},
        form=".0f",
    )
    fox_1E = mt.tensor([[0.7, 0.3, 0.0]])
    found, weights = [], []
    scales = [0.0, 2.0, 8.0, 32.0]
    for scale in scales:
        speed_11, weight_1S = attend(scale * dot(fox_1E, key_SE), value_S1)
        found.append(speed_11)
        weights.append(weight_1S)
    show(
        "A fox barks (0.7) and climbs (0.3) a little. The larger the scores, the harder the "
        "lookup: from the mean of all values to the value of the best key alone.",
        [f"{scale:g} x score" for scale in scales],
        {"weights": (mt.cat(weights), list(speeds)), "found": (mt.cat(found), ["km/h"])},
    )


@mt.no_grad()
def one_head() -> Tensor:
    """Print one head with weights made by hand; returns its weights (L, L)."""
    heading("4. One head: W^Q, W^K and W^V")
    x_LE = embed()
    head = Head(4, 2)
    for weight, values in (head.w_q, ASK), (head.w_k, ANSWER), (head.w_v, GIVE):
        weight.copy_(mt.tensor(values))
    show(
        "In attention to itself, a sentence gives all three: a word's query q = x W^Q says what "
        "it looks for, its key k = x W^K what it can be found by, its value v = x W^V what it "
        "gives. A model learns these matrices. Here they are made by hand: animals look for nice "
        "words, and nice words for animals.",
        FEATURES,
        {
            f"W^{name} (4, 2)": (weight, numbered(name.lower(), 2))
            for name, weight in (("Q", head.w_q), ("K", head.w_k), ("V", head.w_v))
        },
        form=".0f",
    )
    q_LK, k_LK, v_LK = x_LE @ head.w_q, x_LE @ head.w_k, x_LE @ head.w_v
    show(
        "Each word's query, key and value.",
        SENTENCE,
        {
            "query": (q_LK, numbered("q", 2)),
            "key": (k_LK, numbered("k", 2)),
            "value": (v_LK, numbered("v", 2)),
        },
        form=".1f",
    )
    output_LK, weight_LL = head(x_LE)
    show(
        'The weights, softmax(q kᵀ / sqrt(2)). "Bark", "he" and "dog" look at "cute" now, and '
        '"cute" looks at "dog" and "Bark". This is the general similarity of step 2, with W = W^Q '
        "(W^K)ᵀ.",
        SENTENCE,
        {"": (weight_LL, SENTENCE)},
    )
    show(
        'The output: the mean of the values by these weights. "Bark" has found how nice it is '
        '(v0), and "cute" what is nice (v1).',
        SENTENCE,
        {"": (output_LK, numbered("v", 2))},
    )
    return weight_LL


@mt.no_grad()
def several_heads(small: MultiheadAttention) -> None:
    """Print the weights of each head."""
    heading("5. Several heads")
    head: Any  # a Head
    for number, head in enumerate(small.heads):
        show(
            "One head can look for one thing at a time, so there are several, each with matrices "
            "of its own and a part of the width: (E, E / H), with E = 4 and H = 2 (4, 2). From "
            "here on they are random, as before training. Head 0:"
            if number == 0
            else f"Head {number}:",
            FEATURES,
            {
                f"W^{name} (4, 2)": (weight, numbered(name.lower(), 2))
                for name, weight in (("Q", head.w_q), ("K", head.w_k), ("V", head.w_v))
            },
        )


@mt.no_grad()
def joined_heads(attention: MultiheadAttention, x: Tensor) -> None:
    """Print all that two heads do with three words (L, E), and the projection that joins them."""
    x_LE, words = x, WORDS
    show(
        '"I like apples" with E = 6 and H = 2. Its vectors:',
        words,
        {"x (3, 6)": (x_LE, numbered("x", 6))},
    )
    outputs = []
    for number, head in enumerate(attention.heads):
        q_LK, k_LK, v_LK = x_LE @ head.w_q, x_LE @ head.w_k, x_LE @ head.w_v
        show(
            f"Head {number}: queries, keys and values of width 6 / 2 = 3.",
            words,
            {
                "q (3, 3)": (q_LK, numbered("q", 3)),
                "k (3, 3)": (k_LK, numbered("k", 3)),
                "v (3, 3)": (v_LK, numbered("v", 3)),
            },
        )
        output_LK, weight_LL = head(x_LE)
        outputs.append(output_LK)
        show(
            "From them its weights, and its output.",
            words,
            {"weights (3, 3)": (weight_LL, words), "output (3, 3)": (output_LK, numbered("h", 3))},
        )

    heading("6. The projection that joins the heads")
    joined_LE = mt.cat(outputs, dim=1)
    show(
        "The heads' outputs side by side are as wide as the input again, but what one head found "
        "stands apart from what the other found.",
        words,
        {f"head {number}": (part, numbered("h", 3)) for number, part in enumerate(outputs)},
    )
    output_LE, _ = attention(x_LE)
    assert mt.allclose(output_LE, joined_LE @ attention.w_o)
    show(
        "W^O (6, 6) mixes them: each column has a weight for each number of each head.",
        [f"head {number}, h{column}" for number in range(2) for column in range(3)],
        {"W^O (6, 6)": (attention.w_o, numbered("y", 6))},
    )
    show(
        "The output takes something from both heads, and is of the same shape as the input: the "
        "next layer can do the same again.",
        words,
        {"output (3, 6)": (output_LE, numbered("y", 6))},
    )


@mt.no_grad()
def packed(small: MultiheadAttention, attention: MultiheadAttention, x: Tensor) -> Tensor:
    """Print that the packed form gives the same; returns the causal weights (H, L, L)."""
    heading("7. The packed form: the same numbers")
    x_LE, words = x, WORDS
    show(
        "Six small products are slower than one large one. So models keep the W^Q of all heads, "
        "then all W^K, then all W^V side by side in one matrix (E, 3E). Of the two heads of step "
        "5, with E = 4, it is (4, 12):",
        FEATURES,
        {
            f"W^{name}: head 0, head 1": (part, numbered(name.lower(), 2) * 2)
            for name, part in zip("QKV", packed_weight(small).chunk(3, 1), strict=True)
        },
    )
    causal_LL = causal_mask(len(x_LE))
    _, weight_HLL = attention(x_LE, causal_LL)
    show(
        "In a model that writes, no word may look at a later one. A mask adds -inf to those "
        "scores, and softmax makes them 0: the first word sees itself alone.",
        words,
        {f"head {number}": (weight_HLL[number], words) for number in range(2)},
    )
    weight = packed_weight(attention)
    module = as_module(attention)
    rows = []
    for mask in None, causal_LL:
        expected_LE, _ = attention(x_LE, mask)
        fused_NLE = packed_attention(x_LE.unsqueeze(0), weight, attention.w_o, 2, mask)
        layer_LE, _ = module(x_LE, x_LE, x_LE, attn_mask=mask)
        rows.append([(y - expected_LE).abs().max() for y in (fused_NLE[0], layer_LE)])
    show(
        "The largest difference from the heads computed one by one, with the same weights, in "
        "float32: nothing but rounding.",
        ["no mask", "causal mask"],
        {
            "": (
                mt.tensor([[float(difference) for difference in row] for row in rows]),
                ["F.scaled_dot_product_attention", "nn.MultiheadAttention"],
            )
        },
        form=".0e",
    )
    return weight_HLL


def draw(panels: dict[str, tuple[Tensor, Sequence[str]]], path: str) -> None:
    """Draw weights (L, L) of each panel: a row for the word that looks, a column for the seen."""
    figure = new_figure(figsize=(8.5, 7.5))
    grid = figure.subplots(2, 2).flat
    for axes, (title, (weight_LL, words)) in zip(grid, panels.items(), strict=True):
        image = axes.imshow(weight_LL.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(title, fontsize=10)
        upright = 90 if len(words) > 5 else 0
        axes.set_xticks(range(len(words)), words, rotation=upright, fontsize=9)
        axes.set_yticks(range(len(words)), words, fontsize=9)
    figure.colorbar(image, ax=figure.axes, label="weight", shrink=0.6)
    figure.supylabel("the word that looks", fontsize=10)
    figure.supxlabel("the word it looks at", fontsize=10)
    write_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all steps; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=program(f"{__package__}.attention"), description="Attention from nothing up."
    )
    parser.add_argument("--picture", metavar="FILE", help="draw the weights into this PNG")
    options = parser.parse_args(arguments)

    def run() -> int:
        panels: dict[str, tuple[Tensor, Sequence[str]]] = {}
        panels["1. no trained weight"] = without_weights(), SENTENCE
        by_similarity()
        lookup()
        panels["4. one head"] = one_head(), SENTENCE
        mt.manual_seed(0)
        small = MultiheadAttention(4, 2)
        several_heads(small)
        mt.manual_seed(1)
        attention, x_LE = MultiheadAttention(6, 2), mt.randn(3, 6)
        joined_heads(attention, x_LE)
        for number, weight_LL in enumerate(packed(small, attention, x_LE)):
            panels[f"7. head {number}, causal"] = weight_LL, WORDS
        if options.picture:
            draw(panels, options.picture)
            print(f"\nthe weights of steps 1, 4 and 7 are drawn in {options.picture}")
        return 0

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
