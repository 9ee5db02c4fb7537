"""Learning rate schedules: the learning rate of each parameter group, step by step.

A schedule sets the rate of step 0 when it is built, and the next one with each `step()`, which is
called after the optimizer's. As PyTorch's do, most multiply the rate that a group has: several
schedules on one optimizer all take effect, and so does a rate set by hand. `LambdaLR`,
`CosineAnnealingWarmRestarts`, `CyclicLR`, `OneCycleLR` and `InverseSqrtLR` set the rate instead.

In the formulas, t is the number of the step, `last_epoch`, and base the rate that the optimizer was
built with. Arguments that all schedules have:

- `optimizer`: the optimizer whose groups have the rates.
- `last_epoch`: the step to resume after, -1 for a new training.
"""

from .combined import ChainedScheduler, SequentialLR
from .cyclic import CyclicLR
from .formulas import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    InverseSqrtLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from .one_cycle import OneCycleLR
from .plateau import ReduceLROnPlateau
from .scheduler import LRScheduler

_LRScheduler = LRScheduler  # its name in older code

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "InverseSqrtLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
