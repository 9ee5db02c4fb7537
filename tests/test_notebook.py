"""Tensors in a notebook: the heat map, its facts, the setting, and treescope."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import minitensor as mt
from minitensor import nn
from minitensor.core import wrap
from minitensor.notebook import heatmap

ARRAYS: dict[str, np.ndarray] = {
    "scalar": np.array(1.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "one": np.ones(1, np.float32),
    "line": np.arange(12),
    "long line": np.linspace(-1, 1, 3000),
    "square": np.linspace(-3, 2, 12, dtype=np.float32).reshape(3, 4),
    "zeros": np.zeros((3, 3), np.float32),
    "column": np.linspace(0, 1, 300).reshape(300, 1),
    "weight": np.linspace(-1, 1, 512 * 512, dtype=np.float32).reshape(512, 512),
    "half": np.full((2, 3), 60000, np.float16),
    "bytes": np.arange(200, 230, dtype=np.uint8).reshape(5, 6),
    "least integer": np.array([[np.iinfo(np.int64).min, 3]]),
    "bool": np.eye(5, dtype=np.bool_),
    "many bools": np.tri(30, dtype=np.bool_),
    "heads": np.linspace(0, 1, 2 * 8 * 20 * 20).reshape(2, 8, 20, 20),
    "six axes": np.ones((2, 1, 2, 1, 3, 4), np.float32),
    "nan alone": np.full((2, 3), np.nan, np.float32),
    "not finite": np.array([[np.nan, np.inf, -np.inf, 1.0]], np.float32),
    "largest": np.array([[np.finfo(np.float64).max] * 3]),
    "subnormal": np.array([[5e-324, -5e-324]]),
    "transposed": np.arange(12.0).reshape(3, 4).T,
}


@pytest.fixture(autouse=True)
def default_options() -> Iterator[None]:
    yield
    mt.set_printoptions(profile="default", html=True)


def html(value: Any) -> str:
    """Return the HTML that a notebook gets of a tensor, or of one with these numbers."""
    t = value if isinstance(value, mt.Tensor) else wrap(np.asarray(value))
    return t._repr_html_()


def maps(text: str) -> list[ElementTree.Element]:
    """Return the SVG elements of the maps, without that of the scale."""
    found = ElementTree.fromstring(text).iter("svg")
    return [svg for svg in found if svg.get("aria-label", "").startswith("heat map")]


def words(text: str) -> str:
    """Return the text of an element, without that which the pointer shows."""
    text = re.sub(r"<title>.*?</title>", "", text)
    return " ".join(" ".join(ElementTree.fromstring(text).itertext()).split())


def cells(svg: ElementTree.Element) -> dict[str, str]:
    """Return the colour of each cell of a map, by its place and number."""
    return {
        path[0].text or "": path.get("stroke", "") for path in svg.iter("path") if len(path) == 1
    }


def squares(svg: ElementTree.Element) -> set[tuple[int, int]]:
    """Return the rows and columns of the cells that have a colour."""
    colored = [
        p for p in svg.iter("path") if p.get("stroke", "")[0:1] == "#" and p.get("fill") is None
    ]
    found = [
        re.findall(r"M(\d+) (\d+)h1", p.get("d", "")) for p in colored if p.get("stroke") != "#0000"
    ]
    return {(int(r), int(c)) for part in found for c, r in part}


@pytest.mark.parametrize("name", ARRAYS)
def test_it_is_small_and_whole_html_without_script_or_network(name: str) -> None:
    text = html(ARRAYS[name])
    assert "<script" not in text
    assert "http" not in text
    assert "url(" not in text
    assert len(text) < 60_000
    assert ElementTree.fromstring(text).tag == "div"
    leading = int(np.prod(ARRAYS[name].shape[:-2]))
    assert len(maps(text)) == (0 if name in ("scalar", "empty") else min(leading, 8))


def test_the_head_tells_shape_type_and_gradient_as_the_text_does() -> None:
    x = mt.ones(3, 4, requires_grad=True)
    assert words(html(x)).startswith("Tensor (3, 4) float32, requires_grad=True 1. 1. 1. 1.")
    assert words(html(x * 2)).startswith("Tensor (3, 4) float32, grad_fn=<MulBackward0> 2.")
    assert words(html(mt.ones(2))).startswith("Tensor (2,) float32 1. 1. 0 1 min 1")
    assert words(html(nn.Linear(2, 3).weight)).startswith("Parameter (3, 2) float32, requires_grad")
    assert words(html(mt.tensor(3))) == "Tensor () int64 tensor(3)"
    assert words(html(mt.zeros(0, 3))) == "Tensor (0, 3) float32 tensor([], size=(0, 3))"


def test_few_numbers_stand_in_their_cells_and_the_text_below() -> None:
    x = mt.tensor([[1.5, -2.0], [0.25, 4.0]])
    (svg,) = maps(html(x))
    written = [t.text for t in svg.iter("text")]
    assert written == ["1.5000", "-2.0000", "0.2500", "4.0000", "0", "1", "0", "1"]
    assert ElementTree.fromstring(html(x)).findtext("pre") == repr(x)
    assert "<pre" not in html(mt.zeros(9, 3))  # of more than eight lines
    mt.set_printoptions(precision=1)
    assert "4.0" in [t.text for t in maps(html(x))[0].iter("text")]


def test_zero_has_no_colour_and_the_two_sides_have_one_scale() -> None:
    (svg,) = maps(html([0.0, 2.0, -2.0, 1.0, -4.0]))
    assert cells(svg) == {
        "[0] 0.": "#0000",
        "[1] 2.": f"{heatmap.ABOVE}7f",
        "[2] -2.": f"{heatmap.BELOW}7f",
        "[3] 1.": f"{heatmap.ABOVE}3f",
        "[4] -4.": f"{heatmap.BELOW}ff",
    }
    (svg,) = maps(html(np.array([True, False])))
    assert cells(svg) == {"[0] True": f"{heatmap.ABOVE}ff", "[1] False": "#0000"}


@pytest.mark.parametrize("color", [heatmap.BELOW, heatmap.ABOVE, heatmap.NAN])
def test_the_strongest_colours_read_in_light_and_dark_notebooks(color: str) -> None:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    light = 0.05 + float(np.dot((0.2126, 0.7152, 0.0722), linear))
    assert light / 0.05 > 4.5  # black on it
    assert 1.05 / light > 4.5  # white on it


def test_facts_are_those_of_all_finite_numbers() -> None:
    assert "min -3, max 2, mean -0.5" in words(html(ARRAYS["square"]))
    assert "min 200, max 229, mean 214.5" in words(html(ARRAYS["bytes"]))
    assert "min 6e+04, max 6e+04, mean 6e+04" in words(html(ARRAYS["half"]))
    assert "min 1.798e+308, max 1.798e+308, mean 1.798e+308" in words(html(ARRAYS["largest"]))
    assert "min -9,223,372,036,854,775,808, max 3, mean" in words(html(ARRAYS["least integer"]))
    assert "5 of 25 True" in words(html(ARRAYS["bool"]))
    assert "min 1, max 1, mean 1, 1 nan, 1 inf, 1 -inf" in words(html(ARRAYS["not finite"]))
    assert "min" not in words(html(ARRAYS["nan alone"]))
    assert "6 nan" in words(html(ARRAYS["nan alone"]))


def test_what_is_not_finite_has_marks_of_its_own() -> None:
    array = np.zeros((6, 40), np.float32)
    array[1, 2], array[3, 4], array[5, 6], array[0, 0] = np.nan, np.inf, -np.inf, 1.0
    (svg,) = maps(html(array))
    nan, infinite = (p for p in svg.iter("path") if p.get("stroke-width") == "1.5")
    assert nan.get("stroke") == heatmap.NAN
    assert nan.get("d", "").count("M") == 1  # a cross
    assert infinite.get("d", "").count("M") == 3  # a plus of two lines, a minus of one
    shown = cells(svg)
    assert shown["[1, 2] nan"] == "#0000"
    assert shown["[3, 4] inf"] == f"{heatmap.ABOVE}ff"
    assert shown["[5, 6] -inf"] == f"{heatmap.BELOW}ff"
    assert "nan" in [t.text for t in maps(html(ARRAYS["not finite"]))[0].iter("text")]


def test_a_number_far_beyond_the_others_does_not_hide_them() -> None:
    array = np.array([[0.5, -1e9], [-1.0, 1.0]], np.float32)
    assert "min -1e+09, max 1, mean -2.5e+08, 1 beyond the scale" in words(html(array))
    colors = list(cells(maps(html(array))[0]).values())
    above, below = heatmap.ABOVE, heatmap.BELOW
    assert colors == [f"{above}7f", f"{below}ff", f"{below}ff", f"{above}ff"]


def test_few_numbers_among_zeros_have_the_scale() -> None:
    array = np.zeros((1000, 1000), np.float32)
    array[0, 0], array[-1, -1] = 50, -100
    text = html(array)
    assert "min -100, max 50, mean -5e-05 -100 50 shown" in words(text)
    strokes = {path.get("stroke") for path in maps(text)[0].iter("path")}
    assert strokes == {f"{heatmap.ABOVE}7f", f"{heatmap.BELOW}ff"}


def test_leading_axes_are_maps_with_their_places() -> None:
    array = np.zeros((2, 2, 3, 4))
    array[1, 0, 2, 3] = 1
    found = maps(html(array))
    assert [svg.get("aria-label") for svg in found] == [
        "heat map [0, 0]",
        "heat map [0, 1]",
        "heat map [1, 0]",
        "heat map [1, 1]",
    ]
    assert [t.text for t in found[2].iter("text")][-1] == "[1, 0]"
    assert [cells(svg).get("[1, 0, 2, 3] 1.") for svg in found] == [
        None,
        None,
        heatmap.ABOVE + "ff",
        None,
    ]
    assert "shown" not in words(html(array))
    assert len(maps(html(ARRAYS["heads"]))) == 8
    assert "shown: the first 8 of 16 maps" in words(html(ARRAYS["heads"]))


def test_a_sample_says_so_and_is_of_the_places_at_its_sides() -> None:
    array = np.zeros((200, 300))
    array[:, 0] = array[-1] = 1
    text = html(array)
    assert "shown: 64 of 200 rows, evenly spread; 64 of 300 columns, evenly spread" in words(text)
    (svg,) = maps(text)
    assert squares(svg) == {(63, i) for i in range(64)} | {(i, 0) for i in range(64)}
    assert "shown: 64 of 3,000 elements, evenly spread" in words(html(ARRAYS["long line"]))
    (svg,) = maps(html(np.arange(15_000.0).reshape(5, 3000)))
    assert "[4, 2999] 14999." in cells(svg)
    assert [t.text for t in svg.iter("text")][:5] == ["0", "2", "4", "0", "190"]


def test_of_a_huge_tensor_a_sample_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    finite = np.isfinite

    def watched(x: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(np.size(x))
        return finite(x, *args, **kwargs)

    monkeypatch.setattr(np, "isfinite", watched)
    huge = mt.ones(1).expand(10_000, 10_000)
    assert re.search(r"min 1, max 1, mean 1, of a sample of [\d,]+ ", words(html(huge)))
    assert 500_000 < max(sizes) <= 1_000_000
    assert "sample" not in words(html(mt.ones(1).expand(1000, 1000)))


@pytest.mark.parametrize(
    "shape", [(10_000, 10_000), (3, 5_000_000), (100, 100, 100, 20), (1, 2**25)]
)
def test_a_sample_is_spread_over_all_axes(shape: tuple[int, ...]) -> None:
    part = heatmap.strided(np.broadcast_to(np.float32(1), shape), 1_000_000)
    assert 500_000 < part.size <= 1_000_000
    assert min(part.shape) >= min(shape[0], 3)


def test_one_setting_turns_it_off() -> None:
    x = mt.ones(2)
    mt.set_printoptions(html=False)
    assert not hasattr(x, "_repr_html_")
    mt.set_printoptions(profile="short")  # which is about numbers
    assert not hasattr(x, "_repr_html_")
    mt.set_printoptions(html=True)
    assert "Tensor" in html(x)


def test_it_changes_nothing_and_records_nothing() -> None:
    x = mt.randn(3, 4, requires_grad=True)
    y = x * 2
    version, before = y._version, y._array.copy()
    html(y)
    assert y._version == version
    np.testing.assert_array_equal(y._array, before)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, np.full((3, 4), 2.0))


def test_where_treescope_shows_all_objects_it_shows_tensors_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printers: dict[type, Any] = {}
    formatter = types.SimpleNamespace(type_printers=printers)
    display = types.SimpleNamespace(formatters={"text/html": formatter})
    shell = types.SimpleNamespace(display_formatter=display)
    notebook = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", notebook)  # type: ignore[arg-type]
    x = mt.ones(2)
    assert hasattr(x, "_repr_html_")
    printers[object] = types.SimpleNamespace(__module__="treescope._internal.api")
    assert not hasattr(x, "_repr_html_")
    shell.display_formatter = None  # of a shell that shows nothing
    assert hasattr(x, "_repr_html_")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Sequential(nn.ReLU())])
        self.named = nn.ModuleDict({"drop": nn.Dropout(0.1)})
        self.register_buffer("mask", mt.ones(4, 4).tril().bool())


@pytest.mark.filterwarnings("ignore:The chararray class is deprecated")  # in treescope
def test_treescope_draws_tensors_as_arrays() -> None:
    treescope = pytest.importorskip("treescope")
    array = np.arange(12.0).reshape(3, 4)
    x = wrap(array)

    def drawn(a: Any, **options: Any) -> str:
        shown = treescope.render_to_html(treescope.render_array(a, **options), compressed=False)
        return re.sub(r"[0-9a-f]{32}", "", shown)

    assert drawn(x) == drawn(array)
    assert drawn(x, valid_mask=x > 3) == drawn(x, valid_mask=array > 3) != drawn(x)
    with treescope.active_autovisualizer.set_scoped(treescope.ArrayAutovisualizer()):
        shown = treescope.render_to_html({"x": x, "none": mt.zeros(0, 3)}, compressed=False)
    assert "arrayviz" in shown
    assert "Tensor float64(3, 4), min 0, max 11, mean 5.5" in shown


@pytest.mark.filterwarnings("ignore:The chararray class is deprecated")  # in treescope
def test_treescope_shows_tensors_and_modules_as_trees() -> None:
    treescope = pytest.importorskip("treescope")
    x = mt.ones(2, 3, requires_grad=True)
    text = treescope.render_to_text({"x": x, "loss": mt.tensor(1.5)})
    assert (
        "'x': # Tensor float32(2, 3), min 1, max 1, mean 1, requires_grad=True\n    tensor([["
        in text
    )
    assert "'loss': tensor(1.5000)" in text
    assert "Rich HTML" not in treescope.render_to_html([x], compressed=False)
    with treescope.using_expansion_strategy(max_height=12):
        text = treescope.render_to_text(Net())
    assert re.sub(r"weight=<.*?>|bias=<.*?>", "...", text) == (
        "Net(\n"
        "  heads=2,\n"
        "  mask=<Tensor bool(4, 4), 10 of 16 True>,\n"
        "  blocks=ModuleList([\n"
        "    Linear(in_features=4, out_features=4, ..., ..., training=True),\n"
        "    Sequential([ReLU(inplace=False, training=True)]),\n"
        "  ]),\n"
        "  named=ModuleDict({\n"
        "    'drop': Dropout(p=0.1, inplace=False, training=True),\n"
        "  }),\n"
        "  training=True,\n"
        ")"
    )


def test_the_paths_that_treescope_tells_are_python() -> None:
    treescope = pytest.importorskip("treescope")
    net = Net()
    net.add_module("2nd", nn.ReLU())
    seen: list[str | None] = []

    def renderer(value: Any, path: str | None = None) -> Any:
        seen.append(path)
        return treescope.rendering_parts.RenderableAndLineAnnotations(
            treescope.rendering_parts.text("x"), treescope.rendering_parts.empty_part()
        )

    net.blocks.__treescope_repr__("net.blocks", renderer)
    net.named.__treescope_repr__("net.named", renderer)
    assert [p for p in seen if p] == ["net.blocks[0]", "net.blocks[1]", "net.named['drop']"]
    seen.clear()
    net.__treescope_repr__("net", renderer)
    assert set(seen) == {None}  # as "net.2nd" would be no Python
