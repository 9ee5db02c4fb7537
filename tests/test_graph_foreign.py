"""Programs as people write them: drawn in every form, with what their readers look for."""

from __future__ import annotations

import html
import importlib
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from edges import count
from foreign import NAMES

import minitensor as mt
from minitensor.graph import Graph, trace
from minitensor.graph.fold import fold
from minitensor.graph.scene import PAGE, Box, Scene
from minitensor.graph.view import LEVELS, view

PROGRAMS = (*NAMES, "sampling:greedy")


def not_yet(reason: str) -> Any:
    return pytest.mark.xfail(strict=True, reason=reason)


@cache
def graph(name: str) -> Graph:
    """Return the graph of a program, or of its variant, with its backward pass if it has one."""
    mt.manual_seed(0)
    base, _, variant = name.partition(":")
    module = importlib.import_module(f"foreign.{base}")
    function, inputs, sizes = getattr(module, f"example_{variant}" if variant else "example")()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = trace(function, **inputs, dims=sizes, backward=base != "sampling")
    told = [str(warning.message) for warning in caught]
    assert all(text.startswith("dims: ") for text in told), told
    return found


def scene(name: str, level: str) -> Scene:
    return view(fold(graph(name)), graph(name), level)


def boxes(name: str, level: str) -> list[Box]:
    found = scene(name, level)
    return [found.tree.boxes[key] for key in found.visible]


@cache
def picture(name: str, level: str, folder: Path) -> str:
    """Return the words of the picture of a level, a space between them."""
    file = folder / f"{name.replace(':', '_')}-{level}.svg"
    graph(name).save(file, level)
    texts = re.findall(r"<text[^>]*>(.*?)</text>", file.read_text(encoding="utf-8"), re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).strip() for text in texts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_is_drawn_at_every_level_and_in_every_form(name: str, folder: Path) -> None:
    found = graph(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for level in LEVELS:
            assert found.name in picture(name, level, folder)
            found.save(folder / "graph.dot", level)
        for form in ("html", "txt", "json"):
            found.save(folder / f"graph.{form}")
    assert Graph.from_json((folder / "graph.json").read_text(encoding="utf-8")) == found


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("equal", [True, False])
def test_every_recorded_edge_is_drawn_or_folded(name: str, equal: bool) -> None:
    found = count(graph(name), equal)
    assert not found.missing
    assert not found.invented
    assert found.sound


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_whole_has_at_most_fifteen_boxes(name: str) -> None:
    found = scene(name, "arch")
    assert len([key for key in found.visible if key not in found.open]) <= PAGE


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_output_is_reached_from_each_input(name: str) -> None:
    found = scene(name, "op")
    after: dict[str, set[str]] = {}
    for edge in found.edges:
        if edge.direction == "forward":
            after.setdefault(edge.source, set()).add(edge.target)
    inputs = [box.id for box in boxes(name, "op") if box.kind == "input"]
    outputs = {box.id for box in boxes(name, "op") if box.kind == "output"}
    reached = {key: _after(key, after) for key in inputs}
    missed = {key: outputs - all for key, all in reached.items()}
    for key, lost in missed.items():
        if found.tree.boxes[key].label not in ("targets", "labels"):  # which only a loss reads
            assert not lost


def _after(key: str, after: dict[str, set[str]]) -> set[str]:
    seen, waiting = {key}, [key]
    while waiting:
        new = after.get(waiting.pop(), set()) - seen
        seen |= new
        waiting.extend(new)
    return seen


def test_equal_blocks_of_a_gpt_are_one_box_and_its_tied_weights_have_one_name(folder: Path) -> None:
    assert {box.label: box.count for box in boxes("nano_gpt", "arch") if box.count > 1} == {
        "Block": 6
    }
    assert "transformer.wte.weight" in picture("nano_gpt", "op", folder)  # at lm_head


def test_a_gpt_begins_its_backward_pass_at_the_loss(folder: Path) -> None:
    assert graph("nano_gpt").seed == "loss"
    assert "d loss" in picture("nano_gpt", "full", folder)


BY_HAND = not_yet("a softmax of scores that are masked by hand is not seen to be causal")


@pytest.mark.parametrize("name", [pytest.param("nano_gpt", marks=BY_HAND), "llama"])
def test_an_attention_with_a_causal_mask_says_so(name: str, folder: Path) -> None:
    assert re.search(r"\bcausal\b(?!=False)", picture(name, "op", folder))


def test_sizes_that_two_inputs_have_are_named(folder: Path) -> None:
    words = picture("nano_gpt", "block", folder)
    assert "(B, T, C)" in words
    assert "(B, T, V)" in words


def test_the_fields_of_a_dataclass_are_outputs_under_their_names() -> None:
    assert {b.label for b in boxes("bert", "arch") if b.kind == "output"} == {"loss", "logits"}


def test_the_keys_of_a_dict_are_outputs_under_their_names() -> None:
    labels = {box.label for box in boxes("siamese", "arch") if box.kind == "output"}
    assert labels == {"loss", "similarity"}


def test_functions_of_the_users_own_are_boxes(folder: Path) -> None:
    words = picture("llama", "op", folder)
    assert all(name in words for name in ("apply_rotary_emb", "rotate_half", "repeat_kv"))
    assert "patchify" in picture("vit", "op", folder)


def test_modules_called_by_forward_keep_their_boxes() -> None:
    paths = {box.path for box in boxes("llama", "block") if box.label in ("Attention", "RMSNorm")}
    assert {"layers.0.attention", "layers.0.attention_norm", "norm"} <= paths


def test_a_module_called_twice_is_one_box_with_two_calls(folder: Path) -> None:
    calls = [box for box in boxes("siamese", "arch") if box.kind == "calls"]
    assert [(box.label, len(box.children)) for box in calls] == [("Encoder", 2)]
    assert "2 calls, weights shared" in picture("siamese", "arch", folder)
    words = picture("siamese", "op", folder)
    assert "call 1 of 2" in words
    assert "call 2 of 2" in words


def test_a_loop_over_time_is_one_box_with_an_edge_back(folder: Path) -> None:
    turns = [box for box in boxes("recurrent_loop", "op") if box.count == 7]
    assert len(turns) == 1
    values = graph("recurrent_loop").values
    assert [values[key].name for key in turns[0].carried] == ["h"]
    words = picture("recurrent_loop", "op", folder)
    assert "x7" in words
    assert "h, 7 times" in words


def test_what_a_loop_begins_with_stands_before_it() -> None:
    found = scene("recurrent_loop", "op").tree
    (start,) = [box for box in found.boxes.values() if box.kind == "source"]
    assert all(found.boxes[key].count == 1 for key in found.ancestors(start.id))


def test_constants_are_written_into_expressions(folder: Path) -> None:
    words = picture("scalars", "op", folder)
    for expression in ("+ 1", "10 / ", "3 * "):
        assert expression in words


def test_a_number_added_to_itself_is_two_wires() -> None:
    found = scene("scalars", "op")
    pairs = [(edge.source, edge.target) for edge in found.edges]
    doubled = {pair for pair in pairs if pairs.count(pair) == 2 or _ports(found, pair) == 2}
    assert any(graph("scalars").nodes[target].op == "add" for _, target in doubled)


def _ports(found: Scene, pair: tuple[str, str]) -> int:
    return max(len(edge.ports) for edge in found.edges if (edge.source, edge.target) == pair)


def test_a_gradient_inside_the_loss_comes_from_a_backward_pass() -> None:
    found = graph("gradient_penalty")
    (gradients,) = [value for value in found.values.values() if "gradients" in value.names]
    assert gradients.producer is not None
    assert found.nodes[gradients.producer].direction == "backward"
    readers = [node.op for node in found.nodes.values() if gradients.id in node.inputs]
    assert "norm" in readers


@pytest.mark.parametrize("name", ["gradient_penalty", "training_step"])
def test_what_a_backward_pass_made_leaves_its_half_of_the_box(name: str, folder: Path) -> None:
    picture(name, "full", folder)
    drawn = (folder / f"{name}-full.svg").read_text(encoding="utf-8")
    onward = [edge for edge in scene(name, "full").edges if edge.direction == "onward"]
    assert onward
    for edge in onward:
        box = re.search(
            rf'id="box:{edge.source}".*?<rect x="([\d.]+)".*?width="([\d.]+)"', drawn, re.S
        )
        line = re.search(rf'class="edge onward.*?<title>{edge.value}\n.*?d="M([\d.]+)', drawn, re.S)
        assert box is not None
        assert line is not None
        assert float(line[1]) > float(box[1]) + float(box[2])  # right of the forward half


def test_writing_shows_the_model_that_writes(folder: Path) -> None:
    calls = [box for box in boxes("sampling", "arch") if box.kind == "calls"]
    assert [(box.label, len(box.children)) for box in calls] == [("Bigram", 3)]
    assert "multinomial" in picture("sampling", "op", folder)


@pytest.mark.parametrize("name", ["sampling", "sampling:greedy"])
def test_choices_pass_data_on_without_gradient(name: str, folder: Path) -> None:
    chosen = [node for node in graph(name).nodes.values() if not node.gradient]
    assert chosen
    assert "no gradient" in picture(name, "op", folder)


def test_a_trip_through_numpy_is_drawn_or_told() -> None:
    found = scene("sampling:greedy", "op")
    after: dict[str, set[str]] = {}
    for edge in found.edges:
        after.setdefault(edge.source, set()).add(edge.target)
    heads = [box.id for box in boxes("sampling:greedy", "op") if box.path == "model.lm_head"]
    (output,) = graph("sampling:greedy").outputs
    told = any("NumPy" in note for note in graph("sampling:greedy").notes)
    assert heads
    assert told or all(f"output:{output}" in _after(head, after) for head in heads)


def test_a_training_step_shows_forward_backward_and_the_update_of_each_weight(folder: Path) -> None:
    found = scene("training_step", "full")
    directions = {node.direction for node in graph("training_step").nodes.values()}
    assert directions == {"forward", "backward", "update"}
    assert {edge.direction for edge in found.edges} >= {"forward", "backward"}
    updates = [box for box in boxes("training_step", "full") if box.label == "AdamW"]
    assert sum(box.count for box in updates) == 6
    words = picture("training_step", "full", folder)
    assert "optimizer.step" in words
    assert "clip_grad_norm_" in words


def test_gradients_are_clipped_before_the_optimizer_steps() -> None:
    tree = fold(graph("training_step"))
    (clip,) = [box for box in tree.boxes.values() if box.label == "clip_grad_norm_"]
    assert "optimizer.step" not in [tree.boxes[key].label for key in tree.ancestors(clip.id)]


RESIDUALS = {  # at `op`: from where, to which sum, and what the code calls it
    "nano_gpt": [
        ("transformer.drop", "transformer.h.0/add", "x"),
        ("transformer.h.0/add", "transformer.h.0/add.1", "x"),
    ],
    "bert": [
        ("embeddings.dropout", "layer.0.attention_output/add", "hidden_states"),
        ("layer.0.attention_output.LayerNorm", "layer.0.output/add", "attention_output"),
    ],
    "llama": [
        ("tok_embeddings", "layers.0/add", "h"),
        ("layers.0/add", "layers.0/add.1", "h"),
    ],
    "vit": [
        ("add", "layers.0.0/add", "x"),
        ("layers.0.0/add", "layers.0.1/add", "x"),
    ],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_residuals_alone_are_blue(name: str, folder: Path) -> None:
    found = scene(name, "op").edges
    values = graph(name).values
    marked = [(e.source, e.target, values[e.value].name) for e in found if e.skip]
    assert [wire for wire in marked if "backward" not in wire[0]] == RESIDUALS.get(name, [])
    words = picture(name, "op", folder)
    assert ("skips what lies between" in words) is (name in RESIDUALS)
