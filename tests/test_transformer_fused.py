"""The decoder as recorded kernels: it writes what its modules write, and follows what changes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor.core import Observer
from minitensor.core import state as thread
from minitensor.kernels import jit
from minitensor.models import transformer
from minitensor.models.transformer import Transformer, TransformerConfig

# The config, the type, how often each source is there, and the number of tokens; a cache has 32
# places at first.
CASES: dict[str, tuple[dict[str, Any], mt.dtype, int, int]] = {
    "post-norm": ({}, mt.float32, 1, 35),
    "pre-norm": ({"norm_first": True, "activation": "gelu"}, mt.float32, 3, 4),
    "rms": (
        {"norm": "rms", "norm_first": True, "positions": "learned", "max_length": 80},
        mt.float32, 1, 4,
    ),
    "rms after": ({"norm": "rms", "tied_output": True}, mt.float64, 1, 4),
}  # fmt: skip
STEPS = 35


def make(**changes: Any) -> Transformer:
    """Return a model in evaluation, with random biases too."""
    mt.manual_seed(0)
    settings = dict(d_model=16, nhead=2, num_encoder_layers=1, num_decoder_layers=2)
    model = Transformer(TransformerConfig(9, 11, dim_feedforward=24, **(settings | changes)))
    with mt.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * mt.randn(parameter.shape))
    return model.eval()


SRC = mt.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [3, 5, 2, 0]])
TGT = mt.from_numpy(np.random.RandomState(0).randint(0, 11, (9, STEPS)))


def steps(model: Transformer, state: Any, first: int = 0, last: int = 8) -> Iterator[Any]:
    """Yield the logits after each token."""
    for step in range(first, last):
        tokens = TGT[: len(state.sources), step : step + 1]
        yield model.advance(tokens, state).numpy()


@pytest.fixture
def by_modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that gives the logits of a model, computed by its modules."""

    def run(model: Transformer, src: mt.Tensor = SRC, last: int = 8) -> list[np.ndarray]:
        with monkeypatch.context() as patch:
            patch.setattr(transformer, "can_fuse", lambda *_: False)
            patch.setattr(transformer, "can_fuse_decoder", lambda *_: False)
            state = model.start(src)
            assert state.fused is None
            return list(steps(model, state, last=last))

    return run


def same(found: Any, expected: Any) -> None:
    """Check logits, and that they are of one type."""
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_recorded_kernels_give_the_logits_of_the_modules(
    case: tuple[dict[str, Any], mt.dtype, int, int], by_modules: Any
) -> None:
    changes, dtype, copies, last = case
    model, src = make(**changes).to(dtype), SRC.repeat(copies, 1)
    state = model.start(src)
    assert state.fused is not None
    same(steps(model, state, last=last), by_modules(model, src, last))
    if jit.COMPILED:
        assert state.fused.program.ready


@pytest.mark.parametrize("change", ["optimizer", "in place", "data", "load_state_dict", "array"])
def test_a_changed_weight_counts_in_the_next_token_and_the_next_sentence(
    change: str, by_modules: Any
) -> None:
    model, src = make(), SRC.repeat(3, 1)
    state = model.start(src)
    list(steps(model, state, 0, 3))
    decoder: Any = model.decoder
    weight = decoder.layers[1].linear1.weight  # no part of what was remembered
    if change == "optimizer":
        model(src, TGT[:, :3]).square().mean().backward()
        mt.optim.SGD([weight], lr=0.5).step()
    elif change == "in place":
        with mt.no_grad():
            weight.mul_(2.0)
    elif change == "data":
        weight.data = weight.detach() * 2
        decoder.norm.weight.data = mt.randn(16)
    elif change == "load_state_dict":
        state_dict = model.state_dict()
        name = "decoder.layers.1.linear1.weight"
        model.load_state_dict(state_dict | {name: 1.5 * state_dict[name]})
    else:
        weight.detach().numpy()[...] *= 2
    expected = by_modules(model, src)
    same(steps(model, state, 3), expected[3:])
    same(steps(model, model.start(src)), expected)


def test_whoever_looks_at_the_modules_sees_them_run(
    by_modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    expected = by_modules(model)
    state = model.start(SRC)
    list(steps(model, state, 0, 5))

    class Names(Observer):
        names: list[str] = []

        def ran(self, node: Any, args: Any, kwargs: Any, outs: Any) -> None:
            self.names.append(node.op_name)

    monkeypatch.setattr(thread, "observers", (Names(),))
    found = next(steps(model, state, 5))
    monkeypatch.undo()
    assert state.fused is None
    assert "softmax" in Names.names
    same([found, *steps(model, state, 6)], expected[5:])


def test_a_hooked_or_training_decoder_runs_by_its_modules() -> None:
    model = make()
    decoder: Any = model.decoder
    decoder.layers[1].register_forward_hook(lambda module, args, out: out)
    assert model.start(SRC).fused is None
    model = make()
    seen: list[Any] = []
    model.encoder.register_forward_hook(lambda module, args, out: seen.append(out))
    assert model.start(SRC).fused is not None
    assert len(seen) == 1
    model = make()
    assert model.start(SRC).fused is not None
    assert model.train().start(SRC).fused is None
    with mt.inference_mode():
        state = model.eval().start(SRC)
        logits = model.advance(TGT[:3, :1], state)
    assert state.fused is not None
    assert logits.is_inference()


def test_nothing_is_saved_for_a_backward_pass() -> None:
    model = make()
    logits = model.advance(TGT[:3, :1], model.start(SRC))
    assert not logits.requires_grad
    assert logits.grad_fn is None


def test_a_step_may_go_on_in_another_thread(by_modules: Any) -> None:
    model = make()
    state = model.start(SRC)
    found = list(steps(model, state, 0, 4))
    with ThreadPoolExecutor(1) as pool:
        found += pool.submit(lambda: list(steps(model, state, 4))).result()
    same(found, by_modules(model))
