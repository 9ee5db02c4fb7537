"""The command line that draws graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import minitensor as mt
from minitensor.graph import Graph
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.serialize import load_file, save_file
from minitensor.tools import gradcheck
from minitensor.tools.graph import main

pytestmark = pytest.mark.pages

CODE = """
import minitensor as mt
from minitensor import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.second = nn.Linear(7, 2)

    def forward(self, x):
        return self.second(self.first(x).relu())

class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()

ready = Net()

def program():
    return Net(), mt.zeros(3, 5)

def make():
    return Net()

def value():
    return (mt.ones(2, 3).exp() * 2).sum()

def product(x, y):
    return x @ y

def look_up(index):
    return mt.eye(4)[index]

def silent(x):
    return None

def nothing():
    return 3

def broken():
    raise KeyError("lost")

def wrong(x):
    raise ZeroDivisionError("by zero")

number = 7
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a module `drawn` that can be imported."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "drawn.py").write_text(CODE)
    (library / "failing.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(library))
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_transformer_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transformer"]) == 0
    told, complaints = capsys.readouterr()
    assert not complaints
    assert "layers.0-5: EncoderLayer x6 (own weights)" in told
    assert "(N, L, V)" in told
    assert "FLOPs backward" in told
    assert told.splitlines()[-1] == "wrote graph.svg, graph.html"
    assert names(here) == ["graph.html", "graph.svg"]
    assert "EncoderLayer" in Path("graph.svg").read_text()


def test_the_names_of_the_classic_table(capsys: pytest.CaptureFixture[str]) -> None:
    dims = "N=2,M=7,M_target=5,E=16,nhead=2,vocab_size=11"
    assert main(["transformer", "--dims", dims, "--format", "txt"]) == 0
    told = capsys.readouterr().out
    for shape in ("(N, M)", "(N, M, E)", "(N, M_target, E)", "(N, M_target, vocab_size)"):
        assert shape in told


@pytest.mark.parametrize("dims", ["N=1,S=1,L=1", "S=7,L=7,E=64,F=64,V=9,V_source=9"])
def test_sizes_that_are_equal_keep_their_names(
    dims: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transformer", "--dims", dims, "-o", "x.json"]) == 0
    assert "stay" not in capsys.readouterr().out
    graph = Graph.from_json(Path("x.json").read_text())
    shapes = {value.label for value in graph.values.values()}
    assert {"(N, S, E)", "(N, L, E)", "(N, L, V)", "(F, E)", "(V_source, E)"} <= shapes


def test_every_format_and_option(here: Path) -> None:
    formats = "svg,dot,json,html,txt"
    more = ["--level", "full", "--backward", "--decompose", "--overlay", "flops"]
    boxes = ["--expand", "encoder.layers.*", "--collapse", "decoder"]
    Transformer(TransformerConfig(11, 9, 8, 2, 2, 1, 12)).save("model.safetensors")
    given = [
        "model.safetensors",
        "--dims",
        "N=2,S=5,L=3",
        *more,
        *boxes,
        "--format",
        formats,
        "-o",
        "picture.svg",
    ]
    assert main(given) == 0
    made = sorted(f"picture.{end}" for end in formats.split(","))
    assert names(here) == ["model.safetensors", *made]
    graph = Graph.from_json(Path("picture.json").read_text())
    assert any(node.inside for node in graph.nodes.values())
    assert any(node.direction == "backward" for node in graph.nodes.values())
    assert graph.dims["V_source"] == 11


def test_the_end_of_the_name_is_the_format(here: Path) -> None:
    assert main(["drawn:program", "-o", "one.dot"]) == 0
    assert main(["drawn:program", "-o", "two.of.them"]) == 0
    assert names(here) == ["one.dot", "two.of.them.html", "two.of.them.svg"]


def test_a_graph_written_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drawn:program", "--backward", "-o", "net.json"]) == 0
    first = capsys.readouterr().out
    assert main(["net.json", "-o", "net.dot"]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == first.splitlines()[:-1]


def test_a_saved_model(capsys: pytest.CaptureFixture[str]) -> None:
    Transformer(TransformerConfig(11, 13, 8, 2, 1, 1, 12)).save("model.safetensors")
    assert main(["model.safetensors", "-o", "model.dot"]) == 0
    told = capsys.readouterr().out
    assert "E = 8" in told
    assert "V = 13" in told
    assert "(N, L, V)" in told


def test_a_checkpoint_of_a_run_is_drawn_without_the_state_of_training() -> None:
    model = Transformer(TransformerConfig(11, 13, 8, 2, 1, 1, 12))
    model.save("best.safetensors")
    tensors, header = load_file("best.safetensors")
    tensors["training.0.exp_avg"] = mt.zeros(3)
    save_file(tensors, "last.safetensors", header)
    for name in ("best", "last"):
        assert main([f"{name}.safetensors", "-o", f"{name}.txt"]) == 0
    assert Path("best.txt").read_text() == Path("last.txt").read_text()


@pytest.mark.parametrize(
    ("target", "inputs", "shape"),
    [
        ("drawn:program", [], "(3, 2)"),
        ("drawn:value", [], "()"),
        ("drawn:make", ["x:N,5"], "(N, 2)"),
        ("drawn:Net", ["x:N,5:float32"], "(N, 2)"),
        ("drawn:ready", ["x:4,5"], "(N, 2)"),
        ("drawn:ready.first", ["input:N,5"], "(N, 7)"),
        ("drawn:product", ["x:N,5:float64", "y:5,6:float64"], "(N, 6)"),
        ("drawn:look_up", ["index:N:int64"], "(N, 4)"),
    ],
)
def test_targets(
    target: str, inputs: list[str], shape: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part for text in inputs for part in ("--input", text)]
    dims = ["--dims", "N=4"] if inputs and target != "drawn:look_up" else []
    dims = ["--dims", "N=6"] if target == "drawn:look_up" else dims
    assert main([target, *given, *dims, "-o", "x.txt"]) == 0
    assert shape in capsys.readouterr().out


def test_difference(capsys: pytest.CaptureFixture[str]) -> None:
    for name, norm_first in (("post", False), ("pre", True)):
        config = TransformerConfig(11, 13, 8, 2, 1, 1, 12, norm_first=norm_first)
        Transformer(config).save(f"{name}.safetensors")
    assert main(["post.safetensors", "--diff", "pre.safetensors", "-o", "x.dot"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("5 moved, 0 changed, 0 added, 0 removed")
    assert "  decoder.layers.0.norm3: layer_norm  (N, L, E)" in told
    assert told[-1] == "wrote x.dot"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "TARGET"),
        (["transformer", "--colour"], "--colour"),
        (["transfomer"], "transfomer is not a target"),
        (["drawn:program", "--level", "blocks"], "'blocks' is none of arch, block, op, full"),
        (["drawn:program", "--format", "svg,gif"], "'gif' is none of svg, png"),
        (["drawn:program", "--overlay", "heat"], "'heat' is none of flops"),
        (["drawn:program", "--expand", "nowhere"], "nowhere"),
        (["drawn:program", "--dims", "N"], "expected NAME=SIZE"),
        (["drawn:program", "--dims", "N=0"], "above 0"),
        (["drawn:program", "--dims", "N=31"], "N=31"),
        (["transformer", "--dims", "E=9,H=2"], "must be divisible by the number of heads"),
        (["transformer", "--input", "x:2"], "inputs of its own"),
        (["drawn:program", "-o", "no/such/graph"], "no/such is no folder"),
        (["drawn:program", "-o", "taken.svg"], "it is a folder"),
        (["drawn:program", "-o", "/"], "it is a folder"),
        (["missing.safetensors"], "missing.safetensors"),
        (["missing.json"], "missing.json"),
        (["text.json"], "text.json: not a graph of version"),
        (["text.safetensors"], "text.safetensors"),
        (["no.such.module:f"], "cannot import no.such.module: ModuleNotFoundError"),
        (
            ["failing:f"],
            "cannot import failing: ZeroDivisionError: division by zero (in failing.py:1)",
        ),
        (["drawn:absent"], "drawn has no absent"),
        (["drawn:number"], "drawn:number is no module and no function, but of type int"),
        (["drawn:nothing"], "drawn:nothing returned int"),
        (["drawn:value", "--input", "x:2"], "leave out --input"),
        (["drawn:broken"], "drawn:broken raised KeyError: 'lost' (in drawn.py:42)"),
        (["drawn:product"], "drawn:product needs x, y: give it --input"),
        (["drawn:Net"], "drawn:Net is called with x: give --input x:SHAPE:DTYPE"),
        (["transformer", "--dims", "N=2,N=3"], "--dims: N is both 2 and 3"),
        (["transformer", "--dims", "Z=3"], "--dims: no size is called Z; there are N, S or M, "),
        (["drawn:Wide", "--input", "x:2"], "drawn:Wide needs width"),
        (["drawn:wrong", "--input", "x:2"], "ZeroDivisionError: by zero (in drawn.py:45)"),
        (["drawn:silent", "--input", "x:2"], "returned NoneType and no tensor"),
        (["drawn:product", "--input", "x:2,3", "--input", "y:4,5"], "inner dimensions"),
        (["drawn:product", "--input", "x:2,3", "--input", "y:4,5"], "(in drawn.py:30)"),
        (["drawn:product", "--input", "x:2,3"], "TypeError"),
        (["drawn:product", "--input", "x:N"], "'N' is neither a number nor in --dims"),
        (["drawn:product", "--input", "x:2:int13"], "int13 is not a type"),
        (["drawn:product", "--input", ":2"], "expected NAME:SHAPE:DTYPE"),
        (["drawn:value", "--backward"], "requires grad"),
        (["drawn:program", "--diff", "drawn:absent"], "drawn has no absent"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    here: Path, given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken.svg").mkdir()
    Path("text.json").write_text("[]")
    Path("text.safetensors").write_text("no weights")
    before = names(here)
    assert main(given) == 2
    told, complaint = capsys.readouterr()
    assert not told
    assert complaint.count("\n") == 1
    assert complaint.startswith("error: ")
    assert words in complaint
    assert names(here) == before


def test_a_folder_that_may_not_be_written_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda *given: False)
    assert main(["drawn:broken"]) == 2
    assert "may not be written to" in capsys.readouterr().err


def test_help_tells_what_a_target_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert "package.module:name" in told


@pytest.mark.parametrize(("name", "command"), [("graph", main), ("gradcheck", gradcheck.main)])
def test_help_of_an_installed_command_shows_that_command(
    name: str,
    command: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", [f"/usr/bin/minitensor-{name}", "--help"])
    with pytest.raises(SystemExit):
        command()
    told = capsys.readouterr().out
    assert told.count(f"minitensor-{name} ") >= 3
    assert "-m tools" not in told


def test_annotations_of_a_recorded_graph_are_overlays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, picture = tmp_path / "net.json", tmp_path / "net.svg"
    g = mt.graph.trace(mt.nn.Sequential(mt.nn.Linear(4, 3)), mt.rand(2, 4))
    g.annotate({"0": 0.25}, name="pruning")
    g.save(recorded)
    assert main([str(recorded), "--overlay", "pruning", "-o", str(picture)]) == 0
    assert "pruning" in picture.read_text()
    capsys.readouterr()
    assert main([str(recorded), "--overlay", "frozen", "-o", str(picture)]) == 2
    assert "'frozen' is none of flops, bytes" in capsys.readouterr().err
