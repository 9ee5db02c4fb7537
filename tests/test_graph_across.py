"""The page of a graph from left to right, and what has an order or a side of its own in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from foreign import training_step
from test_graph_html import Browser, browsing, chromium, until
from test_graph_zoom import loop

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.graph.trace import trace

__all__ = ["chromium", "loop"]  # the fixtures

# Closed boxes, halves included, and the papers of texts on lines that lie on one of them.
COVERED = """() => {
  const rect = (e) => e.getBoundingClientRect();
  const closed = '#world .box:not(.open) > .look > .outline';
  const boxes = [...document.querySelectorAll(closed)].map(rect);
  const papers = [...document.querySelectorAll('#world .edge > .paper')].map(rect);
  const meet = (a, b) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  return [papers.length, papers.filter((p) => boxes.some((b) => meet(p, b))).length];
}"""
# Where the heads of the lines are that carry a text: their middles, and the colour of each line.
HEADS = """(name) => [...document.querySelectorAll('#world .edge')]
  .filter((edge) => edge.querySelector('.text-name')?.textContent === name)
  .map((edge) => [...edge.querySelectorAll('.head')].map((head) => {
    const { left, right, top, bottom } = head.getBoundingClientRect();
    return [(left + right) / 2, (top + bottom) / 2];
  }))"""


class Less(nn.Module):
    """A module of two inputs that reads the second first."""

    def forward(self, much: Tensor, little: Tensor) -> Tensor:
        low = little.tanh()
        return much - low


class Step(nn.Module):
    """An op and a module that read first the tensor that was made last."""

    def __init__(self) -> None:
        super().__init__()
        self.less = Less()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        late = y.exp()
        both = late - x
        later = (both + both).exp()
        return self.less(later, y).sum()


@pytest.fixture(scope="module")
def training(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    mt.manual_seed(0)
    function, inputs, _ = training_step.example()
    graph = trace(function, *inputs.values())
    yield from browsing(chromium, tmp_path_factory.mktemp("training"), graph)


@pytest.fixture(scope="module")
def twice(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    graph = trace(Step(), mt.randn(3, 4), mt.randn(3, 4))
    yield from browsing(chromium, tmp_path_factory.mktemp("twice"), graph)


def middle(browser: Browser, name: str) -> tuple[float, float]:
    place = browser.box(name).first.bounding_box()
    return place["x"] + place["width"] / 2, place["y"] + place["height"] / 2


def half(browser: Browser, box: str, look: str) -> dict[str, float]:
    found = browser.box(box).locator(f":scope > .look{look} > .outline").first.bounding_box()
    return dict(found)


def test_from_left_to_right_and_back_again(training: Browser) -> None:
    training.open("#level=full&backward=1&view=0,0,1")
    down = training.page.inner_html("#world")
    x, y = middle(training, "model/relu"), middle(training, "model.fc2")
    assert y[1] - x[1] > 100 > abs(y[0] - x[0])
    training.page.keyboard.press("r")
    until(training.page, "location.hash.includes('across=1')")
    x, y = middle(training, "model/relu"), middle(training, "model.fc2")
    assert y[0] - x[0] > 100 > abs(y[1] - x[1])
    assert training.page.evaluate("explorer.camera.x") == 20, "it begins at the left"
    across = training.page.inner_html("#world")
    training.page.locator("#across").click()
    until(training.page, "!location.hash.includes('across')")
    assert training.page.inner_html("#world") == down
    training.open("#level=full&backward=1&across=1&view=0,0,1")
    assert training.page.inner_html("#world") == across


@pytest.mark.parametrize("across", [0, 1])
def test_no_text_of_a_line_lies_on_a_box(training: Browser, loop: Browser, across: int) -> None:
    for browser, level in ((training, "full&backward=1"), (loop, "op&backward=0")):
        browser.open(f"#level={level}&across={across}&view=0,0,1")
        papers, covered = browser.page.evaluate(COVERED)
        assert papers >= 5
        assert not covered


def test_the_backward_is_beside_the_forward_or_below_it(training: Browser) -> None:
    looks = ":not(.look-backward)", ".look-backward"
    training.open("#level=full&backward=1&view=0,0,1")
    forward, backward = (half(training, "model.fc2", look) for look in looks)
    assert forward["x"] + forward["width"] < backward["x"]
    assert forward["y"] == pytest.approx(backward["y"], abs=2)
    training.open("#level=full&backward=1&across=1&view=0,0,1")
    forward, backward = (half(training, "model.fc2", look) for look in looks)
    assert forward["y"] + forward["height"] < backward["y"]
    assert forward["x"] == pytest.approx(backward["x"], abs=2)
    for saved in training.box("model.fc2").locator(":scope > .saved > text").all():
        place = saved.bounding_box()
        assert forward["y"] + forward["height"] <= place["y"]
        assert place["y"] + place["height"] <= backward["y"]


def test_a_loop_runs_back_above_its_box_from_left_to_right(loop: Browser) -> None:
    loop.open("#level=op&across=1&view=0,300,1")
    arrow = loop.page.locator("#world .loop")
    assert "h, 5 times" in arrow.text_content()
    box = loop.page.locator("#world .box:has(> .loop) > .frame").first.bounding_box()
    text = arrow.locator("text").first.bounding_box()
    assert text["y"] + text["height"] < box["y"], "above the box, not on it"
    head = arrow.locator(".head").bounding_box()
    assert head["x"] + head["width"] == pytest.approx(box["x"], abs=2)


def test_what_a_backward_pass_made_leaves_the_backward_in_its_colour(training: Browser) -> None:
    for across in (0, 1):
        training.open(f"#level=full&backward=1&across={across}&view=0,0,1")
        colours = training.page.evaluate("""() => ['.backward', '.onward', '.forward:not(.onward)']
          .map((kind) => getComputedStyle(document.querySelector(`.edge${kind} .wire`)).stroke)""")
        assert colours[0] == colours[1] != colours[2]
        starts = training.page.eval_on_selector_all(
            '[data-box="model"] > .edge.onward .wire',
            """all => all.map((wire) => {
              const { x, y } = wire.getPointAtLength(0);
              const at = new DOMPoint(x, y).matrixTransform(wire.getScreenCTM());
              return [at.x, at.y];
            })""",
        )
        halves = [
            half(training, f"model.{name}", ".look-backward") for name in ("fc1", "norm", "fc2")
        ]
        assert len(starts) >= 3
        for x, y in starts:
            assert any(
                h["x"] - 1 <= x <= h["x"] + h["width"] + 1
                and h["y"] - 1 <= y <= h["y"] + h["height"] + 1
                for h in halves
            )


def test_inputs_stand_and_enter_in_the_order_of_the_signature(
    training: Browser, twice: Browser
) -> None:
    for across in (0, 1):
        training.open(f"#level=full&across={across}&view=0,0,1")
        places = [middle(training, f"input:{name}") for name in ("inputs", "labels")]
        assert places[0][across] < places[1][across]
        twice.open(f"#level=op&across={across}&view=0,0,1")
        late, x = (head_at(twice, "sub", name) for name in ("late", "x"))
        assert late[across] < x[across], "late - x"
        twice.open(f"#level=none&across={across}&view=0,0,1")
        names = "later \N{RIGHTWARDS ARROW} much", "y \N{RIGHTWARDS ARROW} little"
        much, little = (head_at(twice, "less", name) for name in names)
        assert much[across] < little[across], "less(later, y)"


def head_at(browser: Browser, box: str, name: str) -> list[float]:
    heads = [head for line in browser.page.evaluate(HEADS, name) for head in line]
    return next(head for head in heads if inside(browser, box, head))


def inside(browser: Browser, box: str, point: list[float]) -> bool:
    place = browser.box(box).first.bounding_box()
    return bool(
        place["x"] - 10 <= point[0] <= place["x"] + place["width"] + 10
        and place["y"] - 10 <= point[1] <= place["y"] + place["height"] + 10
    )


def test_an_op_that_reads_a_tensor_twice_has_two_lines(twice: Browser) -> None:
    twice.open("#level=op&view=0,0,1")
    assert [len(heads) for heads in twice.page.evaluate(HEADS, "both")] == [2]


def test_far_away_the_backward_is_named_wherever_the_forward_is(training: Browser) -> None:
    for scale in (0.5, 0.42, 0.3):
        training.open(f"#level=full&backward=1&view=0,0,{scale}")
        for name in ("model/relu", "model/dropout", "model.fc2"):
            said = training.box(name).locator(":scope > .text-large").all_text_contents()
            assert len(said) in (0, 2), (scale, said)
            assert all(said[1] in (f"{said[0]} backward", f"d {said[0]}") for _ in said[1:])
