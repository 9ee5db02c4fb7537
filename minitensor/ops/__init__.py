"""The operations, one class each, one file per family. Importing a family registers its ops."""

from . import (  # noqa: F401
    activation,
    attention,
    compare,
    convert,
    dropout,
    elementwise,
    index,
    join,
    loss,
    matmul,
    move,
    norm,
    pointwise,
    reduce,
    repeat,
    shape,
    softmax,
)
