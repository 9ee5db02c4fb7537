"""The operations, one class each, one file per family. Importing a family registers its ops."""

from . import (  # noqa: F401
    activation,
    attention,
    dropout,
    elementwise,
    index,
    loss,
    matmul,
    norm,
    reduce,
    shape,
    softmax,
)
