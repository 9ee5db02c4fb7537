"""The complete Transformer: equal to PyTorch's, true to its names, and strict with its input."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from shape_names import LyingName, check, watch

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.files import shown
from minitensor.models import transformer
from minitensor.models.config import parameter_shapes
from minitensor.models.positions import SinusoidalPositions
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.models.transformer_state import DecoderState
from minitensor.serialize import CheckpointError, save_file

SMALL = TransformerConfig(
    src_vocab_size=13,
    tgt_vocab_size=11,
    d_model=16,
    nhead=2,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dim_feedforward=24,
    dropout=0.0,
)


def make(config: TransformerConfig = SMALL, seed: int = 0, **modules: Any) -> Transformer:
    mt.manual_seed(seed)
    return Transformer(config, **modules)


def batch() -> tuple[Tensor, Tensor]:
    """Two sources of 7 tokens and targets of 5, the second ones padded at the end."""
    noise = np.random.RandomState(0)
    src, tgt = noise.randint(3, 13, (2, 7)), noise.randint(3, 11, (2, 5))
    src[1, 5:] = 0
    tgt[1, 3:] = 0
    return mt.tensor(src), mt.tensor(tgt)


def masks(model: Transformer, src: Tensor, tgt: Tensor) -> dict[str, Tensor]:
    padding = model.generate_source_key_padding_mask(src)
    return dict(
        tgt_mask=model.generate_square_subsequent_mask(tgt.shape[1]),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
    )


# Against PyTorch


def torch_logits(model: Transformer, src: Any, tgt: Any, **masks: Any) -> tuple[Any, Any]:
    """The logits of PyTorch's modules with the weights of `model`, and their parameters."""
    import torch

    c = model.config
    options: Any = dict(batch_first=True, norm_first=c.norm_first, activation=c.activation)
    inner = torch.nn.Transformer(
        c.d_model,
        c.nhead,
        c.num_encoder_layers,
        c.num_decoder_layers,
        c.dim_feedforward,
        0.0,
        **options,
    )
    torch_choices(inner, c)
    inner.train(model.training)
    weights = {
        name: torch.from_numpy(t.detach().numpy().copy()) for name, t in model.state_dict().items()
    }
    stacks = {k: v for k, v in weights.items() if k.startswith(("encoder.", "decoder."))}
    inner.load_state_dict(stacks)  # strict: the names are PyTorch's, all of them
    rest = {k: v.requires_grad_() for k, v in weights.items() if k not in stacks}
    table = torch.zeros(64, c.d_model)
    for p in range(64 if c.positions == "sinusoidal" else 0):
        for i in range(0, c.d_model, 2):
            angle = p / 10000 ** (i / c.d_model)
            table[p, i], table[p, i + 1] = math.sin(angle), math.cos(angle)

    def embed(tokens: Any, side: str) -> Any:
        vectors = torch.nn.functional.embedding(tokens, rest[f"{side}_embedding.weight"], 0)
        positions = rest.get(f"{side}_positions.weight", table)
        return vectors * math.sqrt(c.d_model) + positions[: tokens.shape[1]]

    hidden = inner(embed(src, "src"), embed(tgt, "tgt"), **masks)
    output = rest["tgt_embedding.weight" if c.tied_output else "output.weight"]
    logits = torch.nn.functional.linear(hidden, output, rest["output.bias"])
    return logits, {**rest, **dict(inner.named_parameters())}


def torch_choices(inner: Any, config: TransformerConfig) -> None:
    """Exchange the norms and self-attentions of PyTorch's modules for those of the config."""
    import torch

    def rotate_half(x: Any) -> Any:
        first, second = x.chunk(2, -1)
        return torch.cat([-second, first], -1)

    class BatchNorm(torch.nn.BatchNorm1d):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return super().forward(x.transpose(1, 2)).transpose(1, 2)

    class RotaryAttention(torch.nn.MultiheadAttention):  # type: ignore[misc]
        def forward(self, x: Any, *_: Any, key_padding_mask: Any, attn_mask: Any, **__: Any) -> Any:
            packed = torch.nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
            q, k, v = packed.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            width = q.shape[-1]
            rate = 10000.0 ** (-torch.arange(0, width, 2) / width)
            angle = torch.arange(x.shape[1])[:, None] * torch.cat([rate, rate])
            q, k = (x * angle.cos() + rotate_half(x) * angle.sin() for x in (q, k))
            mask = torch.zeros(x.shape[1], x.shape[1]) if attn_mask is None else attn_mask
            if key_padding_mask is not None:
                mask = mask + key_padding_mask[:, None, None]
            heads = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
            return self.out_proj(heads.transpose(1, 2).flatten(2)), None

    kinds: Any = {"layer": torch.nn.LayerNorm, "rms": torch.nn.RMSNorm, "batch": BatchNorm}
    for module in list(inner.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.LayerNorm):
                setattr(module, name, kinds[config.norm](config.d_model))
            if name == "self_attn" and config.positions == "rotary":
                attention = RotaryAttention(config.d_model, config.nhead, batch_first=True)
                setattr(module, name, attention)


VARIANTS = {
    "post-norm": SMALL,
    "pre-norm": replace(SMALL, norm_first=True),
    "gelu": replace(SMALL, activation="gelu"),
    "learned positions": replace(SMALL, positions="learned", max_length=9),
    "rotary positions": replace(SMALL, positions="rotary"),
    "no positions": replace(SMALL, positions="none"),
    "rms norm": replace(SMALL, norm="rms"),
    "rms norm first": replace(SMALL, norm="rms", norm_first=True),
    "batch norm": replace(SMALL, norm="batch"),
    "batch norm first": replace(SMALL, norm="batch", norm_first=True),
    "tied output": replace(SMALL, tied_output=True),
}


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))
def test_logits_and_gradients_equal_torch(config: TransformerConfig) -> None:
    import torch

    model = make(config)
    src, tgt = batch()
    given = masks(model, src, tgt)
    logits = model(src, tgt, **given)
    expected, parameters = torch_logits(
        model,
        torch.from_numpy(src.numpy()),
        torch.from_numpy(tgt.numpy()),
        **{name: torch.from_numpy(mask.numpy()) for name, mask in given.items()},
    )
    np.testing.assert_allclose(
        logits.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5
    )

    weight = np.random.RandomState(1).randn(*logits.shape).astype(np.float32)
    (logits * mt.tensor(weight)).sum().backward()
    (expected * torch.from_numpy(weight)).sum().backward()
    names = dict(model.named_parameters())
    assert len(names) > 40
    for name, parameter in names.items():
        theirs = parameters[name].grad
        np.testing.assert_allclose(
            parameter.grad.numpy(), theirs.numpy(), rtol=1e-3, atol=2e-5, err_msg=name
        )


@needs_torch
@pytest.mark.filterwarnings("ignore")
def test_batch_norm_evaluates_with_the_averages_of_training_as_in_torch() -> None:
    import torch

    model = make(VARIANTS["batch norm"])
    src, tgt = batch()
    theirs = [torch.from_numpy(t.numpy()) for t in (src, tgt)]
    mt.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    expected, _ = torch_logits(model.eval(), *theirs)
    np.testing.assert_allclose(
        model(src, tgt).detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5
    )
    norm: Any = model.train().encoder.norm
    before = norm.running_mean.clone()
    model(src, tgt)
    assert norm.num_batches_tracked.item() == 1
    assert not mt.equal(norm.running_mean, before)


def test_padding_changes_no_translation_of_any_model() -> None:
    for name, config in VARIANTS.items():
        model = make(config).eval()
        src, tgt = batch()
        whole = model(src, tgt, **masks(model, src, tgt))[1]
        src, tgt = src[1:, :5], tgt[1:]
        alone = model(src, tgt, **masks(model, src, tgt))[0]
        np.testing.assert_allclose(
            whole.detach().numpy(), alone.detach().numpy(), atol=1e-5, err_msg=name
        )


def test_only_the_order_of_tokens_tells_a_model_with_positions_from_one_without() -> None:
    src, tgt = mt.tensor([[3, 4, 5, 6, 7]]), mt.tensor([[1]])
    for positions in ("sinusoidal", "learned", "rotary", "none"):
        model = make(replace(SMALL, positions=positions)).eval()
        forward, backward = model(src, tgt).detach(), model(src.flip(1), tgt).detach()
        assert mt.allclose(forward, backward, atol=1e-5) == (positions == "none"), positions


@needs_torch
@pytest.mark.filterwarnings("ignore")
def test_all_masks_mean_what_they_mean_in_torch() -> None:
    import torch

    model = make()
    src, tgt = batch()
    noise = np.random.RandomState(2)
    blocked = np.triu(np.ones((5, 5), bool), 1)
    given = dict(
        src_mask=noise.randn(7, 7).astype(np.float32),
        tgt_mask=np.broadcast_to(blocked, (4, 5, 5)).copy(),  # N * H
        memory_mask=noise.rand(5, 7) < 0.3,
        src_key_padding_mask=np.where(src.numpy() == 0, -np.inf, 0).astype(np.float32),
        tgt_key_padding_mask=tgt.numpy() == 0,
        memory_key_padding_mask=src.numpy() == 0,
    )
    given["memory_mask"][:, 0] = False
    logits = model(src, tgt, **{name: mt.tensor(mask) for name, mask in given.items()})
    expected, _ = torch_logits(
        model,
        torch.from_numpy(src.numpy()),
        torch.from_numpy(tgt.numpy()),
        **{name: torch.from_numpy(mask) for name, mask in given.items()},
    )
    np.testing.assert_allclose(
        logits.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5
    )


@needs_torch
@pytest.mark.filterwarnings("ignore")
def test_weights_load_from_torch() -> None:
    import torch

    c = SMALL
    theirs = torch.nn.Transformer(
        c.d_model, c.nhead, c.num_encoder_layers, c.num_decoder_layers, c.dim_feedforward
    )
    model = make()
    state = {name: mt.tensor(t.numpy()) for name, t in theirs.state_dict().items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith(("src_", "tgt_", "output.")) for name in missing)
    name = "decoder.layers.1.multihead_attn.in_proj_weight"
    np.testing.assert_array_equal(
        model.state_dict()[name].numpy(), theirs.state_dict()[name].numpy()
    )


# Shapes by name

# The table of the classic Transformer, with N=2, M=7, M_target=5, E=16, nhead=2, vocabulary 11.
SHAPES = {
    "tokens": ("Transformer.embed", "tokens_NL", (2, 7)),
    "positions": ("Transformer.embed", "position_LE", (7, 16)),
    "sum": ("Transformer.embed", "sum_NLE", (2, 7, 16)),
    "q of the heads": ("MultiheadAttention.forward", "q_NHLK", (2, 2, 7, 8)),
    "k of the heads": ("MultiheadAttention.forward", "k_NHSK", (2, 2, 7, 8)),
    "v of the heads": ("MultiheadAttention.forward", "v_NHSK", (2, 2, 7, 8)),
    "scores": ("MultiheadAttention.forward", "scores_NHLS", (2, 2, 7, 7)),
    "weights": ("MultiheadAttention.forward", "weights_NHLS", (2, 2, 7, 7)),
    "output of the heads": ("MultiheadAttention.forward", "head_NHLK", (2, 2, 7, 8)),
    "concatenation": ("MultiheadAttention.forward", "concatenation_NLE", (2, 7, 16)),
    "feed-forward in": ("Layer.feed_forward", "feedforward_in_NLE", (2, 7, 16)),
    "feed-forward out": ("Layer.feed_forward", "feedforward_out_NLE", (2, 7, 16)),
    "encoder output": ("Transformer.encode", "encoder_output_NSE", (2, 7, 16)),
    "target embedding": ("Transformer.decode", "target_embedding_NLE", (2, 5, 16)),
    "decoder output": ("Transformer.decode", "decoder_output_NLE", (2, 5, 16)),
    "probabilities": ("Transformer.explain", "probabilities_NLV", (2, 5, 11)),
}


def test_every_tensor_of_the_shape_table_has_its_shape() -> None:
    model = make()
    src, tgt = batch()
    with watch(transformer) as seen:
        model.explain(src, tgt, **masks(model, src, tgt))
    for what, (function, name, shape) in SHAPES.items():
        assert shape in seen[function, name], what
    assert seen["Transformer.decode", "decoder_output_NLE"] == {(2, 5, 16)}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))
def test_no_name_lies_about_its_shape(config: TransformerConfig) -> None:
    model = make(replace(config, dropout=0.1))
    src, tgt = batch()
    with watch(transformer) as seen:
        model(src, model.shift_right(tgt), **masks(model, src, tgt)).sum().backward()
        model.eval().generate(src, 4)
    assert ("MultiheadAttention.forward", "concatenation_NLE") in seen
    assert ("Transformer.generate", "tgt_NL") in seen


@pytest.mark.parametrize(
    "values",
    [
        {"x_NLE": (2, 3)},
        {"x_NL": (2, 3), "y_LE": (4, 5)},
        {"x_N1": (2, 3)},
        {"N": 3, "x_NL": (2, 3)},
    ],
)
def test_a_lying_name_is_found(values: dict[str, Any]) -> None:
    seen: Any = {(w, n): set() for w in ["f"] for n in values}
    arrays = {n: np.zeros(v) if isinstance(v, tuple) else v for n, v in values.items()}
    with pytest.raises(LyingName):
        check("f", arrays, seen)


# Values


def test_what_is_explained_is_what_is_computed_and_maps_are_complete() -> None:
    model = make().eval()
    src, tgt = batch()
    given = masks(model, src, tgt)
    probabilities, maps = model.explain(src, tgt, **given)
    np.testing.assert_allclose(
        probabilities.detach().numpy(),
        model(src, tgt, **given).softmax(-1).detach().numpy(),
        rtol=1e-4,
        atol=1e-6,
    )
    lengths = {"encoder.layers.{}.self_attn": (7, 7), "decoder.layers.{}.self_attn": (5, 5),
               "decoder.layers.{}.multihead_attn": (5, 7)}  # fmt: skip
    expected = {path.format(n): (2, 2, *s) for path, s in lengths.items() for n in range(2)}
    assert {path: tuple(m.shape) for path, m in maps.items()} == expected
    for path, weights in maps.items():
        rows = weights.detach().numpy()
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
        if "multihead" in path or "encoder" in path:
            assert (rows[1, :, :, 5:] == 0).all()  # padding is not looked at
        else:
            assert (np.triu(rows, 1) == 0).all()  # nor what comes later
    assert not any(getattr(m, "keep_weights", False) for m in model.modules())


@pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))
def test_a_source_that_is_all_padding_is_explained_as_it_is_computed(
    config: TransformerConfig,
) -> None:
    model = make(config).eval()
    src, tgt = batch()
    src[1] = 0
    given = masks(model, src, tgt)
    logits = model(src, tgt, **given).softmax(-1)
    probabilities, maps = model.explain(src, tgt, **given)
    np.testing.assert_allclose(
        probabilities.detach().numpy(), logits.detach().numpy(), rtol=1e-4, atol=1e-6
    )
    for path, weights in maps.items():
        rows = weights.detach().numpy().sum(-1)
        np.testing.assert_allclose(rows[0], 1, rtol=1e-5)
        looks = "self_attn" in path and "decoder" in path  # at the target, which is there
        np.testing.assert_allclose(rows[1], 1 if looks else 0, rtol=1e-5)
    parameters = list(model.parameters())
    ours = mt.autograd.grad(probabilities[..., 3].sum(), parameters, allow_unused=True)
    theirs = mt.autograd.grad(logits[..., 3].sum(), parameters, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5)


def test_what_is_explained_while_training_is_without_dropout() -> None:
    model = make(replace(SMALL, dropout=0.5)).train()
    model.encoder.layers[0].eval()  # type: ignore[index]  # a part that is kept from training
    modes = [module.training for module in model.modules()]
    src, tgt = batch()
    given = masks(model, src, tgt)
    probabilities, maps = model.explain(src, tgt, **given)
    assert [module.training for module in model.modules()] == modes
    for weights in maps.values():
        np.testing.assert_allclose(weights.detach().numpy().sum(-1), 1, rtol=1e-5)
    again = model.eval()(src, tgt, **given).softmax(-1)
    np.testing.assert_allclose(
        probabilities.detach().numpy(), again.detach().numpy(), rtol=1e-4, atol=1e-6
    )
    model.train()
    with pytest.raises(IndexError):
        model.explain(src + 99, tgt, **given)
    assert all(module.training for module in model.modules())


def test_later_target_tokens_and_padding_change_nothing() -> None:
    model = make().eval()
    src, tgt = batch()
    logits = model(src, tgt, **masks(model, src, tgt)).detach().numpy()
    other = tgt.numpy().copy()
    other[:, 3:] = 5
    changed = model(src, mt.tensor(other), **masks(model, src, tgt)).detach().numpy()
    np.testing.assert_allclose(changed[:, :3], logits[:, :3], rtol=1e-5, atol=1e-6)
    assert np.abs(changed[:, 3:] - logits[:, 3:]).max() > 1e-3

    alone = mt.tensor(src.numpy()[1:, :5])
    short = (
        model(alone, tgt[1:], tgt_mask=model.generate_square_subsequent_mask(5)).detach().numpy()
    )
    np.testing.assert_allclose(short[0], logits[1], rtol=1e-4, atol=1e-5)


def test_a_mask_may_be_of_booleans_or_numbers_and_of_all_heads_or_each() -> None:
    model = make().eval()
    src, tgt = batch()
    length = tgt.shape[1]
    causal = model.generate_square_subsequent_mask(length)
    padding = mt.zeros(2, length, dtype=mt.bool)
    padding[1, -1] = True
    per_head = causal.expand(2 * model.config.nhead, length, length).contiguous()
    expected = model(src, tgt, tgt_mask=per_head, tgt_key_padding_mask=padding).detach().numpy()
    for mask in (causal, causal != 0, per_head != 0):
        logits = model(src, tgt, tgt_mask=mask, tgt_key_padding_mask=padding).detach().numpy()
        np.testing.assert_array_equal(logits, expected)


def test_shift_right_and_masks() -> None:
    model = make()
    assert model.shift_right(mt.tensor([[5, 6, 2], [7, 2, 0]])).tolist() == [[1, 5, 6], [1, 7, 2]]
    assert model.generate_source_key_padding_mask(mt.tensor([[5, 0]])).tolist() == [[False, True]]
    inf = math.inf
    assert model.generate_square_subsequent_mask(2).tolist() == [[0, -inf], [0, 0]]


def test_embeddings_are_scaled_and_initial_weights_are_xavier() -> None:
    config = replace(SMALL, src_vocab_size=2000, d_model=64)
    model = make(config)
    tokens = mt.tensor([[3, 4, 5]])
    embedded = model.embed(tokens, model.src_embedding, model.src_positions).detach().numpy()
    weight = model.src_embedding.weight.detach().numpy()
    np.testing.assert_allclose(
        embedded[0], weight[3:6] * 8 + SinusoidalPositions(64)(3).numpy(), rtol=1e-5, atol=1e-6
    )
    assert (weight[0] == 0).all()
    assert (weight[3:] * 8).std() == pytest.approx(1, abs=0.02)
    linear = model.encoder.layers[0].linear1.weight.detach().numpy()  # type: ignore[index]
    assert np.abs(linear).max() <= math.sqrt(6 / (64 + 24))
    assert linear.std() == pytest.approx(math.sqrt(2 / (64 + 24)), rel=0.1)


def test_tied_output_is_the_target_embedding() -> None:
    model = make(replace(SMALL, tied_output=True))
    assert model.output.weight is model.tgt_embedding.weight
    assert "output.weight" not in dict(model.named_parameters())


def test_pretrained_embeddings() -> None:
    vectors = mt.randn(13, 16)
    model = make(src_embedding=vectors)
    np.testing.assert_array_equal(model.src_embedding.weight.detach().numpy(), vectors.numpy())
    with pytest.raises(RuntimeError, match=r"\(13, 8\).*\(13, 16\)"):
        make(src_embedding=mt.randn(13, 8))


class Recording(nn.Module):
    """A stack that only notes how it was called."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.called = args, sorted(kwargs)
        return x


def test_custom_stacks() -> None:
    encoder, decoder = Recording(), Recording()
    model = make(encoder=encoder, decoder=decoder)
    src, tgt = batch()
    assert tuple(model(src, tgt).shape) == (2, 5, 11)
    assert encoder.called[1] == ["mask", "src_key_padding_mask"]
    assert decoder.called[1] == [
        "memory_key_padding_mask", "memory_mask", "tgt_key_padding_mask", "tgt_mask"
    ]  # fmt: skip
    library = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True), 1, enable_nested_tensor=False
    )
    assert tuple(make(encoder=library)(src, tgt).shape) == (2, 5, 11)


# Decoding


class Scripted(Transformer):
    """Says 4, then 5 and the end; where the source begins with 9, 4 and the end at once."""

    def advance(self, tokens: Tensor, state: DecoderState) -> Tensor:
        says = [[4, 2, 7, 7], [4, 5, 2, 7]]
        said = [says[row][state.length] for row in state.sources]
        state.length += 1
        return mt.eye(11)[mt.tensor(said)]


def test_decoding_stops_at_the_end_token_of_every_row() -> None:
    model = Scripted(SMALL)
    src, _ = batch()
    assert model.generate(src, 10).tolist() == [[4, 2, 0], [4, 5, 2]]
    assert model.generate(src, 2).tolist() == [[4, 2], [4, 5]]


def test_greedy_takes_the_most_probable_token_of_each_step() -> None:
    model = make(seed=3).eval()
    src, _ = batch()
    found = model.generate(src, 6).numpy()
    given = masks(model, src, src)
    target = np.concatenate([np.full((2, 1), 1), found], axis=1)
    for row in range(2):
        for step in range(found.shape[1]):
            prefix = mt.tensor(target[:, : step + 1])
            given["tgt_mask"] = model.generate_square_subsequent_mask(step + 1)
            best = model(src, prefix, **given).detach().numpy()[row, -1].argmax()
            if (found[row, :step] == 2).any():
                best = 0
            assert found[row, step] == best
    alone = model.generate(mt.tensor(src.numpy()[1:, :5]), 6).numpy()  # without padding
    np.testing.assert_array_equal(alone[0], found[1, : alone.shape[1]])
    assert model.generate(src, 1).grad_fn is None


# Learning


def test_it_learns_a_batch_by_heart() -> None:
    model = make(replace(SMALL, norm_first=True))
    optimizer = mt.optim.Adam(model.parameters(), lr=5e-3)
    src, tgt = batch()
    given = masks(model, src, tgt)
    for _ in range(60):
        logits = model(src, model.shift_right(tgt), **given)
        loss = mt.nn.functional.cross_entropy(logits.flatten(0, 1), tgt.flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    found = model.eval().generate(src, 5).tolist()
    assert found[0] == tgt.tolist()[0]
    assert found[1][:3] == tgt.tolist()[1][:3]


# Files


@pytest.mark.skipif(mt.get_num_threads() < 2, reason="needs two threads")
@pytest.mark.parametrize("norm_first", [False, True])
def test_training_gives_the_same_bits_on_any_number_of_threads(norm_first: bool) -> None:
    config = replace(
        SMALL, d_model=64, dim_feedforward=256, dropout=0.1, activation="gelu",
        norm_first=norm_first, src_vocab_size=500, tgt_vocab_size=700,
    )  # fmt: skip
    noise = np.random.RandomState(0)
    src, tgt = (mt.tensor(noise.randint(3, 500, (24, n))) for n in (20, 17))

    def train() -> list[np.ndarray]:
        model = make(config)
        optimizer = mt.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            logits = model(src, model.shift_right(tgt), **masks(model, src, tgt))
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), tgt.flatten(), label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return [p.detach().numpy() for p in model.parameters()]

    threads = mt.get_num_threads()
    together = train()
    try:
        mt.set_num_threads(1)
        alone = train()
    finally:
        mt.set_num_threads(threads)
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))
def test_save_and_load(config: TransformerConfig, tmp_path: Any) -> None:
    model = make(config).eval()
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = Transformer.load(path).eval()
    assert again.config == config
    src, tgt = batch()
    np.testing.assert_array_equal(
        model(src, tgt).detach().numpy(), again(src, tgt).detach().numpy()
    )
    if config.tied_output:
        assert again.output.weight is again.tgt_embedding.weight


def test_load_refuses_what_is_not_a_model(tmp_path: Any) -> None:
    path = tmp_path / "model.safetensors"
    make().save(path)
    whole = path.read_bytes()

    def refused(content: bytes) -> str:
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            Transformer.load(path)
        assert str(path) in str(error.value)
        return str(error.value)

    refused(whole[: len(whole) // 2])
    refused(whole[:5])
    refused(b"")
    refused(b"\x80\x04\x95 a pickle is not read" * 10)
    save_file({"x": mt.zeros(2)}, path)
    refused(path.read_bytes())
    save_file({"x": mt.zeros(2)}, path, {"config": json.dumps({"src_vocab_size": 3, "wings": 2})})
    assert "wings" in refused(path.read_bytes())
    config = {"src_vocab_size": 13, "tgt_vocab_size": 11, "d_model": 16, "nhead": 2}
    save_file({"x": mt.zeros(2)}, path, {"config": json.dumps(config)})
    refused(path.read_bytes())


# Bad input


BAD_FIELDS: dict[str, list[Any]] = {
    "d_model": ["16", 16.0, 0, -16, 10**400, True, None, math.nan, [16]],
    "nhead": [0, 3, -2, 2.0, "2"],
    "num_encoder_layers": [-1, 1.5, 2**31],
    "num_decoder_layers": [-1, "2"],
    "dim_feedforward": [0, "24"],
    "src_vocab_size": [0, -1, "13", 2**31],
    "tgt_vocab_size": [0, None, 11.0],
    "max_length": [0, -9, "512"],
    "dropout": [math.nan, 2, -0.1, math.inf, "0.1", True, None],
    "activation": ["tanh", "", None, 1, ["relu"]],
    "positions": ["rotating", None],
    "norm": ["group", None, "layer norm"],
    "norm_first": [1, "true", None],
    "tied_output": [0, "false", None],
    "pad_id": [100, 11, -1, "0", 0.0],
    "bos_id": [999, 11, -1],
    "eos_id": ["x", 11, None],
}
bad_fields = pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in BAD_FIELDS.items() for value in values],
    ids=lambda x: shown(x)[:20],
)


@bad_fields
def test_every_field_of_a_config_has_a_type_and_a_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name) as error:
        replace(SMALL, **{name: value})
    assert len(str(error.value)) < 200


@bad_fields
def test_a_file_with_a_bad_field_is_refused_by_its_name(
    name: str, value: Any, tmp_path: Any
) -> None:
    path = tmp_path / "model.safetensors"
    text = json.dumps(asdict(SMALL) | {name: value})
    save_file(make().state_dict(), path, {"config": text})
    with pytest.raises(CheckpointError, match=name) as error:
        Transformer.load(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))


def test_integers_of_numpy_are_integers(tmp_path: Any) -> None:
    config = replace(SMALL, d_model=np.int64(16), src_vocab_size=np.int32(13))  # type: ignore[arg-type]
    assert type(config.d_model) is int
    make(config).save(tmp_path / "model")
    assert Transformer.load(tmp_path / "model").config == SMALL


@pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))
def test_the_shapes_that_a_config_implies_are_the_shapes_of_its_model(
    config: TransformerConfig,
) -> None:
    shapes = {name: tuple(t.shape) for name, t in make(config).state_dict().items()}
    assert dict(parameter_shapes(config)) == shapes
    config = replace(config, num_encoder_layers=0, num_decoder_layers=3, dim_feedforward=7)
    shapes = {name: tuple(t.shape) for name, t in make(config).state_dict().items()}
    assert dict(parameter_shapes(config)) == shapes


@pytest.mark.parametrize(
    "changes",
    [
        dict(d_model=10**9, nhead=10**9),
        dict(num_encoder_layers=10**4),
        dict(num_decoder_layers=2**31 - 1),
        dict(src_vocab_size=10**7),
        dict(dim_feedforward=10**9),
        dict(positions="learned", max_length=10**9),
        dict(num_encoder_layers=1),
        dict(d_model=8),
    ],
    ids=str,
)
def test_the_weights_are_compared_with_the_config_before_a_model_is_made(
    changes: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    text = json.dumps(asdict(SMALL) | changes)
    save_file(make().state_dict(), path, {"config": text})

    def made(*args: Any) -> None:
        raise AssertionError("a module was made")

    monkeypatch.setattr(nn.Module, "__init__", made)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="does not hold the weights of this model"):
            Transformer.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * path.stat().st_size + 100_000


def test_a_file_must_be_of_this_model_in_every_weight(tmp_path: Any) -> None:
    path = tmp_path / "model.safetensors"
    state = make().state_dict()

    def refused(changes: dict[str, Any], config: TransformerConfig = SMALL) -> str:
        save_file({**state, **changes}, path, {"config": json.dumps(asdict(config))})
        with pytest.raises(CheckpointError) as error:
            Transformer.load(path)
        assert str(path) in str(error.value)
        return str(error.value)

    name = "encoder.layers.1.norm1.bias"
    assert f"{name} is of type int32" in refused({name: state[name].to(mt.int32)})
    assert f"{name} has the shape (3,), expected (16,)" in refused({name: mt.zeros(3)})
    assert "unexpected tensor 'more'" in refused({"more": mt.zeros(3)})
    batched = replace(SMALL, norm="batch")
    steps = "encoder.layers.0.norm1.num_batches_tracked"
    statistics = {k: t for k, t in make(batched).state_dict().items() if k not in state}
    assert f"{steps} is of type float32" in refused({**statistics, steps: mt.zeros(())}, batched)
    assert f"{steps} has the shape (1,)" in refused({**statistics, steps: mt.tensor([0])}, batched)
    assert "norm1.running_mean is missing" in refused({}, batched)
    vocabularies: Any = dict(src_vocab_size=13, tgt_vocab_size=11)
    tied = replace(SMALL, tied_output=True, **vocabularies)
    assert "tied_output" in refused({}, tied)
    # Both written out, and equal, as other writers do it.
    weight = state["tgt_embedding.weight"]
    save_file(
        {**state, "output.weight": weight.clone()}, path, {"config": json.dumps(asdict(tied))}
    )
    model = Transformer.load(path)
    assert model.output.weight is model.tgt_embedding.weight


def test_a_checkpoint_of_before_norms_had_a_choice_has_layer_norms(tmp_path: Any) -> None:
    config = asdict(SMALL)
    del config["norm"]
    save_file(make().state_dict(), tmp_path / "model", {"config": json.dumps(config)})
    assert Transformer.load(tmp_path / "model").config == SMALL


def test_weights_of_half_the_width_are_read(tmp_path: Any) -> None:
    path = tmp_path / "model.safetensors"
    state = {name: t.to(mt.float16) for name, t in make().state_dict().items()}
    save_file(state, path, {"config": json.dumps(asdict(SMALL))})
    found = Transformer.load(path).state_dict()
    assert all(mt.equal(found[name], t.to(mt.float32)) for name, t in state.items())


@pytest.mark.parametrize("text", ["[" * 10**5, "[]", "3", "{", '{"d_model": 1, "d_model": 2}'])
def test_a_config_that_is_none(text: str, tmp_path: Any) -> None:
    save_file({}, tmp_path / "model", {"config": text})
    with pytest.raises(CheckpointError, match="its config: ") as error:
        Transformer.load(tmp_path / "model")
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_custom_stack_is_loaded_with_its_own_weights(tmp_path: Any) -> None:
    stack = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True), 1, enable_nested_tensor=False
    )
    model = make(encoder=stack)
    model.save(tmp_path / "model")
    mt.manual_seed(7)
    other = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True), 1, enable_nested_tensor=False
    )
    again = Transformer.load(tmp_path / "model", encoder=other)
    state = model.state_dict()
    assert all(mt.equal(t, state[name]) for name, t in again.state_dict().items())
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        Transformer.load(tmp_path / "model", encoder=nn.Linear(2, 2))


def test_bad_batches() -> None:
    model = make()
    src, tgt = batch()
    with pytest.raises(RuntimeError, match=r"src is \(2, 7\), tgt is \(1, 5\)"):
        model(src, tgt[:1])
    with pytest.raises(IndexError):
        model(src + 13, tgt)
    with pytest.raises(RuntimeError):
        model(src, tgt, tgt_mask=model.generate_square_subsequent_mask(4))
    with pytest.raises(RuntimeError, match="boolean or floating"):
        model(src, tgt, tgt_mask=mt.ones(5, 5, dtype=mt.int64))
