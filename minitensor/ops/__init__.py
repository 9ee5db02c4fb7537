"""The operations, one class or one line of a table each; one file per family registers its ops.

The files here hold the ops of transformers, `breadth` the rest of PyTorch's names.
"""

from . import (  # noqa: F401
    activation,
    arithmetic,
    assign,
    attention,
    breadth,
    chain,
    compare,
    convert,
    cross_entropy,
    dropout,
    elementwise,
    embedding,
    gather,
    index,
    join,
    linear,
    linear_cross_entropy,
    loss,
    matmul,
    move,
    norm,
    order,
    pointwise,
    recurrent,
    reduce,
    repeat,
    residual,
    rotary,
    select,
    shape,
    softmax,
)
