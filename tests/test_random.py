"""The random stream against PyTorch's, and against numbers written down from it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

from minitensor import random
from minitensor.random import Generator

INFO = Path("/proc/cpuinfo")
# There PyTorch takes bernoulli and exponential from another library, with numbers of its own.
on_intel = pytest.mark.skipif(
    INFO.exists() and "GenuineIntel" in INFO.read_text(),
    reason="PyTorch uses MKL's stream on Intel",
)


def close(mine: np.ndarray, theirs: Any, scale: float = 1.0) -> None:
    """Equal up to the mathematical library: a few roundings of numbers as large as `scale`."""
    theirs = theirs.numpy()
    assert mine.dtype == theirs.dtype
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=4 * scale * np.finfo(mine.dtype).eps)


def equal(mine: np.ndarray, theirs: Any) -> None:
    assert mine.dtype == theirs.numpy().dtype
    np.testing.assert_array_equal(mine, theirs.numpy())


def test_known_numbers() -> None:
    """Written down from PyTorch 2.13, so that the stream holds without it too."""
    g = Generator().manual_seed(0)
    np.testing.assert_array_equal(
        g.uniform(3),
        np.array([0.49625658988952637, 0.7682217955589294, 0.08847743272781372], np.float32),
    )
    np.testing.assert_array_equal(g.randint(5, 0, 100), [60, 63, 79, 27, 3])
    np.testing.assert_array_equal(g.randperm(6), [1, 4, 3, 5, 0, 2])
    np.testing.assert_array_equal(g.bernoulli(8, 0.5), [1, 1, 1, 1, 1, 0, 1, 1])
    np.testing.assert_allclose(g.normal(3), [1.0999702, -0.0876888, 0.4153595], rtol=1e-6)
    np.testing.assert_allclose(g.exponential(2), [0.5769522, 2.7918229], rtol=1e-6)


def test_seeds() -> None:
    g = Generator()
    assert g.initial_seed() == 67280421310721
    assert g.manual_seed(3) is g
    assert g.initial_seed() == 3
    assert g.manual_seed(-1).initial_seed() == 2**64 - 1
    assert g.manual_seed(2**63).initial_seed() == 2**63
    for wrong in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match="manual_seed"):
            g.manual_seed(wrong)
    assert g.seed() == g.initial_seed()
    assert g.seed() != g.seed()


def test_default_stream() -> None:
    before = random.get_rng_state()
    try:
        assert random.manual_seed(5) is random.default_generator
        assert random.initial_seed() == 5
        first = random.default_generator.uniform(4)
        with random.fork_rng():
            random.default_generator.uniform(7)
        second = random.default_generator.uniform(4)
        random.manual_seed(5)
        np.testing.assert_array_equal(random.default_generator.uniform(8), [*first, *second])
        with random.fork_rng(enabled=False):
            random.manual_seed(6)
        assert random.initial_seed() == 6
        assert random.seed() == random.initial_seed()
    finally:
        random.set_rng_state(before)


@pytest.mark.parametrize("drawn", [0, 1, 3, 623, 624, 625, 2000])
def test_state_continues(drawn: int) -> None:
    g = Generator().manual_seed(1)
    g.uniform(drawn)
    g.normal(3)  # leaves a sine behind
    state = g.get_state()
    expected = g.normal(5), g.words32(700)
    g.set_state(state)
    other = Generator()
    other.set_state(state)
    for source in (g, other):
        np.testing.assert_array_equal(source.normal(5), expected[0])
        np.testing.assert_array_equal(source.words32(700), expected[1])
        assert source.initial_seed() == 1


def test_wrong_states() -> None:
    g = Generator()
    state = g.get_state()
    for wrong in (
        state[:-1],
        state.astype(np.int16),
        np.zeros_like(state),
        np.full_like(state, 255),
    ):
        with pytest.raises(RuntimeError, match="set_state"):
            g.set_state(wrong)
    np.testing.assert_array_equal(g.get_state(), state)


def test_key_is_a_positive_int64() -> None:
    g = Generator().manual_seed(0)
    keys = [g.key() for _ in range(200)]
    assert all(0 <= key < 2**63 for key in keys)
    assert len(set(keys)) == 200
    assert max(keys) > 2**62


def test_exact_dropout_is_a_switch() -> None:
    assert not random.uses_torch_dropout()
    random.exact_dropout()
    try:
        assert random.uses_torch_dropout()
    finally:
        random.exact_dropout(False)
    assert not random.uses_torch_dropout()


def test_exact_dropout_in_a_with_block_restores_what_was_set() -> None:
    with random.exact_dropout() as outer:
        assert random.uses_torch_dropout()
        with random.exact_dropout(False):
            assert not random.uses_torch_dropout()
        assert random.uses_torch_dropout()
    assert not random.uses_torch_dropout()
    with outer:  # again
        assert random.uses_torch_dropout()
    with pytest.raises(KeyError), random.exact_dropout():
        raise KeyError
    assert not random.uses_torch_dropout()


def test_multinomial_with_replacement_in_pieces_needs_no_memory_but_its_result() -> None:
    weights = np.array([[0.1, 0.4, 0.5], [0.7, 0.0, 0.3]], np.float32)
    count = 3 * random._CHUNK + 5
    whole = Generator().manual_seed(1)
    u = whole.uniform(2 * count, np.float64).reshape(2, count)
    edges = np.cumsum(weights, 1)
    expected = [
        np.searchsorted((e / e[-1]).astype(float), r) for e, r in zip(edges, u, strict=True)
    ]
    tracemalloc.start()
    found = Generator().manual_seed(1).multinomial(weights, count, True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, expected)
    assert found.nbytes < peak < 2.5 * found.nbytes


def test_multinomial_rejects_bad_weights() -> None:
    g = Generator()
    for weights in ([1.0, -1.0], [np.nan, 1.0], [np.inf, 1.0], [0.0, 0.0]):
        with pytest.raises(RuntimeError, match="multinomial"):
            g.multinomial(np.array(weights), 1)


def test_multinomial_never_takes_weight_zero() -> None:
    g = Generator().manual_seed(0)
    weights = np.array([0.0, 1.0, 0.0, 2.0, 0.0], np.float32)
    for count, replacement in ((1, False), (2, False), (500, True)):
        for _ in range(50):
            chosen = g.multinomial(weights, count, replacement)
            assert set(chosen.tolist()) <= {1, 3}


@needs_torch
class TestPyTorch:
    """One seed, both libraries; each test ends with a number that shows both are in step."""

    @pytest.fixture(autouse=True, params=[0, 7, -1, 2**40 + 5])
    def both(self, request: pytest.FixtureRequest) -> Any:
        import torch

        state = torch.get_rng_state()
        torch.manual_seed(request.param)
        self.torch = torch
        self.mine = Generator().manual_seed(request.param)
        yield
        equal(self.mine.uniform(3), torch.rand(3))
        np.testing.assert_array_equal(self.mine.get_state(), torch.get_rng_state().numpy())
        torch.set_rng_state(state)

    def kinds(self) -> list[tuple[Any, Any]]:
        return [(np.float32, self.torch.float32), (np.float64, self.torch.float64)]

    def test_uniform(self) -> None:
        for mine, theirs in self.kinds():
            for n in (0, 1, 5, 1000):
                equal(self.mine.uniform(n, mine), self.torch.rand(n, dtype=theirs))

    def alike(self, mine: np.ndarray, theirs: Any, scale: float) -> None:
        """float32 numbers to the bit where PyTorch runs the code that ours follows."""
        same = self.torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        if same and mine.dtype == np.float32:
            equal(mine, theirs)
        else:
            close(mine, theirs, scale)

    def test_uniform_in_a_range(self) -> None:
        for low, high in ((-0.1, 0.1), (-1 / 16, 1 / 16), (0.3, 3.7)):
            for mine, theirs in self.kinds():
                x = self.torch.empty(1000, dtype=theirs).uniform_(low, high)
                self.alike(self.mine.uniform(1000, mine, low, high), x, high)

    def test_normal(self) -> None:
        for mine, theirs in self.kinds():
            for n in (0, 1, 3, 4, 15, 16, 17, 31, 32, 1000, 1001):
                self.alike(self.mine.normal(n, mine), self.torch.randn(n, dtype=theirs), 4)
                x = self.torch.empty(n, dtype=theirs).normal_(3, 0.02)
                self.alike(self.mine.normal(n, mine, 3, 0.02), x, 3)
        n = 3 * random._CHUNK + 5
        self.alike(self.mine.normal(n), self.torch.randn(n), 5)

    def test_normal_in_a_strided_tensor(self) -> None:
        x = self.torch.empty(10, 5, 2)[..., 0].normal_(1, 2)
        close(self.mine.normal(50, np.float32, 1, 2, contiguous=False), x.reshape(-1), 8)

    def test_trunc_normal(self) -> None:
        fill = self.torch.nn.init.trunc_normal_
        for mine, theirs in self.kinds():
            for how in ((0, 1, -2, 2), (0, 0.02, -0.04, 0.04), (0, 1, -0.1, 0.1), (0, 1, 1.5, 9)):
                x = fill(self.torch.empty(301, dtype=theirs), *how)
                self.alike(self.mine.trunc_normal(301, mine, *how), x, 4)

    def test_randint(self) -> None:
        for low, high in ((0, 10), (-5, 100), (0, 2**32), (-(2**40), 2**41), (-(2**62), 2**62 + 5)):
            equal(self.mine.randint(50, low, high), self.torch.randint(low, high, (50,)))

    def test_random(self) -> None:
        for name in ("int64", "int32", "int16", "int8", "uint8", "bool", "float32", "float64"):
            x = self.torch.empty(20, dtype=getattr(self.torch, name)).random_()
            equal(self.mine.random(20, name), x)

    def test_randperm(self) -> None:
        for n in (0, 1, 2, 3, 100, 5000):
            equal(self.mine.randperm(n), self.torch.randperm(n))

    @on_intel
    def test_bernoulli(self) -> None:
        for p in (0.0, 0.1, 0.5, 1.0):
            equal(
                self.mine.bernoulli(500, p),
                self.torch.empty(500, dtype=self.torch.bool).bernoulli_(p),
            )

    def test_bernoulli_of_probabilities(self) -> None:
        for mine, theirs in self.kinds():
            p = np.linspace(0, 1, 500, dtype=mine)
            x = self.torch.bernoulli(self.torch.from_numpy(p))
            assert x.dtype == theirs
            np.testing.assert_array_equal(self.mine.bernoulli(500, p), x.numpy() == 1)

    @on_intel
    def test_exponential(self) -> None:
        for mine, theirs in self.kinds():
            for rate in (1.0, 2.5):
                x = self.torch.empty(500, dtype=theirs).exponential_(rate)
                close(self.mine.exponential(500, rate, mine), x, 16)

    @on_intel
    def test_multinomial(self) -> None:
        weights = np.random.RandomState(0).rand(6, 50).astype(np.float32)
        weights[weights < 0.3] = 0
        for w in (weights, weights.astype(np.float64), weights[0]):
            for count, replacement in ((1, False), (1, True), (9, False), (70, True)):
                x = self.torch.multinomial(self.torch.from_numpy(w), count, replacement)
                equal(self.mine.multinomial(w, count, replacement), x)

    def test_states_can_be_exchanged(self) -> None:
        self.torch.randn(3)
        self.mine.set_state(self.torch.get_rng_state().numpy())
        close(self.mine.normal(4), self.torch.randn(4), 4)
        self.mine.normal(1)
        self.torch.set_rng_state(self.torch.from_numpy(self.mine.get_state()))
        close(self.mine.normal(4), self.torch.randn(4), 4)
