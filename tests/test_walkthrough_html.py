"""The page of a walkthrough in a real browser: stepped through by keys, read, clicked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_graph_html import Browser, chromium, until

from minitensor.models.walkthrough import gpt, page

__all__ = ["chromium"]  # the fixture


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("walk") / "walkthrough.html"
    path.write_bytes(page(gpt.walkthrough(steps=2)))
    return path


@pytest.fixture
def browser(chromium: Any, file: Path) -> Iterator[Browser]:
    found = Browser(chromium, file)
    yield ready(found.open())
    found.page.close()
    assert not found.errors
    assert [url.split("#")[0] for url in found.requests if not url.startswith("blob:")] == [
        file.as_uri()
    ], "the page asked for more than itself"


def ready(browser: Browser) -> Browser:
    browser.page.wait_for_selector("#walk-tensors figure")
    return browser


def title(browser: Browser) -> str:
    return browser.page.locator("#chapter").inner_text()


def press(browser: Browser, *keys: str) -> None:
    for key in keys:
        browser.page.keyboard.press(key)


SOFTMAX = "11. Softmax: scores become shares"
STEPS = "explorer.walk.steps.length"


def test_every_chapter_by_keys_alone(browser: Browser) -> None:
    seen = []
    count = browser.page.evaluate(STEPS)
    assert count > 25
    for number in range(count):
        seen.append(title(browser))
        assert browser.page.locator("#walk-count").inner_text() == f"{number + 1} of {count}"
        assert browser.page.locator("#walk-tensors figure").count() > 0
        lit = browser.page.locator(".code-line.now").count()
        assert lit > 0 or "steps of training" in seen[-1]
        press(browser, "ArrowRight")
    assert title(browser) == seen[-1], "the last chapter stays"
    assert seen[0].startswith("One training iteration")
    assert len(set(seen)) >= len(seen) - 1
    press(browser, "ArrowLeft")
    assert title(browser) == seen[-2]
    press(browser, "Home")
    assert title(browser) == seen[0]
    press(browser, "End")
    assert title(browser) == seen[-1]


def test_every_chapter_fits_the_window(browser: Browser) -> None:
    for size in ((1280, 800), (390, 844)):
        browser.page.set_viewport_size({"width": size[0], "height": size[1]})
        press(browser, "Home")
        for _ in range(browser.page.evaluate(STEPS)):
            assert browser.page.evaluate("document.documentElement.scrollWidth") <= size[0]
            line = browser.page.locator("#walk-line").bounding_box()
            assert line is not None
            assert line["y"] + line["height"] <= size[1] + 1
            pane = browser.page.locator("#walk-tensors").bounding_box()
            assert pane is not None
            assert pane["height"] > 200
            press(browser, "ArrowRight")


def test_a_step_is_quick_and_so_is_the_first_paint(browser: Browser) -> None:
    times = browser.page.evaluate(
        """async () => {
          const found = [];
          for (let i = 1; i < explorer.walk.steps.length; i += 1) {
            const begun = performance.now();
            const event = new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true });
            document.body.dispatchEvent(event);
            document.body.offsetHeight;
            found.push(performance.now() - begun);
            await new Promise((done) => setTimeout(done, 20));
          }
          return found.sort((a, b) => a - b);
        }"""
    )
    assert times[len(times) // 2] < 50
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    paints = []
    for _ in range(4):
        until(browser.open().page, paint)
        paints.append(browser.page.evaluate(paint))
    assert min(paints) < 1000


def test_the_boxes_of_a_chapter_are_lit_in_the_graph(browser: Browser) -> None:
    browser.page.locator("#walk-line select").select_option(
        label="11. Softmax: scores become shares"
    )
    browser.page.wait_for_selector(".told")
    lit = browser.page.eval_on_selector_all(".told", "all => all.map((e) => e.dataset.box)")
    assert lit == ["model.blocks.0.attention/scaled_dot_product_attention/softmax"]
    stage = browser.page.locator("#stage").bounding_box()
    box = browser.page.locator(".told").bounding_box()
    assert stage is not None
    assert box is not None
    assert stage["y"] <= box["y"]
    assert box["y"] + box["height"] <= stage["y"] + stage["height"]


def test_folded_blocks_open_and_fold(browser: Browser) -> None:
    before = browser.page.evaluate(STEPS)
    at = browser.page.evaluate("explorer.walk.steps.findIndex((s) => s.chapter.inner)")
    press(browser, *["ArrowRight"] * at)
    assert title(browser) == "The same 2 times more"
    press(browser, "e")
    assert browser.page.evaluate(STEPS) == before + 23
    assert title(browser).startswith("Norm")
    assert browser.page.locator(".part").inner_text() == "Block 2"
    press(browser, "ArrowRight", "e")
    assert title(browser) == "The same 2 times more"
    assert browser.page.evaluate(STEPS) == before


def test_it_plays_by_itself(chromium: Any, file: Path) -> None:
    browser = Browser(chromium, file)
    browser.page.clock.install()
    ready(browser.open())
    first = title(browser)
    press(browser, " ")
    assert browser.page.get_by_role("button", name="pause").is_visible()
    browser.page.clock.run_for(60_000)
    assert title(browser) != first
    press(browser, " ")
    now = title(browser)
    browser.page.clock.run_for(60_000)
    assert title(browser) == now
    assert not browser.errors
    browser.page.close()


def test_a_number_tells_where_it_comes_from(browser: Browser) -> None:
    browser.page.locator("#walk-line select").select_option(
        label="11. Softmax: scores become shares"
    )
    figures = browser.page.locator("#walk-tensors figure")
    view = figures.nth(1).locator(".view")
    view.focus()
    press(browser, "ArrowDown", "Enter")
    origin = browser.page.locator(".origin")
    assert "exp" in origin.inner_text() or "e" in origin.inner_text()
    assert title(browser).startswith("Softmax"), "arrows in a map move over its cells"
    said = figures.nth(1).locator(".said").inner_text()
    assert said.split(" = ")[1] == origin.inner_text().split(" = ")[0]
    origin.get_by_role("button").first.click()
    assert browser.page.locator(".origin").count() == 1


def test_the_whole_graph_and_back(browser: Browser) -> None:
    press(browser, "ArrowRight", "ArrowRight")
    now = title(browser)
    press(browser, "g")
    assert not browser.page.locator("#walk-text").is_visible()
    assert browser.page.locator("#levels").is_visible()
    assert browser.page.locator(".told").count() == 0
    press(browser, "w")
    assert title(browser) == now


def test_a_link_leads_to_a_chapter(chromium: Any, file: Path) -> None:
    browser = ready(Browser(chromium, file).open("#chapter=10"))
    assert title(browser).startswith("The mask")
    assert browser.hash() == "#chapter=10"
    press(browser, "ArrowRight")
    assert browser.hash() == "#chapter=11"
    browser.page.evaluate("location.hash = '#chapter=3'")
    until(browser.page, "document.getElementById('chapter').textContent.includes('target')")
    browser.page.close()


def test_one_slider_turns_all_tensors_to_a_training_step(browser: Browser) -> None:
    press(browser, "End")
    assert title(browser) == "2 steps of training"
    sliders = browser.page.locator('.slider:has(b:text-is("step")) input')
    assert sliders.count() == 4
    sliders.first.focus()
    press(browser, "ArrowRight")
    assert [sliders.nth(i).input_value() for i in range(4)] == ["1"] * 4
    assert "step 1" in browser.page.locator("figure").first.inner_text()


def test_narrow_windows_show_one_part_at_a_time(browser: Browser) -> None:
    browser.page.set_viewport_size({"width": 390, "height": 844})
    parts = {"numbers": "#walk-tensors", "code": "#walk-code", "graph": "#stage"}
    for name in parts:
        browser.page.get_by_role("button", name=name, exact=True).click()
        for other, place in parts.items():
            assert browser.page.locator(place).is_visible() == (other == name)
        browser.page.wait_for_timeout(100)
    assert browser.page.locator(".told").count() > 0


def test_what_a_screen_reader_is_told(browser: Browser) -> None:
    text = browser.page.locator("#walk-text")
    assert text.get_attribute("aria-live") == "polite"
    assert text.get_attribute("aria-labelledby") == "chapter"
    names = browser.page.eval_on_selector_all(
        "#walk-line button, #walk-line select, #walk-tensors [tabindex], #walk-code [tabindex]",
        "all => all.map((e) => e.getAttribute('aria-label') || e.textContent)",
    )
    assert all(names)
    current = browser.page.locator('#walk-strip [aria-current="step"]')
    assert current.count() == 1
    assert (current.get_attribute("aria-label") or "").startswith("1: One training iteration")
    assert browser.page.locator('.code-line[aria-current="step"]').count() > 0
