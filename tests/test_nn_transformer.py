"""The Transformer and its layers beside PyTorch's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from twins import assert_same, assert_same_state, twins

import minitensor
from minitensor import nn
from minitensor.core import wrap
from minitensor.nn import functional as F
from minitensor.ops.attention import PackedAttention

N, S, T, E, H = 2, 5, 4, 8, 2
noise = np.random.RandomState(0)
small = dict(
    d_model=E,
    nhead=H,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dim_feedforward=12,
    dropout=0.0,
)
# PyTorch warns of what its own fast path cannot do.
pytestmark = [
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
    pytest.mark.filterwarnings("ignore:Support for mismatched"),
]


def normal(*shape: int) -> np.ndarray:
    return noise.standard_normal(shape).astype(np.float32)


def padded(length: int) -> np.ndarray:
    """(N, length): the last of the second sequence is padding."""
    mask = np.zeros((N, length), np.bool_)
    mask[1, -2:] = True
    return mask


def future(length: int) -> np.ndarray:
    return np.triu(np.ones((length, length), np.bool_), 1)


SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "batch first": dict(batch_first=True),
    "norm first": dict(batch_first=True, norm_first=True),
    "gelu": dict(activation="gelu", batch_first=True),
    "without bias": dict(bias=False, batch_first=True),
    "epsilon": dict(layer_norm_eps=0.1),
    "no layers": dict(num_encoder_layers=0, num_decoder_layers=0),
}


@needs_torch
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "no layers"])
def test_equals_pytorch(name: str, training: bool) -> None:
    settings = {**small, **SETTINGS[name]}
    mine, theirs = twins(lambda nn: nn.Transformer(**settings))
    mine.train(training)
    theirs.train(training)
    first = settings.get("batch_first")
    src = normal(N, S, E) if first else normal(S, N, E)
    tgt = normal(N, T, E) if first else normal(T, N, E)
    assert_same(mine, theirs, src, tgt)
    assert_same(
        mine,
        theirs,
        src,
        tgt,
        src_mask=future(S),
        tgt_mask=future(T),
        src_key_padding_mask=padded(S),
        tgt_key_padding_mask=padded(T),
        memory_key_padding_mask=padded(S),
        tolerance=1e-4,
    )


@needs_torch
def test_without_a_batch() -> None:
    mine, theirs = twins(lambda nn: nn.Transformer(**small))
    assert_same(mine, theirs, normal(S, E), normal(T, E), tgt_mask=future(T))


@needs_torch
def test_masks_of_each_kind() -> None:
    mine, theirs = twins(lambda nn: nn.Transformer(**small, batch_first=True))
    src, tgt = normal(N, S, E), normal(N, T, E)
    for masks in (
        dict(src_mask=normal(S, S), tgt_mask=normal(N * H, T, T), memory_mask=normal(T, S)),
        dict(memory_mask=noise.rand(N * H, T, S) < 0.3),
        dict(src_key_padding_mask=np.where(padded(S), -np.inf, 0).astype(np.float32)),
    ):
        assert_same(mine, theirs, src, tgt, tolerance=1e-4, **masks)


@needs_torch
@pytest.mark.parametrize("make", [lambda nn: nn.functional.silu, lambda nn: nn.Tanh()])
@pytest.mark.parametrize("norm_first", [True, False])
def test_layers_with_another_activation(make: Any, norm_first: bool) -> None:
    for name in ("TransformerEncoderLayer", "TransformerDecoderLayer"):
        mine, theirs = twins(
            lambda nn, name=name: getattr(nn, name)(E, H, 12, 0.0, make(nn), norm_first=norm_first)  # type: ignore[misc]
        )
        inputs = [normal(T, N, E), normal(S, N, E)][: 1 if "Encoder" in name else 2]
        assert_same(mine, theirs, *inputs)


@needs_torch
@pytest.mark.parametrize("is_causal", [None, True, False])
def test_stacks(is_causal: bool | None) -> None:
    """An encoder and a decoder on their own, with a norm and without, with and without the flag."""

    def encoder(nn: Any) -> Any:
        layer = nn.TransformerEncoderLayer(E, H, 12, 0.0, batch_first=True)
        return nn.TransformerEncoder(layer, 3)

    def decoder(nn: Any) -> Any:
        layer = nn.TransformerDecoderLayer(E, H, 12, 0.0, batch_first=True)
        return nn.TransformerDecoder(layer, 3, norm=nn.LayerNorm(E))

    mine, theirs = twins(encoder)
    assert_same(mine, theirs, normal(N, S, E), mask=future(S), is_causal=is_causal)
    first, *others = mine.layers
    for other in others:
        assert_same_state(first, other)
        assert first.linear1.weight is not other.linear1.weight
    mine, theirs = twins(decoder)
    tgt, memory = normal(N, T, E), normal(N, S, E)
    assert_same(mine, theirs, tgt, memory, tgt_mask=future(T), tgt_is_causal=is_causal)


def test_causality_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask that only blocks the future becomes the kernel's flag; any other stays a mask."""
    seen: list[tuple[bool, bool]] = []
    attend = PackedAttention.call

    def spy(qkv: Any, heads: int, mask: Any, dropout_p: float, is_causal: bool, kv: Any) -> Any:
        seen.append((mask is not None, is_causal))
        return attend(qkv, heads, mask, dropout_p, is_causal, kv=kv)

    monkeypatch.setattr(PackedAttention, "call", spy)
    layer = nn.TransformerEncoderLayer(E, H, 12, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1)
    x = wrap(normal(N, S, E))
    causal = nn.Transformer.generate_square_subsequent_mask(S)
    shifted = causal.clone()
    shifted[0, 1] = 0.0
    learnt = causal.clone().requires_grad_()
    for mask, expected in (
        (None, (False, False)),
        (causal, (False, True)),
        (wrap(future(S)), (False, True)),
        (shifted, (True, False)),
        (wrap(~future(S)), (True, False)),
        (learnt, (True, False)),
    ):
        encoder(x, mask=mask)
        assert seen.pop() == expected
    encoder(x, mask=causal, src_key_padding_mask=wrap(padded(S)))
    assert seen.pop() == (True, True)


def test_a_causal_decoder_does_not_see_the_future() -> None:
    model = nn.Transformer(**small, batch_first=True)  # type: ignore[arg-type]
    src, tgt = wrap(normal(N, S, E)), wrap(normal(N, T, E))
    mask = model.generate_square_subsequent_mask(T)
    before = model(src, tgt, tgt_mask=mask).detach().numpy()
    changed = tgt.clone()
    changed[:, 2:] = 0.0
    after = model(src, changed, tgt_mask=mask).detach().numpy()
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert not np.allclose(before[:, 2:], after[:, 2:])


@needs_torch
def test_mask() -> None:
    import torch

    mine = nn.Transformer.generate_square_subsequent_mask(4)
    theirs = torch.nn.Transformer.generate_square_subsequent_mask(4)
    np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    assert mine.dtype == minitensor.float32
    assert nn.Transformer.generate_square_subsequent_mask(2, dtype="float64").dtype == np.float64  # type: ignore[arg-type]


@needs_torch
def test_custom_parts_and_subclasses() -> None:
    def make(nn: Any) -> Any:
        class Doubled(nn.TransformerEncoderLayer):
            def _ff_block(self, x: Any) -> Any:
                return super()._ff_block(x) * 2

            def _sa_block(self, x: Any, *masks: Any, **flags: Any) -> Any:
                return super()._sa_block(x, *masks, **flags) + x

        encoder = nn.TransformerEncoder(Doubled(E, H, 12, 0.0), 1)
        return nn.Transformer(**small, custom_encoder=encoder)

    mine, theirs = twins(make)
    assert_same(mine, theirs, normal(S, N, E), normal(T, N, E))


def test_errors() -> None:
    model = nn.Transformer(**small)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="batch number"):
        model(wrap(normal(S, 2, E)), wrap(normal(T, 3, E)))
    with pytest.raises(RuntimeError, match="feature number"):
        model(wrap(normal(S, 2, E)), wrap(normal(T, 2, E + 1)))
    with pytest.raises(RuntimeError, match="relu/gelu"):
        nn.TransformerEncoderLayer(E, H, activation="tanh")
    wrong = wrap(np.zeros((T, T + 1), np.bool_))
    with pytest.raises(RuntimeError, match=r"\(4, 5\).*in decoder\.layers\.0\.self_attn"):
        model(wrap(normal(S, 2, E)), wrap(normal(T, 2, E)), tgt_mask=wrong)
    broken = copy.deepcopy(model)
    broken.decoder.layers[1].linear2 = nn.Linear(3, E)
    with pytest.raises(RuntimeError, match=r"decoder\.layers\.1\.linear2"):
        broken(wrap(normal(S, 2, E)), wrap(normal(T, 2, E)))


def test_dropout_everywhere_and_never_in_evaluation() -> None:
    model = nn.Transformer(**{**small, "dropout": 0.5})  # type: ignore[arg-type]
    src, tgt = wrap(normal(S, N, E)), wrap(normal(T, N, E))
    assert not np.allclose(model(src, tgt).detach().numpy(), model(src, tgt).detach().numpy())
    model.eval()
    np.testing.assert_array_equal(
        model(src, tgt).detach().numpy(), model(src, tgt).detach().numpy()
    )
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == 2 * 3 + 2 * 4
    assert model.encoder.layers[0].self_attn.dropout == 0.5


@needs_torch
def test_a_transformer_trains_as_in_pytorch() -> None:
    """Some steps of plain descent stay together."""
    mine, theirs = twins(lambda nn: nn.Transformer(**small, batch_first=True))
    src, tgt, goal = normal(N, S, E), normal(N, T, E), normal(N, T, E)
    losses = []
    for _ in range(4):
        loss, _ = assert_same(
            lambda s, t, g: ((mine(s, t, tgt_mask=wrap(future(T))) - g) ** 2).mean(),
            lambda s, t, g: ((theirs(s, t, tgt_mask=as_torch(future(T))) - g) ** 2).mean(),
            src,
            tgt,
            goal,
            tolerance=2e-4,
        )
        losses.append(loss.item())
        for model in (mine, theirs):
            for p in model.parameters():
                p.data -= 0.1 * p.grad
                p.grad = None
    assert_same_state(mine, theirs, 1e-4)
    assert losses[-1] < losses[0]


def as_torch(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array)


@needs_torch
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_drops_what_pytorch_drops(batch_first: bool, norm_first: bool) -> None:
    """With `exact_dropout`, training is PyTorch's also where it is random."""
    settings = {**small, "dropout": 0.3, "batch_first": batch_first, "norm_first": norm_first}
    minitensor.random.exact_dropout()
    try:
        mine, theirs = twins(lambda nn: nn.Transformer(**settings))
        src = normal(N, S, E) if batch_first else normal(S, N, E)
        tgt = normal(N, T, E) if batch_first else normal(T, N, E)
        for _ in range(2):
            assert_same(mine, theirs, src, tgt, tgt_mask=future(T), tolerance=1e-4)
    finally:
        minitensor.random.exact_dropout(False)


def layer(kind: str, **settings: Any) -> tuple[Any, list[Any]]:
    """A layer that drops, and its inputs."""
    made = getattr(nn, f"Transformer{kind}Layer")(E, H, 12, dropout=0.4, **settings)
    inputs = [wrap(normal(T, N, E)), wrap(normal(S, N, E))]
    return made, inputs[: 1 if kind == "Encoder" else 2]


def run(module: Any, inputs: list[Any]) -> list[np.ndarray]:
    """Result and gradients after a seed."""
    minitensor.manual_seed(11)
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = module(*inputs)
    module.zero_grad()
    y.square().sum().backward()
    return [
        t._array for t in (y, *(x.grad for x in inputs), *(p.grad for p in module.parameters()))
    ]


@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu", F.silu])
def test_every_step_calls_its_hooks(kind: str, norm_first: bool, activation: Any) -> None:
    """Each dropout and norm is called once, and a hook that does nothing changes nothing."""
    module, inputs = layer(kind, norm_first=norm_first, activation=activation)
    before = run(module, inputs)
    watched = []
    for child in module.modules():
        if isinstance(child, nn.Dropout | nn.LayerNorm):
            child.register_forward_hook(lambda m, args, out: watched.append(m))
    for mine, other in zip(before, run(module, inputs), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert len(watched) == len(set(watched)) == (5 if kind == "Encoder" else 7)


@pytest.mark.parametrize("norm_first", [True, False])
def test_replaced_steps_are_run(norm_first: bool) -> None:
    ran = []

    class Loud(nn.Dropout):
        def forward(self, input: Any) -> Any:
            ran.append("dropout")
            return input * 0.5

    class Centre(nn.LayerNorm):
        def forward(self, input: Any) -> Any:
            ran.append("norm")
            return super().forward(input)

    module, inputs = layer("Encoder", norm_first=norm_first)
    module.dropout, module.dropout1, module.norm2 = Loud(), Loud(), Centre(E)
    run(module, inputs)
    assert sorted(ran) == ["dropout", "dropout", "norm"]


def test_modes_of_the_steps_are_their_own() -> None:
    """Dropout in evaluation, or the norm, while the rest trains."""
    module, inputs = layer("Encoder")
    module.eval()
    expected = run(module, inputs)[0]
    module.train()
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.eval()
    module.self_attn.dropout = 0.0
    np.testing.assert_allclose(run(module, inputs)[0], expected, rtol=1e-5, atol=1e-5)
    module.eval()
    module.dropout1.train()
    assert not np.allclose(run(module, inputs)[0], expected, atol=1e-2)
