"""The benchmark of decoding: PyTorch's side, with its cache, writes what is written here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.tools.bench.decoding import generate
from minitensor.tools.compare import torch_twin


@needs_torch
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("changes", [{}, {"norm_first": True, "activation": "gelu"}])
def test_the_side_of_pytorch_writes_the_same_tokens(changes: dict[str, Any]) -> None:
    mt.manual_seed(0)
    config = TransformerConfig(9, 11, 16, 2, 1, 2, 24, **changes)
    model = Transformer(config).eval()
    with mt.no_grad():
        model.output.bias[config.eos_id] = -np.inf
    source = np.array([[3, 4, 5, 6], [7, 8, 0, 0]])
    found = generate(torch_twin(model).eval(), config, source, 7)
    assert found.tolist() == model.generate(mt.from_numpy(source), 7).tolist()
