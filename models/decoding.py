"""Decoding: how a model of the next token writes text. Shared by all models that generate.

A model takes part by two methods, its own and its state's:

    logits_NV = model.advance(tokens_NL, state)    of the token after the last one of each row
    state.select(rows)                             keep these rows, in this order, also repeatedly

The state is what the model computed for all tokens so far: keys and values (`KVCache`), or the
hidden state of a recurrent network. `advance` reads tokens into it. All else is here:

    greedy, Sampling       choose a token from the logits
    stream, generate       write a batch with one of them, token by token or at once
    beam_search            find the most probable continuations

Prompts of unequal length need no padding. All rows read as many tokens as the shortest prompt has;
then those with longer prompts read on, one token at a time, while the others write. So each row
gets the tokens that it would get alone. A row that ends leaves the batch.

Sources:
- Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020, arXiv:1904.09751: top-p.
- Fan, Lewis, Dauphin, "Hierarchical Neural Story Generation", 2018, arXiv:1805.04833: top-k.
- Wu et al., "Google's Neural Machine Translation System", 2016, arXiv:1609.08144: beam search with
  a penalty on length, here the plainer sum / length ** penalty.

A tensor's name ends in its dimensions: N rows, L tokens, S tokens so far, V vocabulary, K choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

import minitensor as mt
from minitensor import Tensor
from minitensor.kernels import decoding as kernel

Tokens = Sequence[int]
Choose = Callable[[Tensor], Tensor]  # logits (N, V) -> tokens (N)
Stop = Callable[[Tokens], bool]  # True if a row that has written these tokens is complete


class State(Protocol):
    """A model's memory of the tokens of each row."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be repeated."""


class Model(Protocol):
    """A model that can write."""

    def advance(self, tokens: Tensor, state: Any) -> Tensor:
        """Read tokens (N, L), which follow those in `state`: logits (N, V) of the next token."""


@dataclass
class Output:
    """The tokens that one row has written, without its prompt, with those that made it stop.

    `ended` is False if it was cut at the greatest length. Beam search gives `score`: the logarithm
    of the probability of the tokens, divided by their number to the power of the length penalty.
    """

    tokens: list[int]
    ended: bool
    score: float = field(default=math.nan, compare=False)


# Choosing a token


def greedy(logits: Tensor) -> Tensor:
    """Return the most probable tokens (N) by logits (N, V)."""
    logits_NV = logits
    return logits_NV.argmax(-1)


@dataclass(frozen=True)
class Sampling:
    """Draw tokens (N) by logits (N, V).

    - temperature: divides the logits. Below 1 the probable becomes more probable; 0 is greedy.
    - top_k: draw from the k most probable tokens only.
    - top_p: draw from the fewest tokens, the most probable, whose probabilities sum to p or more.
    - generator: of random numbers; by default the global one, which `mt.manual_seed` seeds.

    Raises ValueError for a value out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    generator: mt.Generator | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be a number of at least 0, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be an integer of at least 1, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be a number above 0 and at most 1, not {self.top_p}")

    def __call__(self, logits: Tensor) -> Tensor:
        """(N, V) -> (N)."""
        logits_NV = logits
        if self.temperature == 0:
            return greedy(logits_NV)
        K = logits_NV.shape[1]
        if self.top_k is not None:
            K = min(K, self.top_k)
        best_NK, token_NK = (logits_NV / self.temperature).topk(K)  # the most probable first
        probability_NK = best_NK.softmax(-1)
        before_NK = probability_NK.cumsum(-1) - probability_NK
        probability_NK = probability_NK.masked_fill(before_NK >= self.top_p, 0.0)
        drawn_N1 = mt.multinomial(probability_NK, 1, generator=self.generator)
        return token_NK.gather(1, drawn_N1)[:, 0]


# Ending


def never(tokens: Tokens) -> bool:
    """Never stop before the greatest length."""
    return False


def stop_at(*endings: int | Tokens) -> Stop:
    """Return a condition: stop once a row's tokens end with one of these tokens or sequences."""
    sequences = [[ending] if isinstance(ending, int) else list(ending) for ending in endings]
    if not all(sequences):
        raise ValueError("a stop sequence must have at least one token")

    def stop(tokens: Tokens) -> bool:
        return any(list(tokens[-len(sequence) :]) == sequence for sequence in sequences)

    return stop


# Writing


def stream(
    model: Model,
    prompts: Sequence[Tokens],
    state: State,
    max_length: int,
    choose: Choose = greedy,
    stop: Stop = never,
) -> Iterator[dict[int, int]]:
    """Yield the next token of every row that still writes, step by step: {row: token}.

    - prompts: for each row the tokens to begin with, at least one; their lengths may differ.
    - state: the model's for as many rows, before it has read any of them.
    - max_length: the most tokens that a row may write; its prompt does not count.
    - choose: `greedy`, a `Sampling`, or any function of logits (N, V) that returns tokens (N).
    - stop: ends a row by the tokens that it has written.

    Raises ValueError for an empty prompt and a negative length.
    """
    check(prompts, max_length)
    written: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts) if max_length else 0))  # those in the batch
    read = min(map(len, prompts), default=0)
    tokens = [list(prompt[:read]) for prompt in prompts]
    while rows:
        with mt.no_grad():
            chosen_N = choose(model.advance(mt.from_numpy(np.array(tokens)), state))
        new, kept, tokens = {}, [], []
        for i, (row, token) in enumerate(zip(rows, chosen_N.tolist(), strict=True)):
            if read < len(prompts[row]):
                token = prompts[row][read]
            else:
                new[row] = token
                written[row].append(token)
                if len(written[row]) == max_length or stop(written[row]):
                    continue
            kept.append(i)
            tokens.append([token])
        read += 1
        if new:
            yield new
        if kept and len(kept) < len(rows):
            state.select(kept)
        rows = [rows[i] for i in kept]


def generate(
    model: Model,
    prompts: Sequence[Tokens],
    state: State,
    max_length: int,
    choose: Choose = greedy,
    stop: Stop = never,
) -> list[Output]:
    """Return what each row writes; the arguments are those of `stream`."""
    written: list[list[int]] = [[] for _ in prompts]
    for new in stream(model, prompts, state, max_length, choose, stop):
        for row, token in new.items():
            written[row].append(token)
    return [Output(tokens, bool(tokens) and stop(tokens)) for tokens in written]


# Searching


class Search:
    """The search for the continuations of one prompt.

    `live` are the beginnings that are still followed, each with the logarithm of its probability;
    `ended` are the best outputs so far.
    """

    def __init__(self, beam: int, length_penalty: float, max_length: int, stop: Stop) -> None:
        self.beam = beam
        self.length_penalty = length_penalty
        self.max_length = max_length
        self.stop = stop
        self.live: list[tuple[float, list[int]]] = [(0.0, [])]
        self.ended: list[Output] = []

    def score(self, log_probability: float, length: int) -> float:
        """Return the score of a sequence of `length` tokens."""
        return log_probability / length**self.length_penalty

    def grow(self, best: Sequence[Sequence[float]], tokens: Sequence[Tokens]) -> list[int]:
        """Lengthen the beginnings by one token; return the number of the old one of each new one.

        `best` has for each beginning the log-probabilities of its most probable next `tokens`.
        """
        longer = [
            (total + log_probability, number, token)
            for number, (total, _) in enumerate(self.live)
            for log_probability, token in zip(best[number], tokens[number], strict=True)
        ]
        longer.sort(key=lambda candidate: -candidate[0])
        live: list[tuple[float, list[int]]] = []
        parents: list[int] = []
        for rank, (total, number, token) in enumerate(longer):
            written = [*self.live[number][1], token]
            ends = self.stop(written)
            if ends or len(written) == self.max_length:
                if rank < self.beam:
                    self.ended.append(Output(written, ends, self.score(total, len(written))))
            elif len(live) < self.beam:
                live.append((total, written))
                parents.append(number)
            if rank + 1 >= self.beam and len(live) == self.beam:
                break
        self.ended = sorted(self.ended, key=lambda output: -output.score)[: self.beam]
        if len(self.ended) == self.beam and live:
            total, written = live[0]
            if self.score(total, len(written)) <= self.ended[-1].score:
                live, parents = [], []
        self.live = live
        return parents


def beam_search(
    model: Model,
    prompts: Sequence[Tokens],
    state: State,
    max_length: int,
    beam: int,
    length_penalty: float = 1.0,
    n_best: int = 1,
    stop: Stop = never,
) -> list[list[Output]]:
    """Return for each prompt the `n_best` best continuations found, best first, all different.

    Each step lengthens the `beam` most probable unfinished beginnings of a prompt by every token,
    and keeps the best of those. A prompt is done when `beam` continuations have ended and the most
    probable beginning, as it is, has no better score than any of them.

    - beam: how many beginnings to follow.
    - length_penalty: a score is the logarithm of the probability / length ** length_penalty. With
      0, short ones have an advantage; 1 compares the means over the tokens.
    - the others as in `stream`.

    Raises ValueError for a value out of range.
    """
    check(prompts, max_length)
    if beam < 1:
        raise ValueError(f"beam must be an integer of at least 1, not {beam}")
    if not 1 <= n_best <= beam:
        raise ValueError(f"n_best must be an integer from 1 to the beam, {beam}, not {n_best}")
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty must be a finite number, not {length_penalty}")
    searches = [Search(beam, length_penalty, max_length, stop) for _ in prompts]
    active = list(range(len(prompts) if max_length else 0))
    read = min(map(len, prompts), default=0)
    tokens = [list(prompt[:read]) for prompt in prompts]
    while active:  # the rows are the beginnings of the first active search, of the second, ...
        with mt.no_grad():
            best, following = most_probable(
                model.advance(mt.from_numpy(np.array(tokens)), state), 2 * beam
            )
        tokens, rows, row = [], [], 0
        for number in active:
            search, prompt = searches[number], prompts[number]
            some = slice(row, row + len(search.live))
            if read < len(prompt):
                parents, next_tokens = [0], [prompt[read]]
            else:
                parents = search.grow(best[some], following[some])
                next_tokens = [written[-1] for _, written in search.live]
            rows += [row + parent for parent in parents]
            tokens += [[token] for token in next_tokens]
            row = some.stop
        read += 1
        active = [number for number in active if searches[number].live]
        if rows and rows != list(range(row)):
            state.select(rows)
    return [search.ended[:n_best] for search in searches]


def most_probable(logits: Tensor, count: int) -> tuple[list[list[float]], list[list[int]]]:
    """Return for each row of logits (N, V) the `count` highest log-probabilities, and whose."""
    logits_NV = logits.numpy()
    best_NK, token_NK = kernel.most_probable(logits_NV, min(count, logits_NV.shape[1]))
    return best_NK.tolist(), token_NK.tolist()


def check(prompts: Sequence[Tokens], max_length: int) -> None:
    """Raise ValueError for a prompt without tokens and a negative length."""
    if not all(map(len, prompts)):
        raise ValueError("a prompt must have at least one token, such as the one that begins texts")
    if max_length < 0:
        raise ValueError(f"max_length must be an integer of at least 0, not {max_length}")


# Remembering


class KVCache:
    """The keys and values of one attention for the tokens so far: (N, S, *).

    They are kept in an array that is longer than needed, and twice as long when it is full, so that
    appending a token copies no others.
    """

    def __init__(self) -> None:
        self.rows = 0  # N
        self.length = 0  # S
        self.array = np.empty((0, 0))  # of at least N rows and S tokens

    def append(self, kv: Tensor) -> Tensor:
        """Append keys and values (N, L, *), side by side in any layout: all of them, (N, S, *)."""
        new = kv.numpy()
        if not self.length:
            self.rows, self.array = len(new), np.empty((len(new), 0, *new.shape[2:]), new.dtype)
        start, self.length = self.length, self.length + new.shape[1]
        if self.length > self.array.shape[1]:  # at first just enough: a memory never grows
            self.reserve(self.rows, max(2 * self.length, 32) if start else self.length, start)
        self.array[: self.rows, start : self.length] = new
        return self.all()

    def all(self) -> Tensor:
        """Return all keys and values (N, S, *); a view, valid until the next call of `append`."""
        return mt.from_numpy(self.array[: self.rows, : self.length])

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be repeated."""
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if self.length and moved:
            to, source = map(list, zip(*moved, strict=True))
            content = self.array[source, : self.length]
            if len(rows) > len(self.array):
                self.reserve(len(rows), self.array.shape[1], self.length)
            self.array[to, : self.length] = content
        self.rows = len(rows)

    def reserve(self, rows: int, capacity: int, used: int) -> None:
        """Move to an array for more rows and tokens, of which `used` are there."""
        old = self.array[: min(rows, self.rows)]
        self.array = np.empty((rows, capacity, *old.shape[2:]), old.dtype)
        self.array[: len(old), :used] = old[:, :used]
