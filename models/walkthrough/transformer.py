"""One training iteration of the encoder-decoder Transformer: a sentence and its translation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn, optim
from minitensor.graph import Chapter, Graph

from ..command import InputError
from ..text import BOS, EOS, SPECIAL, normalize
from ..transformer import Transformer, TransformerConfig
from .finder import Finder, chapter
from .heads import Looks, attention_chapters
from .training import (
    BACK,
    BEFORE,
    Iteration,
    Watched,
    learned,
    loss_chapters,
    probability_of,
    seed_chapter,
    split,
    update_chapters,
    weight_gradient,
)

SENTENCES = "I like apples", "j'aime les pommes"
SIZES = dict(d_model=6, nhead=2, num_encoder_layers=2, num_decoder_layers=2, dim_feedforward=24)
RATE = 0.1
EARLIER = 5
SOURCE, TARGET = "Encoder", "Decoder"


class TrainingStep(nn.Module):
    """One iteration of training: forward, loss, backward, update."""

    def __init__(self, model: Transformer, rate: float) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optim.SGD(model.parameters(), lr=rate)

    def forward(self, src: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the probabilities (N, L, V) before the update."""
        self.optimizer.zero_grad()
        tgt = self.model.shift_right(target)
        tgt_mask = self.model.generate_square_subsequent_mask(target.shape[1])
        logits = self.model(src, tgt, tgt_mask=tgt_mask)
        with mt.no_grad():
            probabilities = logits.softmax(-1)  # to be looked at
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        loss.backward()
        self.optimizer.step()
        return loss, probabilities


class Pair:
    """A sentence and its translation as a model reads them: words, and their numbers."""

    def __init__(
        self,
        source: str,
        target: str,
        words: tuple[list[str], list[str]],
        vocabularies: tuple[list[str], list[str]],
    ) -> None:
        self.texts = source, target
        self.source = [*words[0], SPECIAL[EOS]]
        self.target = [*words[1], SPECIAL[EOS]]
        self.given = [SPECIAL[BOS], *words[1]]  # to the decoder
        self.source_vocabulary, self.target_vocabulary = vocabularies
        self.src = [self.source_vocabulary.index(word) for word in self.source]
        self.tgt = [self.target_vocabulary.index(word) for word in self.target]


def new_pair(source: str, target: str) -> Pair:
    """Return a pair whose vocabularies are its own words."""
    words = split(source, 1), split(target, 1)
    known = [list(dict.fromkeys([*SPECIAL, *each])) for each in words]
    return Pair(source, target, words, (known[0], known[1]))


def iteration(pair: Pair, model: Transformer, rate: float) -> Iteration:
    """Return the training step of a model on a pair."""
    return Iteration(
        "Transformer: one training iteration",
        TrainingStep(model, rate),
        {"src": mt.tensor([pair.src]), "target": mt.tensor([pair.tgt])},
        {
            "src": "N S",
            "target": "N L",
            "d_model": "E",
            "nhead": "H",
            "tgt_vocab_size": "V",
            "src_vocab_size": "V_source",
            "dim_feedforward": "F",
        },
        {
            "S": pair.source,
            "L": pair.given,
            "N*L": pair.given,
            "V": pair.target_vocabulary,
            "V_source": pair.source_vocabulary,
            "H": [f"head {number + 1}" for number in range(model.config.nhead)],
        },
    )


def new_model(pair: Pair, seed: int) -> Transformer:
    """Return a small model with random weights."""
    mt.manual_seed(seed)
    sizes: dict[str, Any] = SIZES
    known = len(pair.source_vocabulary), len(pair.target_vocabulary)
    return Transformer(TransformerConfig(*known, dropout=0.0, **sizes))


def trained(
    run: str | Path, sentence: str | None, translation: str | None
) -> tuple[Pair, Transformer]:
    """Return the model of a run's folder, and a sentence with its translation, or the model's own.

    InputError for a folder without a run, and for a word that the model does not know.
    """
    from ..training import load_trained
    from ..translate import Translator
    from ..translation import Translation

    translator = Translator(load_trained(run, Translation))
    source = normalize(sentence or "three hundred and forty-two")
    target = normalize(translation or translator.translate([source])[0])
    vocabularies = translator.source_vocabulary, translator.target_vocabulary
    pieces = [known.pieces(range(len(known))) for known in vocabularies]
    numbers = [known.encode(t) for known, t in zip(vocabularies, (source, target), strict=True)]
    words = [[each[number] for number in row] for each, row in zip(pieces, numbers, strict=True)]
    if not words[0] or not words[1]:
        raise InputError(f"{source!r} and its translation {target!r} must have words")
    pair = Pair(source, target, (words[0], words[1]), (pieces[0], pieces[1]))
    return pair, translator.model.eval()


def walkthrough(
    source: str | None = None,
    target: str | None = None,
    seed: int = 0,
    steps: int = 0,
    run: str | Path | None = None,
) -> Graph:
    """Return the graph of one training iteration, with its chapters."""
    if run is not None:
        if steps:
            raise InputError("--steps shows how a new model learns: leave out --run")
        pair, model = trained(run, source, target)
    else:
        if source is not None and target is None:
            raise InputError("transformer takes two sentences: one and its translation")
        pair = new_pair(source or SENTENCES[0], target or SENTENCES[1])
        model = new_model(pair, seed)
    rate = RATE if run is None else RATE / 10
    it = iteration(pair, model, rate)
    if run is None:
        it.run(EARLIER)
    graph = it.graph()
    graph.chapters = chapters(Finder(graph), pair, model.config, rate, it.run(), run is not None)
    if steps:
        again = iteration(pair, new_model(pair, seed), rate)
        graph.chapters.append(again.training(graph, watched(), steps))
    return graph


def layers(f: Finder, kind: str) -> list[str]:
    """Return the paths of the layers of a class, in their order."""
    found = [key for key, group in f.graph.groups.items() if group.kind == kind]
    return sorted(found, key=lambda key: int(key.rpartition(".")[2]))


def chapters(
    f: Finder, pair: Pair, config: TransformerConfig, rate: float, after: float, is_trained: bool
) -> list[Chapter]:
    """Return all chapters but that of several steps."""
    encoder, decoder = layers(f, "EncoderLayer"), layers(f, "DecoderLayer")
    logits = f.named("", "logits")
    memory = f.out("model.encoder")
    loss = float(f.array(f.op("", "cross_entropy").outputs[0]))
    found = data_chapters(f, pair, config, is_trained)
    found += word_chapters(f, "src", SOURCE, pair.source, config)
    found += layer_chapters(f, encoder[0], config, f"{SOURCE}, layer 1")
    found += more(f, encoder, config, SOURCE)
    found.append(
        chapter(
            SOURCE,
            "The memory: the source, understood",
            "The encoder is done: one vector for each source word, which knows of all the others. "
            "The decoder will look at these vectors in each of its layers. For a whole "
            "translation they are computed once.",
            f.maker(memory),
            {memory: "the memory: a vector for each source word"},
            boxes=["model.encoder"],
        )
    )
    found += word_chapters(f, "tgt", TARGET, pair.given, config)
    found += layer_chapters(f, decoder[0], config, f"{TARGET}, layer 1", memory)
    found += more(f, decoder, config, TARGET, memory)
    answers, seen = dict(enumerate(pair.target)), f'After "{pair.given[0]}"'
    found += loss_chapters(f, answers, pair.target_vocabulary, logits, "model.output", seen)
    found += gradient_chapters(f, pair, encoder, decoder, logits, memory)
    found += update_chapters(
        f,
        f.weight("model.output.weight"),
        "the matrix of the output: a row for each word of the target's vocabulary",
        (loss, after),
        rate,
        f.op("model.output", "linear"),
    )
    return found


def data_chapters(
    f: Finder, pair: Pair, config: TransformerConfig, is_trained: bool
) -> list[Chapter]:
    """Return the chapters of the two sentences."""
    src, target = f.input("src"), f.input("target")
    shift = f.op("", "cat", name="tgt")
    tgt = shift.outputs[0]
    lookup = f.op("model.src_embedding", "embedding")
    state = (
        "This model has been trained; dropout is off."
        if is_trained
        else f"This small model has seen the pair {EARLIER} times before, so that its numbers have "
        "begun to mean something."
    )
    sizes = {
        "batch": "1",
        "d_model": str(config.d_model),
        "heads": str(config.nhead),
        "head size": str(config.d_model // config.nhead),
        "feed-forward": str(config.dim_feedforward),
        "layers": f"{config.num_encoder_layers} + {config.num_decoder_layers}",
        "source words": str(len(pair.source_vocabulary)),
        "target words": str(len(pair.target_vocabulary)),
        "weights": f"{f.weights():,}",
    }
    return [
        chapter(
            BEFORE,
            f'One training iteration: "{pair.texts[0]}" \N{RIGHTWARDS ARROW} "{pair.texts[1]}"',
            "A Transformer learns to translate from pairs of sentences. The encoder reads the "
            "source; the decoder writes the target, word by word, and looks at the source while "
            "it does. This is one iteration of its training with all of its numbers: forward, "
            f"loss, gradients, update. {state} Step with the arrow keys; click on any number to "
            "see where it comes from.",
            lookup,
            {src: "the source", target: "the target: what should come out"},
            facts=sizes,
            boxes=["model"],
        ),
        chapter(
            BEFORE,
            "Words become numbers",
            f"Each language has a vocabulary, and each word its number in it. "
            f'"{SPECIAL[EOS]}" ends a sentence: the model has to learn when to stop as well. '
            f"Four numbers are kept for special tokens: {', '.join(SPECIAL)}.",
            lookup,
            {src: f'"{pair.texts[0]}" in numbers', target: f'"{pair.texts[1]}" in numbers'},
            boxes=[src, target],
        ),
        chapter(
            BEFORE,
            "The shifted target: what the decoder sees",
            f'The decoder gets the target too, moved by one place: it begins with "{SPECIAL[BOS]}" '
            f'and leaves out the last word. So at the place where it should say "{pair.target[0]}" '
            f'it has seen only "{SPECIAL[BOS]}"; where it should say "{pair.target[1]}", it has '
            f'seen "{SPECIAL[BOS]} {pair.given[1].strip()}". It is always given the right words '
            "before, even where it would have said something else: this is called teacher "
            "forcing. When it really translates, it is given its own words instead.",
            shift,
            {tgt: "what the decoder sees", target: "what it should say at each place"},
            "decoder input = <s>, target[0], target[1], ...",
            boxes=[shift.id],
        ),
        chapter(
            BEFORE,
            "Why all words can go in at once",
            "Since the right words are known in training, no place has to wait for the one "
            "before it: all of them go through the decoder at the same time, as rows of one "
            "matrix, and each row learns to predict its next word. A mask in the decoder's "
            "attention sees to it that no row looks at the words after it. This is what makes a "
            "Transformer faster to train than a recurrent network, which must read word by word.",
            f.op("model.output", "linear"),
            {tgt: "all rows go in at once", f.named("", "logits"): "and all predictions come out"},
            boxes=["model"],
        ),
    ]


def word_chapters(
    f: Finder, side: str, part: str, words: list[str], config: TransformerConfig
) -> list[Chapter]:
    """Return the chapters of a sentence's vectors and positions."""
    table = f"model.{side}_embedding"
    lookup = f.op(table, "embedding")
    scaled = f.reader(lookup.outputs[0], "mul")
    add = f.reader(scaled.outputs[0], "add")
    place = f.other(add, scaled.outputs[0])
    again = (
        ""
        if side == "src"
        else " The target's language has tables of its own. Here it is the shifted target."
    )
    root = f"\N{SQUARE ROOT}{config.d_model}"
    return [
        chapter(
            part,
            "Lookup: each word gets its vector",
            f"The embedding is a table with a row of {config.d_model} numbers for each word of "
            "the vocabulary; a token picks its row. At first the rows are random, and training "
            f"moves words that are used alike towards each other.{again} The row is multiplied by "
            f"{root} = {config.d_model**0.5:.3g}, so that it is not drowned by the positions that "
            "come next.",
            lookup,
            {
                f.weight(f"{table}.weight"): "the table: a row for each word",
                lookup.outputs[0]: "the row of each token",
                scaled.outputs[0]: f"times {root}",
            },
            f"x[i] = table[token[i]] * {root}",
            boxes=[table, scaled.id],
        ),
        chapter(
            part,
            "Positions: which word comes first?",
            'Attention sees a set of words, without order: "dog bites man" would be "man bites '
            'dog". So each place has a vector of its own, made of sines and cosines of different '
            "lengths, and it is added: a word's vector now says what it is and where it stands.",
            add,
            {place: "a vector for each place", add.outputs[0]: "word + place"},
            "x[i] = x[i] + position[i]",
            boxes=[add.id, f"model.{side}_positions"],
        ),
    ]


def layer_chapters(
    f: Finder, layer: str, config: TransformerConfig, part: str, memory: str = ""
) -> list[Chapter]:
    """Return the chapters of one layer; of the decoder, if it looks at a memory."""
    across = "L" if memory else "S"
    found = attention_of(f, layer, "self_attn", config, part, across, causal=bool(memory))
    found += around(f, layer, config, "norm1", "self_attn.out_proj", part, "attention")
    if memory:
        found += attention_of(f, layer, "multihead_attn", config, part, "S", cross=True)
        found += around(f, layer, config, "norm2", "multihead_attn.out_proj", part, "attention")
    up, down = f.op(f"{layer}.linear1", "linear"), f.op(f"{layer}.linear2", "linear")
    bend = f.reader(up.outputs[0], config.activation)
    norm = "norm3" if memory else "norm2"
    found += before(f, layer, config, norm, part)
    found.append(
        chapter(
            part,
            "Feed-forward: each word thinks on its own",
            "Attention moved things between words; this network works on each word alone, the "
            f"same for all. It goes up from {config.d_model} to {config.dim_feedforward} numbers, "
            "sets the negative ones to 0 (ReLU), and goes down again. Without that bend, two "
            "matrices would be no more than one.",
            bend,
            {
                up.outputs[0]: "up",
                bend.outputs[0]: "after ReLU: nothing negative is left",
                down.outputs[0]: "down",
            },
            "down(relu(up(x)))",
            boxes=[up.id, bend.id, down.id],
        )
    )
    found += around(f, layer, config, norm, "linear2", part, "feed_forward")
    return found


def attention_of(
    f: Finder,
    layer: str,
    name: str,
    config: TransformerConfig,
    part: str,
    across: str,
    causal: bool = False,
    cross: bool = False,
) -> list[Chapter]:
    """Return the chapters of one attention of a layer, and of the norm before it."""
    path = f"{layer}.{name}"
    looks = Looks(
        path,
        part,
        None,
        f.op(path, "linear"),
        f"{path}.out_proj",
        config.nhead,
        config.d_model // config.nhead,
        cross,
        causal,
        across,
    )
    return [
        *before(f, layer, config, "norm2" if cross else "norm1", part),
        *attention_chapters(f, looks),
    ]


NORM = (
    "Each vector is moved to the mean 0 and scaled to the spread 1; a learned weight and bias for "
    "each of its numbers follow. So what comes next gets numbers of the same size, which keeps "
    "training steady. Each word is normalised on its own."
)
RESIDUAL = (
    "What was found does not replace the vector, it is added to it. So a layer has to learn only "
    "what to change, and in the backward pass a sum hands its gradient on unchanged: it reaches "
    "the first layer as strong as the last, which is why deep models can be trained."
)


def before(f: Finder, layer: str, config: TransformerConfig, norm: str, part: str) -> list[Chapter]:
    """Return the chapter of a norm before a sub-layer, if the model is pre-norm."""
    if not config.norm_first:
        return []
    node = f.op(f"{layer}.{norm}", "layer_norm")
    return [
        chapter(
            part,
            "Norm: every vector at the same size",
            NORM,
            node,
            {node.inputs[0]: "before", node.outputs[0]: "after: each row has mean 0"},
            "norm(x) = (x - mean) / spread * weight + bias",
            boxes=[f"{layer}.{norm}"],
        )
    ]


def around(
    f: Finder, layer: str, config: TransformerConfig, norm: str, inner: str, part: str, name: str
) -> list[Chapter]:
    """Return the chapter of a residual sum, and of the norm after it if the model is post-norm."""
    made = f.out(f"{layer}.{inner}")
    add = f.reader(made, "add")
    residual = chapter(
        part,
        "Residual: added to what was there",
        RESIDUAL,
        add,
        {f.other(add, made): "x before", made: "what was found", add.outputs[0]: "their sum"},
        f"x = x + {name}(norm(x))" if config.norm_first else f"x + {name}(x)",
    )
    if config.norm_first:
        return [residual]
    node = f.op(f"{layer}.{norm}", "layer_norm")
    after = chapter(
        part,
        "Norm: every vector at the same size",
        NORM,
        node,
        {add.outputs[0]: "before", node.outputs[0]: "after: each row has mean 0"},
        f"x = norm(x + {name}(x))",
        boxes=[f"{layer}.{norm}"],
    )
    return [residual, after]


def more(
    f: Finder, paths: list[str], config: TransformerConfig, part: str, memory: str = ""
) -> list[Chapter]:
    """Return the chapter that stands for all layers but the first, if there are more."""
    if len(paths) < 2:
        return []
    times = len(paths) - 1
    inner = [
        each
        for number, path in enumerate(paths[1:], 2)
        for each in layer_chapters(f, path, config, f"{part}, layer {number}", memory)
    ]
    first = next(iter(f.runs(paths[0])))
    return [
        Chapter(
            f"The same {times} times more" if times > 1 else "The same once more",
            f"{part}, layers 2 to {len(paths)}" if times > 1 else f"{part}, layer 2",
            f"{'The other layers do' if times > 1 else 'The second layer does'} the same with "
            "weights of their own, on what the layer before has made."
            if times > 1
            else "The second layer does the same with weights of its own, on what the first has "
            "made.",
            "x = layer(x)",
            {},
            list(paths[1:]),
            {f.out(path): f"after layer {number}" for number, path in enumerate(paths, 1)},
            first.source,
            first.code,
            inner,
        )
    ]


def gradient_chapters(
    f: Finder, pair: Pair, encoder: list[str], decoder: list[str], logits: str, memory: str
) -> list[Chapter]:
    """Return the chapters of the backward pass."""
    cross = f"{decoder[-1]}.multihead_attn"
    softmax, product = f.op(cross, "softmax"), f.op(cross, "matmul")
    queries, keys = product.inputs[0], f.maker(product.inputs[1]).inputs[0]
    values = f.op(cross, "matmul", reads=softmax.outputs[0]).inputs[1]
    p = probability_of(f, pair.target[0], pair.target_vocabulary)
    table = f.weight("model.src_embedding.weight")
    used = f.op("model.src_embedding", "embedding")
    flow = {
        f.gradient(f.out(path)): f"after decoder layer {number}"
        for number, path in reversed(list(enumerate(decoder, 1)))
    }
    flow[f.gradient(memory)] = "of the memory: from all decoder layers together"
    flow |= {
        f.gradient(f.out(path)): f"after encoder layer {number}"
        for number, path in reversed(list(enumerate(encoder, 1)))
    }
    output = f.op("model.output", "linear")
    return [
        seed_chapter(
            f,
            logits,
            f'In the first row that is "{pair.target[0].strip()}", which has {p:.1%} now.',
        ),
        weight_gradient(
            f,
            f.weight("model.output.weight"),
            "A weight's gradient",
            "The gradient goes back through the same ops in the opposite order, and each op "
            "knows one rule: from the gradient of its output it makes those of its inputs. For a "
            "matrix product these are matrix products again: the gradient of the weight is the "
            "sum, over all words, of what came in times what the output should change by. Here "
            "it is the matrix that makes logits.",
            output,
        ),
        chapter(
            BACK,
            "Back through cross attention",
            "Here the gradient parts: that of the queries goes on down the decoder, that of the "
            "keys and values goes to the memory. It is the only way by which the encoder learns "
            "anything: the loss tells the decoder, and the decoder tells the encoder what it "
            "would have liked to read.",
            softmax,
            {
                softmax.outputs[0]: "the attention map, once more",
                f.gradient(queries): "gradient of the queries",
                f.gradient(keys): "gradient of the keys",
                f.gradient(values): "gradient of the values",
            },
            boxes=[cross],
        ),
        chapter(
            BACK,
            "From the last layer to the first",
            "The gradient of what each layer made, from the end of the decoder to the beginning "
            "of the encoder. The residual sums hand it on as it is; each layer adds what comes "
            "back through its attention and its network. Where several ways meet, as at the "
            "memory, gradients add up.",
            next(iter(f.runs(decoder[-1]))),
            flow,
            boxes=[*encoder, *decoder],
        ),
        chapter(
            BACK,
            "Back at the words",
            "At last the gradient reaches the tables of vectors: only the rows of words in the "
            "sentence have one, all others stay as they are.",
            used,
            {
                f.gradient(used.outputs[0]): "gradient of each source word's vector",
                f.arriving(table): "gradient of the table: 0 for words that were not used",
            },
            boxes=["model.src_embedding"],
        ),
    ]


def watched() -> dict[str, Watched]:
    """Return the tensors that are shown at each step of training."""

    def cross(f: Finder) -> str:
        return f.op("model.decoder.layers.0.multihead_attn", "softmax").outputs[0]

    looks = "where each target word looks in the source, decoder layer 1"
    return learned(
        "model.src_embedding.weight",
        "the source words' vectors",
        {"cross attention": (cross, looks)},
    )
