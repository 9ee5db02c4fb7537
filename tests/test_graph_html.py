"""The page that shows a graph, in a real browser: opened as a file, used by mouse and keys."""

from __future__ import annotations

import json
import re
import shutil
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.autograd import grad
from minitensor.graph.fold import fold
from minitensor.graph.html import page
from minitensor.graph.model import Graph, Node, Value
from minitensor.graph.scene import Box, Link, Tree
from minitensor.graph.trace import trace
from minitensor.graph.view import View
from models.transformer import Transformer, TransformerConfig

pytestmark = pytest.mark.pages


@pytest.fixture(scope="module")
def graph() -> Graph:
    mt.manual_seed(0)
    config = TransformerConfig(11, 13, d_model=16, nhead=2, dim_feedforward=48)
    tokens = mt.randint(1, 11, (3, 7)), mt.randint(1, 11, (3, 5))
    dims = {"N": 3, "S": 7, "L": 5, "E": 16, "nhead": 2}
    return trace(Transformer(config), *tokens, dims=dims, backward=True, decompose=True, stats=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine")
    with sync.sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-dev-shm-usage"]  # as containers need it
        browser = playwright.chromium.launch(executable_path=path, args=args)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "graph.html"
    path.write_text(page(graph, fold(graph)), encoding="utf-8")
    return path


def until(page: Any, expression: str) -> None:
    """Wait until a page finds an expression true.

    Playwright's own way of waiting evaluates a text inside the page, which the page forbids.
    """
    end = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(20)


class Browser:
    """A page in the browser, and what it should not have done."""

    def __init__(self, chromium: Any, file: Path, **options: Any) -> None:
        options.setdefault("reduced_motion", "reduce")
        self.file = file
        self.page = chromium.new_page(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, state: str = "") -> Browser:
        self.page.goto("about:blank")
        self.requests.clear()
        self.page.goto(self.file.as_uri() + state)
        return self

    def box(self, name: str) -> Any:
        return self.page.locator(f'[data-box="{name}"]')

    def boxes(self) -> list[str]:
        return self.page.eval_on_selector_all("[data-box]", "all => all.map(e => e.dataset.box)")

    def screen(self, name: str) -> dict[str, float]:
        rect = f"{json.dumps(f'[data-box={json.dumps(name)}]')}"
        return self.page.evaluate(
            f"document.querySelector({rect}).querySelector('.header').getBoundingClientRect().toJSON()"
        )

    def press(self, selector: str) -> None:
        """Click a button, below "more" if it is there."""
        if not self.page.locator(selector).is_visible():
            self.page.locator("#opened").click()
        self.page.locator(selector).click()

    def hash(self) -> str:
        return self.page.evaluate("location.hash")


def browsing(chromium: Any, folder: Path, graph: Graph) -> Iterator[Browser]:
    """Give a browser with the page of a graph, for a fixture; in the end it had no errors."""
    file = folder / "graph.html"
    file.write_text(page(graph, fold(graph)), encoding="utf-8")
    browser = Browser(chromium, file)
    yield browser
    assert not browser.errors
    browser.page.close()


@pytest.fixture
def browser(chromium: Any, file: Path) -> Iterator[Browser]:
    found = Browser(chromium, file)
    yield found.open()
    found.page.close()
    assert not found.errors
    assert [url.split("#")[0] for url in found.requests if not url.startswith("blob:")] == [
        file.as_uri()
    ], "the page asked for more than itself"


LAYER = "encoder.layers.0"
ATTENTION = f"{LAYER}.self_attn"


def test_the_page_is_small_and_whole(graph: Graph) -> None:
    text = page(graph, fold(graph))
    data = re.findall(r'<script id="\w+" type="application/json">(.*?)</script>', text, re.S)
    assert len(data) == 2
    assert len(text) - sum(map(len, data)) < 500_000
    assert not re.search(r'(src|href)="?https?:|@import|url\(', text)
    assert text == page(graph, fold(graph))


def test_what_is_clicked_before_the_panels_have_come_gets_its_panel(
    chromium: Any, file: Path
) -> None:
    browser = Browser(chromium, file)
    browser.page.add_init_script("""
      new MutationObserver((_, self) => {
        const row = document.querySelector('#rows .row');
        if (!row) return;
        self.disconnect();
        row.click();
        window.early = [document.readyState, document.getElementById('panel').hidden];
      }).observe(document, { childList: true, subtree: true });
    """)
    browser.open()
    assert browser.page.evaluate("early") == ["loading", True]
    assert browser.page.locator("#panel h2").inner_text()
    assert browser.page.locator("#panel dd").count()
    assert not browser.errors
    browser.page.close()


def test_unknown_level_and_overlay(graph: Graph) -> None:
    with pytest.raises(ValueError, match="level must be one of arch, block, op, full, not 'atoms'"):
        page(graph, fold(graph), View("atoms"))
    with pytest.raises(ValueError, match=r"overlay must be one of flops.*, not 'speed'"):
        page(graph, fold(graph), View(overlay="speed"))


@pytest.mark.parametrize("name", ["encoder", LAYER, ATTENTION, "decoder", "decoder.layers.0"])
def test_opening_a_group_draws_no_more_than_it_and_what_is_around_it(
    browser: Browser, name: str
) -> None:
    browser.open("#level=full&backward=1")
    browser.box(name).focus()
    browser.page.keyboard.press("Enter")
    closed = browser.boxes()
    browser.page.eval_on_selector_all("[data-box]", "all => all.forEach(e => { e.old = true })")
    browser.box(name).focus()
    browser.page.keyboard.press("Enter")
    anew = browser.page.eval_on_selector_all(
        "[data-box]", "all => all.filter(e => !e.old).map(e => e.dataset.box)"
    )
    around = browser.box(name).evaluate(
        """e => {
          const found = [];
          for (let b = e; b; b = b.parentElement?.closest("[data-box]")) found.push(b.dataset.box);
          return found;
        }"""
    )
    inside = set(browser.boxes()) - set(closed)
    assert inside
    # An open encoder stands beside the decoder: what it gives comes in there at the left.
    beside = browser.page.evaluate(
        """name => explorer.boxes.filter((box) => box.edges.some(
          ({ from, tensor }) => from === "\\nin" && tensor.name === "encoder_output"
        )).map((box) => box.id)""",
        name,
    )
    beside = beside if name == "encoder" else []
    assert set(anew) <= {*around, *inside, *beside}


def test_an_opened_fused_op_keeps_its_backward(browser: Browser) -> None:
    fused = f"{LAYER}.linear2"
    browser.open("#level=full&backward=1")
    browser.box(fused).focus()
    browser.page.keyboard.press("Enter")
    assert browser.box(fused).locator(":scope > .box").count() >= 2
    assert browser.box(fused).locator(":scope > .look-backward").count() == 0
    inner = browser.box(fused).locator(":scope > .box")
    assert inner.locator(":scope > .look-backward").count() == inner.count()


def test_only_what_is_touched_is_laid_out_again(browser: Browser) -> None:
    browser.open("#level=op")
    kept = browser.box("decoder.layers.0").element_handle()
    kept.evaluate("e => { e.kept = true }")
    browser.box(ATTENTION).focus()
    browser.page.keyboard.press("Enter")
    assert ATTENTION + "/matmul" not in browser.boxes()
    assert browser.box("decoder.layers.0").evaluate("e => e.kept === true")


def test_a_header_opens_and_stays_under_the_mouse(browser: Browser) -> None:
    browser.open(f"#level=block&box={ATTENTION}")
    before = browser.screen(ATTENTION)
    browser.box(ATTENTION).locator(".header").first.click()
    after = browser.screen(ATTENTION)
    assert ATTENTION + "/matmul" in browser.boxes()
    assert (before["x"], before["y"]) == pytest.approx((after["x"], after["y"]), abs=1)
    browser.box(ATTENTION).locator(".header").first.click()
    assert ATTENTION + "/matmul" not in browser.boxes()


def test_a_double_click_opens(browser: Browser) -> None:
    browser.open(f"#level=block&box={ATTENTION}")
    browser.box(ATTENTION).locator(".text-line").last.dblclick(force=True)
    assert ATTENTION + "/matmul" in browser.boxes()


def test_levels_and_expand_all(browser: Browser) -> None:
    counts, closed = [], []
    for base in ("none", "arch", "block", "op", "all"):
        browser.press(f'[data-base="{base}"]')
        counts.append(len(browser.boxes()))
        closed.append(browser.page.locator("#world [role=treeitem]:not(.open)").count())
    assert counts == sorted(counts)
    assert counts[0] < counts[2] < counts[4]
    assert closed[1] <= 15


# Boxes beside each other may not meet, nor texts reach beyond what they are in, nor texts meet.
OVERLAPS = """() => {
  const found = [];
  const rect = (e) => e.getBoundingClientRect();
  const all = (e, selector) => [...e.querySelectorAll(selector)];
  const meet = (a, b) => a.left < b.right - .5 && b.left < a.right - .5
    && a.top < b.bottom - .5 && b.top < a.bottom - .5;
  const within = (a, b, slack) => a.left >= b.left - slack && a.right <= b.right + slack
    && a.bottom <= b.bottom + slack;
  const body = (e) => (e.matches('.open') ? e.querySelector('.frame') : e);
  for (const group of all(document, '.box.open')) {
    const own = [...group.children];
    const boxes = own.filter((e) => e.matches('.box')).map((e) => [e.dataset.box, rect(body(e))]);
    const texts = own.filter((e) => e.matches('.edge'))
      .flatMap((e) => all(e, '.paper').map((p) => [e.textContent, rect(p)]));
    const solid = [...boxes, ...texts];
    solid.forEach(([a, r], i) => solid.slice(i + 1).forEach(([b, s]) => {
      if (meet(r, s)) found.push([a, b]);
    }));
    const frame = own.find((e) => e.matches('.frame'));
    for (const [name, r] of frame ? solid : []) {
      if (!within(r, rect(frame), 9)) found.push([name, 'leaves its frame']);  // 8: a fold's stack
    }
  }
  for (const box of all(document, '.box:not(.open)')) {
    const frames = all(box, ':scope > .look > .outline:not(.stacked)').map(rect);
    for (const text of all(box, ':scope > text')) {
      const holds = (f) => within(rect(text), f, .5);
      if (!frames.some(holds)) found.push([box.dataset.box, text.textContent]);
    }
  }
  for (const edge of all(document, '#world .edge')) {
    const paper = edge.querySelector('.paper');
    for (const text of all(edge, 'text')) {
      if (!within(rect(text), rect(paper), 1)) found.push([text.textContent, 'wide']);
    }
  }
  return found;
}"""


# Nor may a line run through a box, or the text of another.
CROSSINGS = """() => {
  const found = [];
  const all = (e, selector) => [...e.querySelectorAll(selector)];
  for (const group of all(document, '.box.open')) {
    const toGroup = group.getScreenCTM().inverse();
    const rect = (e) => {
      const { left, top, right, bottom } = e.getBoundingClientRect();
      return [[left, top], [right, bottom]].map((p) => new DOMPoint(...p).matrixTransform(toGroup));
    };
    const closed = ':scope > .box:not(.open) > .look > rect';
    const boxes = all(group, `:scope > .box.open > .frame, ${closed}`);
    const solid = [...boxes, ...all(group, ':scope > .edge > .paper')].map((e) => [e, rect(e)]);
    for (const edge of all(group, ':scope > .edge')) {
      const path = edge.querySelector('.wire');
      for (let at = 0; at < path.getTotalLength(); at += 6) {
        const { x, y } = path.getPointAtLength(at);
        for (const [e, [p, q]] of solid) {
          const inside = x > p.x + 3 && x < q.x - 3 && y > p.y + 3 && y < q.y - 3;
          if (inside && !edge.contains(e) && !e.matches('.stacked'))
            found.push([edge.textContent, e.parentNode.textContent]);
        }
      }
    }
  }
  return found;
}"""


@pytest.mark.parametrize(
    "state",
    [f"level={level}&backward={b}" for level in ("arch", "block", "op", "all") for b in (0, 1)]
    + ["level=full&backward=1&overlay=time"],
)
def test_nothing_overlaps_and_no_text_is_cut(browser: Browser, state: str) -> None:
    browser.open(f"#{state}&view=0,0,1")
    assert browser.page.evaluate(OVERLAPS) == []
    assert browser.page.evaluate(CROSSINGS) == []


@pytest.mark.parametrize("across", [0, 1])
def test_an_open_decoder_stands_beside_the_encoder(browser: Browser, across: int) -> None:
    beside, along = ("y", "x") if across else ("x", "y")
    wide = "height" if across else "width"
    for level, backward in (("block", 0), ("op", 0), ("full", 1)):
        browser.open(f"#level={level}&backward={backward}&across={across}&view=0,0,1")
        one, other = (
            browser.page.locator(f'[data-box="{name}"] > .frame').bounding_box()
            for name in ("encoder", "decoder")
        )
        assert one[along] == pytest.approx(other[along], abs=1)
        assert one[beside] + one[wide] < other[beside]
    browser.open(f"#level=block&close=encoder&across={across}&view=0,0,1")
    one = browser.box("encoder").bounding_box()
    other = browser.page.locator('[data-box="decoder"] > .frame').bounding_box()
    assert one[along] + 50 < other[along], "a closed one stands where its tensor comes from"


def test_every_edge_has_a_shape(browser: Browser) -> None:
    browser.open("#level=full&backward=1")
    edges = browser.page.eval_on_selector_all(
        "#world .edge",
        "all => all.map(e => e.querySelector('title').textContent)",
    )
    assert edges
    assert all(re.search(r"\(.*\)", title) for title in edges)
    heads = browser.page.eval_on_selector_all(
        "#world .edge:has(.head)",
        "all => all.map(e => e.matches('.backward') || e.querySelectorAll('text').length > 0)",
    )
    assert all(heads)
    shown = browser.page.locator("#world").text_content()
    assert "(N, S, E)" in shown
    assert "to all 6" in shown


def test_both_passes_and_what_is_saved(browser: Browser) -> None:
    browser.open("#level=op")
    assert not browser.page.locator(".edge.backward").count()
    browser.page.keyboard.press("b")
    assert browser.page.locator(".edge.backward").count()
    assert browser.page.locator(".saved").count()
    halves = browser.box(f"{LAYER}.linear2").evaluate(
        "e => [...e.querySelectorAll(':scope > .look > .outline')].map(r => r.height.baseVal.value)"
    )
    assert len(halves) == 2
    assert halves[0] == halves[1], "at the same height"
    browser.page.keyboard.press("b")
    assert not browser.page.locator(".edge.backward").count()


def test_search_opens_what_hides_a_hit(browser: Browser) -> None:
    browser.press('[data-base="none"]')
    assert LAYER not in browser.boxes()
    browser.page.keyboard.press("/")
    browser.page.keyboard.type("op:softmax path:decoder")
    assert browser.page.locator("#hits [role=option]").count() >= 2
    browser.page.keyboard.press("Enter")
    assert browser.page.locator("#hits").is_hidden()  # or it would lie over the panel
    first = browser.page.evaluate("explorer.state.selected.id")
    assert "softmax" in first
    assert first in browser.boxes()
    seen = browser.box(first).bounding_box()
    assert 0 < seen["x"] < 1280
    assert 0 < seen["y"] < 800
    browser.page.keyboard.press("ArrowDown")
    assert browser.page.evaluate("explorer.state.selected.id") != first
    browser.page.locator("#query").fill("shape:nhead")
    assert browser.page.locator("#hits").inner_text().count("nhead") >= 3
    browser.page.locator("#query").fill("nosuchthing")
    assert browser.page.locator("#hits").inner_text() == "nothing found"


def test_the_panel_tells_all_of_a_box(browser: Browser) -> None:
    browser.open(f"#level=op&box={LAYER}.linear2")
    text = browser.page.locator("#panel").inner_text()
    for said in (
        f"{LAYER}.linear2",
        "matrix products",
        "FLOP forward, ",
        "gradient norm",
        "ancestors",
        "READS",
        "MAKES",
        "transformer.py:",
    ):
        assert said in text
    assert browser.page.locator("#panel pre").inner_text()
    browser.page.locator("#panel .jump").last.click()
    assert browser.page.evaluate("explorer.state.selected.id") != f"{LAYER}.linear2"


def test_the_panel_tells_all_of_a_tensor(browser: Browser) -> None:
    browser.page.locator(".edge text").first.click()
    text = browser.page.locator("#panel").inner_text()
    for said in ("shape", "actual", "dtype", "bytes", "MADE BY", "READ BY"):
        assert said in text


def test_the_members_of_a_fold_have_their_own_numbers(browser: Browser) -> None:
    browser.open(f"#level=arch&box={LAYER}&overlay=gradnorm")
    assert browser.page.locator("#panel tr").count() == 7
    assert browser.box(LAYER).locator(".bar-of-one").count() == 6


def test_ancestors_and_descendants(browser: Browser) -> None:
    browser.open(f"#level=op&box={LAYER}.linear2")
    browser.page.keyboard.press("a")
    assert "lit" in browser.box("input:src").get_attribute("class")
    assert "lit" not in browser.box("decoder").get_attribute("class")
    browser.page.keyboard.press("a")
    browser.page.keyboard.press("d")
    assert "lit" not in browser.box("input:src").get_attribute("class").split()
    assert "lit" in browser.box("decoder").get_attribute("class")
    browser.page.keyboard.press("Escape")
    assert not browser.page.locator(".lit").count()


def test_overlays(browser: Browser) -> None:
    for name, unit in (
        ("flops", "FLOP"),
        ("bytes", "B"),
        ("time", "s"),
        ("gradnorm", ""),
        ("nan", "%"),
    ):
        browser.page.locator("#overlay").select_option(name)
        assert (
            browser.page.locator(".text-heat").first.text_content().split(" in ")[0].endswith(unit)
        )
        assert browser.page.locator("#legend .ramp").count() == 1


def test_a_function_without_modules(chromium: Any, tmp_path: Path) -> None:
    x, w = mt.randn(3, 4, requires_grad=True), mt.randn(4, 5, requires_grad=True)
    graph = trace(lambda x, w: (x @ w).exp().sum(), x, w, backward=True)
    file = tmp_path / "function.html"
    file.write_text(page(graph, fold(graph), View("full")), encoding="utf-8")
    browser = Browser(chromium, file).open()
    assert browser.page.locator("#world .edge.forward").count() == 5
    assert browser.page.locator("#world .edge.backward").count() == 5
    assert browser.page.evaluate(OVERLAPS) == []
    assert not browser.errors
    browser.page.close()


def test_a_gradient_of_a_gradient_has_a_page() -> None:
    w = mt.randn(3, requires_grad=True)

    def norm_of_gradient(x: Tensor) -> Tensor:
        (g,) = grad(((x * w).sin() ** 2).sum(), w, create_graph=True)
        return (g * g).sum()

    graph = trace(norm_of_gradient, mt.randn(2, 3), backward=True)
    assert "explorer" in page(graph, fold(graph))


def test_a_page_begins_with_boxes_opened_and_closed(tmp_path: Path) -> None:
    graph = trace(Transformer(TransformerConfig(7, 7)), *[mt.zeros(1, 2, dtype=mt.int64)] * 2)
    with pytest.raises(ValueError, match="no box is called 'nowhere'"):
        graph.save(tmp_path / "t.html", expand="nowhere")
    assert not list(tmp_path.iterdir())
    graph.save(tmp_path / "t.html", level="arch", collapse="decoder")
    graph.save(tmp_path / "whole.html", level="arch")
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert text != (tmp_path / "whole.html").read_text(encoding="utf-8")


def test_an_overlay_without_data_is_disabled(chromium: Any, tmp_path: Path) -> None:
    tensor = mt.randn(3, 4, requires_grad=True)
    graph = trace(lambda x: x.exp().sum(), tensor)
    file = tmp_path / "bare.html"
    file.write_text(page(graph, fold(graph)), encoding="utf-8")
    browser = Browser(chromium, file).open()
    assert browser.page.locator("#overlay option[value=time]").is_disabled()
    assert "stats=True" in browser.page.locator("#overlay option[value=time]").get_attribute(
        "title"
    )
    assert browser.page.locator("#backward").is_disabled()
    assert not browser.errors
    browser.page.close()


def test_keyboard(browser: Browser) -> None:
    browser.open("#level=arch")
    browser.page.keyboard.press("ArrowDown")
    focused = "document.activeElement.dataset.box"
    assert browser.page.evaluate(focused) == "input:src"
    browser.page.keyboard.press("ArrowDown")
    assert browser.page.evaluate(focused) == "input:tgt"
    browser.box("encoder").focus()
    browser.page.keyboard.press("ArrowRight")
    assert browser.page.evaluate(focused) == LAYER
    browser.page.keyboard.press("Enter")
    assert browser.box(LAYER).get_attribute("aria-expanded") == "true"
    assert browser.page.evaluate(focused) == LAYER, "it keeps the focus"
    browser.page.keyboard.press("ArrowLeft")
    assert browser.page.evaluate(focused) == "encoder"
    browser.page.keyboard.press("Tab")
    assert browser.page.evaluate(focused) == LAYER
    browser.page.keyboard.press("?")
    assert browser.page.locator("#keys").is_visible()
    browser.page.keyboard.press("Escape")
    zoom = "new DOMMatrix(getComputedStyle(document.getElementById('world')).transform).a"
    before = browser.page.evaluate(zoom)
    browser.page.keyboard.press("+")
    assert browser.page.evaluate(zoom) == pytest.approx(before * 1.25, rel=1e-2)
    browser.page.keyboard.press("o")
    assert browser.page.evaluate("explorer.state.overlay") == "flops"


def test_pan_and_zoom_by_mouse(browser: Browser) -> None:
    where = "document.getElementById('world').getAttribute('transform')"
    before = browser.page.evaluate(where)
    browser.page.mouse.move(460, 400)
    browser.page.mouse.down()
    browser.page.mouse.move(560, 450, steps=4)
    browser.page.mouse.up()
    moved = browser.page.evaluate(where)
    assert moved != before
    browser.page.mouse.wheel(0, -200)
    until(browser.page, f"{where} !== {json.dumps(moved)}")
    browser.page.keyboard.press("f")
    browser.page.wait_for_timeout(300)
    root = browser.page.locator("#world").bounding_box()
    assert root["y"] >= 0
    assert root["y"] + root["height"] <= 800


def test_a_deep_link_restores_everything(browser: Browser) -> None:
    browser.open(f"#level=block&box={ATTENTION}")
    browser.box(ATTENTION).locator(".header").first.click()
    browser.page.locator("#overlay").select_option("bytes")
    browser.page.keyboard.press("b")
    browser.page.keyboard.press("d")
    browser.page.keyboard.press("+")
    browser.page.wait_for_timeout(300)
    link, world = browser.hash(), browser.page.locator("#world").evaluate("e => e.outerHTML")
    panel = browser.page.locator("#panel").inner_text()
    browser.open(link)
    assert browser.page.locator("#world").evaluate("e => e.outerHTML.length") == len(world)
    assert browser.page.locator("#panel").inner_text() == panel
    assert browser.hash() == link


def test_back_and_forward(browser: Browser) -> None:
    browser.open(f"#level=block&box={ATTENTION}")
    browser.box(ATTENTION).locator(".header").first.click()
    assert ATTENTION + "/matmul" in browser.boxes()
    browser.page.evaluate("history.back()")
    until(browser.page, f"!document.querySelector('[data-box=\"{ATTENTION}/matmul\"]')")
    browser.page.evaluate("history.forward()")
    browser.page.wait_for_selector(f'[data-box="{ATTENTION}/matmul"]', state="attached")


def test_the_picture_downloads_as_svg(browser: Browser, tmp_path: Path) -> None:
    browser.open("#level=full&backward=1")
    with browser.page.expect_download() as download:
        browser.page.keyboard.press("s")
    path = tmp_path / "graph.svg"
    download.value.save_as(path)
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = "".join(root.itertext())
    assert "(N, S, E)" in text
    assert "var(" not in path.read_text(), "styles are written out"
    wires = [e for e in root.iter() if e.get("class") == "wire"]
    assert wires
    assert all(e.get("fill") == "none" and e.get("stroke") for e in wires)


def test_hostile_names_stay_text(chromium: Any, tmp_path: Path) -> None:
    bad = '</script><script>window.owned = 1</script><img src=x onerror="window.owned = 1">'
    values = [
        Value("input:x", "input", (2,), "float32", 8, ("2",), [bad]),
        Value("n:0", "activation", (2,), "float32", 8, (bad,), [bad], producer="n"),
    ]
    node = Node("n", bad, "", ["input:x"], ["n:0"], [bad], {bad: bad}, source=bad, code=bad)
    graph = Graph(
        bad, {}, ["input:x"], ["n:0"], {v.id: v for v in values}, {"n": node}, {}, notes=[bad]
    )
    boxes = [
        Box("", "module", bad, None, ["input:x", "n"], height=1),
        Box("input:x", "input", bad, ""),
        Box("n", "op", bad, "", node="n", path=bad),
    ]
    tree = Tree("", {b.id: b for b in boxes}, [Link("input:x", "n", "input:x", port=bad)])
    file = tmp_path / "bad.html"
    file.write_text(page(graph, tree), encoding="utf-8")
    browser = Browser(chromium, file).open("#box=n")
    browser.page.keyboard.press("?")
    assert browser.page.evaluate("window.owned") is None
    assert bad in browser.page.locator("#panel").text_content()
    assert not browser.errors
    browser.page.close()


@pytest.mark.parametrize(("width", "height"), [(800, 600), (1280, 800), (1920, 1080)])
def test_it_fits_the_window(chromium: Any, file: Path, width: int, height: int) -> None:
    browser = Browser(chromium, file, viewport={"width": width, "height": height}).open()
    assert browser.page.evaluate("document.documentElement.scrollWidth") <= width
    for button in browser.page.locator("header button:visible").all():
        place = button.bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= width
    browser.page.close()


def test_dark_mode(chromium: Any, file: Path) -> None:
    browser = Browser(chromium, file, color_scheme="dark").open()
    paper = "getComputedStyle(document.body).backgroundColor"
    assert browser.page.evaluate(paper) == "rgb(21, 23, 28)"
    browser.press("#theme")
    assert browser.page.evaluate(paper) == "rgb(251, 251, 250)"
    browser.page.close()


def test_marks_colour_the_boxes_and_the_legend_says_so(chromium: Any, tmp_path: Path) -> None:
    x = mt.randn(3, 4)
    graph = trace(lambda x: x.exp().sin().sum(), x)
    nodes = list(graph.nodes)
    marks = dict(zip(nodes, ("moved", "same", "removed"), strict=True))
    file = tmp_path / "marks.html"
    file.write_text(page(graph, fold(graph), View("op"), marks, ["compared"]), encoding="utf-8")
    browser = Browser(chromium, file).open()
    assert browser.page.evaluate("explorer.state.overlay") == "changed"
    said = [browser.box(node).locator(".text-heat").all_text_contents() for node in nodes]
    assert said == [["moved"], [], ["removed"]]
    legend = browser.page.locator("#legend").inner_text()
    assert "moved" in legend
    assert "removed" in legend
    assert "added" not in legend, "it speaks of what there is"
    assert "compared" in page(graph, fold(graph), View("op"), marks, ["compared"])
    assert not browser.errors
    browser.page.close()


FRAME = """<!doctype html><title>frame</title><iframe id="f" width="1000" height="700"></iframe>
<script>
window.heard = [];
window.addEventListener("message", ({ data }) => window.heard.push(data));
const tell = (data) => document.getElementById("f").contentWindow.postMessage(data, "*");
</script>"""


def test_a_page_in_a_frame_tells_and_hears(chromium: Any, graph: Graph, file: Path) -> None:
    """As in a notebook: without an address, and without storage, of its own."""
    browser = Browser(chromium, file)
    tab = browser.page
    tab.set_content(FRAME)
    tab.evaluate(
        """text => new Promise(done => {
          const frame = document.getElementById("f");
          frame.sandbox = "allow-scripts";
          frame.onload = done;
          frame.srcdoc = text;
        })""",
        file.read_text(encoding="utf-8"),
    )
    frame = tab.frames[1]

    def heard(kind: str) -> list[dict[str, Any]]:
        tab.wait_for_timeout(80)
        return [data for data in tab.evaluate("heard") if data["minitensor"] == kind]

    def told(message: dict[str, Any], end: str) -> None:
        tab.evaluate("data => tell(data)", message)
        until(frame, end)
        tab.wait_for_timeout(80)

    selected = "explorer.state.selected?.id"
    assert tab.evaluate("heard") == [], "nothing was done yet"
    told({"minitensor": "select", "id": ATTENTION}, f"{selected} === '{ATTENTION}'")
    member = "encoder.layers.3.linear1/linear"  # an op of another member of the fold
    drawn = f"{LAYER}.linear1"
    told({"minitensor": "select", "id": member}, f"{selected} === '{drawn}'")
    assert frame.evaluate("[...explorer.state.members.values()]") == [3]
    told({"minitensor": "open", "ids": ["encoder"]}, "explorer.state.open.size === 1")
    told({"minitensor": "view", "x": 10, "y": 20, "scale": 0.5}, "explorer.camera.k === 0.5")
    for nonsense in (7, None, {"minitensor": "view", "x": "a"}, {"minitensor": "toString"}):
        tab.evaluate("data => tell(data)", nonsense)
    told({"minitensor": "select", "id": None}, "explorer.state.selected === null")
    told({"minitensor": "select", "id": "nowhere"}, "explorer.state.selected === null")
    assert tab.evaluate("heard") == [], "it does not echo"

    frame.locator('[data-box="decoder"]').focus()
    tab.keyboard.press("Enter")
    assert heard("select") == [{"minitensor": "select", "id": "decoder"}]
    assert [sorted(data["ids"]) for data in heard("open")] == [["decoder", "encoder"]]
    tab.mouse.move(300, 350)
    tab.mouse.wheel(0, -200)
    until(tab, "heard.some(data => data.minitensor === 'view')")
    last = heard("view")[-1]
    assert last["scale"] == pytest.approx(frame.evaluate("explorer.camera.k"))
    assert not browser.errors
    tab.close()


def test_figures_and_trail_are_always_in_sight(browser: Browser) -> None:
    whole = browser.page.locator("#whole")
    assert "N=3, S=7, L=5" in whole.inner_text()
    assert "parameters" in whole.inner_text()
    assert "matrix products" in whole.inner_text()
    browser.open(f"#level=block&box={ATTENTION}")
    trail = browser.page.locator("#parts li")
    assert trail.all_inner_texts() == [
        "Transformer",
        "encoder",
        "layers.0-5",
        "sublayer",
        "self_attn",
    ]
    assert browser.page.locator("#amounts").inner_text().startswith("each of 6: 1.09 k parameters")
    assert whole.is_visible()
    trail.nth(1).locator("button").click()
    assert browser.page.evaluate("explorer.state.selected.id") == "encoder"


def test_the_outline_follows_and_steers(browser: Browser) -> None:
    browser.open("#level=block")
    rows = browser.page.locator("#rows .row")
    assert rows.filter(has_text="EncoderLayer x6").count() == 1
    tree = browser.page.locator("#tree")
    tree.focus()
    browser.page.keyboard.press("End")
    browser.page.keyboard.press("Home")
    browser.page.keyboard.press("ArrowDown")
    assert browser.page.evaluate("explorer.state.selected.id") == "input:tgt"
    row = browser.page.locator("#rows .row", has_text="self_attn").first
    row.click()
    assert browser.page.evaluate("explorer.state.selected.id") == ATTENTION
    assert row.get_attribute("aria-selected") == "true"
    active = tree.get_attribute("aria-activedescendant")
    assert active == row.get_attribute("id")
    tree.focus()
    browser.page.keyboard.press("ArrowRight")
    assert ATTENTION + "/matmul" in browser.boxes(), "the box opens in the picture"
    assert browser.page.locator(f"#{active}").get_attribute("aria-expanded") == "true"
    browser.page.locator(f"#{active} .twist").click()
    assert ATTENTION + "/matmul" not in browser.boxes()
    assert browser.page.evaluate("document.activeElement.id") == "tree", "the focus stays"
    browser.page.locator("#outlined").click()
    assert browser.page.locator("#outline").is_hidden()
    assert "outline=0" in browser.page.evaluate("explorer.address()")


def test_the_outline_makes_only_rows_in_sight(chromium: Any, tmp_path: Path) -> None:
    def chain(x: Tensor) -> Tensor:
        for step in range(150):
            x = x.exp() if step % 3 else x.sin() if step % 2 else x.cos()
        return x

    graph = trace(chain, mt.randn(3))
    file = tmp_path / "chain.html"
    file.write_text(page(graph, fold(graph, False), View("op")), encoding="utf-8")
    browser = Browser(chromium, file).open("#level=all")
    assert browser.page.evaluate("explorer.visible().length") > 150
    assert 0 < browser.page.locator("#rows .row").count() < 60
    browser.page.locator("#tree").focus()
    browser.page.keyboard.press("End")
    assert browser.page.locator("#rows .row").last.get_attribute("aria-selected") == "true"
    assert not browser.errors
    browser.page.close()


def test_a_member_of_a_fold_shows_its_own_numbers(browser: Browser, graph: Graph) -> None:
    weight = "parameter:encoder.layers.3.linear2.weight"
    norm = graph.values[weight].grad_norm
    browser.open(f"#level=block&box={LAYER}")
    browser.page.locator("#panel tr button", has_text="encoder.layers.3").click()
    said = "encoder.layers.3 of encoder.layers.0-5"
    assert browser.page.locator("#panel .member select").input_value() == "3"
    assert said in browser.page.locator("#world").text_content()
    assert browser.page.locator("#panel dd").first.inner_text() == "encoder.layers.3"
    assert browser.page.evaluate("document.activeElement.textContent") == "encoder.layers.3"
    browser.open(f"#tensor=parameter:{LAYER}.linear2.weight&level=op&members=3@{LAYER}")
    assert weight in browser.page.locator("#panel").inner_text()
    assert f"{norm:.6g}" in browser.page.locator("#panel").inner_text()
    browser.page.locator("#panel .member select").select_option(label="all 6")
    assert weight not in browser.page.locator("#panel").inner_text()
    assert "numbers of parameter:encoder.layers.0." in browser.page.locator("#panel").inner_text()


def test_search_ranks_and_finds_members(browser: Browser) -> None:
    options = browser.page.locator("#hits [role=option]")
    query = browser.page.locator("#query")
    query.fill("linear")
    first = options.first.inner_text()
    assert first.split()[0].lower() == "linear", "exact names come first"
    query.fill("op:/soft.*max|relu/")
    assert options.count() >= 2
    query.fill("/(/")
    assert "regular expression" in browser.page.locator("#hits").inner_text().lower()
    query.fill("encoder.layers.3")
    assert "encoder.layers.3" in options.first.inner_text()
    browser.page.keyboard.press("Enter")
    assert browser.page.evaluate("explorer.state.selected.id") == LAYER
    assert browser.page.evaluate("[...explorer.state.members.values()]") == [3]
    query.fill("softmax")
    browser.page.locator("#marked").click()
    marked = browser.page.locator("#world .hit").count()
    assert marked
    assert "find=softmax&marked=1" in browser.page.evaluate("explorer.address()")
    browser.page.locator("#marked").click()
    assert not browser.page.locator("#world .hit").count()


def test_the_panel_shows_the_lines_around_and_opens_them(browser: Browser) -> None:
    browser.open(f"#level=op&box={LAYER}.linear2")
    code = browser.page.locator("#panel pre")
    assert code.locator("mark").count() == 1
    assert "self.linear2(" in code.locator("mark").inner_text()
    assert len(code.inner_text().strip().splitlines()) == 7
    link = browser.page.locator("#panel .file a")
    path = Path(__file__).parents[1] / "models" / "transformer.py"
    assert link.get_attribute("href") == path.as_uri()
    browser.page.locator("#panel .file select").select_option("vscode")
    assert re.fullmatch(r"vscode://file/.*transformer\.py:\d+", link.get_attribute("href"))
    browser.open(f"#level=op&box={LAYER}.linear1")
    assert link.get_attribute("href").startswith("vscode:"), "the choice is kept"
    browser.page.locator("#panel .file select").select_option("file")


def test_a_tensor_of_a_member_is_found_by_its_id(browser: Browser) -> None:
    name = "parameter:encoder.layers.3.linear2.weight"
    browser.page.locator("#query").fill(name)
    browser.page.keyboard.press("Enter")
    assert browser.page.evaluate("explorer.state.selected.id") == name.replace("3", "0")
    assert browser.page.evaluate("[...explorer.state.members.values()]") == [3]
    assert name in browser.page.locator("#panel").inner_text()
    for query in ("op:re:soft.*max|relu", "re:^(softmax|relu)$"):
        browser.page.locator("#query").fill(query)
        assert browser.page.locator("#hits [role=option]").count() >= 2


def test_a_link_shows_the_same_place_in_a_window_of_any_size(chromium: Any, file: Path) -> None:
    browser = Browser(chromium, file).open("#level=op&view=300,900,0.8")
    wide = browser.page.evaluate("explorer.address()")
    browser.page.set_viewport_size({"width": 900, "height": 500})
    browser.open(wide)
    assert browser.page.evaluate("explorer.address()") == wide
    assert "view=300%2C900%2C0.8" in wide
    browser.page.close()


def test_the_head_is_two_lines_of_text_and_one_of_buttons(chromium: Any, file: Path) -> None:
    for width, most in ((1280, 82), (1920, 64), (390, 150)):
        size = {"width": width, "height": 800}
        browser = Browser(chromium, file, viewport=size).open("#level=full&backward=1")
        assert browser.page.locator("main").bounding_box()["y"] <= most
        assert browser.page.locator("#legend").is_visible() == (width > 700)
        browser.press("#help")
        assert browser.page.locator("#keys").is_visible()
        browser.page.close()


def test_the_panel_does_not_hide_what_is_selected(browser: Browser) -> None:
    box = browser.box("input:tgt")
    browser.open("#level=arch&view=0,100,1")
    place = box.bounding_box()
    right = place["x"] + place["width"]
    browser.open(f"#level=arch&view={right - 1260},100,1")
    assert box.bounding_box()["x"] > 1000
    box.click()
    until(browser.page, "location.hash.includes('box=input')")
    browser.page.wait_for_timeout(600)
    place = box.bounding_box()
    panel = browser.page.locator("#panel").bounding_box()
    assert place["x"] + place["width"] <= panel["x"]


def test_a_bookmark_brings_everything_back(browser: Browser) -> None:
    browser.open(f"#level=block&box={ATTENTION}&members=2@{LAYER}&overlay=flops")
    browser.page.keyboard.press("m")
    browser.page.locator("#naming").fill("mine")
    browser.page.keyboard.press("Enter")
    browser.page.get_by_role("button", name="close", exact=True).click()
    before = browser.page.evaluate("explorer.address()")
    browser.open("#level=arch")
    browser.press("#kept")
    browser.page.get_by_role("button", name="mine", exact=True).click()
    assert browser.page.evaluate("explorer.address()") == before
    browser.press("#kept")
    browser.page.get_by_role("button", name="Delete mine").click()
    assert "None yet" in browser.page.locator("#bookmarks").inner_text()


def test_on_a_phone(chromium: Any, file: Path) -> None:
    options = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    browser = Browser(chromium, file, **options).open("#level=block")
    tab = browser.page
    tab.locator("#opened").tap()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    small = "all => all.map(e => e.getBoundingClientRect()).filter(r => r.height && r.height < 40)"
    assert tab.eval_on_selector_all("header button, header select, header input", small) == []
    tab.locator("#opened").tap()
    tab.locator("#outlined").tap()
    tab.locator("#rows .row", has_text="self_attn").first.tap()
    assert tab.locator("#outline").is_hidden(), "it gives way to the picture"
    assert tab.evaluate("explorer.state.selected.id") == ATTENTION
    sheet = tab.locator("#panel").bounding_box()
    assert sheet["y"] > 300
    assert sheet["width"] == 390
    seen = browser.box(ATTENTION).bounding_box()
    assert seen["y"] + 20 < sheet["y"]
    tab.locator("#panel .close").tap()
    browser.box(ATTENTION).evaluate(
        """e => {
          const { x, y } = e.getBoundingClientRect();
          const at = { clientX: x + 30, clientY: y + 40, bubbles: true, pointerId: 9 };
          const event = (name) => new PointerEvent(name, { ...at, pointerType: "touch" });
          e.querySelector(".outline").dispatchEvent(event("pointerdown"));
          setTimeout(() => window.dispatchEvent(event("pointerup")), 700);
        }"""
    )
    tab.wait_for_selector(f'[data-box="{ATTENTION}/matmul"]', state="attached")
    assert not browser.errors
    tab.close()


def test_notes_are_behind_a_button_in_sight(chromium: Any, tmp_path: Path) -> None:
    graph = trace(lambda x: x.exp(), mt.randn(3))
    graph.notes = ["one thing", "another"]
    file = tmp_path / "notes.html"
    file.write_text(page(graph, fold(graph)), encoding="utf-8")
    browser = Browser(chromium, file).open()
    browser.page.get_by_role("button", name="2 notes").click()
    assert "another" in browser.page.locator("#notes").inner_text()
    browser.page.close()


class Rows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows = [x.narrow(1, 0, 2) * at for at in range(1, 13)]
        return mt.stack([row.exp().sin().cos() for row in rows])


class Late(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.end = Rows(), nn.Linear(2, 2)

    def forward(self, late: Tensor) -> Tensor:
        summed: Tensor = self.rows(mt.ones(3, 4)).sum(0)
        return self.end(summed) + late


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_opens_where_boxes_and_titles_are(chromium: Any, tmp_path: Path, width: int) -> None:
    trace(Late(), mt.rand(3, 2)).save(tmp_path / "late.html")
    browser = Browser(chromium, tmp_path / "late.html")
    browser.page.set_viewport_size({"width": width, "height": 800})
    browser.open("#level=op")
    room, places = browser.page.evaluate("""() => {
      const place = (e) => {
        const { left, top, right, bottom } = e.getBoundingClientRect();
        return [left, top, right, bottom];
      };
      const all = [...document.querySelectorAll("[data-box]")].map(place);
      return [place(document.querySelector("#picture")), all];
    }""")
    begins = [room[0] <= left and room[1] <= top for left, top, *_ in places]
    assert all(begins), "something begins at the left of the window, or above it"
    assert sum(right <= room[2] and bottom <= room[3] for *_, right, bottom in places) >= 3
    browser.page.close()
