"""The ops as ONNX has them: a function for each that adds its nodes, and why some have none.

A translation gets the emitter and the arguments of the op's `forward`, with tensors of the file in
place of arrays; it returns the name of the result, or several. A fused op without a translation is
recorded by its decomposition. `REFUSED` has the others, each with the reason.
"""

from __future__ import annotations

from . import elementwise, functions, index, layers, recurrent, reduce, shape
from .table import REFUSED, TRANSLATIONS, refuse

__all__ = [
    "REFUSED",
    "TRANSLATIONS",
    "elementwise",
    "functions",
    "index",
    "layers",
    "recurrent",
    "reduce",
    "shape",
]

refuse(
    "it runs in a backward pass, and a file has the forward pass alone",
    *("ReluBackward", "EmbeddingBackward", "Fold"),
)
refuse(
    "it draws random numbers: call eval() on what was given to F.dropout as training, or leave it "
    "out of what is exported",
    "Dropout",
)
refuse("ONNX has no such function", "Erfinv")
refuse("the length of its result depends on the numbers in its input", "Bincount")
