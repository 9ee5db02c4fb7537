"""One training iteration of a GPT on a sentence of yours."""

from __future__ import annotations

from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn, optim
from minitensor.graph import Chapter, Graph

from ..gpt import GPT, GPTConfig
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

SENTENCE = "The early bird eats the worm."
SIZES: dict[str, Any] = {
    "embed_dim": 24,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 4,
    "hidden_dim": 96,
}
RATE = 0.05
EARLIER = 5  # steps that the model has behind it when one looks at it


class TrainingStep(nn.Module):
    """One iteration of training: forward, loss, backward, update."""

    def __init__(self, model: nn.Module, rate: float) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optim.SGD(model.parameters(), lr=rate)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the probabilities (N, L, V) before the update."""
        self.optimizer.zero_grad()
        logits = self.model(tokens)
        with mt.no_grad():
            probabilities = logits.softmax(-1)  # to be looked at
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        self.optimizer.step()
        return loss, probabilities


def iteration(words: list[str], vocabulary: list[str], seed: int) -> Iteration:
    """Return the training step of a new model on a sentence."""
    mt.manual_seed(seed)
    config = GPTConfig(vocab_size=len(vocabulary), context_length=len(words), dropout=0.0, **SIZES)
    model = GPT(config)
    for weight in model.parameters():
        if weight.dim() > 1:  # as large as the small width asks for
            nn.init.normal_(weight, std=config.embed_dim**-0.5)
    numbers = [vocabulary.index(word) for word in words]
    return Iteration(
        "GPT: one training iteration",
        TrainingStep(model, RATE),
        {"tokens": mt.tensor([numbers[:-1]]), "targets": mt.tensor([numbers[1:]])},
        {
            "tokens": "N L",
            "targets": "N L",
            "embed_dim": "E",
            "num_heads": "H",
            "num_kv_heads": "H",
            "vocab_size": "V",
            "hidden_dim": "F",
            "context_length": "C",
        },
        {
            "L": words[:-1],
            "N*L": words[:-1],
            "V": vocabulary,
            "H": [f"head {number + 1}" for number in range(config.num_heads)],
        },
    )


def walkthrough(sentence: str | None = None, seed: int = 0, steps: int = 0) -> Graph:
    """Return the graph of one training iteration, with its chapters."""
    sentence = sentence or SENTENCE
    words = split(sentence)
    vocabulary = list(dict.fromkeys(words))
    run = iteration(words, vocabulary, seed)
    run.run(EARLIER)
    graph = run.graph()
    model: Any = run.step.model
    graph.chapters = chapters(Finder(graph), sentence, words, vocabulary, model.config, run.run())
    if steps:
        graph.chapters.append(iteration(words, vocabulary, seed).training(graph, watched(), steps))
    return graph


def chapters(
    f: Finder,
    sentence: str,
    words: list[str],
    vocabulary: list[str],
    config: GPTConfig,
    after: float,
) -> list[Chapter]:
    """Return all chapters but that of several steps."""
    blocks = sorted(
        (key for key, group in f.graph.groups.items() if group.kind == "Block"),
        key=lambda key: int(key.rpartition(".")[2]),
    )
    logits = f.named("", "logits")
    entropy = f.op("", "cross_entropy")
    loss = float(f.array(entropy.outputs[0]))
    first = block_chapters(f, blocks[0], config, "Block 1")
    others = [
        inner
        for number, block in enumerate(blocks[1:], 2)
        for inner in block_chapters(f, block, config, f"Block {number}")
    ]
    found = [*data_chapters(f, sentence, words, vocabulary, config), *first]
    if others:
        times = len(blocks) - 1
        found.append(same_again(f, blocks, others, times))
    norm = f.op("model.norm", "layer_norm")
    found.append(
        chapter(
            LOSS,
            "One last norm",
            "The sum has grown with every block. A last layer norm brings each vector back to one "
            "size before it is compared with the vocabulary.",
            norm,
            {norm.inputs[0]: "after the last block", norm.outputs[0]: "normalised"},
            boxes=["model.norm"],
        )
    )
    answers = dict(enumerate(words[1:]))
    seen = f'After "{words[0]}"'
    found += loss_chapters(f, answers, vocabulary, logits, "model.output", seen)
    found += gradient_chapters(f, words, blocks, logits)
    table = f.weight("model.token_embedding.weight")
    found += update_chapters(
        f,
        table,
        "the table of the words' vectors: a row for each word",
        (loss, after),
        RATE,
        f.op("model.token_embedding", "embedding"),
    )
    return found


def data_chapters(
    f: Finder, sentence: str, words: list[str], vocabulary: list[str], config: GPTConfig
) -> list[Chapter]:
    """Return the chapters from the sentence to the first block."""
    tokens, targets = f.input("tokens"), f.input("targets")
    lookup = f.op("model.token_embedding", "embedding")
    place = f.op("model.position_embedding", "embedding")
    add = f.op("model", "add", reads=lookup.outputs[0])
    entropy = f.op("", "cross_entropy")
    head = config.embed_dim // config.num_heads
    sizes = {
        "batch": "1",
        "context_length": str(config.context_length),
        "embed_dim": str(config.embed_dim),
        "head_size": str(head),
        "num_head": str(config.num_heads),
        "blocks": str(config.num_layers),
        "vocabulary": str(len(vocabulary)),
        "weights": f"{f.weights():,}",
    }
    return [
        chapter(
            BEFORE,
            f'One training iteration: "{sentence}"',
            "A GPT learns to write by guessing the next word, again and again. This is one such "
            "iteration with all of its numbers: the sentence goes in, the model guesses, the loss "
            "says how wrong it was, the gradient of each weight says which way is better, and "
            f"every weight moves a little. This small model has seen the sentence {EARLIER} times "
            "before, so that its numbers have begun to mean something. Step with the arrow keys; "
            "click on any number to see where it comes from.",
            lookup,
            {tokens: "what goes in", targets: "what should come out"},
            facts=sizes,
            boxes=["model"],
        ),
        chapter(
            BEFORE,
            "Words become numbers",
            f"The model knows {len(vocabulary)} words and signs, its vocabulary, and each has a "
            f"number: {_some(vocabulary)}. A word of the sentence, with its number, is called a "
            "token. Real models cut rare words into pieces, so that some 50,000 tokens write "
            "anything; the rest is the same.",
            lookup,
            {tokens: "tokens: the number of each word"},
            boxes=[tokens],
        ),
        chapter(
            BEFORE,
            "The target: the same sentence, one word later",
            "The right answer at each place is simply the word that comes next. So the target is "
            "the sentence moved by one place, and nobody had to write answers: any text is "
            f"training data. From one sentence the model learns {len(words) - 1} guesses at once: "
            f'after "{words[0]}" comes "{words[1]}", after "{words[0]} {words[1]}" comes '
            f'"{words[2]}", and so on.',
            entropy,
            {tokens: "what goes in", targets: "what should come out"},
            "target[i] = token[i + 1]",
            boxes=[tokens, targets],
        ),
        chapter(
            FORWARD,
            "Lookup: each word gets its vector",
            f"The embedding is a table with a row of {config.embed_dim} numbers for each word of "
            "the vocabulary. A token picks its row. At first the rows are random; training moves "
            "words that are used alike towards each other. Equal words have equal vectors here, "
            "wherever they stand.",
            lookup,
            {
                f.weight("model.token_embedding.weight"): "the table: a row for each word",
                lookup.outputs[0]: "the row of each token",
            },
            "x[i] = table[token[i]]",
            boxes=["model.token_embedding"],
        ),
        chapter(
            FORWARD,
            "Positions: which word comes first?",
            'Attention sees a set of words, without order: "dog bites man" would be "man bites '
            "dog\". So a second table has a vector for each place, and it is added: a word's "
            "vector now says what it is and where it stands.",
            add,
            {
                place.outputs[0]: "a vector for each place",
                add.outputs[0]: "word + place",
            },
            "x[i] = x[i] + position[i]",
            boxes=["model.position_embedding", add.id],
        ),
    ]


def _some(vocabulary: list[str]) -> str:
    shown = [f'"{word}" is {number}' for number, word in enumerate(vocabulary[:3])]
    return ", ".join(shown) + (", ..." if len(vocabulary) > 3 else "")


def block_chapters(f: Finder, block: str, config: GPTConfig, part: str) -> list[Chapter]:
    """Return the chapters of one block: attention, then the feed-forward network."""
    inside = f"{block}.attention"
    norm1, norm2 = f.op(f"{block}.norm1", "layer_norm"), f.op(f"{block}.norm2", "layer_norm")
    fused = f.op(inside, "scaled_dot_product_attention")
    project = f.op(f"{inside}.qkv", "linear")
    attended = f.out(f"{inside}.out")
    add1, add2 = f.reader(attended, "add"), f.reader(f.out(f"{block}.feed_forward.down"), "add")
    up, down = (
        f.op(f"{block}.feed_forward.up", "linear"),
        f.op(f"{block}.feed_forward.down", "linear"),
    )
    gelu = f.op(f"{block}.feed_forward", "gelu")
    looks = Looks(
        inside,
        part,
        fused,
        project,
        f"{inside}.out",
        config.num_heads,
        config.embed_dim // config.num_heads,
        causal=True,
        across="L",
    )
    return [
        chapter(
            part,
            "Norm: every vector at the same size",
            "Each vector is moved to the mean 0 and scaled to the spread 1; a learned weight and "
            "bias for each of its numbers follow. So whatever came before, what comes next "
            "gets numbers of the same size, which keeps training steady. Each word is normalised "
            "on its own.",
            norm1,
            {norm1.inputs[0]: "before: x", norm1.outputs[0]: "after: each row has mean 0"},
            "norm(x) = (x - mean) / spread * weight + bias",
            boxes=[f"{block}.norm1"],
        ),
        *attention_chapters(f, looks),
        chapter(
            part,
            "Residual: added to what was there",
            "What attention found does not replace the vector, it is added to it. So a block has "
            "to learn only what to change, and nothing is lost on the way. And in the backward "
            "pass a sum hands its gradient on unchanged: through these sums it reaches the first "
            "block as strong as the last, which is why deep models can be trained.",
            add1,
            {
                f.other(add1, attended): "x before",
                attended: "what attention found",
                add1.outputs[0]: "their sum: x from here on",
            },
            "x = x + attention(norm(x))",
        ),
        chapter(
            part,
            "Norm again",
            "The same as before attention, with a weight and bias of its own.",
            norm2,
            {norm2.inputs[0]: "before", norm2.outputs[0]: "after"},
            boxes=[f"{block}.norm2"],
        ),
        chapter(
            part,
            "Feed-forward: each word thinks on its own",
            f"Attention moved things between words; this network works on each word alone, the "
            f"same for all. It goes up from {config.embed_dim} to {config.hidden_dim} numbers, "
            "bends them with GELU, which lets positive numbers pass and holds negative ones back, "
            f"and goes down to {config.embed_dim} again. Without the bend, two matrices would be "
            "no more than one. Most weights of a large model are here.",
            gelu,
            {
                up.outputs[0]: "up",
                gelu.outputs[0]: "after GELU: little that is negative is left",
                down.outputs[0]: "down",
            },
            "down(gelu(up(x)))",
            boxes=[f"{block}.feed_forward"],
        ),
        chapter(
            part,
            "Residual again: the block is done",
            "The result is added too. What leaves the block has the shape of what came in, (N, L, "
            "E), so that blocks can be stacked.",
            add2,
            {
                f.other(add2, down.outputs[0]): "x before",
                down.outputs[0]: "what the network made",
                add2.outputs[0]: "x after this block",
            },
            "x = x + feed_forward(norm(x))",
        ),
    ]


def same_again(f: Finder, blocks: list[str], others: list[Chapter], times: int) -> Chapter:
    """Return the chapter that stands for all blocks but the first."""
    return Chapter(
        f"The same {times} times more" if times > 1 else "The same once more",
        f"Blocks 2 to {times + 1}" if times > 1 else "Block 2",
        f"{'Each of the other ' + str(times) if times > 1 else 'The other'} "
        f"block{'s do' if times > 1 else ' does'} the same with weights of its own, on what the "
        "block before has made. Early blocks tend to look at what stands near, later ones at "
        "what belongs together.",
        "x = block(x)",
        {},
        list(blocks[1:]),
        {f.out(block): f"x after block {number}" for number, block in enumerate(blocks, 1)},
        *_place(f, blocks[0]),
        others,
    )


def _place(f: Finder, path: str) -> tuple[str, str]:
    node = next(n for n in f.runs(path) if n.group == path)
    return node.source, node.code


def gradient_chapters(f: Finder, words: list[str], blocks: list[str], logits: str) -> list[Chapter]:
    """Return the chapters of the backward pass, from the loss to the embeddings."""
    last = blocks[-1]
    fused = f.op(f"{last}.attention", "scaled_dot_product_attention")
    softmax = f.inner(fused, "softmax")
    back = f.of(fused)
    q, k, v = (
        next(
            key
            for key in back.outputs
            if f.value(key).of == fused.inputs[fused.input_names.index(name)]
        )
        for name in "qkv"
    )
    ends = {
        f.op(block, "add", reads=f.out(f"{block}.feed_forward.down")).outputs[0]: number
        for number, block in enumerate(blocks, 1)
    }
    flow = {f.gradient(key): f"after block {number}" for key, number in reversed(ends.items())}
    table = f.weight("model.token_embedding.weight")
    used = f.op("model.token_embedding", "embedding")
    up = f.op(f"{last}.feed_forward.up", "linear")
    return [
        seed_chapter(f, logits, f'In the first row that is "{words[1]}".'),
        weight_gradient(
            f,
            f"parameter:{up.group}.weight",
            "A weight's gradient",
            "The gradient goes back through the same ops in the opposite order, and each op "
            "knows one rule: from the gradient of its output it makes those of its inputs. For "
            "a matrix product these are matrix products again: the gradient of the weight is the "
            "sum, over all words, of what came in times what the output should change by. All "
            "words of the sentence share the weight, so all have their say. Here it is that of "
            "the last feed-forward network.",
            up,
        ),
        chapter(
            BACK,
            "Through the residual sums",
            "The gradient of x behind each block, from the last to the first. A sum gives "
            "its gradient to both sides as it is, so there is a straight way back; each block "
            "adds what comes through its attention and its network. Where two ways meet, "
            "gradients add up.",
            f.op(last, "add", reads=f.out(f"{last}.feed_forward.down")),
            flow,
            "d loss / d x = d loss / d (x + f(x)) + what comes back through f",
            boxes=list(blocks),
        ),
        chapter(
            BACK,
            "Through attention",
            "Back through the weighted sum, softmax and the scores: values learn what they "
            "should have given, queries and keys where one should have looked. Where the mask "
            "stood nothing comes back, for nothing went through.",
            fused,
            {
                softmax.outputs[0]: "the attention map, once more",
                q: "gradient of q",
                k: "gradient of k",
                v: "gradient of v",
            },
            boxes=[fused.id],
        ),
        chapter(
            BACK,
            "Back at the words",
            "At last the gradient reaches the table of vectors. A word that stands in the "
            "sentence more than once gets the sum. In this model the table is also the output's "
            "matrix (W is tied), so words that were wrongly thought likely are moved as well.",
            used,
            {
                f.gradient(used.outputs[0]): "gradient of each word's vector",
                f.arriving(table): "gradient of the table: the sum of both uses",
            },
            boxes=["model.token_embedding"],
        ),
    ]


def watched() -> dict[str, Watched]:
    """Return the tensors that are shown at each step of training."""

    def attention(f: Finder) -> str:
        fused = f.op("model.blocks.0.attention", "scaled_dot_product_attention")
        return f.inner(fused, "softmax").outputs[0]

    return learned(
        "model.token_embedding.weight",
        "the words' vectors",
        {"attention": (attention, "attention map of block 1")},
    )
