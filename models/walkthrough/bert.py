"""One training iteration of BERT: fill in the blanks of a sentence of yours."""

from __future__ import annotations

from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn, optim
from minitensor.graph import Chapter, Graph

from ..bert import BertConfig, BertForPreTraining
from ..bert_data import IGNORED
from .finder import Finder, chapter
from .heads import Looks, attention_chapters
from .training import (
    BACK,
    BEFORE,
    FORWARD,
    LOSS,
    Iteration,
    Watched,
    learned,
    loss_chapters,
    seed_chapter,
    split,
    update_chapters,
    weight_gradient,
)
from .transformer import NORM, RESIDUAL

SENTENCE = "The early bird eats the worm."
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
EVERY = 3  # one word of so many is a blank
RATE = 0.1
EARLIER = 5


class TrainingStep(nn.Module):
    """One iteration of training: forward, loss, backward, update."""

    def __init__(self, model: BertForPreTraining, rate: float) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optim.SGD(model.parameters(), lr=rate)

    def forward(self, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the probabilities (N, L, V) before the update."""
        self.optimizer.zero_grad()
        logits, _ = self.model(input_ids)  # the other task, of two sentences, is left out
        with mt.no_grad():
            probabilities = logits.softmax(-1)  # to be looked at
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        loss.backward()
        self.optimizer.step()
        return loss, probabilities


def iteration(shown: list[str], right: list[str], vocabulary: list[str], seed: int) -> Iteration:
    """Return the training step of a new model on a sentence with blanks, and its right words."""
    mt.manual_seed(seed)
    config = BertConfig(
        len(vocabulary),
        **SIZES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=len(shown),
        type_vocab_size=1,
        initializer_range=0.25,  # as large as the small width asks for
    )
    labels = [
        vocabulary.index(word) if seen != word else IGNORED
        for seen, word in zip(shown, right, strict=True)
    ]
    return Iteration(
        "BERT: one training iteration",
        TrainingStep(BertForPreTraining(config), RATE),
        {
            "input_ids": mt.tensor([[vocabulary.index(word) for word in shown]]),
            "labels": mt.tensor([labels]),
        },
        {
            "input_ids": "N L",
            "labels": "N L",
            "hidden_size": "E",
            "num_attention_heads": "H",
            "intermediate_size": "F",
            "vocab_size": "V",
        },
        {
            "L": shown,
            "N*L": shown,
            "V": vocabulary,
            "H": [f"head {number + 1}" for number in range(config.num_attention_heads)],
        },
    )


def walkthrough(sentence: str | None = None, seed: int = 0, steps: int = 0) -> Graph:
    """Return the graph of one training iteration, with its chapters."""
    sentence = sentence or SENTENCE
    words = split(sentence)
    right = ["[CLS]", *words, "[SEP]"]
    shown = list(right)
    for place in range(2, len(words) + 1, EVERY):
        shown[place] = "[MASK]"
    vocabulary = list(dict.fromkeys([*SPECIAL, *words]))
    it = iteration(shown, right, vocabulary, seed)
    it.run(EARLIER)
    graph = it.graph()
    graph.chapters = chapters(Finder(graph), sentence, shown, right, vocabulary, it.run())
    if steps:
        again = iteration(shown, right, vocabulary, seed)
        graph.chapters.append(again.training(graph, watched(), steps))
    return graph


def chapters(
    f: Finder,
    sentence: str,
    shown: list[str],
    right: list[str],
    vocabulary: list[str],
    after: float,
) -> list[Chapter]:
    """Return all chapters but that of several steps."""
    kinds = [key for key, group in f.graph.groups.items() if group.kind == "Layer"]
    layers = sorted(kinds, key=lambda key: int(key.rpartition(".")[2]))
    logits = f.named("", "logits")
    loss = float(f.array(f.op("", "cross_entropy").outputs[0]))
    blanks = {
        place: word
        for place, (seen, word) in enumerate(zip(shown, right, strict=True))
        if seen != word
    }
    found = [*data_chapters(f, sentence, shown, vocabulary)]
    found += layer_chapters(f, layers[0], "Layer 1")
    others = [
        each
        for number, layer in enumerate(layers[1:], 2)
        for each in layer_chapters(f, layer, f"Layer {number}")
    ]
    first = next(iter(f.runs(layers[0])))
    if others:
        found.append(
            Chapter(
                "The same once more"
                if len(layers) == 2
                else f"The same {len(layers) - 1} times more",
                "Layer 2" if len(layers) == 2 else f"Layers 2 to {len(layers)}",
                "The same with weights of its own, on what the layer before has made.",
                "x = layer(x)",
                {},
                layers[1:],
                {f.out(layer): f"after layer {n}" for n, layer in enumerate(layers, 1)},
                first.source,
                first.code,
                others,
            )
        )
    found.append(transform_chapter(f))
    found += loss_chapters(
        f, blanks, vocabulary, logits, "model.cls.predictions.decoder", "At the first blank"
    )
    found += gradient_chapters(f, layers, logits, blanks)
    table = f.weight("model.bert.embeddings.word_embeddings.weight")
    found += update_chapters(
        f,
        table,
        "the table of the words' vectors: a row for each word",
        (loss, after),
        RATE,
        f.op("model.bert.embeddings.word_embeddings", "embedding"),
    )
    return found


def data_chapters(
    f: Finder, sentence: str, shown: list[str], vocabulary: list[str]
) -> list[Chapter]:
    """Return the chapters from the sentence to the first layer."""
    path = "model.bert.embeddings"
    ids, labels = f.input("input_ids"), f.input("labels")
    lookup = f.op(f"{path}.word_embeddings", "embedding")
    place = f.op(f"{path}.position_embeddings", "embedding")
    segment = f.op(f"{path}.token_type_embeddings", "embedding")
    norm = f.op(f"{path}.LayerNorm", "layer_norm")
    width, heads = SIZES["hidden_size"], SIZES["num_attention_heads"]
    sizes = {
        "batch": "1",
        "length": str(len(shown)),
        "hidden_size": str(width),
        "heads": str(heads),
        "head size": str(width // heads),
        "layers": str(SIZES["num_hidden_layers"]),
        "vocabulary": str(len(vocabulary)),
        "weights": f"{f.weights():,}",
    }
    return [
        chapter(
            BEFORE,
            f'One training iteration: "{sentence}"',
            "BERT learns a language by filling in blanks: some words are hidden, and it guesses "
            "each from all the others, those before it and those after it. This is one iteration "
            "of its training with all of its numbers: forward, loss, gradients, update. This small "
            f"model has seen the sentence {EARLIER} times before. Step with the arrow keys; click "
            "on any number to see where it comes from.",
            lookup,
            {ids: "what it sees", labels: "the hidden words; -100 where nothing is asked"},
            facts=sizes,
            boxes=["model"],
        ),
        chapter(
            BEFORE,
            "The blanks",
            "The sentence stands between [CLS] and [SEP], and one word in three is replaced by "
            "[MASK]; in real training it is one in seven. Only there the loss is counted: at the "
            "other places the answer can be seen. A GPT predicts every next word instead, and may "
            "not look ahead; BERT has no such mask, so it understands better, but cannot write.",
            f.op("", "cross_entropy"),
            {ids: " ".join(shown), labels: "what is asked"},
            boxes=[ids, labels],
        ),
        chapter(
            FORWARD,
            "Lookup: word, place and segment",
            f"Each token picks its row of {width} numbers from a table. A second table has a row "
            "for each place, since attention alone does not know the order of words; a third one "
            "for each of two sentences that may be given at once, here there is but one. All "
            "three are added and normalised.",
            lookup,
            {
                lookup.outputs[0]: "the row of each token",
                place.outputs[0]: "a vector for each place",
                segment.outputs[0]: "a vector for the segment",
                norm.outputs[0]: "their sum, normalised",
            },
            "x = norm(word + position + segment)",
            boxes=[path],
        ),
    ]


def layer_chapters(f: Finder, layer: str, part: str) -> list[Chapter]:
    """Return the chapters of one layer."""
    inside, dense = f"{layer}.attention.self", f"{layer}.attention.output.dense"
    fused = f.op(inside, "scaled_dot_product_attention")
    heads = SIZES["num_attention_heads"]
    query = f.op(f"{inside}.query", "linear")
    looks = Looks(
        inside,
        part,
        fused,
        query,
        dense,
        heads,
        SIZES["hidden_size"] // heads,
        across="L",
    )
    up = f.op(f"{layer}.intermediate.dense", "linear")
    bend = f.reader(up.outputs[0], "gelu")
    down = f.op(f"{layer}.output.dense", "linear")
    return [
        *attention_chapters(f, looks),
        *sum_chapters(f, f"{layer}.attention.output", part, "attention"),
        chapter(
            part,
            "Feed-forward: each word thinks on its own",
            "Attention moved things between words; this network works on each word alone, the "
            f"same for all. It goes up to {SIZES['intermediate_size']} numbers, bends them with "
            "GELU, which lets positive numbers pass and holds negative ones back, and goes down "
            "again. Without the bend, two matrices would be no more than one.",
            bend,
            {
                up.outputs[0]: "up",
                bend.outputs[0]: "after GELU",
                down.outputs[0]: "down",
            },
            "down(gelu(up(x)))",
            boxes=[f"{layer}.intermediate", down.id],
        ),
        *sum_chapters(f, f"{layer}.output", part, "feed_forward"),
    ]


def sum_chapters(f: Finder, path: str, part: str, name: str) -> list[Chapter]:
    """Return the chapters of a residual sum and the norm after it."""
    norm = f.op(f"{path}.LayerNorm", "layer_norm")
    add = f.maker(norm.inputs[0])
    made = f.out(f"{path}.dense")
    return [
        chapter(
            part,
            "Residual: added to what was there",
            RESIDUAL,
            add,
            {
                f.other(add, made): "x before",
                made: "what was found",
                add.outputs[0]: "their sum",
            },
            f"x + {name}(x)",
        ),
        chapter(
            part,
            "Norm: every vector at the same size",
            NORM,
            norm,
            {norm.inputs[0]: "before", norm.outputs[0]: "after: each row has mean 0"},
            f"x = norm(x + {name}(x))",
            boxes=[f"{path}.LayerNorm"],
        ),
    ]


def transform_chapter(f: Finder) -> Chapter:
    """Return the chapter of the layer before the scores."""
    path = "model.cls.predictions.transform"
    norm = f.op(f"{path}.LayerNorm", "layer_norm")
    dense = f.op(f"{path}.dense", "linear")
    return chapter(
        LOSS,
        "One more layer before the scores",
        "A matrix, GELU and a norm turn what the model knows of a place into what it would say "
        "there.",
        dense,
        {dense.inputs[0]: "the last vectors", norm.outputs[0]: "ready to be compared with words"},
        "norm(gelu(x W + b))",
        boxes=[path],
    )


def gradient_chapters(
    f: Finder, layers: list[str], logits: str, blanks: dict[int, str]
) -> list[Chapter]:
    """Return the chapters of the backward pass."""
    table = f.weight("model.bert.embeddings.word_embeddings.weight")
    used = f.op("model.bert.embeddings.word_embeddings", "embedding")
    up = f.op(f"{layers[-1]}.intermediate.dense", "linear")
    fused = f.op(f"{layers[-1]}.attention.self", "scaled_dot_product_attention")
    weights = f.inner(fused, "softmax").outputs[0]
    grads = {f.value(key).of: key for key in f.of(fused).outputs}
    flow = {
        f.gradient(f.out(layer)): f"after layer {number}"
        for number, layer in reversed(list(enumerate(layers, 1)))
    }
    words = " and ".join(f'"{word}"' for word in list(blanks.values())[:2])
    return [
        seed_chapter(
            f, logits, f"Rows without a blank have no gradient: nothing was asked there ({words})."
        ),
        weight_gradient(
            f,
            f.weight(f"{up.group}.weight"),
            "A weight's gradient",
            "The gradient goes back through the same ops in the opposite order, and each op knows "
            "one rule: from the gradient of its output it makes those of its inputs. For a matrix "
            "product these are matrix products again: the gradient of the weight is the sum, over "
            "all words, of what came in times what the output should change by.",
            up,
        ),
        chapter(
            BACK,
            "Through attention",
            "Here the gradient reaches the words that were not hidden: a blank tells those it "
            "looked at what they should have given, and its query where it should have looked.",
            fused,
            {
                weights: "the attention map, once more",
                **{
                    grads[key]: f"gradient of {name}"
                    for name, key in zip("qkv", fused.inputs, strict=False)
                    if key in grads
                },
            },
        ),
        chapter(
            BACK,
            "From the last layer to the first",
            "The gradient of what each layer made. The residual sums hand it on as it is; each "
            "layer adds what comes back through its attention and its network.",
            next(iter(f.runs(layers[-1]))),
            flow,
            boxes=list(layers),
        ),
        chapter(
            BACK,
            "Back at the words",
            "At last the gradient reaches the table of vectors. Here it is also the output's "
            "matrix, so every word of the vocabulary gets some: the right ones up, the others "
            "down.",
            used,
            {
                f.gradient(used.outputs[0]): "gradient of each word's vector",
                f.arriving(table): "gradient of the table: the sum of both uses",
            },
            boxes=["model.bert.embeddings"],
        ),
    ]


def watched() -> dict[str, Watched]:
    """Return the tensors that are shown at each step of training."""

    def attention(f: Finder) -> str:
        path = "model.bert.encoder.layer.0.attention.self"
        return f.inner(f.op(path, "scaled_dot_product_attention"), "softmax").outputs[0]

    return learned(
        "model.bert.embeddings.word_embeddings.weight",
        "the words' vectors",
        {"attention": (attention, "attention map of layer 1")},
        "what stands there, by the model",
    )
