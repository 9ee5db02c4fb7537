"""Names of sizes are right or they are numbers."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from work import lines_run

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import graph, nn
from minitensor.core import OPS
from minitensor.graph.ties import named_axes
from minitensor.testing import samples
from models.transformer import Transformer, TransformerConfig

CLASSIC = {"N": 2, "M": 7, "M_target": 5, "E": 16, "nhead": 2, "vocab_size": 11}


def classic(**changes: Any) -> tuple[Transformer, mt.Tensor, mt.Tensor, mt.Tensor]:
    mt.manual_seed(0)
    config: dict[str, Any] = dict(d_model=16, nhead=2, num_encoder_layers=2, num_decoder_layers=2)
    model = Transformer(TransformerConfig(11, 11, **{**config, "dim_feedforward": 64, **changes}))
    src, tgt = mt.randint(3, 11, (2, 7)), mt.randint(3, 11, (2, 5))
    return model, src, tgt, model.generate_square_subsequent_mask(5)


TABLE = [
    ("tokens", "(N, M)"),
    ("embedding", "(N, M, E)"),
    ("position", "(M, E)"),
    ("sum", "(N, M, E)"),
    ("q", "(N, nhead, M, E/nhead)"),
    ("k", "(N, nhead, M, E/nhead)"),
    ("v", "(N, nhead, M, E/nhead)"),
    ("scores", "(N, nhead, M, M)"),
    ("weights", "(N, nhead, M, M)"),
    ("head", "(N, nhead, M, E/nhead)"),
    ("concatenation", "(N, M, E)"),
    ("feedforward_in", "(N, M, E)"),
    ("feedforward_out", "(N, M, E)"),
    ("encoder_output", "(N, M, E)"),
    ("target_embedding", "(N, M_target, E)"),
    ("decoder_output", "(N, M_target, E)"),
    ("probabilities", "(N, M_target, vocab_size)"),
]


@pytest.fixture(scope="module")
def explained() -> graph.Graph:
    model, src, tgt, mask = classic()
    return graph.trace(
        model.explain, src, tgt, tgt_mask=mask, dims=CLASSIC, backward=True, decompose=True
    )


@pytest.mark.parametrize(("name", "shape"), TABLE, ids=[name for name, _ in TABLE])
def test_the_classic_shape_table_is_found_by_name(
    explained: graph.Graph, name: str, shape: str
) -> None:
    found = [v for v in explained.find(name) if isinstance(v, graph.Value) and name in v.names]
    assert shape in {v.label for v in found}


def test_every_tensor_of_both_passes_has_its_names(explained: graph.Graph) -> None:
    for value in explained.values.values():
        assert len(value.dims) == len(value.shape)
        of = explained.values.get(value.of or "")
        if value.kind == "gradient" and of is not None:
            assert value.dims == of.dims
        if value.kind in ("activation", "input", "gradient"):
            for name, size in zip(value.dims, value.shape, strict=True):
                assert size in (1, 64) or not name.isdigit() or "masks" in value.id, value


def test_a_batch_and_heads_of_one_size_are_told_apart() -> None:
    model, src, tgt, mask = classic()
    g = graph.trace(model, src, tgt, tgt_mask=mask, dims=CLASSIC, decompose=True)
    scores = {v.label for v in g.values.values() if len(v.shape) == 4 and v.shape[-1] == 7}
    assert "(N, nhead, M, M)" in scores
    assert "(N, nhead, M_target, M)" in scores
    assert g.values["encoder.layers.0.self_attn/linear:0"].label == "(N, M, 3*E)"
    assert g.notes == [
        'dims: 64 stays a number without a name. Add to dims: {"dim_feedforward": "F"}.'
    ]


def test_formulas() -> None:
    def f(x: mt.Tensor) -> tuple[mt.Tensor, ...]:
        flat = x.flatten()
        return flat, mt.cat([x, x], 1), x[:, 1:], mt.cat([x, mt.zeros(x.shape[0], 1)], 1), x @ x.T

    g = graph.trace(f, mt.rand(6, 4), dims={"A": 6, "B": 4})
    labels = [g.values[v].label for v in g.outputs]
    assert labels == ["(A*B)", "(A, 2*B)", "(A, B-1)", "(A, B+1)", "(A, A)"]


def test_what_cannot_vary_is_named_by_its_value_if_that_is_clear() -> None:
    weight = mt.rand(16, 5)
    g = graph.trace(lambda x: x @ weight, mt.rand(3, 16), dims={"N": 3, "V": 5})
    assert g.values[g.outputs[0]].label == "(N, V)"
    with pytest.warns(UserWarning, match="stays? a? ?number"):
        g = graph.trace(
            lambda a, b: (a @ weight, b), mt.rand(3, 16), mt.rand(3, 2), dims={"N": 3, "V": 5}
        )
    # The first axes of a and b need not be equal: neither is surely N.
    assert g.values[g.outputs[0]].label == "(3, V)"


def test_two_names_for_one_size_stay_numbers_and_say_which() -> None:
    model = nn.Linear(4, 4, bias=False)
    with pytest.warns(UserWarning, match="A and B are both 4, .* stays a number"):
        g = graph.trace(lambda x: model(x), mt.rand(3, 4), dims={"N": 3, "A": 4, "B": 4})
    assert g.values[g.outputs[0]].label == "(N, 4)"
    # With the settings' own names they are clear.
    g = graph.trace(nn.Linear(4, 4), mt.rand(3, 4), dims={"in_features": 4, "out_features": 4})
    assert g.values[g.outputs[0]].label == "(3, out_features)"
    assert g.values["parameter:weight"].label == "(out_features, in_features)"


@pytest.mark.parametrize(
    ("model", "shapes", "dims", "wanted"),
    [
        (nn.MultiheadAttention(16, 2, batch_first=True), [(2, 7, 16)] * 3,
         {"N": 2, "L": 7, "E": 16, "H": 2}, "(N, L, 3*E)"),
        (nn.Linear(4, 4), [(3, 4)], {"N": 3, "A": 4, "B": 4}, "(N, B)"),
        (nn.Sequential(nn.Linear(5, 3)), [(3, 5)], {"N": 3}, "(N, 3)"),
        (nn.Sequential(nn.Linear(5, 3)), [(2, 5)], {"N": 2}, "(N, 3)"),
    ],
)  # fmt: skip
def test_the_entries_that_a_note_gives_are_taken(
    model: nn.Module, shapes: list[tuple[int, ...]], dims: dict[str, int], wanted: str
) -> None:
    inputs, seen = [mt.rand(shape) for shape in shapes], set[str]()
    given: dict[str, int | str] = {**dims}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):
            g = graph.trace(model, *inputs, dims=given)
            texts = [d for n in g.notes for d in re.findall(r"Add to dims: (\{.*?\})", n)]
            found = list(map(ast.literal_eval, texts))
            assert seen.isdisjoint(g.notes)  # what it asks for settles it
            seen.update(g.notes)
            given |= {key: text for entries in found for key, text in entries.items()}
    assert seen
    assert not g.notes
    labels = {v.label for v in g.values.values()}
    assert wanted in labels or {n for label in labels for n in label.split()}


def test_a_setting_that_happens_to_be_equal_takes_no_name() -> None:
    mt.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 3))
    g = graph.trace(model, mt.rand(3, 5), dims={"E": 5})
    assert [v.label for v in g.values.values() if v.kind == "activation"] == ["(3, 3)"] * 3
    with pytest.warns(UserWarning, match="N=3"):
        g = graph.trace(model, mt.rand(3, 5), dims={"N": 3})
    assert g.values[g.outputs[0]].label == "(3, 3)"


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"E": 17}, "no axis has the size E=17; the sizes are"),
        ({"E": 0}, "no size"),
        ({"E": "16"}, "no size"),
        ({"E": True}, "no size"),
        ({"H": 8}, "no axis has the size H=8; the sizes are 2, 4, 16"),  # though it divides one
        ({"": 16}, "'' is no name for a size: give letters, digits and _"),
        ({"a b": 16}, "'a b' is no name for a size"),
        ({7: 16}, "7 is no name for a size"),
    ],
)
def test_a_name_that_fits_no_axis_is_refused(dims: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph.trace(nn.Linear(16, 4), mt.rand(2, 16), dims=dims)


def test_settings_changed_after_construction_are_kept() -> None:
    model, src, tgt, mask = classic(dropout=0.3)
    model.eval()
    model.double()
    for module in model.modules():
        if hasattr(module, "keep_weights"):
            module.keep_weights = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        g = graph.trace(model, src, tgt, tgt_mask=mask.double(), dims=CLASSIC)
    assert "scores" in {name for v in g.values.values() for name in v.names}
    found = g.find("scores")[0]
    assert found.label == "(N, nhead, M, M)"
    assert found.dtype == "float64"


def test_library_transformers_by_their_settings() -> None:
    mt.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    dims = {"N": 4, "S": 5, "E": 12, "nhead": 3, "F": 20}
    g = graph.trace(model, mt.rand(4, 5, 12), dims=dims, backward=True, decompose=True)
    labels = {v.label for v in g.values.values()}
    assert {"(N, S, E)", "(N, S, F)", "(N, nhead, S, S)", "(N, nhead, S, E/nhead)"} <= labels


def test_a_function_that_changes_what_was_there_does_not_run_again() -> None:
    runs: list[int] = []
    weight = nn.Parameter(mt.rand(3, 4))

    def step(x: mt.Tensor) -> mt.Tensor:
        runs.append(1)
        loss = F.linear(x, weight).sum()
        loss.backward()
        return loss

    g = graph.trace(step, mt.rand(2, 4), dims={"N": 2, "E": 4, "F": 3})
    assert len(runs) == 1
    assert g.values["linear:0"].label == "(N, F)"


def test_large_sizes_are_varied_at_small_ones() -> None:
    class Tied(nn.Module):
        def __init__(self, vocab: int, width: int) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab, width)
            self.output = nn.Linear(width, vocab)

        def forward(self, tokens: mt.Tensor) -> mt.Tensor:
            return self.output(self.embedding(tokens))

    mt.manual_seed(0)
    dims = {"N": 2, "L": 3, "V": 5000, "E": 24}
    g = graph.trace(Tied(5000, 24), mt.randint(0, 5000, (2, 3)), dims=dims)
    assert g.values[g.outputs[0]].label == "(N, L, V)"
    # Two settings that need not be equal: it is not certain that both are V.
    model = nn.Sequential(nn.Embedding(5000, 24), nn.Linear(24, 5000))
    with pytest.warns(UserWarning, match="V=5000 may be .*num_embeddings or "):
        g = graph.trace(model, mt.randint(0, 5000, (2, 3)), dims=dims)
    assert g.values[g.outputs[0]].label == "(N, L, 5000)"


def test_one_tensor_given_three_times_stays_one() -> None:
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    x = mt.rand(3, 7, 16)
    dims = {"N": 3, "L": 7, "E": 16, "H": 2}
    g = graph.trace(attention, x, x, x, need_weights=False, dims=dims, decompose=True)
    assert g.inputs == ["input:query"]
    assert g.values["input:query"].names[:3] == ["query", "key", "value"]
    assert "(N, H, L, L)" in {v.label for v in g.values.values()}


def test_sizes_that_divide_each_other_stay_small_enough_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model = nn.TransformerEncoder(layer, 4, norm=nn.LayerNorm(32))  # 4 heads and 4 layers, E | F
    sizes = dict(N=3, L=7, E=32, H=4, F=64)
    made: list[int] = []  # bytes of all tensors of each run
    tracer = sys.modules["minitensor.graph.trace"]
    record = tracer._record

    def counted(*args: Any, **options: Any) -> Any:
        recorder = record(*args, **options)
        made.append(sum(value.nbytes for value in recorder.graph.values.values()))
        return recorder

    monkeypatch.setattr(tracer, "_record", counted)
    g = graph.trace(model, mt.rand(3, 7, 32), dims=sizes, decompose=True)
    assert len(made) == 3  # the run that is recorded, and the varied ones
    assert max(made[1:]) <= 100 * made[0]  # each size may be a few times as large, not all of them
    assert g.find("scores")[0].label == "(N, H, L, L)"
    assert g.values["layers.0.linear1/linear:0"].label == "(N, L, F)"


def test_a_loss_that_closes_over_its_model() -> None:
    model, src, tgt, mask = classic(dropout=0.0)
    before = {name: p.numpy(force=True).copy() for name, p in model.named_parameters()}

    def loss(src: mt.Tensor, tgt: mt.Tensor) -> mt.Tensor:
        logits = model(src, tgt, tgt_mask=mask)
        return F.cross_entropy(logits.flatten(0, 1), tgt.flatten())

    g = graph.trace(loss, src, tgt, dims={"N": 2, "M": 7, "E": 16, "nhead": 2}, backward=True)
    assert {"(N, M, E)", "(N, M, 3*E)"} <= {v.label for v in g.values.values()}
    assert all(model.get_parameter(name).grad is None for name in before)
    for name, values in before.items():
        assert (model.get_parameter(name).numpy(force=True) == values).all()


def test_what_cannot_be_made_again_stays() -> None:
    layer = nn.Linear(16, 5)
    layer.__dict__.pop("_made_with")
    g = graph.trace(lambda x: layer(x), mt.rand(3, 16), dims={"N": 3, "V": 5})
    assert g.values[g.outputs[0]].label == "(N, V)"


def labels(g: graph.Graph) -> set[str]:
    """The labels of what the ops of the program made."""
    made = {v for node in g.nodes.values() for v in node.outputs}
    return {value.label for key, value in g.values.items() if key in made}


class Counted(nn.Module):
    """Counts how often its constructor runs."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1


class Rotary(Counted):
    """Attention with positions that turn the halves of each head; one fused projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def rotate(self, x: mt.Tensor) -> mt.Tensor:
        half = self.head // 2
        a, b = x[..., :half], x[..., half:]
        angle = mt.arange(x.shape[2], dtype=mt.float32).unsqueeze(1) * mt.ones(1, half)
        cos, sin = angle.cos(), angle.sin()
        return mt.cat([a * cos - b * sin, a * sin + b * cos], -1)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        n, length, width = x.shape
        q, k, v = (
            part.reshape(n, length, self.heads, self.head).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(n, length, width))


@pytest.mark.parametrize(
    ("batch", "width", "heads", "dims"),
    [
        (3, 16, 2, {"N": 3, "L": 6, "E": 16, "H": 2}),
        (3, 16, 4, {"N": 3, "L": 6, "E": 16, "H": 4}),  # a head is as wide as there are heads
        (2, 16, 4, {"x": "N L E", "heads": "H"}),  # half a head is as wide as the batch
        (2, 32, 4, {"x": "N L E", "heads": "H"}),  # half a head is as wide as there are heads
    ],
)
def test_half_a_head_is_not_called_heads(batch: int, width: int, heads: int, dims: Any) -> None:
    model = Rotary(width, heads)
    Counted.made = Rotary.made = 0
    g = graph.trace(model, mt.rand(batch, 6, width), dims=dims)
    wanted = {"(N, L, 3*E)", "(N, L, H, E/H)", "(N, H, L, E/H)", "(N, H, L, E/2/H)", "(L, E/2/H)"}
    assert labels(g) == {*wanted, "(N, L, E)", "(L, 1)", "(L, E/2/H)"}
    assert Rotary.made == 0
    kept = g.find("scaled_dot_product_attention")[0].saved  # in rows as long as a vector
    padded = {str(n) for id in kept for n in g.values[id].shape}
    assert {n for note in g.notes for n in re.findall(r"\d+", note)} <= padded


class Inner(nn.Module):
    """A projection to another width and back, with a residual."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return x + self.down(self.up(x).relu())


class Literal(Inner):
    def __init__(self, width: int) -> None:
        super().__init__(width, 16)


class Fourfold(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return x + self.down(self.up(x).relu())


@pytest.mark.parametrize(
    ("make", "inner"),
    [
        (lambda: Inner(16, 16), "16"),  # equal by chance
        (lambda: Inner(16, 48), "48"),  # 3 * 16 by chance
        (lambda: Literal(16), "16"),
        (lambda: Fourfold(16), "4*E"),
    ],
    ids=["equal", "threefold", "literal", "fourfold"],
)
def test_a_width_of_its_own_keeps_its_number(make: Callable[[], nn.Module], inner: str) -> None:
    g = graph.trace(make(), mt.rand(3, 6, 16), dims={"x": "N L E"})
    assert labels(g) == {"(N, L, E)", f"(N, L, {inner})"}


def test_heads_times_their_width_may_be_the_model_width_by_chance() -> None:
    class Free(nn.Module):
        def __init__(self, width: int, heads: int, head: int) -> None:
            super().__init__()
            self.heads, self.head = heads, head
            self.q = nn.Linear(width, heads * head)
            self.out = nn.Linear(heads * head, width)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            n, length, _ = x.shape
            q = self.q(x).reshape(n, length, self.heads, self.head)
            return x + self.out(q.flatten(2))

    g = graph.trace(Free(16, 2, 8), mt.rand(3, 6, 16), dims={"N": 3, "L": 6, "E": 16, "H": 2})
    assert {"(N, L, E)", "(N, L, H, 8)", "(N, L, 16)"} <= labels(g)
    assert g.notes == ['dims: 8, 16 stay numbers without a name. Add to dims: {"head": "head"}.']


class Gates(nn.Module):
    """A recurrent cell with one projection for its three gates."""

    def __init__(self, hid: int) -> None:
        super().__init__()
        self.i, self.h = nn.Linear(hid, 3 * hid), nn.Linear(hid, 3 * hid)

    def forward(self, x: mt.Tensor, h: mt.Tensor) -> mt.Tensor:
        r, z, n = (self.i(x) + self.h(h)).chunk(3, 1)
        return mt.tanh(n * r.sigmoid()) * z.sigmoid() + h


class Unrolled(nn.Module):
    """Calls one cell at each time, the last one first if `back`."""

    def __init__(self, hid: int, back: bool) -> None:
        super().__init__()
        self.hid, self.back, self.cell = hid, back, Gates(hid)

    def forward(self, xs: mt.Tensor) -> mt.Tensor:
        h, outs = mt.zeros(xs.shape[0], self.hid), [xs[:, 0]] * xs.shape[1]
        times = range(xs.shape[1])
        for t in reversed(times) if self.back else times:
            h = self.cell(xs[:, t], h)
            outs[t] = h
        return mt.stack(outs, 1)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("decompose", [False, True])
def test_every_turn_of_a_loop_has_names_however_often_it_runs(back: bool, decompose: bool) -> None:
    model, dims = Unrolled(16, back), {"B": 3, "T": 6, "hid": 16}
    g = graph.trace(model, mt.randn(3, 6, 16), dims=dims, backward=True, decompose=decompose)
    assert {v.label for v in g.values.values() if "48" in v.dims} == set()
    turns = [g.values[f"cell.i#{n}/linear:0"].label for n in range(2, 7)]
    assert turns == ["(B, 3*hid)"] * 5
    assert not g.notes
    if not back:
        assert "Gates x6" in g.summary(2)


def test_a_stack_of_layers_is_named_in_a_few_runs_with_one_entry_for_all_layers() -> None:
    model = nn.Sequential(*[nn.TransformerEncoderLayer(8, 2) for _ in range(6)])
    x, graphs = mt.rand(3, 5, 8), list[graph.Graph]()
    graph.trace(model, x)  # kernels are compiled before
    once = lines_run(lambda: graph.trace(model, x))
    assert lines_run(lambda: graphs.append(graph.trace(model, x, dims={"N": 3}))) < 12 * once
    (note,) = graphs[-1].notes
    entries = '{"input": "N L D", "d_model": "D", "nhead": "nhead", "dim_feedforward": "F"}'
    assert note.endswith(f"Add to dims: {entries}.")
    g = graph.trace(model, x, dims=ast.literal_eval(entries))
    assert not g.notes
    assert "(N, L, F)" in labels(g)


def test_a_size_that_cannot_vary_says_why_and_the_others_are_named() -> None:
    def expected(logits: mt.Tensor, target: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
        probs = logits.softmax(-1)
        picked = probs.gather(1, target.unsqueeze(1)).squeeze(1)
        return (probs * mt.arange(13)).sum(-1), mt.cat([picked, picked])

    dims = {"N": 4, "V": 13}
    g = graph.trace(expected, mt.randn(4, 13), mt.tensor([1, 12, 3, 4]), dims=dims)
    assert [g.values[v].label for v in g.outputs] == ["(N)", "(2*N)"]
    assert g.values["softmax:0"].label == "(N, V)"
    (note,) = [note for note in g.notes if "13" in note] or [""]
    assert not note or "V=13, as the program runs at no other: mul: " in note


def test_a_constructor_that_cannot_be_read_is_told() -> None:
    made: list[int] = []

    class Once(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            made.append(width)
            if len(made) > 1:
                raise RuntimeError("only once")
            self.out = nn.Linear(width, 3)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            return self.out(x)

    with pytest.warns(UserWarning, match=r"follows from width=8 \(width of Once\) is not known"):
        g = graph.trace(Once(8), mt.randn(5, 8), dims={"N": 5, "width": 8})
    assert made == [8]
    assert g.values["input:x"].label == "(N, 8)"


def test_tokens_stay_below_an_axis_that_they_index() -> None:
    def pick(logits: mt.Tensor, target: mt.Tensor) -> mt.Tensor:
        return mt.cat([logits.gather(1, target.unsqueeze(1)), logits], 1)

    target = mt.tensor([1, 9, 3, 4, 0])
    dims = {"logits": "N V", "target": "N"}
    g = graph.trace(pick, mt.randn(5, 13), target, dims=dims)
    assert g.values[g.outputs[0]].label == "(N, V+1)"


def test_counts_of_values_are_said_to_be_that() -> None:
    def positive(x: mt.Tensor) -> mt.Tensor:
        rows, _ = mt.where(x > 0)
        return x[rows] * 2

    x = mt.tensor([[1.0, -1, 2, 3], [1, 1, 1, -2], [-1, -1, -1, 5]])
    g = graph.trace(positive, x, dims={"x": "N E"})
    assert g.values[g.outputs[0]].label == "(7, E)"
    assert g.notes == ["dims: 7 may follow from values, as what a mask picks does."]


class Experts(nn.Module):
    """A layer that sends each token to the few of its experts that its gate prefers."""

    def __init__(self, width: int, inner: int, experts: int, chosen: int) -> None:
        super().__init__()
        self.chosen, self.gate = chosen, nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList([Inner(width, inner) for _ in range(experts)])

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        weights, picked = mt.topk(self.gate(x).softmax(-1), self.chosen)
        out = mt.zeros(len(x), x.shape[1])
        for number, expert in enumerate(self.experts):
            rows, places = mt.where(picked == number)
            out = out.index_add(0, rows, expert(x[rows]) * weights[rows, places, None])
        return x + out


class Mixture(nn.Module):
    def __init__(self, width: int, inner: int, experts: int, chosen: int, layers: int) -> None:
        super().__init__()
        made = [Experts(width, inner, experts, chosen) for _ in range(layers)]
        self.layers = nn.ModuleList(made)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        flat = x.flatten(0, 1)
        for layer in self.layers:
            flat = layer(flat)
        return flat.reshape(x.shape)


def test_layers_with_experts_have_names_for_all_but_the_counts_of_routed_tokens() -> None:
    mt.manual_seed(0)
    dims = {"N": 3, "L": 9, "width": 20, "inner": 28, "experts": 4}
    g = graph.trace(Mixture(20, 28, 4, 2, 3), mt.randn(3, 9, 20), dims=dims, backward=True)
    assert g.values["layers.2.gate/linear:0"].label == "(N*L, experts)"
    assert "layers.2.experts.3.up/linear:0" in g.values
    routed = {v.dims for v in g.values.values() if v.id.endswith(".up/linear:0")}
    assert {dims[1] for dims in routed} == {"inner"}
    (chosen, values) = g.notes
    assert chosen.startswith("dims: 2 stays a number without a name.")
    counts = sorted({int(dims[0]) for dims in routed})
    assert all(f"{n}" in values for n in counts[:6])
    assert "may follow from values" in values


class Split(nn.Module):
    """Splits its width into heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.project = heads, nn.Linear(width, width)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return self.project(x).reshape(x.shape[0], self.heads, -1)


def test_a_quotient_of_sizes_without_a_name_asks_for_their_names() -> None:
    g = graph.trace(Split(12, 3), mt.randn(7, 12), dims={"N": 7})
    assert g.values[g.outputs[0]].label == "(N, 3, 4)"
    (note,) = g.notes
    assert note.startswith("dims: 3, 4, 12 stay numbers without a name. Add to dims: ")
    g = graph.trace(Split(12, 3), mt.randn(7, 12), dims={"x": "N E", "heads": "H"})
    assert g.values[g.outputs[0]].label == "(N, H, E/H)"
    assert not g.notes


def test_sizes_that_are_equal_are_told_apart_by_declaration() -> None:
    attention, x = nn.MultiheadAttention(16, 2, batch_first=True), mt.rand(2, 7, 16)
    given: Any = dict(need_weights=False, decompose=True)
    with pytest.warns(UserWarning, match="N and H are both 2"):
        graph.trace(attention, x, x, x, dims={"N": 2, "L": 7, "E": 16, "H": 2}, **given)
    g = graph.trace(attention, x, x, x, dims={"query": "N L E", "num_heads": "H"}, **given)
    assert {"(N, H, L, L)", "(N, L, 3*E)", "(N, H, L, E/H)"} <= labels(g)
    assert g.dims == {"N": 2, "L": 7, "E": 16, "H": 2}
    model = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
    src, tgt = mt.rand(3, 5, 16), mt.rand(3, 5, 16)
    dims: dict[str, int | str] = {"src": "N S E", "tgt": "N L E", "nhead": "H", "F": 32}
    g = graph.trace(model, src, tgt, dims=dims, decompose=True)
    assert {"(N, H, S, S)", "(N, H, L, L)", "(N, H, L, S)", "(N, L, F)", "(N, S, F)"} <= labels(g)


def test_three_heads_are_not_the_three_projections() -> None:
    x = mt.rand(4, 7, 12)
    attention = nn.MultiheadAttention(12, 3, batch_first=True)
    dims = {"N": 4, "L": 7, "E": 12, "H": 3}
    g = graph.trace(attention, x, x, x, need_weights=False, dims=dims, decompose=True)
    assert {"(N, L, 3*E)", "(N, H, L, L)"} <= labels(g)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"input": "N"}, "does not fit input, whose size is"),
        ({"input": "N N"}, "N is 2 and"),
        ({"input": "N 3*E"}, "no name"),
        ({"y": "N E"}, "no input, parameter or setting is called 'y'"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(dims: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph.trace(nn.Linear(16, 4), mt.rand(2, 16), dims=dims)


def test_the_varied_run_has_no_effect_outside(capsys: pytest.CaptureFixture[str]) -> None:
    class Loud(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(width)

        def forward(self, x: mt.Tensor) -> mt.Tensor:
            print("forward")
            kept.append(1)
            return F.dropout(self.norm(x), 0.5, True)

    kept: list[int] = []
    model, hooked = Loud(4), []
    model.register_forward_hook(lambda *_: hooked.append(1))
    mt.manual_seed(1)
    model(x := mt.rand(3, 4))
    mean, after = model.norm.running_mean.numpy().copy(), mt.rand(1)
    kept.clear()
    hooked.clear()
    model = Loud(4)
    model.register_forward_hook(lambda *_: hooked.append(1))
    mt.manual_seed(1)
    mt.rand(3, 4)
    capsys.readouterr()
    g = graph.trace(model, x, dims={"x": "N E"})
    assert capsys.readouterr().out == "forward\n"
    assert hooked == [1]
    assert (model.norm.running_mean.numpy() == mean).all()
    assert mt.equal(mt.rand(1), after)
    assert g.values[g.outputs[0]].label == "(N, E)"


def test_an_axis_with_one_letter_in_the_docstring_of_an_op_has_one_size() -> None:
    """The shapes in docstrings say which axes are one, so they must be true."""
    held: set[str] = set()
    for op in OPS.values():
        for args, options in samples(op):
            try:
                g = graph.trace(op.call, *args, **options, decompose=True)
            except ValueError:  # it returns no tensor
                continue
            for node in g.nodes.values():
                inputs, outputs = ([g.values[v] for v in vs] for vs in (node.inputs, node.outputs))
                sizes: dict[str, set[int]] = {}
                for (value, axis), letter in (named_axes(node, inputs, outputs) or {}).items():
                    sizes.setdefault(letter, set()).add(g.values[value].shape[axis])
                    held.add(node.op)
                for letter, found in sizes.items():
                    assert len(found - {1}) <= 1, (node.op, letter, found)
    assert {"linear", "matmul", "embedding", "scaled_dot_product_attention", "add"} <= held
