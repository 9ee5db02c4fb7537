"""Numbers on the page, in a real browser: heat maps, and where each number comes from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHECKED

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.core import OPS, Op
from minitensor.graph.cells import Made, made, parse
from minitensor.graph.fold import fold
from minitensor.graph.held import finite, held
from minitensor.graph.html import page
from minitensor.graph.model import Graph
from minitensor.graph.trace import trace
from minitensor.testing import samples
from minitensor.testing.cells import runs

WORDS = ["I", "like", "green", "apples", "."]


class Program(nn.Module):
    """A language model of two layers, in double precision, and its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(6, 9)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self.head(self.layers(self.embedding(x)))
        return nn.functional.cross_entropy(logits.reshape(-1, 9), y.reshape(-1))


@pytest.fixture(scope="module")
def graph() -> Graph:
    mt.manual_seed(0)
    program = Program().double()
    tokens = mt.randint(0, 3, (3, 5)), mt.randint(0, 3, (3, 5))
    sizes = {"N": 3, "S": 5, "nhead": 2, "E": 6}
    with pytest.warns(UserWarning, match="dims"):
        found = trace(program, *tokens, dims=sizes, backward=True, decompose=True, values=True)
    found.labels = {"S": WORDS}
    return found


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
    for (out, place), (number, reads), (computed, value, cells) in zip(
        asked, expected, found, strict=True
    ):
        assert value == number, (out, place)
        assert computed == pytest.approx(number, 1e-9, 1e-12), (out, place)
        assert cells == reads, (out, place)
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
        "layers.layers.0.norm1/dropout_add_layer_norm",
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
