"""Pages before a person's eyes: in a notebook, in the browser, and two of them side by side."""

from __future__ import annotations

import html
import json
import re
import sys
import types
import webbrowser
from pathlib import Path
from typing import Any

import pytest

import minitensor as mt
from minitensor import graph, nn
from minitensor.graph import Graph
from minitensor.graph.diff import Difference


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def small() -> Graph:
    mt.manual_seed(0)
    return graph.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), mt.rand(2, 3))


def norms() -> Difference:
    def before(x: mt.Tensor, y: mt.Tensor) -> mt.Tensor:
        return ((x + y).softmax(-1) * 2).exp()

    def after(x: mt.Tensor, y: mt.Tensor) -> mt.Tensor:
        return (x + y).softmax(0).exp().sin()

    x, y = mt.rand(2, 3), mt.rand(2, 3)
    return graph.trace(before, x, y).diff(graph.trace(after, x, y))


def framed(element: str) -> str:
    """Return the page in a frame."""
    (source,) = re.findall(r'<iframe srcdoc="([^"]*)"', element)
    return html.unescape(source)


def test_a_notebook_shows_the_page_in_a_frame(small: Graph, tmp_path: Path) -> None:
    small.save(tmp_path / "small.html")
    bundle: Any = small
    shown = bundle._repr_mimebundle_()
    assert framed(shown["text/html"]) == (tmp_path / "small.html").read_text()
    assert "Linear" in shown["text/plain"]


def test_show_opens_the_browser(
    small: Graph, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    def browse(url: str) -> bool:
        opened.append(url)
        return len(opened) < 2

    monkeypatch.setattr(webbrowser, "open", browse)
    small.show("op")
    path = Path(opened[0].removeprefix("file://"))
    assert path.name == "Sequential.html"
    assert '"level":"op"' in path.read_text()
    assert not capsys.readouterr().out
    small.show()
    path = Path(opened[1].removeprefix("file://"))
    assert capsys.readouterr().out == f"no browser was found: the page is {path}\n"
    norms().show()
    assert opened[2].endswith("/before-after.html")


def test_show_in_a_notebook_is_below_the_cell(
    small: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[dict[str, str]] = []
    publisher = types.SimpleNamespace(publish=lambda data: published.append(data))
    shell = types.SimpleNamespace(kernel=object(), display_pub=publisher)
    notebook = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", notebook)  # type: ignore[arg-type]
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("a notebook has a front end"))
    small.show("arch")
    (data,) = published
    assert '"level":"arch"' in framed(data["text/html"])


@pytest.mark.parametrize("name", ["", "..", "a/b", "<a> <b>", "x" * 300, "\n"])
def test_a_graph_of_any_name_is_shown(
    name: str, small: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def browse(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", browse)
    small.name = name
    small.show()
    assert Path(opened[0].removeprefix("file://")).is_file()


def test_a_difference_is_two_pages_and_a_list_of_changes(tmp_path: Path) -> None:
    difference = norms()
    difference.save(tmp_path / "diff.html", "block")
    page = (tmp_path / "diff.html").read_text()
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    data = json.loads(text)
    assert [side["name"] for side in data["sides"]] == ["before", "after"]
    assert [data["shell"].count(place) for place in data["places"]] == [1, 1, 0]  # no numbers
    kinds = {kind: [row[0] for row in rows] for kind, rows in data["changes"]}
    assert kinds == {"changed": ["softmax"], "added": ["sin"], "removed": ["mul"]}
    ids = {row[0]: row[2] for _, rows in data["changes"] for row in rows}
    assert ids == {"softmax": ["softmax", "softmax"], "sin": [None, "sin"], "mul": ["mul", None]}
    shown: Any = difference
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == str(difference)
    assert framed(bundle["text/html"]) == page
