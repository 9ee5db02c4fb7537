"""The models of this repository: compiled training equals uncompiled training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor import nn
from minitensor.kernels.jit import COMPILED
from minitensor.models.bert import Bert, BertConfig, Pretraining
from minitensor.models.bert_data import PretrainingSettings
from minitensor.models.gpt import GPT, GPTConfig
from minitensor.models.pairs import TranslationSettings
from minitensor.models.recurrent import Recurrent, RecurrentConfig
from minitensor.models.task import common_shapes
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.models.translation import Translation
from minitensor.models.vit import VisionConfig, VisionTransformer
from minitensor.nn import functional as F
from minitensor.replay import calls_of
from minitensor.replay.plan import Pass

pytestmark = pytest.mark.compiled

STEPS = 5


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = mt.get_num_threads()
    yield
    mt.set_num_threads(before)


def tokens(most: int, *shape: int) -> Any:
    return mt.randint(1, most, shape)


def gpt(**more: Any) -> tuple[Any, Callable[[], tuple[Any, ...]]]:
    model = GPT(GPTConfig(23, 12, embed_dim=16, num_layers=2, num_heads=4, dropout=0.1, **more))
    return model, lambda: (tokens(23, 3, 12),)


def llama() -> Any:
    return gpt(num_kv_heads=2, variant="llama", tied_output=False)


def bert() -> Any:
    return Bert(BertConfig(50, 16, 2, 2, 24, max_position_embeddings=12)), lambda: (
        tokens(50, 3, 10),
    )


def vit() -> Any:
    model = VisionTransformer(VisionConfig(embed_dim=16, dim_feedforward=24, dropout=0.1))
    size = VisionConfig(embed_dim=16, dim_feedforward=24)
    shape = size.channels, size.image_size, size.image_size
    return model, lambda: (mt.rand(4, *shape),)


def transformer() -> Any:
    config = TransformerConfig(
        src_vocab_size=13, tgt_vocab_size=11, d_model=16, nhead=2, num_encoder_layers=2,
        num_decoder_layers=2, dim_feedforward=24, dropout=0.1,
    )  # fmt: skip
    return Transformer(config), lambda: (tokens(13, 3, 5), tokens(11, 3, 7))


def recurrent() -> Any:
    model = Recurrent(
        RecurrentConfig(11, 13, cell="lstm", attention=True, width=12, layers=2, dropout=0.0)
    )
    return model, lambda: (tokens(11, 3, 5), tokens(13, 3, 7))


def library() -> Any:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), lambda: (
        mt.randn(3, 6, 16),
    )


MODELS = {f.__name__: f for f in (gpt, llama, bert, vit, transformer, recurrent, library)}


# What runs as it is, and why: by name and type.
LENGTHS = "was not made by an op"  # the lengths of packed sequences
UNREPEATED = {
    "recurrent": {"float32": LENGTHS, "float64": LENGTHS},
}


def _tensors(x: Any) -> list[Any]:
    if isinstance(x, mt.Tensor):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    if hasattr(x, "__dataclass_fields__"):
        x = list(vars(x).values())
    return [t for each in x for t in _tensors(each)] if isinstance(x, list | tuple) else []


def trained(make: Any, compile: Any, dtype: Any) -> tuple[list[float], list[np.ndarray], Any]:
    """Return the losses of some steps and the weights after them."""
    mt.manual_seed(0)
    model, batch = make()
    model.to(dtype)
    compiled = compile(model)
    optimizer = mt.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(STEPS):
        args = tuple(x.to(dtype) if x.is_floating_point() else x for x in batch())
        outs = [t for t in _tensors(compiled(*args)) if t.requires_grad]
        loss = sum((F.log_softmax(t, -1)[..., 0]).mean() for t in outs)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        losses.append(loss.item())  # type: ignore[union-attr]
    return losses, [p.detach().numpy().copy() for p in model.parameters()], compiled


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_same(name: str, dtype: str, threads: int) -> None:
    mt.set_num_threads(threads)
    kind = getattr(mt, dtype)
    told = UNREPEATED.get(name, {}).get(dtype, "")
    expected, weights, _ = trained(MODELS[name], lambda model: model, kind)
    with pytest.warns(match=told) if told and COMPILED else nullcontext():
        found, others, compiled = trained(MODELS[name], mt.compile, kind)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(found, expected, tolerance, tolerance)
    for a, b in zip(others, weights, strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance)
    if COMPILED and not told:
        entries = list(calls_of(compiled).entries)
        assert any(plan.backward for entry in entries for plan in entry.plans)


def translation() -> Any:
    return Translation(
        TranslationSettings(
            d_model=16, nhead=2, encoder_layers=1, decoder_layers=1, dim_feedforward=32
        )
    )


def pretraining() -> Any:
    settings = PretrainingSettings(d_model=16, nhead=2, layers=1, dim_feedforward=32)
    return Pretraining(settings)


@pytest.mark.parametrize("make", [translation, pretraining])
def test_a_job_compiles_for_the_shapes_that_come_often(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed, replay = [], Pass.run

    def counted(*args: Any) -> Any:
        replayed.append(1)
        return replay(*args)

    monkeypatch.setattr(Pass, "run", counted)
    mt.manual_seed(0)
    task = make()
    task.model.train()
    loss = task.compiled_loss()
    batches = [task.collate(numbers) for numbers in task.train_batches(0)[:12]]
    for batch in batches * 2:
        state = mt.get_rng_state()
        expected, after = task.loss(batch).item(), mt.get_rng_state()
        mt.set_rng_state(state)
        assert loss(batch).item() == pytest.approx(expected, rel=1e-5)
        assert (mt.get_rng_state() == after).all()
    assert len(replayed) > len(batches) / 2


def test_shapes_that_come_once_are_not_common() -> None:
    often, once = ((3, 5), (3, 7)), ((2, 5), (2, 7))
    assert common_shapes([often, once, often]) == {often}
