"""Random numbers, products and training that are the same on every machine.

    python tests/test_machines.py      writes the numbers to compare with, tests/data/machines.json

They were written on x86-64 with AVX-512. `make arm` compares an ARM processor's with them.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitensor as mt
import minitensor.nn.functional as F
from minitensor.kernels.simd import SIMD
from minitensor.models.config import TransformerConfig
from minitensor.models.transformer import Transformer

FILE = Path(__file__).parent / "data" / "machines.json"


def checksum(x: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(x).tobytes())


def random_numbers() -> dict[str, int]:
    """Checksums of what is drawn, to the last bit."""
    mt.manual_seed(7)
    ones = mt.ones(300, 70)
    drawn = {
        "uniform": mt.rand(5000),
        "integers": mt.randint(0, 1000, (5000,)),
        "permutation": mt.randperm(5000),
        "bernoulli": mt.bernoulli(mt.full((5000,), 0.3)),
        "weights": mt.nn.init.xavier_uniform_(mt.empty(40, 30)),
        "dropout": F.dropout(ones, 0.3) != 0,
        "dropout of a gelu": F.dropout(F.gelu(ones), 0.6) != 0,
    }
    return {name: checksum(x.detach().numpy()) for name, x in drawn.items()}


def products() -> dict[str, int]:
    """Checksums of products: each element is one sum in order of k, of fused multiply-adds."""
    found = {}
    for dtype in (np.float32, np.float64):
        for m, k, n in ((64, 64, 64), (33, 47, 21), (70, 130, 37)):
            noise = np.random.RandomState(0)
            a, b = noise.uniform(-1, 1, (m, k)), noise.uniform(-1, 1, (k, n))
            product = mt.tensor(a.astype(dtype)) @ mt.tensor(b.astype(dtype))
            found[f"{np.dtype(dtype)} {m} x {k} x {n}"] = checksum(product.numpy())
    return found


def losses(compiled: bool) -> list[float]:
    """The losses of a Transformer's first steps, with all that a step is made of."""
    mt.manual_seed(0)
    model = Transformer(
        TransformerConfig(
            src_vocab_size=60, tgt_vocab_size=60, d_model=32, nhead=4, num_encoder_layers=1,
            num_decoder_layers=1, dim_feedforward=64, dropout=0.1, activation="gelu",
        )
    )  # fmt: skip
    noise = np.random.RandomState(0)
    src, tgt = (mt.tensor(noise.randint(3, 60, (8, n))) for n in (12, 10))
    mask = model.generate_square_subsequent_mask(10)
    optimizer = mt.optim.AdamW(model.parameters(), lr=1e-2)

    def loss_of(src: Any, tgt: Any) -> Any:
        logits = model(src, model.shift_right(tgt), tgt_mask=mask)
        return F.cross_entropy(logits.flatten(0, 1), tgt.flatten(), label_smoothing=0.1)

    if compiled:
        loss_of = mt.compile(loss_of)
    found = []
    for _ in range(4):
        loss = loss_of(src, tgt)
        optimizer.zero_grad()
        loss.backward()
        mt.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(loss.item())
    return found


def test_random_numbers_have_the_same_bits() -> None:
    assert random_numbers() == json.loads(FILE.read_text())["random numbers"]


@pytest.mark.skipif("sse" in SIMD, reason="SSE has no fused multiply-add")
def test_products_have_the_same_bits() -> None:
    assert products() == json.loads(FILE.read_text())["products"]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_transformer_trains_by_the_same_steps(compiled: bool) -> None:
    """Up to the rounding of sums, whose order follows the width of the vectors."""
    expected = json.loads(FILE.read_text())["losses"]
    np.testing.assert_allclose(losses(compiled), expected, rtol=1e-5)


if __name__ == "__main__":
    written = {
        "random numbers": random_numbers(),
        "products": products(),
        "losses": losses(compiled=False),
    }
    FILE.write_text(json.dumps(written, indent=1) + "\n")
