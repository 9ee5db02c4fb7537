"""Models as ONNX files, which other programs run: `minitensor.onnx.export`, as in `torch.onnx`.

    minitensor.onnx.export(model, (tokens,), "gpt.onnx", dynamic_axes={"tokens": {0: "N", 1: "L"}})

The package onnx is needed to write a file: pip install 'minitensor[onnx]'.
"""

from __future__ import annotations

from .export import export

__all__ = ["export"]
