"""The ops as ONNX has them: a function for each that adds its nodes, and why some have none.

A translation gets the emitter and the arguments of the op's `forward`, with tensors of the file in
place of arrays; it returns the name of the result, or several. A fused op without a translation is
recorded by its decomposition. `REFUSED` has the others, each with the reason. An op of your own
gets a translation by `@translates("Cube")`, the name of its class.
"""

from __future__ import annotations

from . import elementwise, functions, images, index, layers, recurrent, reduce, shape
from .table import REFUSED, TRANSLATIONS, refuse, translates

__all__ = [
    "REFUSED",
    "TRANSLATIONS",
    "elementwise",
    "functions",
    "images",
    "index",
    "layers",
    "recurrent",
    "reduce",
    "shape",
    "translates",
]

refuse(
    "it runs in a backward pass, and a file has the forward pass alone",
    *("ReluBackward", "EmbeddingBackward", "Fold", "PutMaxima"),
)
refuse(
    "it draws random numbers: call eval() on what was given to F.dropout as training, or leave it "
    "out of what is exported",
    "Dropout",
)
refuse("ONNX has no such function", "Erfinv")
refuse("it reads memory by its layout, and tensors of a file have none", "AsStrided")
refuse("it looks for NaN outside of the ops, which a file cannot", "Quantile")
refuse("the length of its result depends on the numbers in its input", "Bincount")
