"""Models and ops as ONNX files: run by onnxruntime, at other sizes too, and the errors."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.core import OPS, Op, wrap
from minitensor.models import attention, bert, gpt, recurrent, vit
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.nn.masks import causal_mask
from minitensor.onnx import export
from minitensor.onnx.translate import REFUSED, TRANSLATIONS, translates
from minitensor.testing import leaves, samples
from minitensor.testing.samples import replaced

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.torch  # `make compare` installs onnxruntime with PyTorch

NL = {0: "N", 1: "L"}


def run(made: Any, *inputs: Any) -> list[np.ndarray]:
    """Run a file by onnxruntime on tensors, in the order of its inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        made if isinstance(made, str) else made.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    names = [i.name for i in session.get_inputs()]
    arrays = [np.array(x.numpy(force=True), order="C") for x in inputs]
    found: list[np.ndarray] = session.run(None, dict(zip(names, arrays, strict=True)))
    return found


def check(
    made: Any, function: Callable[..., Any], *inputs: Tensor, tolerance: float = 1e-5
) -> None:
    """Assert that a file gives on tensors what a function gives."""
    with mt.no_grad():
        expected = [*leaves([function(*inputs)])]
    found = run(made, *inputs)
    assert len(found) == len(expected)
    for mine, its in zip(expected, found, strict=True):
        assert mine.dtype == its.dtype
        np.testing.assert_allclose(its, mine.numpy(force=True), rtol=tolerance, atol=tolerance)


# Every op


# Samples that are refused, by a part of the reason.
PARTLY = {
    **dict.fromkeys(("RnnLayer", "LstmLayer", "GruLayer"), "packed sequence was not made by"),
    **dict.fromkeys(("RnnTanh", "RnnRelu", "Lstm", "Gru"), "packed sequence was not made by"),
    "Conv2d": "floats alone",
    "OneHot": "give num_classes",
    "RepeatInterleave": "depends on the numbers in `repeats`",
}
BY_NUMPY = "that no op made"  # the reason for functions that compute with NumPy: a file has no such


def other_numbers(t: Tensor) -> Tensor:
    """A tensor like `t` with its numbers in reverse, or a reversed one as it is."""
    array = np.array(t._array, order="C")
    return wrap(array.reshape(-1)[::-1].reshape(array.shape).copy())


@pytest.mark.parametrize("name", sorted(name for name in OPS if name not in REFUSED))
def test_an_op_has_its_value_in_onnxruntime(name: str) -> None:
    """On the numbers that it was exported with, and on others."""
    op = OPS[name]
    tried = refused = 0
    for args, kwargs in samples(op, "float32"):
        inputs = [wrap(np.array(t._array, order="C")) for t in leaves([args, kwargs])]
        if name.endswith("Layer") and not all(t.numel() for t in inputs):
            continue  # onnxruntime's GRU ends the process for an empty batch

        def function(*tensors: Tensor, args: Any = args, kwargs: Any = kwargs) -> Any:
            given, options = replaced([args, kwargs], iter(tensors))
            return op.call(*given, **options)

        try:
            made = export(function, tuple(inputs))
        except RuntimeError as error:
            composed = op.forward is Op.forward and BY_NUMPY in str(error)
            if not composed and (name not in PARTLY or PARTLY[name] not in str(error)):
                raise
            refused += 1
            continue
        check(made, function, *inputs)
        tried += 1
        others = [other_numbers(t) for t in inputs]
        try:
            function(*others)
        except Exception:  # such numbers are not allowed
            continue
        check(made, function, *others)
    assert tried or (refused and op.forward is Op.forward)
    if op.forward is not Op.forward:
        assert bool(refused) == (name in PARTLY)


@pytest.mark.parametrize("name", sorted(OPS.keys() & REFUSED.keys() - {"Dropout"}))
def test_an_op_that_has_no_translation_says_why(name: str) -> None:
    assert name not in TRANSLATIONS
    assert OPS[name].decomposition is None, "it is opened"
    op = OPS[name]
    args, kwargs = samples(op, "float32")[0]

    def function(*tensors: Tensor) -> Any:
        given, options = replaced([args, kwargs], iter(tensors))
        return op.call(*given, **options)

    with pytest.raises(RuntimeError, match=r"^export: \w+ at test_onnx\.py:\d+: ") as found:
        export(function, tuple(leaves([args, kwargs])))
    assert REFUSED[name] in str(found.value)


# Models, at other sizes than those they were exported with


def tokens(*shape: int, most: int = 11, padded: int = 0) -> Tensor:
    made = mt.randint(3, most, shape)
    if padded:
        made[0, -padded:] = 0
    return made


class Translator(nn.Module):
    """A Transformer with the masks of training."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        shape: dict[str, Any] = dict(
            d_model=16, nhead=4, num_encoder_layers=2, num_decoder_layers=2
        )
        self.model = Transformer(TransformerConfig(11, 13, dim_feedforward=24, **shape, **settings))

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        padding = self.model.generate_source_key_padding_mask(src)
        return self.model(
            src,
            tgt,
            tgt_mask=self.model.generate_square_subsequent_mask(tgt.shape[1]),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )


@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "none"])
def test_the_transformer_runs_at_other_sizes(positions: str, norm: str) -> None:
    model = Translator(positions=positions, norm=norm, norm_first=norm == "rms", tied_output=True)
    axes = {"src": {0: "N", 1: "S"}, "tgt": {0: "N", 1: "L"}}
    made = export(model, (tokens(2, 6), tokens(2, 5)), dynamic_axes=axes)
    model.eval()
    check(made, model, tokens(2, 6), tokens(2, 5))
    check(made, model, tokens(3, 9, padded=4), tokens(3, 4))
    check(made, model, tokens(1, 2), tokens(1, 17))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_recurrent_model_runs_at_other_sizes_with_padding(cell: str, layers: int) -> None:
    config = recurrent.RecurrentConfig(11, 13, cell=cell, layers=layers, width=16)
    model = recurrent.Recurrent(config)
    axes = {"src": {0: "N", 1: "S"}, "tgt": {0: "N", 1: "L"}}
    made = export(model, (tokens(3, 5), tokens(3, 7)), dynamic_axes=axes)
    model.eval()
    check(made, model, tokens(3, 5), tokens(3, 7))
    check(made, model, tokens(4, 9, padded=6), tokens(4, 3))
    check(made, model, tokens(1, 3), tokens(1, 8))


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_gpt_runs_at_other_sizes(variant: str) -> None:
    config = gpt.GPTConfig(50, 64, 48, 2, 6, num_kv_heads=2, hidden_dim=72, variant=variant)
    model = gpt.GPT(config)
    made = export(model, tokens(3, 7), dynamic_axes={"tokens": NL})
    model.eval()
    for shape in ((3, 7), (1, 1), (2, 40)):
        check(made, model, tokens(*shape))


def test_bert_runs_at_other_sizes_with_padding() -> None:
    model, inputs, _ = bert.example()
    mask = mt.ones(3, 7)
    axes = {"input_ids": NL, "attention_mask": NL}
    made = export(model, (inputs["input_ids"], mask), dynamic_axes=axes)
    model.eval()
    other = mt.tensor([[1.0] * 12, [1.0] * 5 + [0.0] * 7])
    check(made, model, tokens(2, 12, most=61), other)


def test_the_vision_transformer_runs_with_other_batches() -> None:
    model, inputs, _ = vit.example()
    made = export(model, (inputs["images"],), dynamic_axes={"images": {0: "N"}})
    check(made, model.eval(), mt.rand(5, 1, 10, 10))


def test_attention_from_scratch_runs_at_other_sizes() -> None:
    model, inputs, _ = attention.example()
    made = export(model, (inputs["x"],), dynamic_axes={"x": NL})
    check(made, model, mt.randn(2, 4, 16))


def test_modules_with_pytorchs_names_run_at_other_sizes() -> None:
    model = nn.Transformer(16, 4, 1, 1, 24, batch_first=True)
    axes = {"src": {0: "N", 1: "S"}, "tgt": {0: "N", 1: "L"}}
    made = export(model, (mt.randn(2, 5, 16), mt.randn(2, 6, 16)), dynamic_axes=axes)
    check(made, model.eval(), mt.randn(3, 4, 16), mt.randn(3, 8, 16))


class Cache:
    """Keys and values so far, as a decoding loop outside of Python has them: (N, S, *)."""

    def __init__(self, kv: Tensor) -> None:
        self.kv = kv

    @property
    def length(self) -> int:
        return self.kv.shape[1]

    def append(self, new: Tensor) -> Tensor:
        self.kv = mt.cat([self.kv, new], dim=1)
        return self.kv


class State:
    def __init__(self, caches: list[Tensor]) -> None:
        self.caches = [Cache(kv) for kv in caches]
        self.length = self.caches[0].length


class Step(nn.Module):
    """A GPT's next step: one token (N, 1) and its layers' caches -> logits (N, V), caches."""

    def __init__(self, model: gpt.GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, token: Tensor, caches: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        state: Any = State(caches)
        logits = self.model.output(self.model.read(token, state)[:, -1])
        return logits, [cache.kv for cache in state.caches]


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_a_step_of_decoding_with_a_cache_continues_a_text(variant: str) -> None:
    config = gpt.GPTConfig(50, 64, 48, 2, 6, num_kv_heads=2, hidden_dim=72, variant=variant)
    model = gpt.GPT(config).eval()
    empty = [mt.zeros(2, 3, 4, 8) for _ in range(2)]
    cache = {0: "N", 1: "P"}
    made = export(
        Step(model),
        (tokens(2, 1), empty),
        input_names=["token", "past0", "past1"],
        output_names=["logits", "present0", "present1"],
        dynamic_axes={"token": {0: "N"}, "past0": cache, "past1": cache},
    )
    ends = [d.dim_param for d in made.graph.output[1].type.tensor_type.shape.dim][:2]
    assert ends == ["N", "P + 1"]
    text = tokens(3, 9)
    past = [mt.zeros(3, 0, 4, 8) for _ in range(2)]
    for place in range(9):
        logits, *rest = run(made, text[:, place : place + 1], *past)
        past = [mt.from_numpy(each) for each in rest]
    with mt.no_grad():
        np.testing.assert_allclose(logits, model(text)[:, -1].numpy(), rtol=1e-5, atol=1e-5)


class WithBuffer(nn.Module):
    """Causal attention as nanoGPT has it: the mask is the corner of a buffer."""

    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.attn_dropout = nn.Dropout(0.1)
        self.register_buffer("bias", mt.tril(mt.ones(32, 32)).view(1, 1, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.size()
        q, k, v = (
            each.view(B, T, 4, C // 4).transpose(1, 2) for each in self.c_attn(x).split(C, dim=2)
        )
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
        att = self.attn_dropout(F.softmax(att, dim=-1))
        return self.c_proj((att @ v).transpose(1, 2).contiguous().view(B, T, C))


def test_a_mask_in_a_buffer_and_sizes_in_reshapes() -> None:
    model = WithBuffer()
    made = export(model, mt.randn(2, 5, 16), dynamic_axes={"x": NL})
    check(made, model.eval(), mt.randn(3, 9, 16))


def test_a_model_exported_with_one_token_runs_with_more() -> None:
    config = gpt.GPTConfig(50, 64, 48, 1, 6, hidden_dim=72)
    for model in (gpt.GPT(config), gpt.GPT(config).double()):
        made = export(model, tokens(1, 1), dynamic_axes={"tokens": NL})
        check(made, model.eval(), tokens(3, 9))


def test_recurrent_modules_with_states_and_projections() -> None:
    model = nn.LSTM(4, 8, 2, batch_first=True, bidirectional=True)
    states = mt.randn(4, 2, 8), mt.randn(4, 2, 8)
    shapes = {"input": NL, "hx": [{1: "N"}, {1: "N"}]}
    made = export(model, (mt.randn(2, 5, 4), states), dynamic_shapes=shapes)
    assert [i.name for i in made.graph.input] == ["input", "hx[0]", "hx[1]"]
    inputs = mt.randn(3, 7, 4), mt.randn(4, 3, 8), mt.randn(4, 3, 8)
    check(made, lambda x, h, c: model.eval()(x, (h, c)), *inputs)
    model = nn.LSTM(4, 8, proj_size=3, batch_first=True)  # step by step: its length is fixed
    made = export(model, mt.randn(2, 5, 4), dynamic_axes={"input": {0: "N"}})
    check(made, model, mt.randn(4, 5, 4))


def test_a_packed_sequence_is_padded_before_it_is_a_result() -> None:
    def pack(x: Tensor, lengths: Tensor) -> Any:
        return nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)

    def padded(x: Tensor, lengths: Tensor) -> Any:
        return nn.utils.rnn.pad_packed_sequence(pack(x, lengths), True, -1.0)

    inputs = mt.randn(3, 5, 2), mt.tensor([2, 5, 3])
    axes = {"x": NL, "lengths": {0: "N"}}
    made = export(padded, inputs, dynamic_axes=axes)
    check(made, padded, mt.randn(4, 9, 2), mt.tensor([2, 7, 1, 6]))
    with pytest.raises(RuntimeError, match="is a packed sequence, which a file has none of"):
        export(lambda x, lengths: pack(x, lengths).data, inputs, dynamic_axes=axes)


def test_a_loss_with_padding_and_smoothing() -> None:
    def loss(x: Tensor, target: Tensor) -> Tensor:
        flat = x.flatten(0, 1), target.flatten()
        return F.cross_entropy(*flat, ignore_index=0, label_smoothing=0.1)

    axes = {"x": NL, "target": NL}
    made = export(loss, (mt.randn(2, 5, 7), tokens(2, 5, most=7)), dynamic_axes=axes)
    check(made, loss, mt.randn(3, 4, 7), tokens(3, 4, most=7, padded=2))


class Stem(nn.Module):
    """Convolutions that halve the length, and positions for what is left, as in Whisper."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(8, 16, 3, padding=1)
        self.conv2 = nn.Conv1d(16, 16, 3, stride=2, padding=1)
        self.positions = nn.Parameter(mt.randn(100, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(x)))).transpose(1, 2)
        return x + self.positions[: x.shape[1]]


def test_a_stem_of_convolutions_runs_at_other_lengths() -> None:
    model = Stem()
    made = export(model, mt.randn(2, 8, 20), dynamic_axes={"x": {0: "N", 2: "T"}})
    assert axes_of(made.graph.output[0]) == ["N", "(T + 1)/2", 16]
    for length in (31, 40, 1):
        check(made, model, mt.randn(3, 8, length))


def test_patches_by_a_convolution_run_on_other_images() -> None:
    patches = nn.Conv2d(3, 12, 4, stride=4)

    def embed(x: Tensor) -> Tensor:
        return patches(x).flatten(2).transpose(1, 2)

    axes = {"x": {0: "N", 2: "H", 3: "W"}}
    made = export(embed, mt.randn(2, 3, 16, 16), dynamic_axes=axes)
    check(made, embed, mt.randn(3, 3, 24, 8))
    check(made, embed, mt.randn(1, 3, 19, 30))


# What is in a file


def test_weights_and_nodes_have_the_names_of_the_model() -> None:
    model = Translator(tied_output=True)
    made = export(model, (tokens(2, 6), tokens(2, 5)))
    kept = {i.name: onnx.numpy_helper.to_array(i) for i in made.graph.initializer}
    state = model.state_dict()
    tied = {"model.output.weight"}  # one tensor, under the first of its names
    for name in set(state) - tied:
        np.testing.assert_array_equal(kept[name], state[name].numpy())
    paths = {name for name, _ in model.named_modules()}
    ours = {"sizes", "constants", "outputs"}
    for node in made.graph.node:
        path, _, _ = node.name.rpartition("/")
        assert path in paths | ours, node.name
    assert "model.decoder.layers.1.linear2/MatMul" in {node.name for node in made.graph.node}
    assert len({node.name for node in made.graph.node}) == len(made.graph.node)


def axes_of(info: Any) -> list[Any]:
    return [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]


def test_axes_have_the_names_that_were_given() -> None:
    def function(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"both": mt.cat([x, y], 1), "flat": x.reshape(-1, 4), "last": y[:, -1]}

    made = export(
        function,
        (mt.randn(2, 3, 4), mt.randn(2, 5, 4)),
        dynamic_shapes={"x": {0: "N", 1: "L"}, "y": {0: "N", 1: "S"}},
    )
    assert [(i.name, axes_of(i)) for i in made.graph.input] == [
        ("x", ["N", "L", 4]),
        ("y", ["N", "S", 4]),
    ]
    assert [(o.name, axes_of(o)) for o in made.graph.output] == [
        ("both", ["N", "L + S", 4]),
        ("flat", ["N*L", 4]),
        ("last", ["N", 4]),
    ]
    check(made, function, mt.randn(5, 2, 4), mt.randn(5, 1, 4))


def test_names_of_inputs_and_outputs_are_those_given_and_axes_go_by_order_too() -> None:
    made = export(
        lambda x, y: (x + y, x * y),
        (mt.randn(2, 3), mt.randn(3)),
        input_names=["left"],
        output_names=["sum"],
        dynamic_shapes=(("N", None), None),
    )
    assert [i.name for i in made.graph.input] == ["left", "y"]
    assert axes_of(made.graph.input[0]) == ["N", 3]
    assert [o.name for o in made.graph.output] == ["sum", "output1"]


def test_an_input_that_is_an_output_and_a_constant_output() -> None:
    made = export(lambda x: (x, mt.arange(3), x), (mt.randn(2),))
    check(made, lambda x: (x, mt.arange(3), x), mt.randn(2))


def test_a_file_is_written_to_a_path_and_to_a_stream(tmp_path: Path) -> None:
    model, x = nn.Linear(3, 2), mt.randn(4, 3)
    path, stream = tmp_path / "linear.onnx", io.BytesIO()
    made = export(model, x, path)
    export(model, x, stream)
    assert onnx.load(path) == made == onnx.load_from_string(stream.getvalue())
    np.testing.assert_allclose(run(str(path), x)[0], model(x).numpy(force=True), rtol=1e-5)


def test_the_least_opset_is_18_and_later_ones_have_gelu() -> None:
    x = mt.randn(3, 4)
    for opset, expected in ((18, False), (20, True), (22, True)):
        made = export(F.gelu, x, opset_version=opset)
        assert made.opset_import[0].version == opset
        assert ("Gelu" in {node.op_type for node in made.graph.node}) == expected
        check(made, F.gelu, x)
    with pytest.raises(ValueError, match="opset_version must be 18 or later, not 17"):
        export(F.gelu, x, opset_version=17)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floating_types(dtype: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.LayerNorm(8), nn.Linear(8, 2))
    model.to(getattr(mt, dtype))
    made = export(model, mt.randn(3, 6).to(getattr(mt, dtype)), dynamic_axes={"input": {0: "N"}})
    x = mt.randn(5, 6).to(getattr(mt, dtype))
    check(made, model, x, tolerance=1e-2 if dtype == "float16" else 1e-9)


def test_bfloat16_is_kept_in_the_file() -> None:
    """onnxruntime has few ops of that type, so the file is checked and not run."""
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    model = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))
    x = mt.randn(3, 6).bfloat16()
    made = export(model.bfloat16(), x, dynamic_axes={"input": {0: "N"}})
    kinds = {i.data_type for i in made.graph.initializer}
    assert kinds <= {onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT64}
    assert made.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16


def test_a_method_and_a_function_of_several_modules() -> None:
    model = Translator().model
    made = export(model.encode, tokens(2, 5), dynamic_axes={"src": NL})
    check(made, model.eval().encode, tokens(3, 7))
    assert "encoder.norm.weight" in {i.name for i in made.graph.initializer}
    one, two = nn.Linear(3, 4), nn.Linear(4, 2)
    made = export(lambda x: two(one(x).relu()), mt.randn(5, 3))
    assert {"one.weight", "two.bias"} <= {i.name for i in made.graph.initializer}


def test_a_model_is_evaluated_and_left_in_its_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Dropout(0.5))
    model[2].eval()
    state = mt.get_rng_state()
    made = export(model, mt.randn(2, 3))
    assert [m.training for m in model] == [True, True, False]
    assert "Dropout" not in {node.op_type for node in made.graph.node}
    mt.set_rng_state(state)


# Changes in place


def test_changes_in_place_are_kept() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = x.clone()
        row = y[0]
        before = row * 2
        y += 1
        y[:, 1:] = 7.0
        y[..., 0].mul_(3)
        return y, row + 1, before, y.masked_fill_(y > 5, 0.0)

    made = export(function, mt.randn(2, 3), dynamic_axes={"x": {0: "N"}})
    check(made, function, mt.randn(4, 3))


def test_changes_in_place_show_in_what_is_detached() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = x * 2
        row, whole, data = y[0].detach(), y.detach().view(-1), y.data[1]
        y.add_(1)
        rows = whole * 2, row + 1, data * 3
        y[1:].detach().mul_(2)
        return *rows, y * 3, whole + 1

    made = export(function, mt.randn(2, 3))
    check(made, function, mt.randn(2, 3))


def test_memory_that_others_show_in_an_unknown_way_is_not_changed() -> None:
    table = mt.ones(2, 3)
    flat = table.view(-1).detach()

    def function(x: Tensor) -> Tensor:
        flat.add_(1)
        return x * table

    with pytest.raises(RuntimeError, match=r"shape \(2, 3\) shares memory .* changed in place"):
        export(function, mt.randn(2, 3))


def test_a_tensor_laid_out_anew_can_change_but_not_below_its_views() -> None:
    def function(x: Tensor) -> Tensor:
        y = x * 1
        y.t_()
        y[0] = 7.0
        return y.add_(1) * 2

    check(export(function, mt.randn(3, 3)), function, mt.randn(3, 3))

    def base(x: Tensor) -> Tensor:
        y = x * 1
        view = y[0]
        y.t_()
        y[0] = 7.0
        return view * 1

    def view(x: Tensor) -> Tensor:
        y = x * 1
        view = y[0]
        y.t_()
        view.add_(1)
        return y * 1

    for function in (base, view):
        with pytest.raises(RuntimeError, match=r"shares memory .* changed in place"):
            export(function, mt.randn(3, 3))


@pytest.mark.parametrize(
    "write",
    [
        nn.init.ones_,
        lambda p: p.detach().apply_(lambda number: number + 1),
        lambda p: mt.optim.SGD([p], 0.1).step(),
    ],
)
def test_what_no_op_writes_is_refused(write: Any) -> None:
    p = nn.Parameter(mt.ones(3))
    p.grad = mt.ones(3)

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = p

        def forward(self, x: Tensor) -> Any:
            y = x * self.p
            write(self.p)
            return y

    with pytest.raises(RuntimeError, match=r"shape \(3,\) is changed by something else than an op"):
        export(Module(), mt.ones(3))


def test_buffers_are_as_they_were() -> None:
    class Module(nn.Module):
        total: Tensor
        last: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", mt.zeros(3))
            self.register_buffer("last", mt.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.total.data.add_(1)
            self.last = self.last + x
            return x + self.total + self.last

    module = Module()
    last = module.last
    made = export(module, mt.ones(3))
    assert module.total.tolist() == [0.0] * 3
    assert module.last is last
    (found,) = run(made, mt.ones(3))
    assert found.tolist() == [3.0] * 3


def test_what_was_changed_in_place_is_an_input_no_more() -> None:
    def function(x: Tensor) -> Tensor:
        mask = mt.zeros(x.shape[0], 3, dtype=mt.bool)
        mask[0] = True
        return x.add_(1).masked_fill(mask, 0.0)

    x = mt.randn(2, 3)
    before = x.tolist()
    made = export(function, x, dynamic_axes={"x": {0: "N"}})
    assert x.tolist() == before
    other = mt.randn(4, 3)
    (found,) = run(made, other)
    np.testing.assert_allclose(found, function(other).numpy(), rtol=1e-5)


# Sizes and constants


def test_constants_of_sizes_are_computed_in_the_file() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        n, length = x.shape
        return (
            x + mt.arange(length, dtype=mt.float32),
            x * mt.arange(2, 2 * length + 2, 2),
            x @ mt.eye(length),
            x @ wrap(np.tri(length, dtype=np.float32)),
            x.new_full((length, n), 2.5) @ x,
            x / length,
            x / math.sqrt(length),
            x.sum(1) * n * (1.0 / length),
            x[:, : length // 1 - 1],
            mt.full((), length) + x.mean(),
            x @ causal_mask(length).exp(),
            mt.linspace(1, 2, length) + x,
        )

    made = export(function, mt.randn(2, 5), dynamic_axes={"x": NL})
    check(made, function, mt.randn(3, 8))
    check(made, function, mt.randn(1, 2))


def test_shapes_follow_the_sizes() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        n, length, width = x.shape
        return (
            x.reshape(n * length, width),
            x.reshape(n, length * 2, width // 2),
            x.flatten(),
            x.view(n, length, 2, -1).transpose(1, 2).flatten(0, 1),
            x.unsqueeze(1).expand(n, 3, length, width),
            x.repeat(1, 2, 1),
            x.split([1, length - 1], 1)[1],
            x.permute(2, 0, 1).reshape(width, -1),
            x.roll(1, 1),
            F.pad(x, (0, 0, 1, 2)),
            x.narrow(1, length - 1, 1),
            x.var(1),
            x.sort(1).indices,
            x.cumprod(1),
            x.topk(2, 1).values,
            x.repeat_interleave(2, 1),
            x.diagonal(0, 1, 2)[:, :1],
            mt.einsum("nle,nme->nlm", x, x),
        )

    made = export(function, mt.randn(2, 5, 4), dynamic_axes={"x": NL})
    check(made, function, mt.randn(3, 7, 4))


def test_a_number_of_chunks_that_divides_the_length() -> None:
    def halves(x: Tensor) -> Tensor:
        one, two = x.reshape(x.shape[0], 2, x.shape[1] // 2).unbind(1)
        return one * two

    made = export(halves, mt.randn(2, 6), dynamic_axes={"x": NL})
    assert axes_of(made.graph.output[0]) == ["N", "L/2"]
    check(made, halves, mt.randn(3, 10))


def test_a_greatest_length_lets_sizes_shrink_in_the_runs() -> None:
    config = gpt.GPTConfig(50, 16, 48, 1, 6, hidden_dim=72)
    model = gpt.GPT(config)
    for n in (1, 2):
        made = export(model, tokens(n, 16), dynamic_axes={"tokens": NL})
        check(made, model.eval(), tokens(3, 5))


class Frozen:
    """Functions that cannot be exported with a dynamic length, and a part of the reason."""

    table = wrap(np.random.RandomState(0).randn(64).astype(np.float32))

    @staticmethod
    def numbers(x: Tensor) -> Tensor:
        return x + wrap(np.sqrt(np.arange(x.shape[1], dtype=np.float32)))

    @staticmethod
    def noise(x: Tensor) -> Tensor:
        return x + mt.randn(3)

    @staticmethod
    def numpy(x: Tensor) -> Tensor:
        return x + wrap(x.numpy()[:, ::2].mean(1, keepdims=True))

    @staticmethod
    def memory(x: Tensor) -> Tensor:
        return (x * 2) + mt.from_numpy((x * 2).numpy()[:, :1])

    @staticmethod
    def loop(x: Tensor) -> Tensor:
        total = x[:, 0]
        for i in range(1, x.shape[1]):
            total = total + x[:, i]
        return total

    @staticmethod
    def branch(x: Tensor) -> Tensor:
        return x.exp() if x.shape[1] > 6 else x.sin()

    reasons: ClassVar = {
        "numbers": r"it reads a tensor of shape \(5,\) or \(\d+,\) .*follow from",
        "noise": "it reads a tensor of shape .* from a random generator",
        "memory": "was made of another one's memory outside of the ops",
        "loop": "a loop over an axis needs an axis that keeps its size",
        "branch": r"with N=\d+, L=\d+, the program runs exp at .* where it otherwise runs sin",
    }


@pytest.mark.parametrize("name", sorted(Frozen.reasons))
def test_what_is_not_known_to_follow_from_sizes_is_refused(name: str) -> None:
    function = getattr(Frozen, name)
    x = mt.randn(2, 3 if name == "noise" else 5)
    axes = {0: "N"} if name == "noise" else NL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match=f"^export: .*({Frozen.reasons[name]})"):
            export(function, x, dynamic_axes={"x": axes})


def test_numbers_that_come_back_by_numpy_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match="follow from sizes, from the inputs by way of"):
            export(Frozen.numpy, mt.randn(2, 4))


def test_a_loop_can_be_exported_with_a_fixed_length() -> None:
    made = export(Frozen.loop, mt.randn(2, 5), dynamic_axes={"x": {0: "N"}})
    check(made, Frozen.loop, mt.randn(4, 5))


def test_numbers_that_leave_the_graph_are_warned_of() -> None:
    def function(x: Tensor) -> Tensor:
        if (x > 100).any():
            raise ValueError("too large")
        return x * 2

    with pytest.warns(UserWarning, match=r"at test_onnx\.py:\d+, __bool__\(\) looks at numbers"):
        made = export(function, mt.randn(3))
    check(made, lambda x: x * 2, mt.randn(3))


def test_a_causal_mask_among_the_inputs_is_warned_of() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 1).eval()
    with pytest.warns(UserWarning, match=r"is_causal_mask\(\) looks at numbers"):
        export(
            model,
            (mt.rand(2, 4, 8), causal_mask(4)),
            dynamic_axes={"mask": {0: "L", 1: "L"}, "src": {0: "N", 1: "L"}},
        )


def test_dropout_that_is_active_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"export: dropout at .*: it draws random numbers"):
        export(lambda x: F.dropout(x, 0.5), mt.randn(3))


def test_an_op_of_ones_own_is_refused_by_name_until_it_has_a_translation() -> None:
    class OnnxCube(Op):
        """y = x ** 3: (*) -> (*)."""

        namespaces = ""

        def forward(ctx, x: np.ndarray) -> np.ndarray:
            return x**3

    try:
        with pytest.raises(RuntimeError, match=r"onnx_cube at .*: minitensor\.onnx has no transl"):
            export(lambda x: OnnxCube.call(x), mt.randn(3))
        translates("OnnxCube")(lambda g, x: g.op("Mul", g.op("Mul", x, x), x))
        made = export(lambda x: OnnxCube.call(x), mt.randn(3))
        check(made, OnnxCube.call, mt.randn(3))
    finally:
        TRANSLATIONS.pop("OnnxCube", None)
        del OPS["OnnxCube"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(dynamic_axes={"y": {0: "N"}}), "there is no input 'y'; the inputs are x"),
        (dict(dynamic_axes={"x": {2: "N"}}), r"'x' has no axis 2, its shape is \(2, 3\)"),
        (dict(dynamic_axes={"x": {0: "N", 1: "N"}}), "'N' is the name of axes of 2 and of 3"),
        (dict(dynamic_axes={"x": {0: "2*N"}}), r"'2\*N' is no name for axis 0 of 'x'"),
        (dict(dynamic_axes={}, dynamic_shapes={}), "dynamic_axes or dynamic_shapes, not both"),
        (dict(input_names=["a", "b"]), "2 input_names for 1 tensors: x"),
        (dict(output_names=["a", "b"]), "2 output_names for 1 tensors: output"),
        (dict(output_names=["x"]), "'x' is the name of an input or another output"),
    ],
)
def test_names_that_do_not_fit_are_refused(how: dict[str, Any], message: str) -> None:
    def function(x: Tensor) -> Tensor:
        return x.exp()

    with pytest.raises(ValueError, match=message):
        export(function, mt.randn(2, 3), **how)


def test_a_program_that_returns_no_tensor_is_refused() -> None:
    with pytest.raises(RuntimeError, match="returned no tensor"):
        export(lambda x: 3, mt.randn(2))
