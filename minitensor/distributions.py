"""Probability distributions to draw from and to score: Categorical, Normal, Bernoulli.

    policy = Categorical(logits=model(state))      # a batch of distributions over actions
    action = policy.sample()
    loss = -(policy.log_prob(action) * reward).mean() - 0.01 * policy.entropy().mean()

Samples are PyTorch's for the same seed. Imported when it is first asked for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any, NamedTuple, Self

from . import sampling
from .autograd import no_grad
from .core import Size, Tensor
from .creation import arange, empty, full, tensor
from .dtype import finfo, get_default_dtype, int64
from .names import show
from .ops.breadth.activation import Softplus
from .ops.breadth.loss import binary_cross_entropy_with_logits
from .ops.breadth.repeat import broadcast_tensors

__all__ = ["Bernoulli", "Categorical", "Distribution", "Normal", "kl_divergence"]


class Constraint(NamedTuple):
    """A condition on the elements of a tensor: its name, and a function that tests it."""

    name: str
    check: Callable[[Tensor], Tensor]

    def __repr__(self) -> str:
        return self.name


def _integers(upper: int) -> Constraint:
    """Return the constraint to the integers from 0 to `upper`."""
    return Constraint(
        f"IntegerInterval(lower_bound=0, upper_bound={upper})",
        lambda x: (x % 1 == 0) & (x >= 0) & (x <= upper),
    )


_REAL = Constraint("Real()", lambda x: x == x)  # no NaN
_REALS = Constraint("IndependentConstraint(Real(), 1)", lambda x: (x == x).all(-1))
_POSITIVE = Constraint("GreaterThan(lower_bound=0.0)", lambda x: x > 0)
_UNIT = Constraint("Interval(lower_bound=0.0, upper_bound=1.0)", lambda x: (x >= 0) & (x <= 1))
_BOOLEAN = Constraint("Boolean()", lambda x: (x == 0) | (x == 1))
_SIMPLEX = Constraint("Simplex()", lambda x: (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() < 1e-6))


class Distribution:
    """The base class: a batch of distributions of one kind, `batch_shape`, over one event each.

    - `validate_args`: check parameters and the values that are scored, and raise ValueError for
      impossible ones. True unless Python runs with -O; `set_default_validate_args` sets it for all.
    """

    has_rsample = False
    has_enumerate_support = False
    arg_constraints: Mapping[str, Constraint]
    support: Any  # a Constraint
    _validate_args: bool = __debug__

    def __init__(
        self,
        batch_shape: tuple[int, ...] = (),
        event_shape: tuple[int, ...] = (),
        validate_args: bool | None = None,
    ) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if not self._validate_args:
            return
        for name, constraint in self.arg_constraints.items():
            value = self.__dict__.get(name)  # one that follows from another is not checked
            if value is not None and not constraint.check(value).all():
                raise ValueError(
                    f"Expected parameter {name} (Tensor of shape {tuple(value.shape)}) of "
                    f"distribution {self!r} to satisfy the constraint {constraint!r}, but found "
                    f"invalid values:\n{value}"
                )

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Set whether arguments are checked where `validate_args` does not say it."""
        if value not in (True, False):
            raise ValueError(f"expected True or False, got {value!r}")
        Distribution._validate_args = value

    @property
    def batch_shape(self) -> Size:
        """The shape of the batch of distributions."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one sample of one distribution."""
        return self._event_shape

    @property
    def mean(self) -> Tensor:
        """The mean."""
        raise NotImplementedError

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        raise NotImplementedError

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """The standard deviation, the square root of the variance."""
        return self.variance.sqrt()

    def expand(self, batch_shape: tuple[int, ...]) -> Self:
        """Return the distributions expanded to a larger batch; no memory is copied."""
        raise NotImplementedError

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw: (*sample_shape, *batch_shape, *event_shape), without a gradient."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw as `sample`, with a gradient to the parameters."""
        raise NotImplementedError(f"{type(self).__name__} has no samples with a gradient")

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the logarithm of the probability, or of its density, at `value`."""
        raise NotImplementedError

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probability of a sample that is at most `value`."""
        raise NotImplementedError

    def icdf(self, value: Tensor) -> Tensor:
        """Return the value whose `cdf` is `value`."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """Return the entropy in nats: (*batch_shape)."""
        raise NotImplementedError

    def perplexity(self) -> Tensor:
        """Return exp(entropy): (*batch_shape)."""
        return self.entropy().exp()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all values of a discrete distribution along a new first dimension."""
        raise NotImplementedError

    def _shape(self, sample_shape: tuple[int, ...]) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _validate(self, value: Tensor) -> None:
        """Raise ValueError for a value that has no probability."""
        if not self._validate_args:
            return
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        own = self._shape(())
        pairs = zip(reversed(value.shape), reversed(own), strict=False)
        if any(1 not in (i, j) and i != j for i, j in pairs):
            raise ValueError(
                "Value is not broadcastable with batch_shape+event_shape: "
                f"{tuple(value.shape)} vs {tuple(own)}."
            )
        if not self.support.check(value).all():
            raise ValueError(
                f"Expected value argument (Tensor of shape {tuple(value.shape)}) to be within the "
                f"support ({self.support!r}) of the distribution {self!r}, but found invalid "
                f"values:\n{value}"
            )

    def _expanded(self, batch_shape: tuple[int, ...], *names: str, event: Any = ()) -> Self:
        """Return a copy with those of the named parameters that are there expanded."""
        new = self.__new__(type(self))
        for name in names:
            if name in self.__dict__:
                new.__dict__[name] = self.__dict__[name].expand((*batch_shape, *event))
        new._batch_shape, new._event_shape = Size(batch_shape), self._event_shape
        new._validate_args = self._validate_args
        return new

    def __repr__(self) -> str:
        given = {k: self.__dict__[k] for k in self.arg_constraints if k in self.__dict__}
        shown = [
            f"{k}: {v.item() if v.numel() == 1 else f'minitensor.Size({list(v.shape)})'}"
            for k, v in given.items()
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def _broadcast(*values: Any) -> tuple[Tensor, ...]:
    """Return parameters as tensors of one shape; numbers take the type of the first tensor."""
    if not all(isinstance(v, Tensor | Number) for v in values):
        raise ValueError("parameters must be numbers or tensors")
    dtype = next((v.dtype for v in values if isinstance(v, Tensor)), get_default_dtype())
    return broadcast_tensors(
        *[v if isinstance(v, Tensor) else tensor(v, dtype=dtype) for v in values]
    )


def _one_of(probs: Any, logits: Any) -> None:
    if (probs is None) == (logits is None):
        raise ValueError("Either `probs` or `logits` must be specified, but not both.")


def _open(probs: Tensor) -> Tensor:
    """Return probabilities without 0 and 1, whose logarithms are infinite."""
    eps = float(finfo(probs.dtype).eps)
    return probs.clamp(eps, 1 - eps)


class Categorical(Distribution):
    """The distribution over 0 to K - 1, by probabilities or logits (*, K).

    - `probs`: not negative; divided by their sum.
    - `logits`: logarithms of probabilities, up to a constant.

    ValueError unless just one of them is given.
    """

    arg_constraints = {"probs": _SIMPLEX, "logits": _REALS}
    has_enumerate_support = True

    def __init__(
        self,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        _one_of(probs, logits)
        name, given = ("probs", probs) if logits is None else ("logits", logits)
        assert given is not None
        if given.ndim < 1:
            raise ValueError(f"`{name}` parameter must be at least one-dimensional.")
        if logits is None:
            self.__dict__["probs"] = given / given.sum(-1, keepdim=True)
        else:
            self.__dict__["logits"] = logits - logits.logsumexp(-1, keepdim=True)
        self._num_events = given.shape[-1]
        super().__init__(given.shape[:-1], validate_args=validate_args)

    @functools.cached_property
    def probs(self) -> Tensor:
        """The probabilities (*, K)."""
        return self.logits.softmax(-1)

    @functools.cached_property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities (*, K)."""
        return _open(self.probs).log()

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter, (*, K)."""
        return Size((*self._batch_shape, self._num_events))

    @property
    def support(self) -> Constraint:
        """The integers from 0 to K - 1."""
        return _integers(self._num_events - 1)

    @property
    def mean(self) -> Tensor:
        """NaN: categories have no mean."""
        return full(self._batch_shape, math.nan, dtype=self.probs.dtype)

    variance = mean

    @property
    def mode(self) -> Tensor:
        """The most probable category."""
        return self.probs.argmax(-1)

    def expand(self, batch_shape: tuple[int, ...]) -> Self:
        """Return the distributions expanded to a larger batch; no memory is copied."""
        new = self._expanded(batch_shape, "probs", "logits", event=(self._num_events,))
        new._num_events = self._num_events
        return new

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw categories: (*sample_shape, *batch_shape) int64."""
        rows = self.probs.detach().reshape(-1, self._num_events)
        drawn = sampling.multinomial(rows, math.prod(sample_shape), True).T
        return drawn.reshape(self._shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the logarithm of the probability of each category."""
        self._validate(value)
        index, logits = broadcast_tensors(value.long().unsqueeze(-1), self.logits)
        return logits.gather(-1, index[..., :1]).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return -sum(p * log(p)): (*batch_shape)."""
        least = float(finfo(self.logits.dtype).min)  # 0 * -inf is NaN
        return -(self.logits.clamp_min(least) * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return 0 to K - 1: (K, *batch_shape), or (K, 1, ...) without `expand`."""
        values = arange(self._num_events, dtype=int64)
        return _along_first(values, self._batch_shape, expand)


class Normal(Distribution):
    """The normal distribution of mean `loc` and standard deviation `scale`, which broadcast."""

    arg_constraints = {"loc": _REAL, "scale": _POSITIVE}
    support = _REAL
    has_rsample = True

    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale = _broadcast(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean, `loc`."""
        return self.loc

    mode = mean

    @property
    def stddev(self) -> Tensor:
        """The standard deviation, `scale`."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """The variance, `scale` squared."""
        return self.scale**2

    def expand(self, batch_shape: tuple[int, ...]) -> Self:
        """Return the distributions expanded to a larger batch; no memory is copied."""
        return self._expanded(batch_shape, "loc", "scale")

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw: (*sample_shape, *batch_shape), without a gradient."""
        shape = self._shape(sample_shape)
        with no_grad():
            return sampling.normal(self.loc.expand(shape), self.scale.expand(shape))

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw loc + scale * noise, with a gradient to both."""
        noise = empty(self._shape(sample_shape), dtype=self.loc.dtype).normal_()
        return self.loc + noise * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """Return -(x - loc)^2 / (2 * scale^2) - log(scale) - log(2 * pi) / 2."""
        self._validate(value)
        square = (value - self.loc) ** 2
        half = math.log(math.sqrt(2 * math.pi))
        return -square / (2 * self.scale**2) - self.scale.log() - half

    def cdf(self, value: Tensor) -> Tensor:
        """Return (1 + erf((x - loc) / (scale * sqrt(2)))) / 2."""
        self._validate(value)
        return 0.5 * (1 + ((value - self.loc) * self.scale.reciprocal() / math.sqrt(2)).erf())

    def icdf(self, value: Tensor) -> Tensor:
        """Return the value whose `cdf` is `value`."""
        return self.loc + self.scale * (2 * value - 1).erfinv() * math.sqrt(2)

    def entropy(self) -> Tensor:
        """Return log(2 * pi * e * scale^2) / 2."""
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log()


class Bernoulli(Distribution):
    """The distribution that is 1 with a probability and else 0.

    - `probs`: the probability of 1; or
    - `logits`: log(p / (1 - p)).

    ValueError unless just one of them is given.
    """

    arg_constraints = {"probs": _UNIT, "logits": _REAL}
    support = _BOOLEAN
    has_enumerate_support = True

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        _one_of(probs, logits)
        name, given = ("probs", probs) if logits is None else ("logits", logits)
        (self.__dict__[name],) = _broadcast(given)
        super().__init__(self.__dict__[name].shape, validate_args=validate_args)

    @functools.cached_property
    def probs(self) -> Tensor:
        """The probability of 1."""
        return self.logits.sigmoid()

    @functools.cached_property
    def logits(self) -> Tensor:
        """The logarithm of p / (1 - p)."""
        p = _open(self.probs)
        return p.log() - (-p).log1p()

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._batch_shape

    @property
    def mean(self) -> Tensor:
        """The mean, p."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The more probable value, NaN where both are alike."""
        return (self.probs >= 0.5).to(self.probs).masked_fill(self.probs == 0.5, math.nan)

    @property
    def variance(self) -> Tensor:
        """The variance, p * (1 - p)."""
        return self.probs * (1 - self.probs)

    def expand(self, batch_shape: tuple[int, ...]) -> Self:
        """Return the distributions expanded to a larger batch; no memory is copied."""
        return self._expanded(batch_shape, "probs", "logits")

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw 0 and 1 as floats: (*sample_shape, *batch_shape)."""
        with no_grad():
            return sampling.bernoulli(self.probs.expand(self._shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log(p) where `value` is 1, log(1 - p) where it is 0."""
        self._validate(value)
        logits, value = _broadcast(self.logits, value)
        return -binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        """Return -p * log(p) - (1 - p) * log(1 - p)."""
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return 0 and 1: (2, *batch_shape), or (2, 1, ...) without `expand`."""
        values = arange(2, dtype=self.probs.dtype)
        return _along_first(values, self._batch_shape, expand)


def _along_first(values: Tensor, batch_shape: Size, expand: bool) -> Tensor:
    values = values.view(-1, *[1] * len(batch_shape))
    return values.expand(-1, *batch_shape) if expand else values


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """Return the mean of log(p(x)) - log(q(x)) over x of p, for two of one kind: (*batch_shape).

    NotImplementedError for distributions of two kinds.
    """
    if isinstance(p, Normal) and isinstance(q, Normal):
        ratio = (p.scale / q.scale) ** 2
        return 0.5 * (ratio + ((p.loc - q.loc) / q.scale) ** 2 - 1 - ratio.log())
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        t = p.probs * (p.logits - q.logits)
        t = t.masked_fill(q.probs == 0, math.inf).masked_fill(p.probs == 0, 0.0)
        return t.sum(-1)
    if isinstance(p, Bernoulli) and isinstance(q, Bernoulli):
        ones = p.probs * (Softplus.call(-q.logits) - Softplus.call(-p.logits))
        ones = ones.masked_fill(q.probs == 0, math.inf).masked_fill(p.probs == 0, 0.0)
        zeros = (1 - p.probs) * (Softplus.call(q.logits) - Softplus.call(p.logits))
        zeros = zeros.masked_fill(q.probs == 1, math.inf).masked_fill(p.probs == 1, 0.0)
        return ones + zeros
    raise NotImplementedError(
        f"no divergence of {type(p).__name__} from {type(q).__name__} is implemented"
    )


show(__name__)
