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

CONFIGS: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "pre-norm": {"norm_first": True, "activation": "gelu"},
    "rms": {"norm": "rms", "norm_first": True, "positions": "learned", "max_length": 80},
    "rms after": {"norm": "rms", "tied_output": True},
}
STEPS = 35  # more than a cache has places at first


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
TGT = mt.from_numpy(np.random.RandomState(0).randint(0, 11, (3, STEPS)))


def steps(model: Transformer, state: Any, first: int = 0, last: int = STEPS) -> Iterator[Any]:
    """Yield the logits after each token."""
    for step in range(first, last):
        yield model.advance(TGT[:, step : step + 1], state).numpy()


@pytest.fixture
def by_modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that gives all logits of a model, computed by its modules."""

    def run(model: Transformer) -> list[np.ndarray]:
        with monkeypatch.context() as patch:
            patch.setattr(transformer, "can_fuse", lambda *_: False)
            patch.setattr(transformer, "can_fuse_decoder", lambda *_: False)
            state = model.start(SRC)
            assert state.fused is None
            return list(steps(model, state))

    return run


@pytest.mark.parametrize("dtype", [mt.float32, mt.float64])
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=list(CONFIGS))
def test_recorded_kernels_give_the_logits_of_the_modules(
    changes: dict[str, Any], dtype: mt.dtype, by_modules: Any
) -> None:
    model = make(**changes).to(dtype)
    state = model.start(SRC)
    assert state.fused is not None
    for found, expected in zip(steps(model, state), by_modules(model), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if jit.COMPILED:
        assert state.fused.program.ready


@pytest.mark.parametrize("change", ["optimizer", "in place", "array", "load_state_dict"])
def test_a_changed_weight_counts_in_the_next_sentence_and_the_next_token(
    change: str, by_modules: Any
) -> None:
    model = make()
    list(steps(model, model.start(SRC), 0, 3))
    decoder: Any = model.decoder
    weight = decoder.layers[0].linear1.weight
    if change == "optimizer":
        sgd = mt.optim.SGD(model.parameters(), lr=0.1)
        model(SRC, TGT[:, :3]).square().mean().backward()
        sgd.step()
    elif change == "in place":
        with mt.no_grad():
            weight.mul_(2.0)
    elif change == "array":
        weight.detach().numpy()[...] *= 2
    else:
        model.load_state_dict({name: 1.5 * x for name, x in model.state_dict().items()})
    for found, expected in zip(steps(model, model.start(SRC)), by_modules(model), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    state = model.start(SRC)
    before = list(steps(model, state, 0, 5))
    with mt.no_grad():
        decoder.norm.weight.mul_(3.0)  # no part of what was remembered
    for found, expected in zip(steps(model, state, 5), by_modules(model)[5:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert len(before) == 5


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
    assert "packed_attention" in Names.names
    np.testing.assert_allclose(found, expected[5], rtol=1e-4, atol=1e-5)
    for found, wanted in zip(steps(model, state, 6), expected[6:], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_hooked_or_training_decoder_runs_by_its_modules() -> None:
    model = make()
    decoder: Any = model.decoder
    decoder.layers[1].register_forward_hook(lambda module, args, out: out)
    assert model.start(SRC).fused is None
    model = make()
    assert model.start(SRC).fused is not None
    assert model.train().start(SRC).fused is None
    with mt.inference_mode():
        state = model.eval().start(SRC)
        logits = model.advance(TGT[:, :1], state)
    assert state.fused is not None
    assert logits.is_inference()


def test_nothing_is_saved_for_a_backward_pass() -> None:
    model = make()
    logits = model.advance(TGT[:, :1], model.start(SRC))
    assert not logits.requires_grad
    assert logits.grad_fn is None


def test_a_step_may_go_on_in_another_thread(by_modules: Any) -> None:
    model = make()
    state = model.start(SRC)
    found = list(steps(model, state, 0, 10))
    with ThreadPoolExecutor(1) as pool:
        found += pool.submit(lambda: list(steps(model, state, 10))).result()
    np.testing.assert_allclose(found, by_modules(model), rtol=1e-4, atol=1e-5)
