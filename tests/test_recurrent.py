"""The recurrent encoder-decoder equals PyTorch's, learns as translate does, and is compared."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from shape_names import watch

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.kernels.simd import VECTOR_BYTES
from minitensor.models import against, recurrent, translate
from minitensor.models.decoding import generate, stop_at
from minitensor.models.recurrent import Recurrent, RecurrentConfig, parameter_shapes
from minitensor.models.training import BEST, LAST
from minitensor.serialize import load_file, save_file

KINDS = list(itertools.product(("rnn", "lstm", "gru"), (False, True)))
WORDS = {"red": "rouge", "blue": "bleu", "big": "grand", "cat": "chat", "dog": "chien"}
TINY = ["--width", "24", "--batch-tokens", "120", "--warmup", "10", "--lr", "0.02"]


def small(cell: str = "lstm", attention: bool = True, **more: Any) -> Recurrent:
    mt.manual_seed(0)
    given = {"width": 12, "layers": 2, "dropout": 0.0, **more}
    return Recurrent(RecurrentConfig(11, 13, cell=cell, attention=attention, **given))


def batch() -> tuple[Tensor, Tensor]:
    """Sources of 5, 2 and 4 tokens, padded, and targets."""
    src = mt.randint(3, 11, (3, 5))
    src[1, 2:] = 0
    src[2, 4:] = 0
    return src, mt.randint(3, 13, (3, 7))


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("data") / "phrases.tsv"
    phrases = [p for length in (1, 2, 3) for p in itertools.product(WORDS, repeat=length)]
    lines = (f"{' '.join(p)}\t{' '.join(WORDS[w] for w in p)}\n" for p in phrases)
    path.write_text("".join(lines), "utf-8")
    return path


def train(data: Path, out: Path, *more: str) -> int:
    return recurrent.main(["train", "--tsv", str(data), "--out", str(out), *TINY, *more])


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: Any) -> Path:
    """A finished run that has learned its data."""
    out = tmp_path_factory.mktemp("run") / "phrases"
    assert train(data, out, "--epochs", "24", "--dropout", "0") == 0
    return out


# The model


@needs_torch
@pytest.mark.parametrize(("cell", "attention"), KINDS)
def test_scores_and_gradients_equal_torch(cell: str, attention: bool) -> None:
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    model = small(cell, attention)
    src, tgt = batch()
    weights = {
        name: torch.from_numpy(w.detach().numpy().copy()) for name, w in model.named_parameters()
    }
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    encoder = kind(12, 6, num_layers=2, batch_first=True, bidirectional=True)
    decoder = kind(12, 12, num_layers=2, batch_first=True)
    for name, module in ("encoder", encoder), ("decoder", decoder):
        own = {k.removeprefix(f"{name}."): w for k, w in weights.items() if k.startswith(name)}
        module.load_state_dict(own)
    others = {
        k: w.requires_grad_()
        for k, w in weights.items()
        if not k.startswith(("encoder.", "decoder."))
    }

    source, target = torch.from_numpy(src.numpy()), torch.from_numpy(tgt.numpy())
    embedded = torch.nn.functional.embedding(source, others["src_embedding.weight"], 0)
    lengths = (source != 0).sum(1)
    packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
    packed, last = encoder(packed)
    joined = [torch.cat([h[0::2], h[1::2]], 2) for h in (last if cell == "lstm" else (last,))]
    y, _ = decoder(
        torch.nn.functional.embedding(target, others["tgt_embedding.weight"], 0),
        tuple(joined) if cell == "lstm" else joined[0],
    )
    if attention:
        memory, _ = pad_packed_sequence(packed, batch_first=True, total_length=5)
        scores = y @ (memory @ others["attention.key.weight"].T).transpose(1, 2)
        scores = scores.masked_fill((source == 0)[:, None], -math.inf)
        both = torch.cat([scores.softmax(-1) @ memory, y], 2)
        y = torch.tanh(both @ others["attention.combine.weight"].T)
    expected = y @ others["output.weight"].T + others["output.bias"]

    logits = model(src, tgt)
    np.testing.assert_allclose(
        logits.detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-5
    )
    slope = mt.randn(*logits.shape)
    logits.backward(slope)
    expected.backward(torch.from_numpy(slope.numpy()))
    parameters = {**others}
    for name, module in ("encoder", encoder), ("decoder", decoder):
        parameters |= {f"{name}.{k}": w for k, w in module.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        np.testing.assert_allclose(
            parameter.grad.numpy(), parameters[name].grad.numpy(), rtol=1e-4, atol=1e-4,
            err_msg=name,
        )  # fmt: skip


@pytest.mark.parametrize(("cell", "attention"), KINDS)
def test_its_names_tell_the_shapes(cell: str, attention: bool) -> None:
    model = small(cell, attention, dropout=0.1)
    src, tgt = batch()
    with watch(recurrent) as seen:
        model(src, model.shift_right(tgt)).sum().backward()
        generate(model, [[1]] * 3, model.start(src), 4, stop=stop_at(2))
    assert seen["Recurrent.encode", "embedded_NSE"] == {(3, 5, 12)}
    assert seen["Recurrent.encode", "forward_DNK"] == {(2, 3, 6)}
    assert (3, 7, 13) in seen["Recurrent.forward", "logits_NLV"]
    if attention:
        assert (3, 7, 5) in seen["Attention.forward", "weights_NLS"]


@pytest.mark.parametrize(("cell", "attention"), KINDS)
def test_padding_changes_nothing(cell: str, attention: bool) -> None:
    model = small(cell, attention)
    src, tgt = batch()
    together = model(src, tgt).detach().numpy()
    for row, length in enumerate((5, 2, 4)):
        alone = model(src[row : row + 1, :length], tgt[row : row + 1]).detach().numpy()
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cell", "attention"), KINDS)
def test_reading_token_by_token_gives_the_same_scores(cell: str, attention: bool) -> None:
    model = small(cell, attention).eval()
    src, tgt = batch()
    expected = model(src, tgt).detach().numpy()
    state = model.start(src)
    model.advance(tgt[:, :3], state)
    rows = [2, 0, 0]
    state.select(rows)
    for position in range(3, 7):
        logits = model.advance(tgt[rows, position : position + 1], state)
        np.testing.assert_allclose(logits.numpy(), expected[rows, position], rtol=1e-5, atol=1e-6)


def test_attention_never_looks_at_padding() -> None:
    model = small()
    src, tgt = batch()
    _, weights = model.read(tgt, model.encode(src))
    assert weights is not None
    np.testing.assert_allclose(weights.detach().numpy().sum(-1), 1, rtol=1e-6)
    assert (weights.detach().numpy()[1, :, 2:] == 0).all()


@pytest.mark.parametrize(("cell", "attention"), KINDS)
def test_the_shapes_of_its_state_are_known_before_it_is_built(cell: str, attention: bool) -> None:
    model = small(cell, attention)
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert dict(parameter_shapes(model.config)) == shapes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 7}, "even"),
        ({"width": 0}, "width must be an integer"),
        ({"layers": 0}, "layers must be an integer"),
        ({"cell": "tanh"}, "cell must be 'rnn', 'lstm' or 'gru'"),
        ({"attention": "yes"}, "attention must be False or True"),
        ({"dropout": 2}, "dropout must be a number from 0 to 1"),
        ({"eos_id": 13}, "eos_id"),
    ],
)
def test_a_config_says_what_is_wrong_with_it(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentConfig(11, 13, **given)


def test_bad_tensors_are_refused() -> None:
    model = small()
    src, tgt = batch()
    with pytest.raises(RuntimeError, match="src has 3 rows, tgt is"):
        model(src, tgt[:2])
    with pytest.raises(IndexError):
        model(src + 11, tgt)
    src[0] = 0
    with pytest.raises(RuntimeError, match="has to be greater than 0"):
        model(src, tgt)


def test_it_learns_to_reverse_digits(capsys: Any) -> None:
    recurrent.learn(steps=151)
    pairs = [line.split(" -> ") for line in capsys.readouterr().out.splitlines() if "->" in line]
    assert len(pairs) == 5
    assert sum(a.split() == b.split()[::-1] for a, b in pairs) >= 4


def test_the_example_has_a_graph_with_named_axes() -> None:
    model, inputs, sizes = recurrent.example()
    graph = mt.graph.trace(model, *inputs.values(), dims=sizes, backward=True)
    # What the kernel keeps for its backward is padded to blocks of the vectors' width.
    changes = (
        "32, 64 change with the sizes, but are" if VECTOR_BYTES >= 32 else
        "32 changes with the sizes, but is"
    )  # fmt: skip
    assert graph.notes == [f"dims: {changes} no formula of the names."]
    assert graph.values[graph.outputs[0]].label == "(N, L, T)"
    assert "(N, L, S)" in {value.label for value in graph.values.values()}


# Training and translating


def test_a_trained_run_translates_and_evaluates(run: Path, tmp_path: Path, capsys: Any) -> None:
    where = ["--run", str(run)]
    picture = tmp_path / "attention.png"
    assert recurrent.main(["translate", *where, "--attention", str(picture), "big red cat"]) == 0
    assert capsys.readouterr().out == "grand rouge chat\n"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert recurrent.main(["translate", *where, "--beam", "3", "blue dog", "cat"]) == 0
    assert capsys.readouterr().out == "bleu chien\nchat\n"
    assert recurrent.main(["evaluate", *where]) == 0
    assert "exact match 8/8 = 100.00 %" in capsys.readouterr().out


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_every_cell_learns_without_attention(
    cell: str, data: Path, tmp_path: Path, capsys: Any
) -> None:
    more = ("--cell", cell, "--attention", "no", "--layers", "2", "--epochs", "3")
    assert train(data, tmp_path / "run", *more) == 0
    records = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    losses = [record["valid_nll"] for record in records if record["kind"] == "epoch"]
    assert losses[-1] < 0.7 * losses[0]
    capsys.readouterr()
    picture = str(tmp_path / "attention.png")
    where = ["--run", str(tmp_path / "run"), "--attention", picture]
    assert recurrent.main(["translate", *where, "cat"]) == 1
    assert "no attention to draw" in capsys.readouterr().err


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(data, whole, "--epochs", "2", "--layers", "2") == 0
    assert train(data, parts, "--epochs", "1", "--layers", "2") == 0
    assert recurrent.main(["train", "--resume", "--epochs", "2", "--out", str(parts)]) == 0
    ours, theirs = load_file(whole / LAST)[0], load_file(parts / LAST)[0]
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor.numpy(), theirs[name].numpy(), err_msg=name)


def test_bad_checkpoints_are_refused_in_a_sentence(
    data: Path, run: Path, tmp_path: Path, capsys: Any
) -> None:
    tensors, header = load_file(run / BEST)
    config = json.loads(header["config"])
    path = tmp_path / "changed.safetensors"

    def error(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
        save_file(tensors, path, header)
        capsys.readouterr()
        assert recurrent.main(["translate", "--run", str(path), "cat"]) == 1
        return str(capsys.readouterr().err)

    wide = {**header, "config": json.dumps({**config, "width": 2**30})}
    assert "src_embedding.weight has the shape" in error(tensors, wide)
    other = {**header, "config": json.dumps({**config, "cell": "tree"})}
    assert "cell must be 'rnn', 'lstm' or 'gru', not 'tree'" in error(tensors, other)
    less = {name: t for name, t in tensors.items() if name != "attention.key.weight"}
    assert "attention.key.weight is missing" in error(less, header)
    dropped = {**header, "config": json.dumps({**config, "dropout": 0.5})}
    assert "its settings do not match its model: dropout is 0.5" in error(tensors, dropped)
    assert translate.main(["translate", "--run", str(run), "cat"]) == 1
    assert "another task" in capsys.readouterr().err
    assert train(data, tmp_path / "odd", "--width", "7") == 1
    assert "--width is 7" in capsys.readouterr().err


# The comparison


def test_the_longest_chain_is_counted_a_row_at_a_time() -> None:
    first, second, beside = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(4, 2)
    graph = mt.graph.trace(lambda x: second(first(x)) + beside(x), mt.rand(5, 4))
    work, flops, ops = against.longest_chain(graph)
    assert work == 5 * 2 * (4 * 6 + 6 * 2 + 4 * 2)
    assert flops == 2 * (4 * 6 + 6 * 2)
    assert ops == 3


def test_an_opened_op_is_as_long_as_what_is_inside() -> None:
    lstm = nn.LSTM(4, 3)
    graph = mt.graph.trace(lambda x: lstm(x)[0], mt.rand(5, 1, 4), decompose=True)
    work, flops, ops = against.longest_chain(graph)
    assert work == 5 * 2 * (12 * 4 + 12 * 3)
    # All inputs at once, and the first state beside them; then the other states one by one.
    assert flops == 2 * 12 * 4 + 4 * 2 * 12 * 3
    assert ops > 5 * 4


def test_contestants_have_about_as_many_parameters(data: Path) -> None:
    found = recurrent.contestants({"tsv": str(data)})
    assert [c.name for c in found] == ["Transformer", "RNN", "GRU", "LSTM", "LSTM, attention"]
    sizes = []
    for contestant in found:
        task = contestant.task(contestant.settings)
        sizes.append(sum(p.numel() for p in task.model.parameters()))
    assert max(sizes) < 1.02 * min(sizes)


def test_recurrent_models_are_compared_with_the_transformer(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against, "LENGTHS", (4, 8))
    monkeypatch.setattr(against, "WRITTEN", (3, 6))
    asked = ["--against", "transformer", "--seconds", "0.1", "--tsv", str(data)]
    assert recurrent.main([*asked, "--out", str(tmp_path / "new" / "out")]) == 0
    out = capsys.readouterr().out
    for row in "parameters", "training, tokens/s", "BLEU", "gradient, 8 before", "ms/token":
        assert row in out
    assert (tmp_path / "new" / "out" / "against.png").read_bytes()[:4] == b"\x89PNG"
    found = json.loads((tmp_path / "new" / "out" / "against.json").read_text())
    transformer, *others = found
    assert transformer["chain"][0] == transformer["chain"][1]  # it does not grow with the sentence
    assert transformer["in_sequence"][1] < 0.6 * transformer["in_sequence"][0]
    for figures in others:
        assert figures["chain"][1] > 1.5 * figures["chain"][0]
        assert figures["in_sequence"][1] > 0.8 * figures["in_sequence"][0]
        assert figures["target_reach"][-1] < 1e-3 < figures["target_reach"][0] == 1
    for figures in found:
        assert figures["equal_tokens"]["tokens"] >= transformer["equal_time"]["tokens"]
        assert figures["equal_time"]["seconds"] >= 0.1
        assert all(math.isfinite(x) for x in figures["target_reach"] + figures["source_reach"])


def test_a_comparison_says_what_it_cannot_use(tmp_path: Path, capsys: Any) -> None:
    assert recurrent.main(["compare", "--source", "a.txt", "--out", str(tmp_path)]) == 1
    assert "belong together" in capsys.readouterr().err
    assert recurrent.main(["compare", "--tsv", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    assert "cannot read" in capsys.readouterr().err
    with pytest.raises(SystemExit) as wrong:
        recurrent.main(["--against", "gravity"])
    assert wrong.value.code == 2


def test_the_reach_is_the_gradient_of_the_last_step_alone(data: Path) -> None:
    contestant = recurrent.contestants({"tsv": str(data)})[-1]
    mt.manual_seed(0)
    task = contestant.task(contestant.settings)
    model, pairs = task.model.eval(), task.data.train[-1:]
    target_reach, source_reach = against.reach(task, pairs)
    assert len(target_reach) == len(source_reach) == against.REACH
    assert all(p.grad is None for p in model.parameters())
    src, tgt = against.long_pair(pairs)
    assert src.shape == tgt.shape == (1, against.REACH)
    state = model.encode(src)
    embedded = model.tgt_embedding(model.shift_right(tgt)).detach().requires_grad_()
    hidden, _ = model.decoder(embedded, state.hidden)
    attended, _ = model.attention(hidden, *state.memory)
    F.cross_entropy(model.output(attended)[0, -1:], tgt[0, -1:]).backward()
    assert embedded.grad is not None
    norms = np.linalg.norm(embedded.grad.numpy()[0], axis=1)[::-1]
    np.testing.assert_allclose(target_reach, norms / norms.max(), rtol=1e-3, atol=1e-9)
