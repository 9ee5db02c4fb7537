"""Losses as modules; each calls the function of the same name in nn.functional.

Two arguments are common to all losses:

- `reduction`: "mean" (the default) or "sum" of the losses of all elements, or "none" of them.
- `size_average`, `reduce`: PyTorch's deprecated way to say so, which takes precedence:
  `reduce=False` is "none", `size_average=False` is "sum".

Shapes: N batch, C classes, * any further dimensions.
"""

from __future__ import annotations

import math

from ..core import Tensor
from ..devices import DeviceLike
from ..dtype import DTypeLike
from . import functional as F
from .linear import Linear
from .module import Module


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """Return the reduction that the deprecated arguments name, or `reduction` without them."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


class _Loss(Module):
    """A loss with a reduction."""

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.reduction = _reduction(size_average, reduce, reduction)


class _WeightedLoss(_Loss):
    """A loss with weights, kept as a buffer."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


class CrossEntropyLoss(_WeightedLoss):
    """Compare scores with classes: -log(softmax(input)[target]) along C.

    Shapes: input (N, C, *), or (C,); target integers (N, *), or (), or probabilities of the input's
    shape -> (), or (N, *) with reduction "none".

    - `weight`: a factor for each class, (C,); "mean" divides by the sum of the factors.
    - `ignore_index`: a target that has no loss (default -100).
    - `label_smoothing`: the share of the target that is spread evenly over all classes.
    - `reduction` and the deprecated arguments: as in the module.

    Raises IndexError for another target out of range.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, C, *) and (N, *) -> (), or (N, *)."""
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class LinearCrossEntropyLoss(_WeightedLoss):
    """Compare the scores of a linear map with classes, without keeping the scores.

    `linear`, an `nn.Linear`, and `CrossEntropyLoss` in turn, but the scores are computed in chunks
    and never exist as a whole: see `nn.functional.linear_cross_entropy`.

    Shapes: input (N, E), or (E,); target integers (N,), or (); with `out_features` (N, *). A target
    in the shape of the scores, (N, C, *), holds probabilities. -> (), or the shape of the target's
    items with reduction "none".

    - `in_features`: E.
    - `num_classes`: C.
    - `out_features`: the sizes of *, for several scores of each class (default none).
    - `bias`: add a bias to the scores (default False).
    - `device`, `dtype`: of the parameters of `linear`.
    - `weight`, `ignore_index`, `label_smoothing`, `reduction`: as in `CrossEntropyLoss`.
    - `options`: ask PyTorch for chunks; accepted and not used.

    Raises IndexError for another target out of range, RuntimeError for a weight that is not (C,) or
    a label smoothing outside [0, 1].
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: object = None,
    ) -> None:
        if weight is not None and weight.shape != (num_classes,):
            raise RuntimeError(
                f"expected weight of shape ({num_classes},), one for each class, got "
                f"{tuple(weight.shape)}"
            )
        if not 0 <= label_smoothing <= 1:
            raise RuntimeError(
                f"expected label_smoothing between 0.0 and 1.0, got {label_smoothing}"
            )
        super().__init__(weight, reduction=reduction)
        self.num_classes = num_classes
        self.out_features = out_features
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        scores = math.prod(out_features, start=num_classes)
        self.linear = Linear(in_features, scores, bias, device, dtype)
        self.options = options

    def extra_repr(self) -> str:
        """Return the settings, as PyTorch's repr shows them."""
        settings: dict[str, object] = dict(
            in_features=self.linear.in_features,
            num_classes=self.num_classes,
            out_features=self.out_features,
            bias=self.linear.bias is not None,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )
        return ", ".join(f"{name}={value}" for name, value in settings.items())

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, E) and (N, *) -> (), or (N, *)."""
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return F.linear_cross_entropy(
            input,
            self.linear.weight.reshape(*shape, -1),
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_WeightedLoss):
    """Compare log-probabilities with classes: -input[target] along C.

    Shapes: input (N, C, *), or (C,); target integers (N, *), or () -> (), or (N, *) with reduction
    "none".

    - `weight`: a factor for each class, (C,); "mean" divides by the sum of the factors.
    - `ignore_index`: a target that has no loss (default -100).
    - `reduction` and the deprecated arguments: as in the module.

    Raises IndexError for another target out of range.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, C, *) and (N, *) -> (), or (N, *)."""
        return F.nll_loss(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class MSELoss(_Loss):
    """Square the error: (input - target)^2, (*) and (*) -> () or, with reduction "none", (*)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*) and (*) -> (), or (*)."""
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """Take absolute errors: |input - target|, (*) and (*) -> () or, with reduction "none", (*)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*) and (*) -> (), or (*)."""
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Square small errors only: d^2 / (2 * beta) if d < beta, else d - beta / 2.

    d = |input - target|. Shapes: (*) and (*) -> () or, with reduction "none", (*).

    - `beta`: the error from which the loss is linear (default 1); 0 gives L1Loss.
    - `reduction` and the deprecated arguments: as in the module.

    R. Girshick, "Fast R-CNN", 2015.
    """

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*) and (*) -> (), or (*)."""
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Square small errors only: d^2 / 2 if d < delta, else delta * (d - delta / 2).

    d = |input - target|. Shapes: (*) and (*) -> () or, with reduction "none", (*).

    - `reduction`: as in the module.
    - `delta`: the error from which the loss is linear (default 1).

    P. J. Huber, "Robust Estimation of a Location Parameter", 1964.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*) and (*) -> (), or (*)."""
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class KLDivLoss(_Loss):
    """Compare distributions by their divergence: target * (log(target) - input).

    Shapes: log-probabilities and probabilities, (*) and (*) -> () or, with reduction "none", (*).

    - `reduction`: "batchmean" divides the sum by N, which is the divergence; "mean" divides it by
      the number of elements.
    - `log_target`: the target is log-probabilities too.
    - the deprecated arguments: as in the module.
    """

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*) and (*) -> (), or (*)."""
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class BCELoss(_WeightedLoss):
    """Compare probabilities with targets in [0, 1]: -(t * log(input) + (1 - t) * log(1 - input)).

    Shapes: (*) and (*) -> () or, with reduction "none", (*).

    - `weight`: a factor for each element, which broadcasts to (*).
    - `reduction` and the deprecated arguments: as in the module.

    Logarithms are at least -100, as in PyTorch. Raises RuntimeError for input outside [0, 1].
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*) and (*) -> (), or (*)."""
        return F.binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """Compare scores with targets in [0, 1]: BCELoss of sigmoid(input), computed stably.

    Shapes: (*) and (*) -> () or, with reduction "none", (*).

    - `weight`: a factor for each element, which broadcasts to (*).
    - `pos_weight`: a factor for the term of positive targets, which broadcasts to (*).
    - `reduction` and the deprecated arguments: as in the module.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(*) and (*) -> (), or (*)."""
        return F.binary_cross_entropy_with_logits(
            input,
            target,
            weight=self.weight,
            reduction=self.reduction,
            pos_weight=self.pos_weight,
        )


class CosineEmbeddingLoss(_Loss):
    """Turn pairs of vectors towards each other or apart: 1 - cos, or max(cos - margin, 0).

    Shapes: (N, D), (N, D) and a target (N) of 1 and -1 -> () or, with reduction "none", (N).

    - `margin`: the cosine that pairs of target -1 may have (default 0).
    - `reduction` and the deprecated arguments: as in the module.
    """

    def __init__(
        self,
        margin: float = 0.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) and (N) -> (), or (N)."""
        return F.cosine_embedding_loss(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )


class TripletMarginLoss(_Loss):
    """Move an anchor nearer to one vector than to another, by a margin.

    max(d(anchor, positive) - d(anchor, negative) + margin, 0), d(x, y) = |x - y + eps|_p.
    Shapes: three (N, D) -> () or, with reduction "none", (N).

    - `margin`: the difference of distances that is enough (default 1); ValueError unless positive.
    - `p`, `eps`: as in PairwiseDistance.
    - `swap`: count the distance of positive and negative if it is less than d(anchor, negative).
    - `reduction` and the deprecated arguments: as in the module.

    V. Balntas et al., "Learning Shallow Convolutional Feature Descriptors with Triplet Losses",
    2016.
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        if margin <= 0:
            raise ValueError(f"TripletMarginLoss: margin must be greater than 0, got {margin}")
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Three (N, D) -> (), or (N)."""
        return F.triplet_margin_loss(
            anchor,
            positive,
            negative,
            margin=self.margin,
            p=self.p,
            eps=self.eps,
            swap=self.swap,
            reduction=self.reduction,
        )
