"""Decoding: caches change no token, and each way of writing does what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from shape_names import watch

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.models import decoding, transformer
from minitensor.models.decoding import (
    KVCache,
    Output,
    Sampling,
    beam_search,
    generate,
    stop_at,
    stream,
)
from minitensor.models.transformer import Transformer, TransformerConfig

BEGIN, END = 1, 2
SMALL = TransformerConfig(
    13, 11, d_model=16, nhead=2, num_encoder_layers=1, num_decoder_layers=2, dim_feedforward=24
)
CONFIGS = {
    "post-norm": {},
    "pre-norm": {"norm_first": True, "activation": "gelu"},
    "learned, tied": {"positions": "learned", "max_length": 40, "tied_output": True},
    "rotary": {"positions": "rotary", "norm": "rms", "norm_first": True},
    "four heads": {"nhead": 4, "num_decoder_layers": 3},
    "no layers": {"num_decoder_layers": 0},
}
PROMPTS = [[1], [3, 4, 5], [1, 0]]


def make(seed: int = 0, **changes: Any) -> Transformer:
    """Return a model with large random weights, which says something else at each step."""
    mt.manual_seed(seed)
    values = {**{name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}, **changes}
    model = Transformer(TransformerConfig(**values)).eval()
    with mt.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * mt.randn(parameter.shape))
        model.output.bias[END] += 2.0
    return model


def sources() -> Tensor:
    """Return five sources, (5, 7), of which four are padded."""
    src = np.random.RandomState(0).randint(3, 13, (5, 7))
    for row, length in enumerate((7, 4, 1, 6, 2)):
        src[row, length:] = 0
    return mt.from_numpy(src)


def uncached(model: Transformer, src: Tensor, max_length: int) -> list[list[int]]:
    """Translate row by row, reading all that is written again for each token."""
    found = []
    with mt.no_grad():
        for row in src.tolist():
            alone = mt.tensor([[token for token in row if token]])
            written: list[int] = []
            while len(written) < max_length and END not in written:
                tgt = mt.tensor([[BEGIN, *written]])
                causal = model.generate_square_subsequent_mask(tgt.shape[1])
                written.append(int(model(alone, tgt, tgt_mask=causal)[0, -1].argmax().item()))
            found.append(written)
    return found


class Prefixes:
    """A model without weights: the logits of a row follow from all of its tokens at random."""

    def __init__(self, size: int = 6) -> None:
        self.size = size
        self.batches: list[int] = []  # the number of rows in each call

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Return the logits (V) after these tokens."""
        words = np.random.RandomState([len(tokens), *tokens]).standard_normal(self.size)
        return 2 * words.astype(np.float32)

    def advance(self, tokens: Tensor, state: Rows) -> Tensor:
        self.batches.append(len(tokens))
        new = tokens.tolist()
        state.tokens = [[*old, *row] for old, row in zip(state.tokens, new, strict=True)]
        return mt.from_numpy(np.stack([self.logits(row) for row in state.tokens]))


class Rows:
    """The state of `Prefixes`: all tokens."""

    def __init__(self, rows: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(rows)]

    def select(self, rows: Sequence[int]) -> None:
        self.tokens = [self.tokens[row] for row in rows]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return wide - np.log(np.exp(wide).sum())


# Caches


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=list(CONFIGS))
def test_a_cache_changes_no_token(changes: dict[str, Any]) -> None:
    lengths = set()
    for seed in range(4):
        model = make(seed, **changes)
        expected = uncached(model, sources(), 12)
        found = model.generate(sources(), 12).tolist()
        longest = max(map(len, expected))
        assert found == [tokens + [0] * (longest - len(tokens)) for tokens in expected]
        lengths |= set(map(len, expected))
    assert len(lengths) > 1  # some rows left the batch before others


@pytest.fixture(params=["fused", "by modules"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the Transformer's decoder run as recorded kernels, where it can, or by its modules."""
    if request.param != "fused":
        monkeypatch.setattr(transformer, "can_fuse_decoder", lambda model: False)
    return request.param


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=list(CONFIGS))
def test_logits_are_the_same_in_whatever_pieces_the_tokens_come(changes: dict[str, Any]) -> None:
    model = make(**changes)
    src = sources()
    tgt = mt.from_numpy(np.random.RandomState(1).randint(3, 11, (5, 9)))
    padding = model.generate_source_key_padding_mask(src)
    expected = model(
        src,
        tgt,
        tgt_mask=model.generate_square_subsequent_mask(9),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
    ).detach()
    for pieces in ([9], [1] * 9, [4, 3, 1, 1], [1, 5, 3]):
        state, end = model.start(src), 0
        for piece in pieces:
            logits = model.advance(tgt[:, end : end + piece], state)
            end += piece
            np.testing.assert_allclose(logits.numpy(), expected[:, end - 1].numpy(), atol=2e-5)
        assert state.length == 9


@pytest.mark.usefixtures("decoder")
def test_rows_are_selected_repeated_and_reordered() -> None:
    model, src = make(), sources()
    tgt = mt.from_numpy(np.random.RandomState(1).randint(3, 11, (5, 4)))
    rows = [0, 1, 2, 3, 4]
    state = model.start(src)
    for step, chosen in enumerate(([4, 4, 0, 2, 2, 1], [5, 1, 0], [1, 0, 2, 1])):
        model.advance(tgt[mt.tensor(rows), step : step + 1], state)
        state.select(chosen)
        rows = [rows[row] for row in chosen]
    found = model.advance(tgt[mt.tensor(rows), 3:], state)
    expected = model.advance(tgt, model.start(src))
    np.testing.assert_allclose(found.numpy(), expected.numpy()[rows], atol=2e-5)


def test_the_memory_is_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    calls: list[str] = []
    append = KVCache.append

    def counted(cache: KVCache, kv: Tensor) -> Tensor:
        calls.append("append")
        return append(cache, kv)

    monkeypatch.setattr(KVCache, "append", counted)
    monkeypatch.setattr(transformer, "can_fuse_decoder", lambda model: False)
    state = model.start(sources())
    for expected in (4, 2, 2):  # two layers: their own keys, and at first those of the memory
        calls.clear()
        model.advance(mt.full((5, 1), BEGIN), state)
        assert len(calls) == expected


def test_a_decoder_that_keeps_nothing_writes_the_same() -> None:
    mt.manual_seed(0)
    library = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, 24, 0.0, batch_first=True), 2)
    model = Transformer(SMALL, decoder=library).eval()
    with mt.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * mt.randn(parameter.shape))
    expected = uncached(model, sources(), 8)
    outputs = generate(model, [[BEGIN]] * 5, model.start(sources()), 8, stop=stop_at(END))
    assert [output.tokens for output in outputs] == expected
    assert beam_search(model, [[BEGIN]] * 5, model.start(sources()), 8, 3, stop=stop_at(END))


def test_a_cache_is_a_list_of_tokens_per_row() -> None:
    random = np.random.RandomState(0)
    for _ in range(30):
        cache, rows = KVCache(), [np.empty((0, 2, 3))] * 4
        for _ in range(12):
            new = random.standard_normal((len(rows), random.randint(1, 20), 2, 3))
            found = cache.append(mt.from_numpy(new))
            rows = [np.concatenate([old, more]) for old, more in zip(rows, new, strict=True)]
            np.testing.assert_array_equal(found.numpy(), np.stack(rows))
            chosen = random.randint(0, len(rows), random.randint(1, 9)).tolist()
            cache.select(chosen)
            rows = [rows[row] for row in chosen]
            np.testing.assert_array_equal(cache.all().numpy(), np.stack(rows))
            assert (cache.rows, cache.length) == (len(rows), len(rows[0]))


# Batches


def test_prompts_of_unequal_length_write_what_each_writes_alone() -> None:
    for stop in (stop_at(0), stop_at(0, 3), stop_at([4, 5])):
        together = generate(Prefixes(), PROMPTS, Rows(3), 9, stop=stop)
        assert together == [generate(Prefixes(), [p], Rows(1), 9, stop=stop)[0] for p in PROMPTS]
        best = beam_search(Prefixes(), PROMPTS, Rows(3), 9, 3, 0.7, 2, stop)
        singly = [beam_search(Prefixes(), [p], Rows(1), 9, 3, 0.7, 2, stop)[0] for p in PROMPTS]
        assert best == singly
        assert [[o.score for o in found] for found in best] == [
            [o.score for o in found] for found in singly
        ]
    model, src = make(3), sources()
    prompts = [[1], [1, 4, 5], [1, 9], [1, 7, 3, 8, 6], [1, 4]]
    together = generate(model, prompts, model.start(src), 10, stop=stop_at(END))
    for row, prompt in enumerate(prompts):
        alone = generate(model, [prompt], model.start(src[row : row + 1]), 10, stop=stop_at(END))
        assert alone == together[row : row + 1]


def test_a_row_that_ends_leaves_the_batch() -> None:
    model = Prefixes()
    prompts = [[n, 1] for n in range(8)]
    outputs = generate(model, prompts, Rows(8), 6, stop=stop_at(0))
    written = [len(output.tokens) for output in outputs]
    assert len(set(written)) > 2
    assert model.batches == [sum(w > step for w in written) for step in range(max(written))]
    assert [output.ended for output in outputs] == [0 in output.tokens for output in outputs]
    assert not all(output.ended for output in outputs)
    assert all(len(output.tokens) == 6 for output in outputs if not output.ended)


def test_stop_sequences_end_a_row_after_their_last_token() -> None:
    def said(stop: Any) -> Output:
        return generate(Prefixes(), [[1]], Rows(1), 20, stop=stop)[0]

    tokens = said(decoding.never).tokens
    assert len(tokens) == 20
    pair = tokens[6:8]
    first = next(i for i in range(19) if tokens[i : i + 2] == pair)
    assert said(stop_at(pair)) == Output(tokens[: first + 2], True)
    assert said(stop_at([99], pair, 98)) == said(stop_at(pair))
    assert said(stop_at(tokens[0])) == Output(tokens[:1], True)
    assert said(lambda written: sum(written) > 30).tokens == next(
        tokens[:n] for n in range(20) if sum(tokens[:n]) > 30
    )


def test_streaming_gives_the_same_as_at_once() -> None:
    for choose in (decoding.greedy, Sampling(1.3, 5, 0.9, mt.Generator().manual_seed(7))):
        steps = stream(Prefixes(), PROMPTS, Rows(3), 7, choose, stop_at(0))
        assert isinstance(steps, Iterator)
        written: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for new in steps:
            assert mt.is_grad_enabled()  # the mode is the caller's between two steps
            for row, token in new.items():
                written[row].append(token)
        if isinstance(choose, Sampling):
            assert choose.generator is not None
            choose.generator.manual_seed(7)
        outputs = generate(Prefixes(), PROMPTS, Rows(3), 7, choose, stop_at(0))
        assert [output.tokens for output in outputs] == list(written.values())
    model = Prefixes()
    first = next(stream(model, PROMPTS[:1], Rows(1), 100))
    assert list(first) == [0]
    assert model.batches == [1]  # nothing is computed before it is asked for


def test_no_length_no_rows() -> None:
    assert generate(Prefixes(), PROMPTS, Rows(3), 0) == [Output([], False)] * 3
    assert beam_search(Prefixes(), PROMPTS, Rows(3), 0, 2) == [[], [], []]
    assert generate(Prefixes(), [], Rows(0), 5) == []
    assert beam_search(Prefixes(), [], Rows(0), 5, 2) == []
    assert make().generate(sources(), 0).shape == (5, 0)


# Sampling


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, 1.0), (0.5, None, 1.0), (2.0, 3, 1.0), (1.0, None, 0.7), (1.5, 4, 0.8)],
)
def test_frequencies_are_those_of_the_distribution(
    temperature: float, top_k: int | None, top_p: float
) -> None:
    logits = np.array([0.3, -1.0, 2.0, 1.1, 0.9, -0.2], np.float32)
    order = np.argsort(-logits)
    kept = np.exp(logits[order] / temperature)[:top_k]
    kept /= kept.sum()
    count = 1 + int((np.cumsum(kept) < top_p).sum())
    expected = np.zeros(6)
    expected[order[: min(count, len(kept))]] = kept[:count] / kept[:count].sum()
    draws = 40_000
    choose = Sampling(temperature, top_k, top_p, mt.Generator().manual_seed(1))
    found = choose(mt.from_numpy(np.tile(logits, (draws, 1)))).numpy()
    counts = np.bincount(found, minlength=6) / draws
    assert (counts[expected == 0] == 0).all()
    deviation = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(counts - expected) <= 5 * deviation).all()


def test_the_same_seed_gives_the_same_text() -> None:
    def text(seed: int) -> list[Output]:
        choose = Sampling(1.5, generator=mt.Generator().manual_seed(seed))
        return generate(Prefixes(), PROMPTS, Rows(3), 12, choose)

    assert text(3) == text(3) != text(4)
    mt.manual_seed(3)
    assert generate(Prefixes(), PROMPTS, Rows(3), 12, Sampling(1.5)) == text(3)


def test_temperature_0_one_token_and_a_tiny_share_are_greedy() -> None:
    expected = generate(Prefixes(), PROMPTS, Rows(3), 9)
    for choose in (Sampling(0.0), Sampling(5.0, top_k=1), Sampling(top_p=1e-9)):
        assert generate(Prefixes(), PROMPTS, Rows(3), 9, choose) == expected


# Beam search


def test_a_beam_of_1_is_greedy() -> None:
    for stop in (stop_at(0), decoding.never):
        expected = generate(Prefixes(), PROMPTS, Rows(3), 9, stop=stop)
        found = beam_search(Prefixes(), PROMPTS, Rows(3), 9, 1, stop=stop)
        assert [(o.tokens, o.ended) for (o,) in found] == [(o.tokens, o.ended) for o in expected]
    model = make(3)
    (*found,) = beam_search(model, [[BEGIN]] * 5, model.start(sources()), 12, 1, stop=stop_at(END))
    assert [output.tokens for (output,) in found] == uncached(model, sources(), 12)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
def test_a_wide_beam_finds_the_best_of_all_sequences(length_penalty: float) -> None:
    model = Prefixes(4)
    steps = cache(lambda tokens: log_softmax(model.logits(tokens)))
    for prompt in PROMPTS:
        scores = {}
        for tokens in product(range(4), repeat=4):
            ended = tokens[: tokens.index(0) + 1] if 0 in tokens else tokens
            total = sum(steps((*prompt, *ended[:i]))[ended[i]] for i in range(len(ended)))
            scores[ended] = total / len(ended) ** length_penalty
        best = sorted(scores, key=lambda tokens: -scores[tokens])[:6]
        (found,) = beam_search(model, [prompt], Rows(1), 4, 256, length_penalty, 6, stop_at(0))
        assert [tuple(output.tokens) for output in found] == best
        assert [output.ended for output in found] == [tokens[-1] == 0 for tokens in best]
        np.testing.assert_allclose(
            [output.score for output in found], [scores[tokens] for tokens in best], rtol=1e-5
        )


def test_the_n_best_are_sorted_and_distinct() -> None:
    model = make(3)
    found = beam_search(model, [[BEGIN]] * 5, model.start(sources()), 12, 6, 1.0, 6, stop_at(END))
    for outputs in found:
        assert len({tuple(output.tokens) for output in outputs}) == len(outputs) == 6
        scores = [output.score for output in outputs]
        assert scores == sorted(scores, reverse=True)
    narrow = beam_search(model, [[BEGIN]] * 5, model.start(sources()), 12, 6, 1.0, 2, stop_at(END))
    assert narrow == [outputs[:2] for outputs in found]


def test_a_score_is_that_of_the_model() -> None:
    model, src = make(3), sources()
    found = beam_search(model, [[BEGIN]] * 5, model.start(src), 12, 4, 0.6, 3, stop_at(END))
    for row, outputs in enumerate(found):
        alone = mt.tensor([[token for token in src[row].tolist() if token]])
        for output in outputs:
            tgt = mt.tensor([[BEGIN, *output.tokens[:-1]]])
            causal = model.generate_square_subsequent_mask(tgt.shape[1])
            logits = model(alone, tgt, tgt_mask=causal)[0].detach().numpy()
            total = sum(
                log_softmax(step)[token] for step, token in zip(logits, output.tokens, strict=True)
            )
            assert math.isclose(output.score, total / len(output.tokens) ** 0.6, abs_tol=1e-4)


def test_a_sentence_that_is_done_leaves_the_batch() -> None:
    model = Prefixes()
    found = beam_search(model, [[n] for n in range(6)], Rows(6), 15, 2, stop=stop_at(0, 1, 2))
    assert model.batches[:2] == [6, 12]
    assert 0 < model.batches[-1] < 12
    assert all(outputs[0].ended for outputs in found)


# Names and errors


def test_no_name_lies_about_its_shape() -> None:
    model = make()
    with watch(decoding) as seen:
        choose = Sampling(1.0, 5, 0.9)
        generate(model, [[BEGIN]] * 5, model.start(sources()), 4, choose, stop_at(END))
        beam_search(model, [[BEGIN]] * 5, model.start(sources()), 4, 3)
    assert ("stream", "chosen_N") in seen
    assert ("most_probable", "best_NK") in seen


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sampling(-0.1), "temperature must be a number of at least 0, not -0.1"),
        (lambda: Sampling(math.nan), "temperature must be a number of at least 0, not nan"),
        (lambda: Sampling(math.inf), "temperature must be a number of at least 0, not inf"),
        (lambda: Sampling(top_k=0), "top_k must be an integer of at least 1, not 0"),
        (lambda: Sampling(top_p=0.0), "top_p must be a number above 0 and at most 1, not 0.0"),
        (lambda: Sampling(top_p=1.1), "top_p must be a number above 0 and at most 1, not 1.1"),
        (lambda: stop_at([]), "a stop sequence must have at least one token"),
        (lambda: search(beam=0), "beam must be an integer of at least 1, not 0"),
        (lambda: search(beam=2, n_best=3), "n_best must be an integer from 1 to the beam, 2, not"),
        (lambda: search(beam=2, n_best=0), "n_best must be an integer from 1 to the beam, 2, not"),
        (lambda: search(beam=2, length_penalty=math.nan), "length_penalty must be a finite number"),
        (lambda: search(prompts=[[1], []]), "a prompt must have at least one token"),
        (lambda: search(max_length=-1), "max_length must be an integer of at least 0, not -1"),
        (lambda: generate(Prefixes(), [[]], Rows(1), 3), "a prompt must have at least one token"),
        (lambda: generate(Prefixes(), [[1]], Rows(1), -1), "max_length must be an integer of at"),
    ],
)
def test_a_value_out_of_range_is_refused_in_a_sentence(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def search(prompts: Any = PROMPTS, max_length: int = 3, beam: int = 2, **options: Any) -> Any:
    return beam_search(Prefixes(), prompts, Rows(len(prompts)), max_length, beam, **options)
