"""GPT: equal to Hugging Face's GPT-2 and LLaMA, true to its names; learns texts and writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shape_names import watch

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor
from minitensor.models import gpt
from minitensor.models.corpus import read_corpus
from minitensor.models.decoding import generate
from minitensor.models.gpt import GPT, GPTConfig, GPTWriting, example, main
from minitensor.models.gpt_files import parameter_shapes
from minitensor.models.python_text import python_text
from minitensor.models.text import (
    BPEVocabulary,
    CharVocabulary,
    vocabulary_from_json,
    whole_characters,
)
from minitensor.models.training import resume_run, start_run
from minitensor.models.writing import WritingSettings
from minitensor.serialize import load_file, save_file
from minitensor.testing import assert_close, gradcheck_module

GPT2 = GPTConfig(23, 12, embed_dim=16, num_layers=2, num_heads=4, dropout=0.0)
LLAMA = GPTConfig(
    23, 12, 16, 2, num_heads=4, num_kv_heads=2, variant="llama", tied_output=False, dropout=0.0
)
BOTH = pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
SMALL = ["--embed-dim", "16", "--num-layers", "1", "--num-heads", "2", "--context-length", "16"]


def make(config: GPTConfig) -> GPT:
    mt.manual_seed(0)
    model = GPT(config)
    with mt.no_grad():
        for parameter in model.parameters():  # larger than at the start, so that all matters
            parameter.add_(0.2 * mt.randn(*parameter.shape))
    return model.eval()


def tokens(*shape: int) -> Tensor:
    return mt.tensor(np.random.RandomState(0).randint(0, 23, shape))


# The model


@BOTH
def test_gradients_are_right(config: GPTConfig) -> None:
    model = make(config).double()
    gradcheck_module(model, tokens(2, 5), elements=8)


@BOTH
def test_no_name_lies_about_its_shape(config: GPTConfig) -> None:
    model = make(config)
    with watch(gpt) as seen:
        model.train()(tokens(3, 5)).sum().backward()
        state = model.eval().start()
        model.advance(tokens(3, 7), state)
        model.advance(tokens(3, 2), state)
        model.advance(tokens(3, 6), state)
    assert seen["CausalAttention.attend", "k_NGSK"] >= {(3, config.num_kv_heads, 5, 4)}
    assert seen["CausalAttention.attend", "mask_LS"] == {(2, 9)}
    assert seen["GPT.advance", "logits_NV"] == {(3, 23)}


@BOTH
def test_a_position_sees_only_those_before_it(config: GPTConfig) -> None:
    model, x = make(config), tokens(2, 9)
    y = x.clone()
    y[:, 6:] = 1
    assert_close(model(x)[:, :6], model(y)[:, :6])
    assert not mt.equal(model(x)[:, 6:], model(y)[:, 6:])


@BOTH
def test_the_cache_gives_what_the_model_gives_without(config: GPTConfig) -> None:
    model, x = make(config), tokens(3, 9)
    whole = model(x)
    state = model.start()
    for start, end in ((0, 4), (4, 6), (6, 7), (7, 8), (8, 9)):
        assert_close(model.advance(x[:, start:end], state), whole[:, end - 1])
        if end == 6:
            state.select([2, 0])
            x, whole = x[[2, 0]], whole[[2, 0]]
    assert state.length == 9


@BOTH
def test_a_text_that_outgrows_the_context_goes_on_from_its_last_half(config: GPTConfig) -> None:
    model, x = make(config), tokens(2, 14)
    state = model.start()
    for end in range(1, 13):
        model.advance(x[:, end - 1 : end], state)
    assert state.slides == 0
    assert_close(model.advance(x[:, 12:13], state), model(x[:, 7:13])[:, -1])
    assert_close(model.advance(x[:, 13:14], state), model(x[:, 7:14])[:, -1])
    assert (state.slides, state.length) == (1, 7)
    with pytest.raises(IndexError, match="13 tokens are longer than the context, 12"):
        model.advance(tokens(2, 13), model.start())


@BOTH
def test_rows_of_a_batch_get_what_each_gets_alone(config: GPTConfig) -> None:
    model = make(config)
    prompts = [[1, 2, 3], [4], [5, 6]]
    together = generate(model, prompts, model.start(), 20)
    alone = [generate(model, [prompt], model.start(), 20)[0] for prompt in prompts]
    assert [output.tokens for output in together] == [output.tokens for output in alone]


@BOTH
def test_the_shapes_are_known_before_the_model_is_built(config: GPTConfig) -> None:
    state = GPT(config).state_dict()
    assert dict(parameter_shapes(config)) == {name: t.shape for name, t in state.items()}


def test_at_the_start_all_tokens_are_as_probable() -> None:
    mt.manual_seed(0)
    loss = F.cross_entropy(GPT(GPT2)(tokens(8, 12)).flatten(0, 1), tokens(8, 12).flip(0).flatten())
    assert abs(loss.item() - math.log(23)) < 0.05


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (dict(num_heads=3), "embed_dim=16, num_heads=3"),
        (dict(num_kv_heads=3), "num_heads=4, num_kv_heads=3"),
        (dict(variant="gpt5"), "variant must be 'gpt2' or 'llama', not 'gpt5'"),
        (dict(variant="llama", num_heads=16), "even width"),
        (dict(context_length=0), "context_length must be an integer of at least 1"),
        (dict(num_layers=-1), "num_layers"),
        (dict(embed_dim=16.0), "embed_dim"),
        (dict(dropout=2), "dropout must be a number from 0 to 1"),
        (dict(tied_output=1), "tied_output"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_config_that_no_model_can_have_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GPTConfig(**{"vocab_size": 23, "embed_dim": 16, "num_heads": 4, **values})


def test_the_example_is_drawn() -> None:
    model, inputs, sizes = example()
    graph = mt.graph.trace(model, *inputs.values())
    assert len(set(sizes.values())) == len(sizes)
    assert "scaled_dot_product_attention" in str(graph.to_json())


# Against Hugging Face


def reference(kind: str, folder: Path) -> Any:
    """Write a folder of a small model with random weights, and a tokenizer; return the model."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ends: Any = dict(bos_token_id=None, eos_token_id=7)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=300, n_positions=40, n_embd=32, n_layer=3, n_head=4, **ends
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=300, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
            num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=40,
            rope_theta=500.0, tie_word_embeddings=kind == "tied llama", **ends,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    BPEVocabulary.train(["words of a text\n"], 300).tokenizer.save(str(folder / "tokenizer.json"))
    return model


KINDS = pytest.mark.parametrize("kind", ["gpt2", "llama", "tied llama"])


@pytest.mark.torch
@KINDS
def test_a_folder_gives_the_logits_and_gradients_of_hugging_face(kind: str, tmp_path: Path) -> None:
    theirs = reference(kind, tmp_path)
    import torch

    ours = GPT.from_folder(tmp_path)
    x = np.random.RandomState(0).randint(0, 300, (3, 11))
    expected, found = theirs(torch.tensor(x)).logits, ours(mt.tensor(x))
    assert_close(found.detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    expected.logsumexp(-1).mean().backward()
    found.logsumexp(-1).mean().backward()
    grads = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    if kind == "gpt2":
        names = {
            "token_embedding": "transformer.wte.weight",
            "position_embedding": "transformer.wpe.weight",
            "blocks.2.attention.out": "transformer.h.2.attn.c_proj.weight",
            "blocks.0.attention.qkv": "transformer.h.0.attn.c_attn.weight",
            "blocks.1.feed_forward.up": "transformer.h.1.mlp.c_fc.weight",
            "norm": "transformer.ln_f.weight",
        }
    else:
        names = {
            "token_embedding": "model.embed_tokens.weight",
            "blocks.2.attention.out": "model.layers.2.self_attn.o_proj.weight",
            "blocks.1.feed_forward.gate": "model.layers.1.mlp.gate_proj.weight",
            "blocks.0.norm2": "model.layers.0.post_attention_layernorm.weight",
            "norm": "model.norm.weight",
        }
        parts = [grads[f"model.layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
        names["blocks.0.attention.qkv"] = "qkv"
        grads["qkv"] = np.concatenate(parts)
    for name, other in names.items():
        grad = grads[other]
        grad = grad.T if ".c_" in other else grad
        layer: Any = ours.get_submodule(name)
        found_grad = layer.weight.grad.numpy()
        assert_close(found_grad, grad, rtol=1e-4, atol=1e-4 * abs(grad).max())


@pytest.mark.torch
@KINDS
def test_generate_writes_from_a_folder_as_it_is(kind: str, tmp_path: Path, capsys: Any) -> None:
    theirs = reference(kind, tmp_path)
    import torch

    tokenizer = BPEVocabulary.train(["words of a text\n"], 300).tokenizer
    prompt = tokenizer.encode("words").ids
    with torch.no_grad():
        expected = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0
        )[0].tolist()
    arguments = ["--model", str(tmp_path), "--greedy", "--max-length", "20"]
    assert main(["generate", "words", *arguments]) == 0
    written = capsys.readouterr()
    text = tokenizer.decode(expected)
    assert written.out.split() == text.split()
    assert ("the text ended" in written.err) == (expected[-1] == 7)


@pytest.mark.torch
def test_names_of_old_files_are_understood(tmp_path: Path) -> None:
    """GPT-2's own file has no prefix, holds the masks, and leaves the tied output out."""
    theirs = reference("gpt2", tmp_path)
    weights, _ = load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): t for name, t in weights.items()}
    old.pop("lm_head.weight", None)
    old["h.0.attn.bias"] = mt.ones(1, 1, 40, 40).tril()
    save_file(old, tmp_path / "model.safetensors")
    import torch

    x = np.arange(7)[None]
    expected = theirs(torch.tensor(x)).logits.detach().numpy()
    found = GPT.from_folder(tmp_path)(mt.tensor(x)).detach().numpy()
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


# Folders that cannot be used


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A LLaMA, by its names in Hugging Face's files, without any package of theirs."""
    weights = {
        name.replace("token_embedding", "model.embed_tokens"): tensor
        for name, tensor in make(
            GPTConfig(260, 20, 16, 0, num_heads=2, variant="llama", tied_output=False)
        )
        .state_dict()
        .items()
    }
    weights["model.norm.weight"] = weights.pop("norm.weight")
    weights["lm_head.weight"] = weights.pop("output.weight")
    save_file(weights, tmp_path / "model.safetensors")
    config = dict(
        model_type="llama", vocab_size=260, hidden_size=16, num_hidden_layers=0,
        num_attention_heads=2, max_position_embeddings=20, intermediate_size=30,
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    BPEVocabulary.train([], 260).tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def refused(arguments: list[str], words: str, capsys: Any) -> None:
    """Assert that the command ends with 1 and one sentence that has the words."""
    assert main(arguments) == 1
    written = capsys.readouterr()
    assert written.err.startswith("error: "), written.err
    assert written.err.count("\n") == 1, written.err
    assert words in written.err, written.err


def change(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_the_folder_of_these_tests_can_be_used(folder: Path, capsys: Any) -> None:
    assert main(["generate", "ab", "--model", str(folder), "--max-length", "30"]) == 0
    assert "it outgrew the context: the model saw its last 10 to 20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not the config of"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json: it is not a tokenizer"),
        (lambda f: (f / "model.safetensors").write_bytes(b"abc"), "model.safetensors"),
        (lambda f: change(f, model_type="bert"), "model_type is 'bert'"),
        (lambda f: change(f, hidden_size=20), "has the shape (260, 16), expected (260, 20)"),
        (lambda f: change(f, num_hidden_layers=9), "blocks.0.norm1.weight is missing"),
        (lambda f: change(f, vocab_size=10**9), "expected (1000000000, 16)"),
        (lambda f: change(f, num_attention_heads=3), "embed_dim=16, num_heads=3"),
        (lambda f: change(f, rope_scaling={"type": "linear"}), "rope_scaling"),
        (lambda f: change(f, rope_parameters={"rope_type": "yarn"}), "rope_parameters"),
        (lambda f: change(f, attention_bias=True), "attention_bias is True"),
        (lambda f: change(f, head_dim=4), "head_dim is 4"),
        (lambda f: change(f, vocab_size=None), "token_embedding.weight"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_folder_that_cannot_be_used_is_refused(
    folder: Path, spoil: Callable[[Path], Any], words: str, capsys: Any
) -> None:
    spoil(folder)
    refused(["generate", "ab", "--model", str(folder)], words, capsys)


# Texts


def test_the_embedded_text_is_prose() -> None:
    text = python_text()
    assert 60_000 < len(text) < 400_000
    lines = text.splitlines()
    assert len(set(lines)) == len(lines)
    assert all(line[0].isupper() and line.endswith(".") for line in lines)
    assert "name" in text


def test_a_text_is_read_with_its_lines(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("\ufeffone\r\n\r\n  two\rthe\u0301\n".encode())
    assert read_corpus(str(tmp_path / "text")) == "one\n\n  two\nth\u00e9\n"


TEXT = "Grüße, 世界!\n\n  — a  text \t with 😀 and 👩‍👩‍👧, again 😀\n"


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_text_comes_back_as_it_was(kind: str) -> None:
    vocabulary: Any = CharVocabulary.train(TEXT) if kind == "char" else BPEVocabulary.train([], 260)
    again: Any = vocabulary_from_json(vocabulary.to_json())
    assert len(again) == len(vocabulary)
    for some in (vocabulary, again):
        assert some.decode_text(some.encode_text(TEXT)).removeprefix(" ") == TEXT
    assert vocabulary.decode_text([0, 1, 2]) == ""


def test_text_comes_in_whole_characters() -> None:
    vocabulary = BPEVocabulary.train([], 260)  # bytes
    tokens = vocabulary.encode_text(TEXT)
    found = list(whole_characters(vocabulary.decode_text, tokens[:3], tokens[3:]))
    assert "".join(found) == TEXT[2:]
    assert all(len(piece) == 1 for piece in found)
    cut = list(whole_characters(vocabulary.decode_text, tokens[:3], tokens[3:-3]))[-1]
    assert cut  # what a text ends with comes, complete or not
    half = list(whole_characters(vocabulary.decode_text, [], vocabulary.encode_text("é")[:-1]))
    assert half == [" ", "\ufffd"]


@pytest.mark.parametrize(
    "text", ['{"kind": "char"}', '{"kind": "char", "characters": "abca"}'], ids=["none", "twice"]
)
def test_a_damaged_vocabulary_of_characters_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a vocabulary: its character"):
        vocabulary_from_json(text)


# Learning and writing


@pytest.fixture(scope="module")
def text(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("text") / "text"
    path.write_text("".join(f"{n} and {n + 1} make {2 * n + 1}.\n" for n in range(100)))
    return path


@pytest.fixture(scope="module")
def run(text: Path, tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("run")
    assert main(["train", "--text", str(text), "--out", str(folder), "--epochs", "2", *SMALL]) == 0
    return folder


def settings(text: Path, **values: Any) -> WritingSettings:
    small: Any = dict(embed_dim=16, num_layers=1, num_heads=2, context_length=16)
    return WritingSettings(text=str(text), **small, **values)


def test_training_learns(run: Path) -> None:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert epochs[1]["valid_loss"] < epochs[0]["valid_loss"] < math.log(30)
    for record in epochs:
        assert_close(record["valid_bits"], record["valid_loss"] / math.log(2))
    assert (run / "loss.png").exists()


def test_bits_are_per_character_whatever_a_token_is(text: Path, tmp_path: Path) -> None:
    with start_run(
        GPTWriting, settings(text, vocabulary="bpe", vocabulary_size=280), tmp_path
    ) as trainer:
        task: Any = trainer.task
        batch = task.collate_valid(task.valid_batches()[0])
        measures = task.measures(batch)
    valid = text.read_text()[-len(text.read_text()) // 10 :]
    ratio = len(task.vocabulary.encode_text(valid)) / len(valid)
    assert ratio < 0.95
    assert_close(measures["bits"], measures["loss"] / math.log(2) * ratio, rtol=0.02, atol=0)


def test_epochs_read_the_text_in_other_orders_and_pieces(text: Path, tmp_path: Path) -> None:
    with start_run(GPTWriting, settings(text), tmp_path) as trainer:
        task = trainer.task
        first, again, second = (np.concatenate(task.train_batches(e)) for e in (0, 0, 1))
        inputs, targets = task.collate(task.train_batches(0)[0])
    assert np.array_equal(first, again)
    assert len(first) == len(second) == len(set(first.tolist()))
    assert set(first % 16) != set(second % 16)
    assert mt.equal(inputs[:, 1:], targets[:, :-1])


@pytest.mark.parametrize("vocabulary", ["char", "bpe"])
def test_a_resumed_run_ends_with_the_same_weights(
    vocabulary: str, text: Path, tmp_path: Path
) -> None:
    values: Any = dict(vocabulary=vocabulary, vocabulary_size=280, dropout=0.1, variant="gpt2")
    with start_run(GPTWriting, settings(text, **values, epochs=2), tmp_path / "a") as trainer:
        trainer.run(lambda line: None)
        expected = trainer.model.state_dict()
    with start_run(GPTWriting, settings(text, **values, epochs=2), tmp_path / "b") as trainer:
        save = trainer.save

        def stop(name: str) -> None:
            save(name)
            if name == "last.safetensors":
                trainer.interrupt.signal = 15

        trainer.save = stop  # type: ignore[method-assign]
        assert trainer.run(lambda line: None) == 15
    with resume_run(GPTWriting, tmp_path / "b", {}) as trainer:
        assert trainer.position.epoch == 1
        trainer.run(lambda line: None)
        for name, tensor in trainer.model.state_dict().items():
            assert mt.equal(tensor, expected[name]), name


def written(arguments: list[str], capsys: Any) -> str:
    capsys.readouterr()
    assert main(["generate", *arguments]) == 0
    return str(capsys.readouterr().out)


def test_generate_writes_what_the_seed_says(run: Path, capsys: Any) -> None:
    place = ["1 and", "--run", str(run), "--max-length", "40"]
    first = written([*place, "--seed", "1"], capsys)
    assert first.startswith("1 and")
    assert 25 <= len(first) <= 45  # so early, it also writes special tokens
    assert written([*place, "--seed", "1"], capsys) == first
    assert written([*place, "--seed", "2"], capsys) != first
    assert written([*place], capsys) != written([*place], capsys)
    greedy = written([*place, "--greedy"], capsys)
    assert written([*place, "--temperature", "0"], capsys) == greedy
    assert written([*place, "--top-k", "1"], capsys) == greedy
    assert written([*place, "--top-p", "0.001"], capsys) == greedy


def test_generate_goes_on_by_itself(run: Path, capsys: Any) -> None:
    assert written(["--run", str(run), "--max-length", "3"], capsys).startswith("\n")


def test_text_is_printed_as_it_comes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    seen: list[int] = []

    class Terminal:
        def write(self, text: str) -> int:
            printed.append(text)
            return len(text)

        def flush(self) -> None:
            seen.append(len("".join(printed)))

    monkeypatch.setattr("sys.stdout", Terminal())
    assert main(["generate", "1 ", "--run", str(run), "--max-length", "5", "--greedy"]) == 0
    assert seen == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["1" * 17], "the prompt has 17 tokens, but the context of this model only 16"),
        ([""], "the prompt is empty"),
        (["1 ß"], "'ß' is not among the"),
        (["1", "--top-p", "0"], "--top-p must be a number above 0"),
        (["1", "--top-k", "0"], "--top-k must be an integer of at least 1"),
        (["1", "--temperature", "-1"], "--temperature must be a number of at least 0"),
        (["1", "--run", "/nowhere"], "there is no trained model at /nowhere"),
        (["1", "--model", "/nowhere"], "/nowhere has no config.json"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_cannot_be_written_is_refused(
    arguments: list[str], words: str, run: Path, capsys: Any
) -> None:
    where = [] if "--model" in arguments or "--run" in arguments else ["--run", str(run)]
    capsys.readouterr()
    refused(["generate", *arguments, *where], words, capsys)


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (b"", [], "is empty"),
        (b" \n\n", [], "is empty"),
        (b"too little", [], "is too short: of its 10 tokens 1 are held out"),
        (b"\xff" * 99, [], "is not UTF-8 text"),
        (b"text" * 99, ["--num-heads", "3"], "embed_dim=16, num_heads=3"),
        (b"text" * 99, ["--vocabulary", "bpe", "--vocabulary-size", "9"], "at least 260 tokens"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_cannot_be_learned_is_refused_and_nothing_is_lost(
    content: bytes, arguments: list[str], words: str, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "text"
    file.write_bytes(content)
    out = tmp_path / "run"
    refused(["train", "--text", str(file), "--out", str(out), *SMALL, *arguments], words, capsys)
    assert not out.exists()


def test_a_run_of_another_task_is_refused(run: Path, tmp_path: Path, capsys: Any) -> None:
    tensors, header = load_file(run / "best.safetensors")
    path = tmp_path / "other.safetensors"
    for change, words in (
        ({"task": '"translation"'}, "another task"),
        ({"config": "{}"}, "the vocabulary does not match the model"),
        ({"config": '{"variant": 3}'}, "variant must be"),
        ({"config": '{"depth": 3}'}, "depth"),
        ({"vocabulary": CharVocabulary("ab").to_json()}, "the vocabulary does not match the model"),
    ):
        save_file(tensors, path, {**header, **change})
        capsys.readouterr()
        refused(["generate", "1", "--run", str(path)], words, capsys)


def test_the_demonstration_learns_and_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, text: Path
) -> None:
    monkeypatch.setattr(gpt, "WritingSettings", lambda: settings(text, epochs=3))
    monkeypatch.setattr(gpt, "PROMPT", "1 and")
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "step 50/" in out
    assert "bits per character\n\n1 and" in out
