"""The promises of a graph of the Transformer of 6 + 6 layers, from the recording to the files."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import minitensor as mt
from minitensor.graph import Graph, trace
from minitensor.graph.fold import fold
from minitensor.graph.view import LEVELS, view
from models.transformer import Transformer, TransformerConfig

pytestmark = pytest.mark.pages

DIMS = {"N": 3, "S": 11, "L": 7, "E": 32, "H": 4, "F": 64, "V": 23, "V_source": 19}


def model(**settings: Any) -> Transformer:
    mt.manual_seed(0)
    sizes = dict(d_model=DIMS["E"], nhead=DIMS["H"], dim_feedforward=DIMS["F"])
    return Transformer(TransformerConfig(DIMS["V_source"], DIMS["V"], **{**sizes, **settings}))


def traced(of: Transformer, dims: dict[str, int] | None = None, **wanted: Any) -> Graph:
    src = mt.zeros(DIMS["N"], DIMS["S"], dtype=mt.int64)
    tgt = mt.zeros(DIMS["N"], DIMS["L"], dtype=mt.int64)
    mask = of.generate_square_subsequent_mask(DIMS["L"])
    return trace(of, src, tgt, tgt_mask=mask, dims=dims, **wanted)


@pytest.fixture(scope="module")
def whole() -> Graph:
    return traced(model(), DIMS, backward=True, decompose=True)


def test_the_whole_fits_a_page(whole: Graph, tmp_path: Path) -> None:
    scene = view(fold(whole), whole, "arch")
    boxes = [scene.tree.boxes[key] for key in scene.visible if key not in scene.open]
    assert len(boxes) <= 15
    folds = {box.label: box.count for box in boxes if box.count > 1}
    assert folds == {"EncoderLayer": 6, "DecoderLayer": 6}
    whole.save(tmp_path / "arch.svg", "arch")
    picture = (tmp_path / "arch.svg").read_text()
    assert "EncoderLayer x6" in picture
    assert "layers.0-5, own weights" in picture
    assert "to all 6" in picture  # the memory
    width, height = map(float, re.findall(r'viewBox="0\S* 0\S* (\S+) (\S+)"', picture)[0])
    if shutil.which("dot") or importlib.util.find_spec("pygraphviz"):  # else it is plainer
        assert width < 900
        assert height < 1300  # points: legible on a sheet of paper


@pytest.mark.parametrize("level", LEVELS)
def test_every_edge_says_its_whole_shape_in_names(whole: Graph, level: str, tmp_path: Path) -> None:
    scene = view(fold(whole), whole, level, backward=True)
    assert {edge.direction for edge in scene.edges} == {"forward", "backward"}
    whole.save(tmp_path / "graph.svg", level, backward=True)
    picture = (tmp_path / "graph.svg").read_text()
    for edge in scene.edges:
        value = whole.values[edge.value]
        assert len(value.dims) == len(value.shape)
        if value.kind != "buffer":  # the table of positions is as long as any input may be
            assert not any(name.isdigit() and name != "1" for name in value.dims)
        assert value.label in picture


def test_a_layer_that_differs_in_one_attribute_does_not_fold() -> None:
    changed = model()
    changed.encoder.layers[2].norm1.eps = 1e-3  # type: ignore[index]
    boxes = fold(traced(changed)).boxes.values()
    counts = [box.count for box in boxes if box.label == "EncoderLayer"]
    assert counts == [2, 1, 3]


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from test_graph_promises import DIMS, model, traced
small = model(num_encoder_layers=2, num_decoder_layers=2)
graph = traced(small, DIMS, backward=True, decompose=True)
for end in ("svg", "dot", "json", "html", "txt"):
    graph.save(Path(sys.argv[1]) / f"graph.{{end}}", "full")
"""


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    script = SCRIPT.format(path=[str(Path(__file__).parent), *sys.path])
    for seed in "12":
        (tmp_path / seed).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script, str(tmp_path / seed)]
        subprocess.run(command, check=True, env=environment)
    files = sorted((tmp_path / "1").iterdir())
    assert len(files) == 5
    for file in files:
        assert file.read_bytes() == (tmp_path / "2" / file.name).read_bytes(), file.name


def test_a_chain_of_ten_thousand_ops_is_drawn(tmp_path: Path) -> None:
    def chain(x: mt.Tensor) -> mt.Tensor:
        for _ in range(5000):
            x = (x * 2).tanh()
        return x

    graph = trace(chain, mt.rand(3))
    assert len(graph.nodes) == 10_000
    for level in LEVELS:
        graph.save(tmp_path / "chain.svg", level)
    graph.save(tmp_path / "chain.html")
    assert "x5000" in (tmp_path / "chain.svg").read_text()
