"""Every name of an axis holds at sizes that its trace never saw, or the axis is a number."""

from __future__ import annotations

import ast
import importlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from foreign import (
    bert,
    gradient_penalty,
    llama,
    nano_gpt,
    recurrent_loop,
    sampling,
    scalars,
    siamese,
    training_step,
)
from foreign import vit as plain_vit

import minitensor as mt
from minitensor import graph
from models.attention import MultiheadAttention
from models.bert import Bert
from models.bert import BertConfig as IncludedBertConfig
from models.gpt import GPT, GPTConfig
from models.recurrent import Recurrent, RecurrentConfig
from models.transformer import Transformer, TransformerConfig
from models.vit import VisionConfig, VisionTransformer

Program = tuple[Any, dict[str, Any]]  # a module or function, and its inputs
Sizes = dict[str, int]


def tokens(*shape: int) -> mt.Tensor:
    return mt.ones(*shape, dtype=mt.int64)


def make_transformer(N: int, S: int, L: int, E: int, H: int, F: int, V: int, W: int) -> Program:
    sizes = dict(d_model=E, nhead=H, dim_feedforward=F)
    layers = dict(num_encoder_layers=2, num_decoder_layers=2)
    model = Transformer(TransformerConfig(W, V, **sizes, **layers))  # type: ignore[arg-type]
    mask = model.generate_square_subsequent_mask(L)
    return model, {"src": tokens(N, S), "tgt": tokens(N, L), "tgt_mask": mask}


def make_attention(N: int, L: int, E: int, H: int) -> Program:
    return MultiheadAttention(E, H), {"x": mt.randn(N, L, E)}


def make_gpt(N: int, L: int, E: int, H: int, G: int, F: int, V: int, C: int) -> Program:
    return GPT(GPTConfig(V, C, E, 3, H, G, F)), {"tokens": tokens(N, L)}


def make_bert(N: int, L: int, E: int, H: int, F: int, V: int, P: int) -> Program:
    config = IncludedBertConfig(V, E, 2, H, F, max_position_embeddings=P)
    return Bert(config), {"input_ids": tokens(N, L)}


def make_recurrent(N: int, S: int, L: int, W: int, V: int, T: int) -> Program:
    model = Recurrent(RecurrentConfig(V, T, width=W, dropout=0.0)).eval()
    return model, {"src": tokens(N, S), "tgt": tokens(N, L)}


def make_vit(N: int, E: int, H: int, F: int, V: int, I: int, P: int) -> Program:  # noqa: E741
    config = VisionConfig(
        image_size=I, patch_size=P, num_classes=V, embed_dim=E, num_heads=H, dim_feedforward=F
    )
    return VisionTransformer(config), {"images": mt.rand(N, 1, I, I)}


def make_nano_gpt(B: int, T: int, C: int, n_head: int, V: int, block: int) -> Program:
    config = nano_gpt.GPTConfig(block_size=block, vocab_size=V, n_head=n_head, n_embd=C)
    return nano_gpt.GPT(config), {"idx": tokens(B, T), "targets": tokens(B, T)}


def make_foreign_bert(
    N: int, L: int, hidden_size: int, heads: int, F: int, V: int, num_labels: int, P: int
) -> Program:
    config = bert.BertConfig(
        vocab_size=V, hidden_size=hidden_size, num_attention_heads=heads, intermediate_size=F,
        max_position_embeddings=P, num_labels=num_labels,
    )  # fmt: skip
    mask = mt.ones(N, L, dtype=mt.int64)
    inputs = {"input_ids": tokens(N, L), "attention_mask": mask, "labels": tokens(N)}
    return bert.BertForSequenceClassification(config), inputs


def make_llama(
    bsz: int,
    seqlen: int,
    dim: int,
    n_heads: int,
    n_kv_heads: int,
    hidden_dim: int,
    vocab_size: int,
    most: int,
) -> Program:
    model = llama.Llama(vocab_size, dim, 3, n_heads, n_kv_heads, hidden_dim, most)
    return model, {"tokens": tokens(bsz, seqlen)}


def make_plain_vit(
    b: int, dim: int, heads: int, mlp_dim: int, num_classes: int, image: int, patch: int, wide: int
) -> Program:
    model = plain_vit.ViT(image, patch, 3, num_classes, dim, 5, heads, mlp_dim, wide)
    return model, {"img": mt.randn(b, 3, image, image)}


def make_recurrent_loop(batch: int, seq: int, vocab: int, embed: int, hidden: int) -> Program:
    return recurrent_loop.CharModel(vocab, embed, hidden), {"text": tokens(batch, seq)}


def make_siamese(N: int, in_dim: int, hidden: int, out_dim: int) -> Program:
    inputs = {"anchor": mt.randn(N, in_dim), "positive": mt.randn(N, in_dim)}
    return siamese.Siamese(in_dim, hidden, out_dim), inputs


def make_penalty(N: int, features: int, hidden: int) -> Program:
    inputs = {"real": mt.randn(N, features), "fake": mt.randn(N, features)}
    return gradient_penalty.make_loss(gradient_penalty.Critic(features, hidden)), inputs


def make_step(N: int, features: int, hidden: int, classes: int) -> Program:
    inputs = {"inputs": mt.randn(N, features), "labels": tokens(N)}
    return training_step.make_step(training_step.Net(features, hidden, classes)), inputs


def make_sampling(B: int, vocab_size: int, n_embd: int, T: int) -> Program:
    return sampling.Bigram(vocab_size, n_embd).generate, {"idx": tokens(B, T)}


def make_greedy(B: int, vocab_size: int, n_embd: int, T: int) -> Program:
    inputs = {"model": sampling.Bigram(vocab_size, n_embd), "idx": tokens(B, T)}
    return sampling.greedy, inputs


def make_scalars() -> Program:
    program, inputs, _ = scalars.example()
    return program, dict(inputs)


# Each has its sizes in the trace, those that have a name in `dims` first, and two others.
NAMED: dict[str, tuple[Callable[..., Program], str, Sizes, tuple[list[int], list[int]]]] = {
    "transformer": (
        make_transformer, "N S L E H F V W",
        {"N": 3, "S": 11, "L": 7, "E": 32, "H": 4, "F": 64, "V": 23, "W": 19},
        ([2, 9, 13, 30, 5, 52, 31, 41], [7, 6, 10, 24, 3, 38, 17, 29]),
    ),
    "attention": (
        make_attention, "N L E H", {"N": 3, "L": 7, "E": 16, "H": 2},
        ([5, 11, 24, 4], [2, 13, 30, 5]),
    ),
    "gpt": (
        make_gpt, "N L E H G F V C",
        {"N": 5, "L": 7, "E": 48, "H": 6, "G": 2, "F": 72, "V": 50, "C": 64},
        ([2, 11, 40, 10, 5, 66, 37, 29], [3, 13, 96, 12, 3, 58, 71, 43]),
    ),
    "bert": (
        make_bert, "N L E H F V P",
        {"N": 3, "L": 7, "E": 32, "H": 4, "F": 48, "V": 61, "P": 16},
        ([2, 11, 30, 5, 52, 37, 29], [5, 13, 42, 6, 58, 71, 19]),
    ),
    "recurrent": (
        make_recurrent, "N S L W V T", {"N": 3, "S": 5, "L": 7, "W": 16, "V": 11, "T": 13},
        ([2, 9, 6, 22, 19, 29], [5, 8, 10, 30, 37, 23]),
    ),
    "vit": (
        make_vit, "N E H F V", {"N": 3, "E": 28, "H": 7, "F": 44, "V": 11, "I": 10, "P": 5},
        ([2, 30, 5, 52, 13, 12, 4], [5, 24, 3, 38, 17, 21, 7]),
    ),
    "foreign.nano_gpt": (
        make_nano_gpt, "B T C n_head V", {"B": 3, "T": 11, "C": 48, "n_head": 4, "V": 29, "P": 16},
        ([2, 7, 30, 5, 37, 23], [5, 9, 42, 6, 41, 31]),
    ),
    "foreign.bert": (
        make_foreign_bert, "N L hidden_size heads F V num_labels",
        {"N": 7, "L": 13, "h": 24, "heads": 3, "F": 52, "V": 37, "n": 5, "P": 20},
        ([2, 9, 30, 5, 46, 41, 3, 23], [3, 11, 28, 4, 38, 53, 6, 31]),
    ),
    "foreign.llama": (
        make_llama, "bsz seqlen dim n_heads n_kv_heads hidden_dim vocab_size",
        {"b": 3, "l": 11, "d": 60, "n": 6, "k": 2, "h": 88, "v": 41, "m": 16},
        ([2, 9, 40, 10, 5, 66, 37, 29], [5, 13, 96, 12, 3, 58, 71, 43]),
    ),
    "foreign.vit": (
        make_plain_vit, "b dim heads mlp_dim num_classes",
        {"b": 5, "d": 36, "h": 2, "m": 56, "n": 7, "i": 12, "p": 4, "w": 18},
        ([2, 30, 5, 44, 11, 10, 5, 14], [3, 28, 4, 38, 13, 18, 3, 10]),
    ),
    "foreign.recurrent_loop": (
        make_recurrent_loop, "batch seq vocab embed hidden",
        {"b": 3, "s": 7, "v": 17, "e": 12, "h": 20},
        ([2, 9, 23, 14, 26], [5, 6, 29, 22, 10]),
    ),
    "foreign.siamese": (
        make_siamese, "N in_dim hidden out_dim", {"N": 6, "i": 10, "h": 24, "o": 14},
        ([5, 13, 18, 22], [9, 16, 30, 11]),
    ),
    "foreign.gradient_penalty": (
        make_penalty, "N features hidden", {"N": 5, "f": 10, "h": 16},
        ([3, 14, 22], [8, 12, 26]),
    ),
    "foreign.sampling": (
        make_sampling, "B vocab_size n_embd", {"B": 3, "v": 19, "n": 14, "T": 4},
        ([2, 23, 10, 6], [5, 29, 22, 7]),
    ),
    "foreign.sampling greedy": (
        make_greedy, "B vocab_size n_embd", {"B": 3, "v": 19, "n": 14, "T": 4},
        ([2, 23, 10, 6], [5, 29, 22, 7]),
    ),
    "foreign.training_step": (
        make_step, "N features hidden classes", {"N": 4, "f": 10, "h": 18, "c": 6},
        ([3, 14, 22, 9], [7, 12, 26, 5]),
    ),
    "foreign.scalars": (make_scalars, "", {}, ([], [])),
}  # fmt: skip


def value_of(label: str, sizes: Sizes) -> float:
    """Return the size that a formula of names has; it fails for a formula of another kind."""
    written = re.sub(r"[A-Za-z_]\w*", lambda found: str(sizes[found[0]]), label)
    assert re.fullmatch(r"[\d+*/()^ -]+", written), label
    return float(eval(written.replace("^", "**")))


def compare(g: graph.Graph, other: graph.Graph, sizes: Sizes) -> tuple[list[str], set[int], int]:
    """Return the wrong names, the numbers that differ in the other graph, and the axes compared."""
    wrong, numbers, count = [], set[int](), 0
    for value in g.values.values():
        twin = other.values.get(value.id)
        if twin is None or len(twin.shape) != len(value.shape):
            continue
        for label, n, m in zip(value.dims, value.shape, twin.shape, strict=True):
            count += 1
            if label.isdigit():
                assert int(label) == n
                numbers |= {n} if m != n else set()
            elif value_of(label, sizes) != m:
                wrong.append(f"{value.id}: {label} is {value_of(label, sizes)}, but the size {m}")
    return wrong, numbers, count


@pytest.mark.parametrize("name", NAMED)
def test_every_name_holds_at_other_sizes_and_every_number_has_a_note(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build, named, first, others = NAMED[name]
    names = named.split()
    dims = dict(zip(names, first.values(), strict=False))
    if name != "transformer":
        module, _, greedy = name.partition(" ")
        where = "tests." if module.startswith("foreign") else "models."
        example = importlib.import_module(where + module)
        example = example.example_greedy() if greedy else example.example()
        assert example[2] == dims  # the example that readers see is the one that is checked
    backward = name in ("attention", "foreign.siamese", "foreign.recurrent_loop")
    traces: list[graph.Graph] = []
    made: list[int] = []  # modules, during each trace
    init = mt.nn.Module.__init__

    def count_and_make(module: mt.nn.Module) -> None:
        made[-1] += 1
        init(module)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sizes in (list(first.values()), *others):
            mt.manual_seed(0)
            program, inputs = build(*sizes)
            wanted: dict[str, Any] = {} if traces else {"dims": dims}
            made.append(0)
            with monkeypatch.context() as patch:
                patch.setattr(mt.nn.Module, "__init__", count_and_make)
                traces.append(graph.trace(program, **inputs, backward=backward, **wanted))
    assert capsys.readouterr() == ("", "")
    assert made[0] <= 4 * made[1]  # none but those that a program makes as it runs
    g = traces[0]
    notes = [note for note in g.notes if note.startswith("dims: ")]
    assert len(set(notes)) == len(notes) <= 3
    assert all(len(note) <= 240 and "\n" not in note for note in notes)
    noted = {int(n) for note in g.notes for n in re.findall(r"(?<![\w.=])\d+", note)}
    for other, sizes in zip(traces[1:], others, strict=True):
        wrong, numbers, count = compare(g, other, dict(zip(names, sizes, strict=False)))
        assert not wrong
        assert count >= 2 * len(g.inputs) or not dims
        assert numbers <= noted, g.notes


@pytest.mark.parametrize(
    "name", ["gpt", "foreign.nano_gpt", "foreign.vit", "foreign.training_step"]
)
def test_the_entries_that_notes_give_name_the_rest(name: str) -> None:
    build, named, first, _ = NAMED[name]
    mt.manual_seed(0)
    program, inputs = build(*first.values())
    dims: dict[str, int | str] = {named.split()[0]: next(iter(first.values()))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for given in (True, False):
            g = graph.trace(program, **inputs, dims=dims)
            entries = re.findall(r"Add to dims: (\{.*?\})", "\n".join(g.notes))
            assert bool(entries) == given, g.notes
            for entry in entries:
                dims |= ast.literal_eval(entry)
