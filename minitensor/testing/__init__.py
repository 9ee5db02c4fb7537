"""For tests: closeness, gradient checks of modules and ops, and samples to try ops on.

    minitensor.testing.assert_close(actual, expected)         # as PyTorch's
    minitensor.testing.gradcheck_module(model, x, second=True)  # a whole model, op by op
    minitensor.testing.check_op(op, x, reference=plain)       # forward, backward, second, reference

`minitensor` does not import it; it is imported when it is first asked for.
"""

from ..names import show
from ..ops.samples import Rand
from .close import assert_close
from .module import check_gradients, gradcheck_module
from .op import check_op
from .report import Report, Row
from .samples import leaves, oracle, samples, to_torch

__all__ = [
    "Rand",
    "Report",
    "Row",
    "assert_close",
    "check_gradients",
    "check_op",
    "gradcheck_module",
    "leaves",
    "oracle",
    "samples",
    "to_torch",
]

show(__name__)
