"""Positions: sinusoids, learned vectors, and rotations that only distances survive."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from shape_names import watch

import minitensor as mt
from minitensor import Tensor
from minitensor.models import positions
from minitensor.models.positions import LearnedPositions, RotaryPositions, SinusoidalPositions
from minitensor.models.transformer import Transformer, TransformerConfig


def draw(*shape: int, seed: int = 0) -> Tensor:
    return mt.tensor(np.random.RandomState(seed).randn(*shape))


# Added to the embeddings


def test_sinusoids_go_as_far_as_asked_and_learned_positions_do_not() -> None:
    sinusoids = SinusoidalPositions(6)
    table = sinusoids(200).numpy()
    assert table.shape == (200, 6)
    assert table[150, 2] == pytest.approx(math.sin(150 / 10000 ** (2 / 6)), abs=1e-4)
    assert table[150, 5] == pytest.approx(math.cos(150 / 10000 ** (4 / 6)), abs=1e-4)
    assert not sinusoids.state_dict()

    learned = LearnedPositions(6, 4)
    assert learned(6).shape == (6, 4)
    assert mt.equal(learned(2, 4), learned.weight[4:])
    assert mt.equal(sinusoids(20, 290), sinusoids(310)[290:])
    with pytest.raises(IndexError, match=r"7 tokens.*6 positions"):
        learned(3, 4)


@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "none"])
def test_tokens_of_a_cache_are_those_without_one(positions: str, norm: str) -> None:
    mt.manual_seed(3)
    config = TransformerConfig(
        13, 11, 16, 2, 1, 2, 24, 0.0, positions=positions, norm=norm, max_length=90
    )
    model = Transformer(config).eval()
    src = mt.tensor([[3, 4, 5, 6], [7, 8, 9, 0]])
    padding = model.generate_source_key_padding_mask(src)
    memory = model.encode(src, src_key_padding_mask=padding)
    tgt = mt.randint(3, 11, (2, 80))  # more than the tables of positions hold at first
    causal = model.generate_square_subsequent_mask(80)
    whole = model.output(model.decode(tgt, memory, causal, memory_key_padding_mask=padding))
    state, start = model.start(src), 0
    for length in (3, *[1] * 70, 7):
        logits = model.advance(tgt[:, start : start + length], state)
        start += length
        expected = whole[:, start - 1].detach()
        np.testing.assert_allclose(logits.numpy(), expected.numpy(), atol=2e-5)
        assert mt.equal(logits.argmax(-1), expected.argmax(-1))


# Rotations of q and k


def rotated(x: np.ndarray, start: int = 0, base: float = 10000.0) -> np.ndarray:
    """Rotate x (L, K) one pair of coordinates at a time."""
    y, half = x.copy(), x.shape[1] // 2
    for p in range(len(x)):
        for i in range(half):
            angle = (start + p) * base ** (-2 * i / x.shape[1])
            matrix = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            y[p, [i, i + half]] = matrix @ x[p, [i, i + half]]
    return y


@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("start", [0, 3, 70])
def test_each_pair_is_rotated_by_its_position_times_its_rate(start: int, base: float) -> None:
    x = draw(2, 3, 5, 8)
    y = RotaryPositions(8, base)(x, start).numpy()
    for row, head in np.ndindex(2, 3):
        expected = rotated(x[row, head].numpy(), start, base)
        np.testing.assert_allclose(y[row, head], expected, atol=1e-12)


def test_rows_can_start_at_positions_of_their_own() -> None:
    rotary, x = RotaryPositions(8), draw(3, 2, 4, 8)
    starts = [0, 90, 7]
    y = rotary(x, mt.tensor(starts)).numpy()
    for row, start in enumerate(starts):
        np.testing.assert_array_equal(y[row], rotary(x[row : row + 1], start).numpy()[0])


def test_positions_below_0_count_as_0() -> None:
    rotary, x = RotaryPositions(8), draw(2, 1, 4, 8)
    y = rotary(x, mt.tensor([-3, -9])).numpy()
    np.testing.assert_array_equal(y, x.numpy())


def test_scores_depend_on_relative_positions_alone() -> None:
    rotary, q, k = RotaryPositions(16), draw(2, 3, 9, 16), draw(2, 3, 9, 16, seed=1)

    def scores(start: int) -> np.ndarray:
        return (rotary(q, start) @ rotary(k, start).transpose(2, 3)).numpy()

    assert np.abs(scores(0) - (q @ k.transpose(2, 3)).numpy()).max() > 0.1
    for start in (1, 50, 1000):
        np.testing.assert_allclose(scores(start), scores(0), atol=1e-10)


def test_rotation_keeps_lengths_and_has_no_parameters() -> None:
    rotary, x = RotaryPositions(8), draw(2, 3, 100, 8)
    np.testing.assert_allclose(rotary(x).norm(dim=-1).numpy(), x.norm(dim=-1).numpy(), rtol=1e-12)
    assert not rotary.state_dict()


def test_rotation_has_its_gradient() -> None:
    rotary = RotaryPositions(6)
    x = draw(2, 2, 3, 6).requires_grad_()
    for start in (0, 5, mt.tensor([0, 4])):
        assert mt.autograd.gradcheck(lambda x, start=start: rotary(x, start), (x,))


def test_the_tables_follow_the_type_and_the_modes_of_their_users() -> None:
    rotary = RotaryPositions(8)
    x = draw(1, 1, 100, 8)
    with mt.inference_mode():
        single = rotary(x.float())
    assert single.dtype == mt.float32
    trained = x.float().requires_grad_()
    rotary(trained).sum().backward()  # with tables that were made in inference mode
    assert trained.grad is not None
    np.testing.assert_allclose(rotary(x).numpy(), single.numpy(), atol=1e-5)
    assert rotary(x).dtype == mt.float64


def test_a_head_of_odd_width_has_no_pairs() -> None:
    with pytest.raises(ValueError, match=r"even width, not 7"):
        RotaryPositions(7)


def test_no_name_lies_about_its_shape() -> None:
    with watch(positions) as seen:
        SinusoidalPositions(6)(100)
        RotaryPositions(8)(draw(2, 3, 5, 8), mt.tensor([0, 3]))
    assert seen["RotaryPositions.forward", "y_NHLK"] == {(2, 3, 5, 8)}


@needs_torch
def test_rotation_equals_transformers() -> None:
    pytest.importorskip("transformers")
    import torch
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x = draw(2, 3, 9, 16).float()
    start, base = 40, 500000.0
    rate = 1 / base ** (torch.arange(0, 16, 2) / 16)
    angle = torch.outer(torch.arange(start, start + 9).float(), rate)
    angle = torch.cat([angle, angle], dim=-1)[None]
    theirs: Any = torch.from_numpy(x.numpy())
    expected, _ = apply_rotary_pos_emb(theirs, theirs, angle.cos(), angle.sin())
    actual = RotaryPositions(16, base)(x, start)
    np.testing.assert_allclose(actual.numpy(), expected.numpy(), atol=1e-5)


# As one op


def test_rotations_keep_the_order_of_x_in_memory() -> None:
    x = draw(2, 5, 3, 8).transpose(1, 2)  # heads side by side, as a projection leaves them
    angles = draw(5, 4)
    y = mt.nn.functional.rotary_embedding(x, angles.cos(), angles.sin())
    assert y.stride() == x.stride()
    back = mt.nn.functional.rotary_embedding(y, angles.cos(), -angles.sin())
    np.testing.assert_allclose(back, x, 1e-12)


def test_a_rotation_of_expanded_rows() -> None:
    x = draw(1, 3, 1, 8).expand(4, 3, 5, 8)
    angles = draw(4, 1, 5, 4)
    y = mt.nn.functional.rotary_embedding(x, angles.cos(), angles.sin(), True)
    z = mt.nn.functional.rotary_embedding(x.contiguous(), angles.cos(), angles.sin(), True)
    assert mt.equal(y, z)


def test_angles_that_learn_get_gradients() -> None:
    x, cos, sin = draw(3, 5, 8), draw(5, 4), draw(5, 4).requires_grad_()
    assert mt.autograd.gradcheck(lambda s: mt.nn.functional.rotary_embedding(x, cos, s), (sin,))


@pytest.mark.parametrize(
    ("x", "angles", "interleaved"),
    [((2, 3, 5), (3, 2), False), ((2, 3, 6), (3, 1), False), ((2, 3, 6), (3, 6), True),
     ((2, 3, 6), (2, 3), False), ((6,), (3, 3), False), ((), (3,), False)],
)  # fmt: skip
def test_shapes_that_do_not_rotate(x: Any, angles: Any, interleaved: bool) -> None:
    angle = draw(*angles)
    with pytest.raises(RuntimeError, match="rotary_embedding: expected input"):
        mt.nn.functional.rotary_embedding(mt.zeros(x).double(), angle, angle, interleaved)
