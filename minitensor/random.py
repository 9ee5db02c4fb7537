"""Random numbers equal to those of PyTorch on the CPU for the same seed.

The generator is the Mersenne Twister MT19937 (M. Matsumoto, T. Nishimura, 1998), read as 32-bit
words. Each distribution turns words into numbers as PyTorch does, operation for operation, on a
processor with AVX2. float32 numbers, integers and permutations are the same bits; float64 normals,
uniforms in a range and exponentials may differ in the last bit or two, which depend on the math
library.

Everything here returns NumPy arrays; `minitensor.creation` makes tensors of them.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from .dtype import FLOATING, finfo_of

__all__ = [
    "Generator",
    "default_generator",
    "exact_dropout",
    "fork_rng",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "part_of_batch",
    "seed",
    "set_rng_state",
]

_DEFAULT_SEED = 67280421310721  # of a generator without a seed

# The layout of a state, which is PyTorch's: states can be exchanged.
_STATE = np.dtype(
    {
        "names": ["seed", "left", "seeded", "next", "words", "sine", "has_sine"],
        "formats": ["<u8", "<i4", "<i4", "<u8", ("<u8", 624), "<f8", "<i4"],
        "offsets": [0, 8, 12, 16, 24, 5024, 5040],
        "itemsize": 5056,
    }
)


class Generator:
    """A random number generator with its own state, as torch.Generator."""

    device = "cpu"

    def __init__(self, device: Any = "cpu") -> None:
        self._bits = np.random.MT19937()
        self._words = np.random.RandomState(self._bits)
        self.manual_seed(_DEFAULT_SEED)

    def __repr__(self) -> str:
        return f"<minitensor.Generator seed={self._seed}>"

    # State

    def manual_seed(self, seed: int) -> Generator:
        """Seed the generator with an integer in [-2**63, 2**64), of which 32 bits count."""
        seed = int(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"manual_seed: expected a seed in [-2**63, 2**64), got {seed}")
        self._seed = seed % 2**64
        self._words.seed(self._seed & 0xFFFFFFFF)
        self._sine: float | None = None
        return self

    def seed(self) -> int:
        """Seed the generator from the operating system's entropy and return the seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """Return the seed that the generator was seeded with."""
        return self._seed

    def get_state(self) -> np.ndarray:
        """Return the state as bytes in PyTorch's layout: (5056,) uint8."""
        _, words, position, *_ = self._words.get_state(legacy=True)
        record = np.zeros((), _STATE)
        record["seed"] = self._seed
        record["left"] = 625 - int(position)
        record["seeded"] = 1
        record["next"] = position
        record["words"] = words
        if self._sine is not None:
            record["sine"], record["has_sine"] = self._sine, 1
        return np.frombuffer(record.tobytes(), np.uint8).copy()

    def set_state(self, state: Any) -> None:
        """Set the state to one from `get_state`; RuntimeError for anything else."""
        data = np.ascontiguousarray(np.asarray(state))
        if data.dtype != np.uint8 or data.shape != (_STATE.itemsize,):
            raise RuntimeError(
                f"set_state: expected {_STATE.itemsize} bytes from get_state, got {data.dtype} of "
                f"shape {data.shape}"
            )
        record = data.view(_STATE)[0]
        position = 625 - int(record["left"])
        if not (record["seeded"] == 1 and 1 <= position <= 624):
            raise RuntimeError("set_state: these bytes are not the state of a generator")
        self._seed = int(record["seed"])
        self._words.set_state(("MT19937", record["words"].astype(np.uint32), position, 0, 0.0))
        self._sine = float(record["sine"]) if record["has_sine"] else None

    def clone_state(self) -> Generator:
        """Return another generator with the same state."""
        other = Generator()
        other.set_state(self.get_state())
        return other

    # Words

    def words32(self, n: int) -> np.ndarray:
        """Return n random words: (n,) uint32."""
        return self._words.randint(0, 2**32, n, dtype=np.uint32)

    def words64(self, n: int) -> np.ndarray:
        """Return n random double words, drawn upper half first: (n,) uint64."""
        pairs = self.words32(2 * n).astype(np.uint64)
        return (pairs[0::2] << np.uint64(32)) | pairs[1::2]

    def key(self, size: int = 0) -> int:
        """Return a random integer, the key of a counter-based generator in a kernel.

        `size` is the number of elements it is for, which may be a part of a batch: `part_of_batch`.
        """
        raw = self._bits.random_raw  # the same words as `words64`, without arrays
        high, low = raw(), raw()
        key = int(high << 32 | low) >> 1
        first, rows = _part
        if not first:
            return key
        from .kernels.dropout import shift_key  # which loads LLVM

        return shift_key(key, size * first // rows)

    # Distributions: n is the number of samples, the result has shape (n,)

    def uniform(
        self, n: int, dtype: Any = np.float32, low: float = 0.0, high: float = 1.0
    ) -> np.ndarray:
        """Draw numbers uniformly from [low, high), with as many random bits as dtype has digits."""
        dtype = np.dtype(dtype)
        x: np.ndarray
        if dtype.itemsize == 8:
            x = (self.words64(n) & np.uint64(2**53 - 1)).astype(np.float64)
            x *= 2.0**-53
        else:
            x = (self.words32(n) & np.uint32(2**24 - 1)).astype(np.float32)
            x *= np.float32(2.0**-24)
        if (low, high) != (0.0, 1.0):
            kind = x.dtype.type
            start, width = kind(low), kind(high) - kind(low)
            if dtype.itemsize == 8:
                x = x * width + start
            else:  # PyTorch rounds once, by a fused multiply-add
                x = (x.astype(np.float64) * float(width) + float(start)).astype(np.float32)
        return x.astype(dtype, copy=False)

    def normal(
        self,
        n: int,
        dtype: Any = np.float32,
        mean: float = 0.0,
        std: float = 1.0,
        contiguous: bool = True,
    ) -> np.ndarray:
        """Draw from a normal distribution; fewer than 16, or for a strided tensor, in pairs.

        G. Box, M. Muller, "A note on the generation of random normal deviates", 1958.
        """
        dtype = np.dtype(dtype)
        if n < 16 or not contiguous:
            return self._normal_pairs(n, mean, std).astype(dtype)
        whole = n // 16 * 16
        x = np.empty(n, np.promote_types(dtype, np.float32))
        drawn = whole if dtype.itemsize == 2 else n  # half precision is drawn block by block
        x[:drawn] = self.uniform(drawn, x.dtype)
        tail = self.uniform(16, x.dtype) if n % 16 else x[:0]
        _box_muller(x[:whole], mean, std)
        if len(tail):
            _box_muller(tail, mean, std)
            x[-16:] = tail
        return x.astype(dtype, copy=False)

    def trunc_normal(
        self,
        n: int,
        dtype: Any = np.float32,
        mean: float = 0.0,
        std: float = 1.0,
        low: float = -2.0,
        high: float = 2.0,
    ) -> np.ndarray:
        """Draw from a normal distribution truncated to [low, high], by rejection as PyTorch 2.13.

        Candidates are normal if more than three of ten are accepted, otherwise uniform.
        """
        dtype = np.dtype(dtype)
        width = std * math.sqrt(2.0)
        kept = (math.erf((high - mean) / width) - math.erf((low - mean) / width)) / 2.0
        if kept > 0.3:
            x = self.normal(n, dtype, mean, std)
            while (bad := (x < dtype.type(low)) | (x > dtype.type(high))).any():
                x = np.where(bad, self.normal(n, dtype, mean, std), x)
            return x
        mode = max(low, min(mean, high))
        peak = dtype.type(-0.5 * ((mode - mean) / std) ** 2)
        x = np.empty(n, dtype)
        bad = np.ones(n, np.bool_)
        while bad.any():
            candidate = self.uniform(n, dtype, low, high)
            x = np.where(bad, candidate, x)
            density = ((candidate - dtype.type(mean)) / dtype.type(std)) ** 2 * dtype.type(
                -0.5
            ) - peak
            with np.errstate(divide="ignore"):
                bad &= np.log(self.uniform(n, dtype)) > density
        return x

    def _normal_pairs(self, n: int, mean: float, std: float) -> np.ndarray:
        """Draw (n,) float64 in pairs of 53-bit uniforms; an odd sine is kept for the next call."""
        found = []
        if n and self._sine is not None:
            found.append(np.array([self._sine]))
            self._sine = None
        missing = n - len(found)
        if missing > 0:
            u = self.uniform((missing + 1) // 2 * 2, np.float64)
            radius = np.sqrt(-2.0 * np.log1p(-u[1::2]))
            angle = 2.0 * math.pi * u[0::2]
            pairs = np.empty_like(u)
            pairs[0::2] = radius * np.cos(angle)
            pairs[1::2] = radius * np.sin(angle)
            if missing % 2:
                self._sine = float(pairs[-1])
            found.append(pairs[:missing])
        x = np.concatenate(found) if found else np.empty(0)
        return x * std + mean

    def randint(self, n: int, low: int, high: int, dtype: Any = np.int64) -> np.ndarray:
        """Draw integers uniformly from [low, high)."""
        span = high - low
        if span <= 0:
            raise RuntimeError(f"randint: from ({low}) must be less than to ({high})")
        offset: np.ndarray
        if span >= 2**32:
            offset = self.words64(n) % np.uint64(span)
        else:
            offset = self.words32(n) % np.uint32(span)
        return (offset.astype(np.int64) + low).astype(dtype)

    def random(self, n: int, dtype: Any) -> np.ndarray:
        """Draw from all integers of at least 0 that the dtype holds exactly."""
        dtype = np.dtype(dtype)
        words = self.words64(n) if dtype.itemsize == 8 else self.words32(n)
        if dtype.kind in FLOATING:
            count = 2 ** finfo_of(dtype).nmant * 2 + 1
        else:
            count = 2 if dtype.kind == "b" else np.iinfo(dtype).max + 1
        return (words % words.dtype.type(count)).astype(dtype)

    def randperm(self, n: int) -> np.ndarray:
        """Return 0 to n - 1 in random order, by the Fisher-Yates shuffle: (n,) int64."""
        steps = (self.words32(max(n - 1, 0)) % np.arange(n, 1, -1, dtype=np.uint32)).tolist()
        order = list(range(n))
        for i, step in enumerate(steps):
            j = i + step
            order[i], order[j] = order[j], order[i]
        return np.array(order, np.int64)

    def bernoulli(self, n: int, p: Any) -> np.ndarray:
        """Draw True with probability `p`, a number or a float array (n,): (n,) bool."""
        return self.uniform(n, getattr(p, "dtype", np.float64)) < p

    def exponential(self, n: int, rate: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
        """Draw from an exponential distribution of mean 1 / rate."""
        return (-1.0 / rate * np.log1p(-self.uniform(n, np.float64))).astype(dtype)

    def multinomial(self, weights: np.ndarray, count: int, replacement: bool = False) -> np.ndarray:
        """Draw indices with probabilities proportional to weights: (..., V) -> (..., count) int64.

        Without replacement, or for a single sample, these are the largest of weight / exponential;
        otherwise uniforms are looked up in the cumulative sum.
        """
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise RuntimeError(
                "multinomial: probability tensor contains either `inf`, `nan` or element < 0"
            )
        rows = weights.reshape(-1, weights.shape[-1])
        if (rows.sum(1) <= 0).any():
            raise RuntimeError(
                "multinomial: invalid multinomial distribution (sum of probabilities <= 0)"
            )
        if replacement and count > 1:
            chosen = self._multinomial_replaced(rows, count)
        else:
            q = self.exponential(rows.size, 1.0, rows.dtype).reshape(rows.shape)
            score = rows / q
            if count == 1:
                chosen = score.argmax(1)[:, None]
            else:
                chosen = np.argsort(-score, axis=1, kind="stable")[:, :count]
        return chosen.astype(np.int64).reshape(*weights.shape[:-1], count)

    def _multinomial_replaced(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Draw with replacement: the first index whose cumulative sum reaches a uniform."""
        cumulative = np.cumsum(rows, 1)
        cumulative /= cumulative[:, -1:]
        chosen = np.empty((len(rows), count), np.int64)
        for row, steps in enumerate(cumulative.astype(np.float64)):
            for part in np.split(chosen[row], range(_CHUNK, count, _CHUNK)):
                part[:] = np.searchsorted(steps, self.uniform(len(part), np.float64))
        return np.minimum(chosen, rows.shape[1] - 1, out=chosen)


def _box_muller(x: np.ndarray, mean: float, std: float) -> None:
    """Turn uniforms into normals in place, in blocks of 16: eight radii, then eight angles."""
    if x.dtype == np.float64:
        blocks = x.reshape(-1, 16)
        radius = np.sqrt(-2 * np.log(1 - blocks[:, :8]))
        angle = 2 * math.pi * blocks[:, 8:]
        blocks[:, :8] = radius * np.cos(angle) * std + mean
        blocks[:, 8:] = radius * np.sin(angle) * std + mean
        return
    for part in np.split(x, range(_CHUNK, len(x), _CHUNK)):
        blocks = part.reshape(-1, 16)
        radius = np.sqrt(np.float32(-2) * _log(np.float32(1) - blocks[:, :8]))
        sine, cosine = _sine_and_cosine(np.float32(2 * math.pi) * blocks[:, 8:])
        blocks[:, :8] = _fma(radius * cosine, np.float32(std), np.float32(mean))
        blocks[:, 8:] = _fma(radius * sine, np.float32(std), np.float32(mean))


# The float32 logarithm, sine and cosine that PyTorch uses, operation for operation: minimax
# polynomials of the Cephes library (S. Moshier, 1992). Others would change the last bit of normals.

_CHUNK = 1 << 15  # numbers at a time, so that intermediate results stay in cache


def _fma(a: Any, b: Any, c: Any) -> np.ndarray:
    """Return a * b + c in float32, rounded once: the product is exact in float64."""
    return (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)


def _polynomial(x: np.ndarray, *coefficients: float) -> np.ndarray:
    """Evaluate a polynomial, highest power first, by Horner's rule."""
    y: Any = np.float32(coefficients[0])
    for c in coefficients[1:]:
        y = _fma(y, x, np.float32(c))
    return y


def _log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of float32 numbers in (0, 1]."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < np.float32(math.sqrt(0.5))
    e = (exponent - small).astype(np.float32)
    m = np.where(small, mantissa - np.float32(1) + mantissa, mantissa - np.float32(1))
    z = m * m
    y = m * _polynomial(
        m, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )  # fmt: skip
    y = _fma(y, z, e * np.float32(-2.12194440e-4))
    y = _fma(z, np.float32(-0.5), y)
    return _fma(e, np.float32(0.693359375), m + y)  # log 2 in two parts, this one exact


def _sine_and_cosine(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sine and the cosine of float32 angles in [0, 2 pi]."""
    octant = ((x * np.float32(4 / math.pi)).astype(np.int32) + 1) & ~1
    y = octant.astype(np.float32)
    for part in (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8):  # of pi / 4
        x = _fma(y, np.float32(-part), x)
    z = x * x
    c = z * _polynomial(z, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
    c = _fma(c, z, z * np.float32(-0.5)) + np.float32(1)
    s = z * _polynomial(z, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
    s = _fma(s, x, x)
    swapped = octant & 2 != 0
    sine, cosine = np.where(swapped, c, s), np.where(swapped, s, c)
    return (
        np.where(octant & 4 != 0, -sine, sine),
        np.where((octant - 2) & 4 != 0, cosine, -cosine),
    )


default_generator: Generator = Generator()
default_generator.seed()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator and return it."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system's entropy and return the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """Return the seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> np.ndarray:
    """Return the state of the default generator, as bytes."""
    return default_generator.get_state()


def set_rng_state(new_state: Any) -> None:
    """Set the state of the default generator to one from `get_rng_state`."""
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Restore the default generator's state after a `with` block."""
    before = default_generator.get_state()
    try:
        yield
    finally:
        if enabled:
            default_generator.set_state(before)


_part = (0, 1)


@contextlib.contextmanager
def part_of_batch(first: int, rows: int) -> Iterator[None]:
    """Within the block, dropout is that of the `rows` rows of a batch from number `first` on.

    So several processes drop in their rows what one drops in all, wherever the batch is the first
    dimension: not between the layers of `nn.RNN`, where time is.
    """
    global _part
    before, _part = _part, (first, rows)
    try:
        yield
    finally:
        _part = before


_torch_dropout = False


class exact_dropout:
    """Draw the dropout masks of PyTorch for the same seed, which is slower than the default.

    A call sets it from now on; the result may begin a `with` block, whose end restores what was set
    before the call.
    """

    def __init__(self, mode: bool = True) -> None:
        global _torch_dropout
        self._mode, self._before = bool(mode), _torch_dropout
        _torch_dropout = self._mode

    def __enter__(self) -> exact_dropout:
        global _torch_dropout
        _torch_dropout = self._mode
        return self

    def __exit__(self, *exception: object) -> None:
        global _torch_dropout
        _torch_dropout = self._before


def uses_torch_dropout() -> bool:
    """Return True if `exact_dropout` is on."""
    return _torch_dropout
