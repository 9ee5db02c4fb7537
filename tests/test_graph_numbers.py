"""Numbers on the page, in a real browser: heat maps, and where each number comes from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHECKED
from test_graph_html import chromium

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.core import OPS, Op
from minitensor.graph.cells import Made, made, parse
from minitensor.graph.data import Data
from minitensor.graph.fold import fold
from minitensor.graph.held import finite, held
from minitensor.graph.html import page, shell
from minitensor.graph.model import Graph
from minitensor.graph.trace import trace
from minitensor.testing import samples
from minitensor.testing.cells import runs

__all__ = ["chromium"]  # the fixture

WORDS = ["I", "like", "green", "apples", "."]


class Program(nn.Module):
    """A language model of two layers, in double precision, and its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(6, 9)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.layers(self.embedding(x)))
        return nn.functional.cross_entropy(logits.reshape(-1, 9), x.reshape(-1))


@pytest.fixture(scope="module")
def graph() -> Graph:
    mt.manual_seed(0)
    program = Program().double()
    tokens, sizes = mt.randint(0, 3, (3, 5)), {"N": 3, "S": 5}
    found = trace(program, tokens, dims=sizes, backward=True, decompose=True, values=True)
    found.labels = {"S": WORDS}
    return found


def opened(chromium: Any, path: Path, graph: Graph, state: str = "", **options: Any) -> Any:
    """A browser's page that shows a graph; its errors are in `errors`."""
    if not path.exists():
        path.write_text(page(graph, fold(graph)), encoding="utf-8")
    shown = chromium.new_page(
        **{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
    )
    shown.errors = []
    shown.on("console", lambda m: shown.errors.append(m.text) if m.type == "error" else None)
    shown.on("pageerror", lambda error: shown.errors.append(str(error)))
    shown.goto(path.as_uri() + state)
    return shown


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("numbers")


@pytest.fixture
def browser(chromium: Any, folder: Path, graph: Graph) -> Iterator[Any]:
    shown = opened(chromium, folder / "graph.html", graph)
    yield shown
    assert not shown.errors
    shown.close()


def go(shown: Any, state: str) -> None:
    """Show the page in another state."""
    url = shown.url.partition("#")[0]
    shown.goto("about:blank")
    shown.goto(url + state)


def array_of(graph: Graph, key: str) -> np.ndarray:
    data = graph.values[key].data
    assert data is not None
    return data.array


def places(array: np.ndarray, count: int) -> list[list[int]]:
    """Some places of an array, far from each other."""
    flat = np.unique(np.linspace(0, array.size - 1, count).astype(int))
    return [[int(p) for p in np.unravel_index(f, array.shape)] for f in flat]


def tensor_of(graph: Graph, op: str, inside: str = "") -> str:
    """The first output of the first run of an op."""
    return next(
        node.outputs[0]
        for node in graph.nodes.values()
        if node.op == op and node.direction == "forward" and node.id.startswith(inside)
    )


SCORES = "layers.layers.0.self_attn/packed_attention/softmax:0"


# Evaluation


def test_the_page_computes_the_cells_of_every_op_as_the_library_does(browser: Any) -> None:
    """For each sample of each op: the same number from the same cells."""
    asked, expected = [], []
    noise = np.random.RandomState(0)
    for name, op in sorted(OPS.items()):
        if op.forward is Op.forward:
            continue
        for args, kwargs in samples(op):
            for run_args, run_kwargs in runs(op, args, kwargs):
                how = made(op, run_args, run_kwargs)
                if how is None or not how.formulas:
                    continue
                shown = {
                    key: {
                        "shape": x.shape,
                        "kind": {"b": "bool", "f": "float"}.get(x.dtype.kind, "int"),
                        "numbers": [number.item() for number in x.astype(_plain(x)).ravel()],
                    }
                    for key, x in how.tensors.items()
                }
                for port, shape in enumerate(_shapes(op, run_args, run_kwargs)):
                    size = int(np.prod(shape))
                    for flat in noise.permutation(size)[:2]:
                        place = [int(p) for p in np.unravel_index(flat, shape)]
                        value, reads = how.cell(port, place)
                        tree = finite(parse(how.formulas[port]))
                        asked.append({"tree": tree, "tensors": shown, "place": place})
                        expected.append((f"{name} {how.formulas[port]} {place}", value, reads))
    found = browser.evaluate(
        """asked => asked.map(({tree, tensors, place}) => {
          try {
            const read = (name, flat) => tensors[name].numbers[flat];
            const {value, reads} = numbers.evaluateFormula(tree, tensors, place, read);
            const sorted = (set) => [...set].sort((a, b) => a - b);
            return [value.data[0], Object.fromEntries([...reads].map(([n, s]) => [n, sorted(s)]))];
          } catch (error) { return [String(error), {}] }
        })""",
        asked,
    )
    wrong = []
    for (where, value, reads), (number, cells) in zip(expected, found, strict=True):
        same = not isinstance(number, str) and np.isclose(
            np.float64(number), np.float64(value), 1e-9, 1e-12, equal_nan=True
        )
        if not same or cells != {name: list(map(int, at)) for name, at in reads.items()}:
            wrong.append(f"{where}: {number} for {value}, from {cells} for {reads}")
    assert not wrong, "\n".join(wrong[:20])
    CHECKED["cells computed by the page"] += len(found)
    assert len(found) > 1000


def _plain(x: np.ndarray) -> Any:
    return {"f": np.float64, "b": np.bool_}.get(x.dtype.kind, np.int64)


def _shapes(op: Any, args: list[Any], kwargs: dict[str, Any]) -> list[tuple[int, ...]]:
    run = op()
    run.edges = [None] * len(args)
    with np.errstate(all="ignore"):
        found = run.forward(*args, **kwargs)
    return [np.shape(y) for y in (found if isinstance(found, tuple) else (found,))]


def test_the_page_computes_every_tensor_of_a_program_from_those_before_it(
    browser: Any, graph: Graph
) -> None:
    asked, expected = [], []
    for node in graph.nodes.values():
        if node.origins is None:
            continue
        tensors = {name: array_of(graph, key) for name, key in node.origins.tensors.items()}
        how = Made(tensors, tuple(node.origins.formulas), tuple(node.origins.moved))
        for port, out in enumerate(node.outputs):
            for place in places(array_of(graph, out), 5):
                reads: dict[str, set[int]] = {}
                for name, cells in how.cell(port, place)[1].items():
                    reads.setdefault(node.origins.tensors[name], set()).update(map(int, cells))
                asked.append([out, place])
                number = array_of(graph, out)[tuple(place)]
                expected.append((number, {key: sorted(cells) for key, cells in reads.items()}))
    found = browser.evaluate(
        """asked => asked.map(([id, place]) => {
          const {computed, value, reads} = numbers.cellOrigin(id, place);
          const flat = ({id, cells}) =>
            cells.map((p) => numbers.numbersOf(id).flat(p)).sort((a, b) => a - b);
          return [computed ?? value, value, Object.fromEntries(reads.map((r) => [r.id, flat(r)]))];
        })""",
        asked,
    )
    for cell, (number, wanted), (computed, value, cells) in zip(
        asked, expected, found, strict=True
    ):
        assert value == number, cell
        assert computed == pytest.approx(number, 1e-9, 1e-12), cell
        assert cells == wanted, cell
    CHECKED["cells of a program computed by the page"] += len(found)


def test_gradients_follow_from_those_that_arrived_and_the_formulas(
    browser: Any, graph: Graph
) -> None:
    """Also through opened ops, and where several gradients arrive."""
    known: Any = held(graph)
    asked = [
        [key, place]
        for key in known["gradients"]
        if graph.values[key].dtype == "float64"
        for place in places(array_of(graph, key), 4)
    ]
    found = browser.evaluate(
        """asked => asked.map(([id, place]) => {
          const {computed, text, reads} = numbers.cellOrigin(id, place);
          return [computed, text, reads.filter((r) => !r.factor).map((r) => r.id)];
        })""",
        asked,
    )
    for (key, place), (computed, text, reads) in zip(asked, found, strict=True):
        number = array_of(graph, key)[tuple(place)]
        assert computed == pytest.approx(number, 1e-3, 1e-9), (key, place, text)
        arrived = {one for some in known["gradients"][key]["grads"].values() for one in some}
        assert set(reads) <= arrived
        assert reads or number == 0
    CHECKED["gradients computed by the page"] += len(found)
    assert {key.split(":")[0] for key, _ in asked} >= {
        "cross_entropy",
        "head/linear",
        "layers.layers.1.self_attn/packed_attention",
        "layers.layers.0.norm1/layer_norm",
        "embedding/embedding",
    }


def test_a_gradient_passes_an_opened_op_that_tells_no_formula_of_its_own(
    chromium: Any, folder: Path
) -> None:
    """Step by step through what the op is made of."""
    program = nn.GRU(3, 4, batch_first=True).double()
    x = mt.randn(2, 3, 3, dtype=mt.float64, requires_grad=True)
    graph = trace(
        lambda x: program(x)[0].square().sum(), x, backward=True, decompose=True, values=True
    )
    known: Any = held(graph)
    silent = {out for out in known["opened"] if out not in known["origins"]}
    through = [key for key, entry in known["gradients"].items() if silent & set(entry["grads"])]
    assert through
    shown = opened(chromium, folder / "gru.html", graph)
    for key in through:
        for place in places(array_of(graph, key), 3):
            origin = shown.evaluate("([id, place]) => numbers.cellOrigin(id, place)", [key, place])
            number = array_of(graph, key)[tuple(place)]
            assert origin["computed"] == pytest.approx(number, 1e-3, 1e-9), (key, place)
    assert not shown.errors
    shown.close()


# The map


def read_aloud(shown: Any, number: int = 0) -> str:
    """Return the words for the cell at the cursor of a map."""
    return shown.locator(".said").nth(number).inner_text()


def test_the_page_shows_the_numbers_of_a_tensor_to_the_printed_digits(
    browser: Any, graph: Graph
) -> None:
    array = array_of(graph, "layers.layers.1.linear1/linear:0")
    go(browser, "#level=op&tensor=layers.layers.0.linear1/linear:0")
    browser.locator("select[data-fold]").first.select_option("1")  # the second layer's own
    view = browser.locator(".heat .view").first
    view.focus()
    seen = set()
    for row in range(array.shape[1]):
        browser.keyboard.press("Home")
        for column in range(array.shape[2]):
            found = re.fullmatch(r"(.*)\[(.*)\](?: \((.*)\))? = (.*)", read_aloud(browser))
            assert found
            place = [int(p) for p in found[2].split(", ")]
            assert place == [0, row, column]
            assert found[4] == _digits(array[tuple(place)])
            seen.add(tuple(place))
            browser.keyboard.press("ArrowRight")
        browser.keyboard.press("ArrowDown")
    assert len(seen) == array.shape[1] * array.shape[2]


def _digits(x: Any) -> str:
    """A number in four digits, as JavaScript writes it."""
    text = repr(float(f"{x:.4g}")).removesuffix(".0")
    if "e" in text and abs(float(text)) >= 1e-6:
        text = f"{float(text):.12f}".rstrip("0")
    return re.sub(r"e-0", "e-", text)


def test_facts_are_those_of_the_whole_tensor(browser: Any, graph: Graph) -> None:
    key = "head/linear:0"
    array = array_of(graph, key)
    go(browser, f"#level=op&tensor={key}")
    facts = dict(
        row.split("\n") for row in browser.locator(".about .figures > div").all_inner_texts()
    )
    assert float(facts["min"]) == pytest.approx(array.min(), 1e-5)
    assert float(facts["max"]) == pytest.approx(array.max(), 1e-5)
    assert float(facts["mean"]) == pytest.approx(array.mean(), 1e-5)
    assert (facts["NaN"], facts["numbers"]) == ("0", "135")
    bars = browser.locator(".histogram .count title").all_text_contents()
    counts = [int(text.split()[0]) for text in bars]
    assert counts == np.histogram(array, len(counts))[0].tolist()


def test_leading_axes_have_sliders_and_keys(browser: Any, graph: Graph) -> None:
    go(browser, f"#level=op&tensor={SCORES}")
    sliders = browser.locator(".slider").first
    browser.locator(".slider input").nth(1).fill("1")
    assert read_aloud(browser).startswith("weights[0, 1, 0, 0]")
    view = browser.locator(".heat .view").first
    view.focus()
    browser.keyboard.press("PageUp")
    browser.keyboard.press("Shift+PageDown")
    assert read_aloud(browser).startswith("weights[1, 0, 0, 0]")
    assert sliders.locator("input").get_attribute("aria-valuetext") == "1 of 3"
    assert "arrow keys" in (view.get_attribute("aria-label") or "")
    assert browser.locator(".said").first.get_attribute("aria-live") == "polite"


def test_words_stand_at_the_places_of_their_axis(browser: Any, graph: Graph) -> None:
    key = "embedding/embedding:0"
    assert graph.values[key].dims[1] == "S"
    go(browser, f"#level=op&tensor={key}")
    browser.locator(".heat .view").first.focus()
    browser.keyboard.press("ArrowDown")
    assert "(like)" in read_aloud(browser)


# From cell to cell


def test_a_click_leads_from_a_cell_to_those_it_was_made_of_and_back(
    browser: Any, graph: Graph
) -> None:
    go(browser, f"#level=op&tensor={SCORES}")
    view = browser.locator(".heat .view").first
    box = view.bounding_box()
    assert box
    view.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    first = browser.locator(".formula").inner_text()
    assert re.match(r"0\.\d+ = exp\(.*\) / \(exp\(.*1 more\)$", first), first
    lit = browser.locator(".source-of").first
    assert "5 cells" in lit.inner_text()
    browser.locator(".formula button").first.click()
    assert browser.locator("#panel h2").inner_text().startswith("scores")
    assert "*" in browser.locator(".formula").inner_text()
    assert "cell=" in browser.url
    for _ in range(20):  # on to the tokens
        buttons = browser.locator(".formula button")
        if not buttons.count():
            break
        buttons.first.click()
    assert "it was there before" in browser.locator(".origin").inner_text()
    steps = browser.locator(".trail button").count()
    assert steps > 3
    browser.locator(".trail button").nth(1).click()
    assert browser.locator(".formula").inner_text() == first
    assert browser.locator(".trail button").first.is_disabled()


def test_a_cell_is_followed_by_keys_alone(browser: Any, graph: Graph) -> None:
    go(browser, f"#level=op&tensor={SCORES}")
    browser.locator(".heat .view").first.focus()
    browser.keyboard.press("ArrowDown")
    browser.keyboard.press("Enter")
    assert browser.locator(".trail [aria-current]").inner_text() == "weights[0, 0, 1, 0]"
    for _ in range(30):
        browser.keyboard.press("Tab")
        at = browser.evaluate("document.activeElement.closest('.source-of') !== null")
        if at and browser.evaluate("document.activeElement.className === 'view'"):
            break
    browser.keyboard.press("Enter")
    assert browser.locator(".trail [aria-current]").inner_text() == "scores[0, 0, 1, 0]"
    assert browser.evaluate("document.activeElement.className") == "view"
    browser.keyboard.press("Backspace")
    assert browser.locator(".trail [aria-current]").inner_text() == "weights[0, 0, 1, 0]"


def test_what_was_moved_says_whose_number_it_is(browser: Any, graph: Graph) -> None:
    key = tensor_of(graph, "transpose", "layers.layers.0.self_attn/packed")
    go(browser, f"#level=op&tensor={key}")
    browser.locator(".heat .view").first.focus()
    browser.keyboard.press("Enter")
    assert re.match(r"is .*\[0, 0, 0, 0\]$", browser.locator(".formula").inner_text())


def test_a_gradient_leads_to_those_that_arrived(browser: Any, graph: Graph) -> None:
    go(browser, "#level=op&backward=1&tensor=head/linear:backward:1")
    browser.locator(".heat .view").first.focus()
    browser.keyboard.press("Enter")
    assert re.match(r".* = .*\*.* 11 more$", browser.locator(".formula").inner_text())
    assert "in the derivative" in browser.locator(".source-of").nth(1).inner_text()
    for _ in range(6):
        if "begins here" in browser.locator(".origin").inner_text():
            break
        browser.locator(".formula button").first.click()
    assert "The backward pass begins here" in browser.locator(".origin").inner_text()


def test_a_weight_after_a_step_leads_to_the_one_before_and_its_gradient(
    chromium: Any, folder: Path
) -> None:
    layer = nn.Linear(3, 2).double()
    optimizer = mt.optim.SGD(layer.parameters(), lr=0.5)

    def step(x: Tensor) -> Tensor:
        loss = layer(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    graph = trace(step, mt.randn(4, 3, dtype=mt.float64), values=True)
    known: Any = held(graph)
    ((after, update),) = (
        (key, found) for key, found in known["updates"].items() if "weight" in found["param"]
    )
    shown = opened(chromium, folder / "step.html", graph)
    origin = shown.evaluate("id => numbers.cellOrigin(id, [1, 2])", after)
    before, gradient, number = (
        array_of(graph, key)[1, 2] for key in (update["param"], update["grad"], after)
    )
    assert origin["value"] == number == pytest.approx(before - 0.5 * gradient)
    assert {(read["id"], tuple(read["cells"][0])) for read in origin["reads"]} == {
        (update["param"], (1, 2)),
        (update["grad"], (1, 2)),
    }
    assert origin["text"].startswith(f"{_digits(number)} = {_digits(before)} ")
    assert f"its gradient is {_digits(gradient)}" in origin["text"]
    shown.close()


def test_the_cells_of_a_fold_lead_to_the_member_they_are_in(browser: Any, graph: Graph) -> None:
    go(browser, "#level=op&tensor=head/linear:0")
    browser.locator(".heat .view").first.focus()
    browser.keyboard.press("Enter")
    for _ in range(2):  # what layer 1 gives, and what that was made of
        browser.locator(".source-of .jump").first.click()
    assert "layers.1" in browser.locator(".member option:checked").first.inner_text()
    found = browser.locator("#panel dd").last.inner_text()
    number = array_of(graph, "layers.layers.1/add.1:0")[0, 0, 0]
    assert read_aloud(browser).endswith(f" = {_digits(number)}"), found


# In the picture


def test_attention_maps_stand_in_their_boxes(browser: Any, graph: Graph) -> None:
    attention = "layers.layers.0.self_attn"
    go(browser, f"#level=block&box={attention}")
    image = browser.locator(f'[data-box="{attention}"] > .map-in-box')
    before = image.get_attribute("href")
    assert before.startswith("data:image/png")
    browser.locator(".slider input").nth(1).fill("1")
    assert image.get_attribute("href") != before
    assert browser.locator("#panel h3").first.inner_text().lower() == "attention"


def test_a_box_lists_its_tensors_with_small_maps(browser: Any, graph: Graph) -> None:
    go(browser, "#level=op&box=head")
    items = browser.locator("#panel li:has(.small-map)")
    assert items.count() >= 4
    items.last.locator(".small-map").click()
    assert browser.locator("#panel .heat").count() == 1


def test_scalars_say_their_number_and_gradient(chromium: Any, folder: Path) -> None:
    a, b = (mt.tensor(x, requires_grad=True) for x in (-2.0, 3.0))
    graph = trace(lambda a, b: (a * b + a) ** 2, a, b, backward=True, values=True)
    shown = opened(chromium, folder / "scalars.html", graph, "#level=op")
    assert "data -6 | grad -16" in shown.locator('[data-box="mul"]').text_content()
    assert "data -2 | grad -64" in shown.locator('[data-box="input:a"]').text_content()
    graph.save(folder / "scalars.svg", level="op")
    assert "data -6 | grad -16" in (folder / "scalars.svg").read_text()
    assert not shown.errors
    shown.close()


# What is not there


def test_a_sample_says_what_it_has(chromium: Any, folder: Path) -> None:
    graph = trace(nn.Linear(60, 72), mt.randn(24, 60), values=6000)
    data = graph.values["parameter:weight"].data
    assert isinstance(data, Data)
    assert data.at is not None
    rows, columns = (len(at) for at in data.at)
    shown = opened(chromium, folder / "sample.html", graph, "#level=op&tensor=parameter:weight")
    said = shown.locator(".heat").first.inner_text()
    assert f"{rows} of 72 rows, " in said
    assert f"{columns} of 60 columns, " in said
    go(shown, "#level=op&tensor=linear:0")
    shown.locator(".heat .view").first.focus()
    shown.keyboard.press("Enter")
    assert "in the sample that was kept" in shown.locator(".origin").inner_text()
    assert "lit cells are not in the sample" in shown.locator(".origin").inner_text()
    assert not shown.errors
    shown.close()


def test_what_is_no_number_or_infinite_is_marked_and_counted(chromium: Any, folder: Path) -> None:
    x = mt.tensor([[1.0, float("nan"), -2.0], [float("-inf"), 0.0, 4.0]])
    graph = trace(lambda x: x * 2, x, values=True)
    shown = opened(chromium, folder / "marks.html", graph, "#level=op&tensor=mul:0")
    facts = shown.locator(".about").inner_text().split()
    assert facts[facts.index("NaN") + 1] == "1"
    assert facts[facts.index("infinite") + 1] == "1"
    scale = shown.locator(".scale").inner_text()
    assert "nan" in scale
    assert "infinite" in scale
    shown.locator(".heat .view").first.focus()
    shown.keyboard.press("ArrowRight")
    assert read_aloud(shown) == "mul[0, 1] = nan"
    assert not shown.errors
    shown.close()


# Colours


def test_zero_is_neutral_and_the_scale_may_be_shared(browser: Any, graph: Graph) -> None:
    key = "layers.layers.0/relu:0"  # of a relu: many are 0
    for theme, neutral in (("light", [255, 255, 255]), ("dark", [34, 37, 44])):
        go(browser, f"#level=op&tensor={key}&theme={theme}")
        array = array_of(graph, key)[0]
        row, column = (int(p) for p in np.argwhere(array == 0)[0])
        high = tuple(int(p) for p in np.unravel_index(array.argmax(), array.shape))
        color = browser.evaluate(_COLOR, [row, column, *array.shape])
        assert color == neutral
        red, green, blue = browser.evaluate(_COLOR, [*high, *array.shape])
        assert red > green > blue
        browser.locator(".scale input").first.check()
        assert browser.evaluate(_COLOR, [*high, *array.shape]) != [red, green, blue]
        browser.locator(".scale input").first.uncheck()


# The colour in the corner of a cell, of rows and columns that are all in view.
_COLOR = """([row, column, rows, columns]) => {
  const canvas = document.querySelector(".heat canvas");
  const scale = canvas.width / canvas.clientWidth;
  const at = document.querySelector(".heat").cellBox(row, column).map((x) => x * scale);
  const [x, y] = [at[0] + 3 * scale, at[1] + 3 * scale].map(Math.round);
  return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
}"""


# Costs


def test_no_script_of_the_page_has_a_name_of_another() -> None:
    """They share one scope, in which a second function of a name would silently be the first."""
    declared = r"^(?:async )?(?:const|let|function\*?|class) (\w+)"
    names = Counter(re.findall(declared, shell("any", True), re.MULTILINE))
    assert [name for name, count in names.items() if count > 1] == []


def test_a_page_without_numbers_has_none_of_this() -> None:
    graph = trace(nn.Linear(3, 2), mt.randn(4, 3))
    assert re.findall(r'<script id="(\w+)"', page(graph, fold(graph))) == ["data", "details"]
    with_numbers, without = (shell("any", numbers) for numbers in (True, False))
    assert "heatMap" in with_numbers
    assert "heatMap" not in without
    assert len(with_numbers) < 500_000


def test_the_time_from_click_to_formula_is_measured(browser: Any, graph: Graph) -> None:
    go(browser, f"#level=op&tensor={SCORES}")
    browser.locator(".heat .view").first.focus()
    times = []
    for _ in range(5):
        times.append(
            browser.evaluate(
                """async () => {
                  const start = performance.now();
                  const view = document.querySelector(".heat .view");
                  view.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
                  await new Promise(requestAnimationFrame);
                  await new Promise((done) => setTimeout(done));
                  return performance.now() - start;
                }"""
            )
        )
    CHECKED["milliseconds from a click to its formula"] += round(min(times))
    assert min(times) < 1000
