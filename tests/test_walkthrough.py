"""Walkthroughs: chapters name what is there, numbers are those of the run, pages stay small."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitensor import models
from minitensor.graph import Chapter, Graph
from minitensor.graph.fold import fold
from minitensor.graph.page import Page
from minitensor.graph.sources import Sources
from minitensor.graph.told import every, told
from minitensor.models.walkthrough import LIMIT, MOST, page
from minitensor.models.walkthrough.finder import Finder
from minitensor.models.walkthrough.training import LONGEST
from minitensor.tools import walkthrough as tool

pytestmark = pytest.mark.pages

TARGETS = tool.TARGETS
TRAINED = [target for target in TARGETS if target != "attention"]


@functools.cache
def graph_of(target: str) -> Graph:
    return importlib.import_module(f"minitensor.models.walkthrough.{target}").walkthrough()


@functools.cache
def page_of(target: str) -> str:
    return page(graph_of(target)).decode()


def array(graph: Graph, key: str) -> np.ndarray:
    data = graph.values[key].data
    assert data is not None
    assert data.at is None, "a sample"
    return data.array


def called(graph: Graph, title: str) -> Chapter:
    return next(c for c in every(graph.chapters) if re.search(title, c.title))


@pytest.mark.parametrize("target", TARGETS)
def test_chapters_name_boxes_and_values_that_are_there(target: str) -> None:
    graph = graph_of(target)
    chapters = list(every(graph.chapters))
    assert len(chapters) >= 10
    for chapter in chapters:
        assert chapter.title
        assert chapter.part
        assert len(chapter.text) > 20, chapter.title
        assert chapter.values, chapter.title
        for key, caption in chapter.values.items():
            assert graph.values[key].data is not None, (chapter.title, key)
            assert caption
        for key in chapter.boxes:
            known = key in graph.groups or key in graph.nodes or key in graph.inputs
            assert known, (chapter.title, key)
        assert chapter.code, chapter.title


@pytest.mark.parametrize("target", TARGETS)
def test_each_chapter_shows_the_code_that_runs(target: str) -> None:
    found = told(graph_of(target), Sources())
    assert found is not None

    def look(chapters: list[dict[str, Any]]) -> None:
        for chapter in chapters:
            piece, first, last = chapter["at"]
            file, start, lines = found["code"][piece]
            assert file.startswith(("minitensor/models/", "models/"))
            assert start <= first <= last < start + len(lines)
            look(chapter.get("inner", []))

    look(found["chapters"])


@pytest.mark.parametrize("target", TARGETS)
def test_pages_are_small_and_ask_nobody(target: str) -> None:
    text = page_of(target)
    assert len(text.encode()) < MOST
    assert not re.search(r'(src|href)="?https?:|@import|url\(', text)


QUESTIONS = {
    "what are q, k and v": r"query q says what .* looks for.*key k what it can be found by",
    "why are there three": r"With one vector for all three, a word could only look for what it is",
    "why are scores scaled": r"spread of √.*Large scores would make softmax put everything on one",
    "what does the mask do": r"every score of a word with a later one.*minus infinity",
    "why can all words go in at once": r"all words can go in at once|known in training, no place",
    "what does the residual do": r"does not replace the vector, it is added",
    "what does a norm do": r"moved to the mean 0 and scaled to the spread 1",
    "what does the feed-forward network do": r"works on each word alone",
    "what are logits": r"score, called its logit",
    "what is the loss": r"-log p, 0 if the model was certain and right",
    "what is a gradient": r"gradient of a number says how much the loss would grow",
    "how are weights updated": r"small step against it: weight - [\d.]+ x gradient",
    "what is the loss afterwards": r"the loss was [\d.]+ and is now [\d.]+",
}


@pytest.mark.parametrize("target", ["gpt", "transformer"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_are_answered(target: str, question: str) -> None:
    texts = [chapter.text for chapter in every(graph_of(target).chapters)]
    assert any(re.search(QUESTIONS[question], text) for text in texts)


def test_the_transformer_says_what_the_decoder_sees() -> None:
    graph = graph_of("transformer")
    shifted = called(graph, "what the decoder sees")
    given, target = (array(graph, key)[0].tolist() for key in shifted.values)
    assert given[1:] == target[:-1]
    assert "teacher forcing" in shifted.text
    assert any("cross attention" in c.text for c in every(graph.chapters))
    assert [len(graph.labels[axis]) for axis in "SL"] == [4, 5]
    assert graph.dims["E"] == 6
    assert graph.dims["H"] == 2


def test_the_first_screen_of_gpt_has_its_sizes() -> None:
    first = graph_of("gpt").chapters[0]
    assert '"The early bird eats the worm."' in first.title
    wanted = {"batch": "1", "context_length": "7", "embed_dim": "24", "head_size": "6"}
    assert wanted.items() <= first.facts.items()
    assert first.facts["num_head"] == "4"


def test_repeated_layers_are_folded() -> None:
    graph = graph_of("gpt")
    fold = called(graph, "The same 2 times more")
    first = [c for c in graph.chapters if c.part == "Block 1"]
    assert [c.title for c in fold.inner] == 2 * [c.title for c in first]
    assert {c.part for c in fold.inner} == {"Block 2", "Block 3"}


@pytest.mark.parametrize("target", TRAINED)
def test_numbers_are_those_of_the_run(target: str) -> None:
    graph = graph_of(target)
    f = Finder(graph)
    p = array(graph, f.named("", "probabilities"))
    logits = array(graph, f.named("", "logits"))
    power = np.exp(logits - logits.max(-1, keepdims=True))
    np.testing.assert_allclose(p, power / power.sum(-1, keepdims=True), rtol=1e-5)
    answers = array(graph, f.input("labels" if target == "bert" else _targets(graph))).ravel()
    (asked,) = np.nonzero(answers >= 0)
    right = p.reshape(len(answers), -1)[asked, answers[asked]]
    loss = array(graph, f.op("", "cross_entropy").outputs[0])
    np.testing.assert_allclose(loss, -np.log(right).mean(), rtol=1e-5)
    said = called(graph, "The loss after it")
    before, after = (float(array(graph, key)) for key in said.values)
    assert f"the loss was {before:.4f} and is now {after:.4f}" in said.text
    assert before == float(loss)
    assert after < before


@pytest.mark.parametrize("target", TRAINED)
def test_long_sentences_are_told_from_all_their_numbers(target: str) -> None:
    module = importlib.import_module(f"minitensor.models.walkthrough.{target}")
    long = [" ".join(f"{letter}{word}" for word in range(LONGEST)) for letter in "ab"]
    graph = module.walkthrough(*long[: 1 + (target in tool.PAIRS)])
    f = Finder(graph)
    p, loss = (f.array(f.named("", name)) for name in ("probabilities", "loss"))
    words = graph.labels["V"]
    said = called(graph, "^Probabilities").text
    guess, percent = re.search(r'now say "(.*?)" with ([\d.]+%)', said).groups()  # type: ignore[union-attr]
    best = [
        (words[int(row.argmax())].strip(), f"{row.max():.1%}") for row in p.reshape(-1, len(words))
    ]
    assert (guess, percent) in best
    assert len(page(graph)) <= MOST
    kept = sum(value.data.array.nbytes for value in graph.values.values() if value.data)
    assert kept <= LIMIT
    assert f"the loss was {float(loss):.4f}" in called(graph, "The loss after it").text


def _targets(graph: Graph) -> str:
    return "targets" if "input:targets" in graph.inputs else "target"


@pytest.mark.parametrize("target", TRAINED)
def test_the_update_is_a_step_against_the_gradient(target: str) -> None:
    graph = graph_of(target)
    step = called(graph, "small step downhill")
    weight, gradient, change, new = (array(graph, key) for key in step.values)
    rate = float(re.search(r"W - ([\d.]+)", step.formula)[1])  # type: ignore[index]
    np.testing.assert_allclose(new, weight - rate * gradient, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(change, new - weight, atol=1e-7)


def test_a_weight_has_its_name_after_the_update_too() -> None:
    graph = graph_of("gpt")
    shown = Page(graph, fold(graph))
    before, _, _, after = called(graph, "small step downhill").values
    assert shown.name(graph.values[before]) == shown.name(graph.values[after]) == "weight"


@pytest.mark.parametrize("target", TARGETS)
def test_attention_maps_add_up_to_one(target: str) -> None:
    graph = graph_of(target)
    maps = [
        key
        for chapter in every(graph.chapters)
        for key, caption in chapter.values.items()
        if "each row adds up to 1" in caption or "attention map" in caption
    ]
    for key in maps:
        np.testing.assert_allclose(array(graph, key).sum(-1), 1, rtol=1e-5)
    assert maps or target == "recurrent"


def test_nobody_looks_ahead_in_gpt() -> None:
    graph = graph_of("gpt")
    mask = called(graph, "The mask")
    before, after = (array(graph, key) for key in mask.values)
    length = before.shape[-1]
    later = np.triu(np.ones((length, length), bool), 1)
    assert np.isinf(after[..., later]).all()
    np.testing.assert_array_equal(after[..., ~later], before[..., ~later])


def test_a_graph_keeps_its_chapters_as_json() -> None:
    graph = graph_of("attention")
    again = Graph.from_json(graph.to_json())
    assert again.chapters == graph.chapters
    assert again.labels == graph.labels


def test_a_graph_without_chapters_has_a_page_without_them() -> None:
    graph = Graph.from_json(graph_of("attention").to_json())
    graph.chapters = []
    text = page(graph).decode()
    assert "walk-strip" not in text
    assert "walk-strip" in page_of("attention")


def test_a_page_that_would_be_too_large_has_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = copy.deepcopy(graph_of("gpt"))
    most = len(page_of("gpt").encode()) * 9 // 10
    monkeypatch.setattr(models.walkthrough, "MOST", most)
    assert len(models.walkthrough.page(graph)) < most
    sampled = {key for key, value in graph.values.items() if value.data and value.data.at}
    shown = {key for chapter in every(graph.chapters) for key in chapter.values}
    assert sampled
    assert not sampled & shown, "what chapters show is kept for longer"


def test_steps_of_training_are_an_axis() -> None:
    from minitensor.models.walkthrough import gpt

    graph = gpt.walkthrough("one two three four", steps=4)
    last = graph.chapters[-1]
    assert last.title == "4 steps of training"
    loss, p, attention, embedding, gradient = (array(graph, key) for key in last.values)
    assert loss.shape == (5,)
    assert loss[-1] < loss[0]
    assert p.shape == (5, 1, 3, 4)
    assert attention.shape == (5, 1, 4, 3, 3)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
    rate = gpt.RATE
    np.testing.assert_allclose(embedding[:-1] - rate * gradient[:-1], embedding[1:], atol=1e-5)
    assert graph.labels["step"] == [f"step {number}" for number in range(5)]


def test_a_sentence_of_ones_own_and_a_seed() -> None:
    from minitensor.models.walkthrough import attention

    graphs = [attention.walkthrough("my dear dear friend", seed) for seed in (0, 0, 1)]
    assert graphs[0].labels["L"] == ["my", "dear", "dear", "friend"]
    texts = [graph.to_json() for graph in graphs]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert 'Both "dear" have the same result' in texts[0].replace('\\"', '"')


# Any program


OWN = '''
"""A program of somebody's."""

import minitensor as mt
from minitensor import nn


class Layer(nn.Module):
    """Turn and bend.

    More that is not told.
    """

    def __init__(self):
        super().__init__()
        self.turn = nn.Linear(4, 4)

    def forward(self, x):
        return self.turn(x).tanh()


class Net(nn.Module):
    """Three layers, one after the other."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.last = nn.Linear(4, 1)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.last(x).mean()


def plain():
    return mt.ones(2, 3) + 1
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "somebodys.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_any_program_is_told_by_its_modules(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["somebodys:Net", "--input", "x:2,4", "-o", "net.html"]) == 0
    assert "wrote net.html" in capsys.readouterr().out
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', _read("net.html"))
    assert data is not None
    walk = json.loads(data[1])["walk"]
    titles = [chapter["title"] for chapter in walk["chapters"]]
    assert titles[:2] == ["Net", "Layer (layers.0)"]
    assert "The same 2 times more" in titles
    assert "Linear (last)" in titles
    assert titles[-1] == "The gradients of the weights"
    texts = {chapter["title"]: chapter.get("text", "") for chapter in walk["chapters"]}
    assert texts["Net"] == "Three layers, one after the other."
    assert texts["Layer (layers.0)"] == "Turn and bend."
    assert any("def forward(self, x):" in line for _, _, lines in walk["code"] for line in lines)


def test_a_program_without_modules_and_gradients(own: Path) -> None:
    assert tool.main(["somebodys:plain", "-o", "plain.html"]) == 0
    assert '"title":"plain"' in _read("plain.html")


def _read(name: str) -> str:
    return Path(name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt", "Hi"], "'Hi' has 1 words: give it at least 3"),
        (["gpt", "a b c", "d"], "gpt takes at most 1 sentence"),
        (["gpt", " ".join("abcdefghijklmnopqrstuvwxyz")], "has 26 words and signs: at most 24"),
        (["transformer", "a b"], "transformer takes two sentences: one and its translation"),
        (["recurrent", "a b"], "recurrent takes two sentences: one and its translation"),
        (["transformer", "--run", "nowhere"], "nowhere"),
        (["transformer", "a", "b", "--steps", "-1"], "--steps must be from 0 to 1000, not -1"),
        (["attention", "--steps", "3"], "attention is not trained here: --steps is for the other"),
        (["gpt", "--run", "runs/demo"], "--run is for the target transformer"),
        (["gpt", "--dims", "N=2"], "gpt has inputs of its own"),
        (["nothing"], "nothing is not a target"),
        (["nothing:at", "a sentence"], "nothing:at is given no sentence and no --steps"),
        (["gpt", "--seed", "3", "Hi"], "'Hi' has 1 words"),
        (["gpt", "--colour"], "unrecognized arguments: --colour"),
        (["gpt", "-o", "page.svg"], "the name of the page must end in .html: page.svg"),
        (["gpt", "-o", "no/page.html"], "cannot write no/page.html: no is no folder"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    arguments: list[str], message: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
