"""Writes an object with PyTorch: `new.pt`, and `old.pt` in the format before version 1.6."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    """Write the files beside this one."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    whole = torch.arange(6.0)
    obj = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": model.weight,
        "buffer": torch.nn.Buffer(torch.ones(2)),
        "whole": whole,
        "turned": whole.view(2, 3).t(),
        "row": whole.view(2, 3)[1],
        "wide": torch.tensor([7]).expand(2, 3),
        "types": [
            torch.tensor([0, 1, 2]).to(getattr(torch, name))
            for name in (
                "float16",
                "bfloat16",
                "float64",
                "int8",
                "int16",
                "int32",
                "uint8",
                "bool",
            )
        ],
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(2.5),
        "plain": [None, True, 1.5, 10**30, -3, "text é", (1, (2,)), {3}, b"\0\xff", {1: "x"}],
        "named": [whole.shape, torch.float32, torch.device("cuda", 1), Counter({"a": 2})],
        "args": argparse.Namespace(lr=0.5, name="x"),
        "numpy": [np.arange(3), np.float64(0.5), np.ones((2, 2), np.float32, "F")],
    }
    folder = Path(__file__).parent
    torch.save(obj, folder / "new.pt")
    torch.save(obj, folder / "old.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
