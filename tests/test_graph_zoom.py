"""The page of a graph in a browser: large graphs, far zooms, the minimap, files of the picture."""

from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from large import irregular
from test_graph_html import Browser, browsing, chromium, until

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.graph.trace import trace

__all__ = ["chromium"]  # the fixture

OPS = 900
SEEN = """() => [...document.querySelectorAll('#world .box')].filter((box) => {
  const { left, top, right, bottom } = box.getBoundingClientRect();
  const area = document.getElementById('picture').getBoundingClientRect();
  return right > area.left && bottom > area.top && left < area.right && top < area.bottom;
}).length"""


class Loop(nn.Module):
    """A recurrence, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = mt.zeros(3, 4)
        for at in range(5):
            h = (self.step(h) + x[:, at]).tanh()
        return h


@pytest.fixture(scope="module")
def large(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    graph = irregular(OPS)
    yield from browsing(chromium, tmp_path_factory.mktemp("large"), graph)


@pytest.fixture(scope="module")
def loop(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    graph = trace(Loop(), mt.randn(3, 5, 4))
    yield from browsing(chromium, tmp_path_factory.mktemp("loop"), graph)


def test_of_a_large_graph_only_what_is_in_view_is_drawn(large: Browser) -> None:
    large.open("#level=all")
    drawn = len(large.boxes())
    assert 2 <= drawn < OPS / 4
    assert large.page.evaluate(SEEN) >= 2
    last = large.page.evaluate("explorer.boxes.at(-2).id")
    assert last not in large.boxes()
    large.open(f"#level=all&box={last}")
    large.page.wait_for_selector(f'[data-box="{last}"]', state="attached")
    assert large.page.evaluate(SEEN) > 2
    assert len(large.boxes()) < OPS / 4


def test_far_away_a_large_graph_costs_little(large: Browser) -> None:
    large.open("#level=all")
    large.page.keyboard.press("f")
    large.page.wait_for_timeout(300)
    assert large.page.locator("#world *").count() < 4 * OPS
    sizes = large.page.eval_on_selector_all(
        "#world text", "all => all.map(e => e.getBoundingClientRect().height).filter(Boolean)"
    )
    assert all(size >= 6 for size in sizes)


def test_texts_far_away_are_titles_that_can_be_read(loop: Browser) -> None:
    loop.open("#level=op&view=0,0,0.3")
    shown = """() => [...document.querySelectorAll('#world text')]
      .filter((e) => e.getBoundingClientRect().height > 0)
      .map((e) => [e.textContent, e.getBoundingClientRect().height])"""
    far = loop.page.evaluate(shown)
    assert all(height >= 6 for _, height in far)
    assert not [text for text, _ in far if re.fullmatch(r"\(.*\)", text)], "no shapes"
    loop.open("#level=op&view=0,0,1")
    near = loop.page.evaluate(shown)
    assert any(re.fullmatch(r"\(.*\)", text) for text, _ in near)
    assert len(near) > len(far)


def test_a_change_of_level_begins_where_it_can_be_read_and_fit_shows_all(large: Browser) -> None:
    large.open("#level=arch")
    large.press('[data-base="all"]')
    until(large.page, "explorer.camera.k === 0.7")
    assert large.page.evaluate("explorer.camera.y") == 20
    large.page.keyboard.press("f")
    until(large.page, "explorer.camera.k < 0.1")


def test_a_loop_has_an_arrow_back_to_its_top(loop: Browser) -> None:
    loop.open("#level=op&view=0,0,1")
    arrow = loop.page.locator("#world .loop")
    assert arrow.count() == 1
    assert "h, 5 times" in arrow.text_content()
    box = loop.page.locator("#world .box:has(> .loop) > .frame").first.bounding_box()
    text = arrow.locator("text").first.bounding_box()
    assert text["x"] + text["width"] < box["x"], "beside the box, not on it"


def test_the_minimap_shows_where_one_is_and_moves_the_view(loop: Browser) -> None:
    loop.open("#level=op&view=0,0,2")
    loop.page.wait_for_timeout(100)
    place = loop.page.locator("#minimap").bounding_box()
    where = "explorer.camera.y"
    before = loop.page.evaluate(where)
    loop.page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] - 4)
    assert loop.page.evaluate(where) < before - 200
    loop.open("#level=arch&view=20,20,0.2")
    loop.page.wait_for_timeout(100)
    assert loop.page.locator("#minimap").is_hidden(), "all of it is in view"


def test_the_files_have_title_and_legend(loop: Browser, tmp_path: Path) -> None:
    loop.open("#level=op&view=0,0,0.3")
    with loop.page.expect_download() as download:
        loop.press("#svg")
    download.value.save_as(tmp_path / "graph.svg")
    text = (tmp_path / "graph.svg").read_text(encoding="utf-8")
    root = ET.fromstring(text)
    said = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert said[0] == "Loop"
    assert "matrix product" in said
    assert "(3, 4)" in said, "near or far, the file has all texts"
    assert 'class="text-large"' not in text
    assert "var(" not in text
    with loop.page.expect_download() as download:
        loop.press("#png")
    download.value.save_as(tmp_path / "graph.png")
    data = (tmp_path / "graph.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width == pytest.approx(2 * float(root.attrib["width"]), abs=2)
    assert height == pytest.approx(2 * float(root.attrib["height"]), abs=2)
