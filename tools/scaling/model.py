"""The alpha-beta model: what an all-reduce costs, and a step of data-parallel training.

A message of n bytes takes alpha + n * beta seconds, and adding n bytes to others n * gamma. An
all-reduce of n bytes over p ranks then takes, with lg p rounded down and q = 2**lg p,

    recursive doubling          lg p * (alpha + n * (beta + gamma))
    Rabenseifner's algorithm    2 * lg p * alpha + (q - 1) / q * n * (2 * beta + gamma)
    ring                        2 * (p - 1) * alpha + (p - 1) / p * n * (2 * beta + gamma)

where the first two, if p is not q, first add the data of p - q ranks to those of others and send
them the result at the end: 2 * alpha + n * (2 * beta + gamma) more. That of
`minitensor.distributed` sends what the ring sends, in fewer messages one after the other: see
`pairwise`.

- R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in
  MPICH", International Journal of High Performance Computing Applications 19(1), 2005.
- R. Rabenseifner, "Optimization of collective reduction operations", ICCS 2004: reduce-scatter by
  recursive halving, then all-gather by recursive doubling.
- P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
  Journal of Parallel and Distributed Computing 69(2), 2009: the ring.
- S. Li et al., "PyTorch Distributed: experiences on accelerating data parallel training",
  VLDB 2020: gradients reduced in buckets while the backward pass runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

THROTTLE = 32  # messages of an all-to-all that MPICH has under way at once
LARGEST = 1024  # ranks to which a step is predicted


@dataclass(frozen=True)
class Network:
    """The constants of a network: `alpha` in seconds, `beta` and `gamma` in seconds per byte."""

    alpha: float
    beta: float
    gamma: float


Cost = tuple[float, float, float]  # what alpha, beta and gamma are multiplied with


def folded(ranks: int) -> tuple[int, Cost]:
    """Return lg p rounded down, and the cost per byte of the ranks beyond that power of two."""
    rounds = ranks.bit_length() - 1
    return rounds, (2.0, 2.0, 1.0) if ranks > 2**rounds else (0.0, 0.0, 0.0)


def recursive_doubling(size: float, ranks: int) -> Cost:
    """In each round every rank exchanges all its data with another, and adds."""
    rounds, (messages, sent, added) = folded(ranks)
    return messages + rounds, size * (sent + rounds), size * (added + rounds)


def rabenseifner(size: float, ranks: int) -> Cost:
    """Reduce-scatter by recursive halving, then all-gather by recursive doubling."""
    rounds, (messages, sent, added) = folded(ranks)
    share = 1 - 1 / 2**rounds
    return messages + 2 * rounds, size * (sent + 2 * share), size * (added + share)


def ring(size: float, ranks: int) -> Cost:
    """Reduce-scatter, then all-gather, each piece passed on around the ring."""
    share = 1 - 1 / ranks
    return 2.0 * (ranks - 1), size * 2 * share, size * share


def pairwise(size: float, ranks: int) -> Cost:
    """Reduce-scatter in which each rank sends every other its piece, then all-gather in a ring.

    Up to THROTTLE of the first messages are under way at once. A digest of the call goes ahead.
    """
    digest, posted = (ranks - 1).bit_length(), -(-(ranks - 1) // THROTTLE)
    messages, sent, added = ring(size, ranks)
    return digest + posted + messages / 2, sent, added


OURS = "minitensor"
# The first is ours; the others have MPICH's names, in MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM.
ALGORITHMS: dict[str, Callable[[float, int], Cost]] = {
    OURS: pairwise,
    "reduce_scatter_allgather": rabenseifner,
    "ring": ring,
    "recursive_doubling": recursive_doubling,
}


def all_reduce(size: float, ranks: int, network: Network, algorithm: str) -> float:
    """Return the seconds of an all-reduce of `size` bytes."""
    messages, sent, added = ALGORITHMS[algorithm](size, ranks)
    return messages * network.alpha + sent * network.beta + added * network.gamma


def fit(
    sizes: Sequence[float], seconds: Sequence[float], ranks: int, gamma: float, algorithm: str
) -> Network:
    """Return the alpha and beta that fit measured all-reduces best, in relative error.

    - gamma: seconds to add a byte, measured on its own: over one number of ranks, the data cannot
      tell it from beta.
    """
    rows = np.array([ALGORITHMS[algorithm](size, ranks) for size in sizes])
    measured = np.array(seconds)
    rest = measured - gamma * rows[:, 2]
    kept = [0, 1]
    while True:  # without the constants that would be negative
        found = np.zeros(2)
        weighted = rows[:, kept] / measured[:, None]
        found[kept] = np.linalg.lstsq(weighted, rest / measured, rcond=None)[0]
        if (found >= 0).all():
            return Network(float(found[0]), float(found[1]), gamma)
        kept.remove(int(found.argmin()))


@dataclass(frozen=True)
class Work:
    """A training step on one rank without communication.

    - fixed, each: seconds of a step, `fixed` + `each` * sentences.
    - backward: the part of them in the backward pass.
    - buckets: of gradients, bytes and the part of the backward pass after which each is ready.
    - overlap: the part of what communication could hide behind the backward pass that it does.
    """

    fixed: float
    each: float
    backward: float
    buckets: tuple[tuple[float, float], ...]
    overlap: float = 1.0

    def compute(self, batch: float) -> float:
        """Return the seconds of a step with so many sentences on the rank."""
        return self.fixed + self.each * batch

    @property
    def bytes(self) -> float:
        """The bytes of all gradients."""
        return sum(size for size, _ in self.buckets)


def into_buckets(
    gradients: Sequence[tuple[float, float]], first: float = 2**20, cap: float = 25 * 2**20
) -> tuple[tuple[float, float], ...]:
    """Return the buckets of DistributedDataParallel, as in `Work`.

    - gradients: of the parameters in their order, bytes and when they are ready.
    - first, cap: the bytes at which a bucket is full.
    """
    buckets: list[tuple[float, float]] = []
    size = latest = 0.0
    for number, ready in reversed(gradients):
        size, latest = size + number, max(latest, ready)
        if size >= (cap if buckets else first):
            buckets.append((size, latest))
            size = latest = 0.0
    return (*buckets, (size, latest)) if size else tuple(buckets)


def exposed(
    work: Work, compute: float, ranks: int, network: Network, algorithm: str
) -> tuple[float, float]:
    """Return the seconds a step waits for communication: at best, and without any overlap.

    Buckets are reduced one after the other, each as soon as it is ready.
    """
    if ranks == 1:
        return 0.0, 0.0
    backward, now, total = work.backward * compute, 0.0, 0.0
    for size, ready in work.buckets:
        seconds = all_reduce(size, ranks, network, algorithm)
        now = max(now, ready * backward) + seconds
        total += seconds
    return max(0.0, now - backward), total


def waiting(work: Work, compute: float, ranks: int, network: Network, algorithm: str) -> float:
    """Return the seconds by which a step over `ranks` is longer than one that only computes."""
    best, total = exposed(work, compute, ranks, network, algorithm)
    return total - work.overlap * (total - best)


def overlap(best: float, total: float, measured: float) -> float:
    """Return the part of the communication that could be hidden and was, between 0 and 1."""
    return min(1.0, max(0.0, (total - measured) / (total - best))) if total > best else 1.0


@dataclass(frozen=True)
class Scaling:
    """A way to scale: so many sentences on each rank, or on all together if `strong`."""

    batch: int
    strong: bool

    def __str__(self) -> str:
        """Name it."""
        return f"{self.batch:,} sentences {'in all' if self.strong else 'on each rank'}"

    def on(self, ranks: int) -> float:
        """Return the sentences on each of so many ranks."""
        return self.batch / ranks if self.strong else float(self.batch)

    @property
    def most(self) -> int:
        """The number of ranks to which it is drawn; each needs a sentence."""
        return min(LARGEST, self.batch) if self.strong else LARGEST


def dominated_from(work: Work, network: Network, algorithm: str, scaling: Scaling) -> int | None:
    """Return the ranks from which on a step waits for longer than it computes; None if never."""
    for ranks in range(scaling.most, 1, -1):
        compute = work.compute(scaling.on(ranks))
        if waiting(work, compute, ranks, network, algorithm) <= compute:
            return None if ranks == scaling.most else ranks + 1
    return 2


def told(scaling: Scaling, crossing: int | None) -> str:
    """Tell in words from where on communication dominates."""
    if crossing is None:
        return f"computation dominates up to {scaling.most:,} ranks"
    return f"communication dominates from {crossing:,} ranks on"
