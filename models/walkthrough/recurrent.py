"""One training iteration of the recurrent encoder-decoder: what came before the Transformer."""

from __future__ import annotations

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn, optim
from minitensor.graph import Chapter, Graph, Node

from ..command import InputError
from ..recurrent import Recurrent, RecurrentConfig
from ..text import BOS, SPECIAL
from .finder import Finder, chapter
from .training import (
    BACK,
    BEFORE,
    Iteration,
    Watched,
    learned,
    loss_chapters,
    probability_of,
    seed_chapter,
    update_chapters,
)
from .transformer import SENTENCES, Pair, new_pair

WIDTH = 8
RATE = 0.3
EARLIER = 5
SOURCE, TARGET, LOOK = "Encoder", "Decoder", "Attention"


class TrainingStep(nn.Module):
    """One iteration of training: forward, loss, backward, update."""

    def __init__(self, model: Recurrent, rate: float) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optim.SGD(model.parameters(), lr=rate)

    def forward(self, src: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the probabilities (N, L, V) before the update."""
        self.optimizer.zero_grad()
        tgt = self.model.shift_right(target)
        logits = self.model(src, tgt)
        with mt.no_grad():
            probabilities = logits.softmax(-1)  # to be looked at
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        loss.backward()
        self.optimizer.step()
        return loss, probabilities


def iteration(pair: Pair, seed: int) -> Iteration:
    """Return the training step of a new model on a pair."""
    mt.manual_seed(seed)
    known = len(pair.source_vocabulary), len(pair.target_vocabulary)
    model = Recurrent(RecurrentConfig(*known, cell="gru", width=WIDTH, dropout=0.0))
    return Iteration(
        "Recurrent: one training iteration",
        TrainingStep(model, RATE),
        {"src": mt.tensor([pair.src]), "target": mt.tensor([pair.tgt])},
        {
            "src": "N S",
            "target": "N L",
            "width": "E",
            "tgt_vocab_size": "V",
            "src_vocab_size": "V_source",
        },
        {
            "S": pair.source,
            "L": pair.given,
            "N*L": pair.given,
            "V": pair.target_vocabulary,
            "V_source": pair.source_vocabulary,
        },
    )


def walkthrough(
    source: str | None = None, target: str | None = None, seed: int = 0, steps: int = 0
) -> Graph:
    """Return the graph of one training iteration, with its chapters."""
    if source is not None and target is None:
        raise InputError("recurrent takes two sentences: one and its translation")
    pair = new_pair(source or SENTENCES[0], target or SENTENCES[1])
    it = iteration(pair, seed)
    it.run(EARLIER)
    graph = it.graph()
    graph.chapters = chapters(Finder(graph), pair, it.run())
    if steps:
        graph.chapters.append(iteration(pair, seed).training(graph, watched(), steps))
    return graph


def chapters(f: Finder, pair: Pair, after: float) -> list[Chapter]:
    """Return all chapters but that of several steps."""
    logits = f.named("", "logits")
    loss = float(f.array(f.op("", "cross_entropy").outputs[0]))
    found = [*data_chapters(f, pair), *reading_chapters(f, pair), *attention_chapters(f)]
    answers, seen = dict(enumerate(pair.target)), f'After "{pair.given[0]}"'
    found += loss_chapters(f, answers, pair.target_vocabulary, logits, "model.output", seen)
    found += gradient_chapters(f, pair, logits)
    found += update_chapters(
        f,
        f.weight("model.decoder.weight_hh_l0"),
        "the matrix with which the decoder goes from one state to the next",
        (loss, after),
        RATE,
        f.op("model.output", "linear"),
    )
    return found


def data_chapters(f: Finder, pair: Pair) -> list[Chapter]:
    """Return the chapters of the two sentences and their vectors."""
    src, target = f.input("src"), f.input("target")
    shift = f.op("", "cat", name="tgt")
    lookup = f.op("model.src_embedding", "embedding")
    sizes = {
        "batch": "1",
        "width": str(WIDTH),
        "cell": "GRU",
        "source words": str(len(pair.source_vocabulary)),
        "target words": str(len(pair.target_vocabulary)),
        "weights": f"{f.weights():,}",
    }
    return [
        chapter(
            BEFORE,
            f'One training iteration: "{pair.texts[0]}" \N{RIGHTWARDS ARROW} "{pair.texts[1]}"',
            "Before the Transformer, this translated: one network reads the source word by word "
            "and keeps what it read in a state, another writes the target from that state. This is "
            f"one iteration of its training with all of its numbers. The model has seen the pair "
            f"{EARLIER} times before. Step with the arrow keys; click on any number to see where "
            "it comes from.",
            lookup,
            {src: "the source", target: "the target: what should come out"},
            facts=sizes,
            boxes=["model"],
        ),
        chapter(
            BEFORE,
            "The shifted target: what the decoder sees",
            f'The decoder gets the target, moved by one place: it begins with "{SPECIAL[BOS]}" and '
            f'leaves out the last word. Where it should say "{pair.target[1]}" it has seen '
            f'"{SPECIAL[BOS]} {pair.given[1]}".',
            shift,
            {shift.outputs[0]: "what the decoder sees", target: "what it should say"},
            "decoder input = <s>, target[0], target[1], ...",
            boxes=[shift.id],
        ),
        chapter(
            SOURCE,
            "Lookup: each word gets its vector",
            f"The embedding is a table with a row of {WIDTH} numbers for each word of the "
            "vocabulary; a token picks its row. No positions are added: the order is in the "
            "reading itself.",
            lookup,
            {
                f.weight("model.src_embedding.weight"): "the table: a row for each word",
                lookup.outputs[0]: "the row of each token",
            },
            "x[i] = table[token[i]]",
            boxes=["model.src_embedding"],
        ),
    ]


def reading_chapters(f: Finder, pair: Pair) -> list[Chapter]:
    """Return the chapters of the recurrences."""
    memory = f.named("model", "memory")
    encoder = f.op("model.encoder", "gru_layer")
    decoder = f.op("model.decoder", "gru_layer")
    hidden = f.named("model.decoder", "hidden")
    begin = f.op("model", "cat", name="hidden[0]").outputs[0]
    reset, update, new = gates(f, decoder)
    return [
        chapter(
            SOURCE,
            "Reading word by word, in both directions",
            "The encoder goes through the sentence and after each word makes a new state from the "
            "old one and the word. So it has to wait: the state after the third word needs that "
            "after the second. A second encoder reads from the end, and both states stand side by "
            "side: half of each row is from the left, half from the right. This waiting is what "
            "the Transformer does away with, where all words go in at once.",
            encoder,
            {memory: "the state at each source word", begin: "the last states of both directions"},
            "h[t] = cell(x[t], h[t - 1])",
            boxes=["model.encoder"],
        ),
        chapter(
            TARGET,
            "One step of the cell: what to forget",
            "A GRU has two gates, numbers from 0 to 1. The reset gate says how much of the old "
            "state is looked at for the candidate, the update gate how much of it stays. Where "
            "the update gate is near 1 the state goes on unchanged, and its gradient comes back "
            "unchanged, so that something can be remembered over many words. These are those of "
            f'the first step, at "{pair.given[0]}".',
            decoder,
            {
                reset.outputs[0]: "reset gate r",
                update.outputs[0]: "update gate z",
                new.outputs[0]: "candidate n",
            },
            "h = (1 - z) n + z h_before",
            boxes=[decoder.id],
        ),
        chapter(
            TARGET,
            "Writing word by word",
            "The decoder begins with the encoder's last state and reads the shifted target: a row "
            "for each word, each made from the one above it. Without attention, that one first "
            "state would be all it knows of the source, however long the sentence was.",
            decoder,
            {begin: "the state it begins with", hidden: "the state after each word"},
            "h[t] = cell(y[t], h[t - 1])",
            boxes=["model.decoder"],
        ),
    ]


def gates(f: Finder, layer: Node) -> tuple[Node, Node, Node]:
    """Return the ops that make the reset gate, the update gate and the candidate of step one."""
    inner = [n for n in f.forward if n.inside == layer.id]
    new = next(n for n in inner if n.op == "tanh")
    made = {key: n for n in inner for key in n.outputs}
    summed = made[new.inputs[0]]
    product = next(made[k] for k in summed.inputs if k in made and made[k].op == "mul")
    reset = next(made[k] for k in product.inputs if k in made and made[k].op == "sigmoid")
    keep = next(n for n in inner if n.op == "sub")
    update = made[keep.inputs[0]]
    return reset, update, new


def attention_chapters(f: Finder) -> list[Chapter]:
    """Return the chapters of the decoder's look at the source."""
    path = "model.attention"
    keys = f.op(f"{path}.key", "linear")
    softmax = f.op(path, "softmax")
    fill = f.op(path, "masked_fill")
    scores = f.op(path, "matmul", name="scores")
    mix = f.op(path, "matmul", reads=softmax.outputs[0])
    out = f.op(path, "tanh")
    hidden = f.named("model.decoder", "hidden")
    return [
        chapter(
            LOOK,
            "Attention: look at the source again",
            "Attention was invented here, for recurrent networks. The decoder's state is the "
            "query; the encoder's states, times a learned matrix, are the keys. The score says "
            "how well they fit. What would be padding in a batch is masked.",
            scores,
            {
                hidden: "queries: the decoder's states",
                keys.outputs[0]: "keys: the encoder's states, projected",
                fill.outputs[0]: "scores",
            },
            "score[i, j] = h[i] \N{MIDDLE DOT} W m[j]",
            boxes=[keys.id, scores.id],
        ),
        chapter(
            LOOK,
            "Softmax: where each target word looks",
            "Each row adds up to 1: how much of its attention the decoder gives to each source "
            "word as it writes.",
            softmax,
            {softmax.outputs[0]: "weights"},
            "weight = softmax(score)",
        ),
        chapter(
            LOOK,
            "The context joins the state",
            "The mean of the source's states by these weights is the context. It stands beside "
            "the decoder's state, and a matrix and tanh make one vector of both, from which the "
            "next word is predicted.",
            mix,
            {mix.outputs[0]: "context", out.outputs[0]: "context and state together"},
            "tanh(W [context; h])",
            boxes=[mix.id, f"{path}.combine", out.id],
        ),
    ]


def gradient_chapters(f: Finder, pair: Pair, logits: str) -> list[Chapter]:
    """Return the chapters of the backward pass."""
    hidden = f.named("model.decoder", "hidden")
    memory = f.named("model", "memory")
    decoder = f.op("model.decoder", "gru_layer")
    weight = f.weight("model.decoder.weight_hh_l0")
    table = f.weight("model.src_embedding.weight")
    p = probability_of(f, pair.target[0], pair.target_vocabulary)
    return [
        seed_chapter(
            f, logits, f'In the first row that is "{pair.target[0]}", which has {p:.1%} now.'
        ),
        chapter(
            BACK,
            "Back through time",
            "The gradient goes back word by word, from the last step to the first: that of a "
            "state is what its own prediction wants plus what comes back from the step after it. "
            "The same weights are used in each step, so their gradient is the sum over all steps. "
            "On a long way it can fade or explode; gates and attention are there against that.",
            decoder,
            {
                f.gradient(hidden): "gradient of the decoder's states",
                weight: "the matrix from state to state",
                f.arriving(weight): "its gradient: the sum over all steps",
            },
            boxes=[decoder.id],
        ),
        chapter(
            BACK,
            "Back to the source",
            "Attention gives each source state a gradient directly, a short way from every target "
            "word to every source word. At the end of it are the rows of the words that were "
            "used; all others stay as they are.",
            f.op("model.src_embedding", "embedding"),
            {
                f.gradient(memory): "gradient of the encoder's states",
                f.arriving(table): "gradient of the table: 0 for words that were not used",
            },
            boxes=["model.src_embedding", "model.encoder"],
        ),
    ]


def watched() -> dict[str, Watched]:
    """Return the tensors that are shown at each step of training."""

    def attention(f: Finder) -> str:
        return f.op("model.attention", "softmax").outputs[0]

    return learned(
        "model.src_embedding.weight",
        "the source words' vectors",
        {"attention": (attention, "where each target word looks in the source")},
    )
