"""The benchmark: every topic on tiny sizes, what its figures say, its files and its errors."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import needs_torch, without_notice

import minitensor as mt
from minitensor.core import OPS
from minitensor.kernels.jit import COMPILED
from minitensor.models.bert_files import BertConfig
from minitensor.models.command import InputError
from minitensor.tools.bench import __main__ as command
from minitensor.tools.bench import busy, foreign, growth, measure, quiet, training, worker
from minitensor.tools.bench.measure import Figure, Roofs
from minitensor.tools.bench.ops import small_call
from minitensor.tools.bench.plan import Convolution, Plan, Script, Step
from minitensor.tools.bench.products import gemm_sides
from minitensor.tools.bench.roofline import draw_roofline
from minitensor.tools.compare import Ours

TINY = Step("tiny", 50, 32, 4, 1, 64, 4, 8)
PLAN = Plan(
    steps=(TINY,),
    attention_lengths=(8, 32),
    attention_scores=1024,
    recurrent_widths=(8,),
    recurrent_batch=(3, 2),
    convolutions=(Convolution("tiny", (2, 4, 6), (4, 2, 3), 2, 1, 2),),
    scripts=(
        Script("gpt", "train_gpt.py", 20, 16, 2, 1, 2, 8),
        Script("llama", "llama.py", 20, 16, 2, 1, 2, 8),
        Script("vit", "vit.py", 5, 16, 2, 1, 2, 8),
    ),
    bert=BertConfig(50, 16, 1, 2, 24),
    bert_batches=((1, 4), (3, 5)),
    decode_batches=(1, 3),
    small_ops=("Add", "Softmax", "Isin"),
    rounds=2,
    seconds=1e-4,
    pause=0.0,
    roof_megabytes=1,
    startup=TINY,
    startups=1,
    growth_batches=(1, 3),
    growth_lengths=(4, 8),
    growth_layers=(1, 2),
    growth_vocabularies=(40, 60),
    growth_rounds=1,
    others=(0, 1, 3),
    turn=1e-3,
)
ROOFS = Roofs(100.0, 200.0, 50.0, 150.0, 300.0)
needs_compiled = pytest.mark.skipif(not COMPILED, reason="there is nothing to measure uncompiled")


@pytest.fixture
def _known_roofs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "measure_roofs", lambda plan: ROOFS)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "wait_for_quiet", lambda most: 0.01)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = command.main(arguments, PLAN)
    captured = capsys.readouterr()
    return code, captured.out, without_notice(captured.err)


# Measuring


def test_sides_take_turns_and_each_begins_as_often() -> None:
    calls: list[str] = []
    sides = {"here": lambda: calls.append("h"), "torch": lambda: calls.append("t")}
    times = measure.take_turns(sides, rounds=4, seconds=0.0, pause=0.0)
    assert "".join(calls) == "hhtt" + "ht" + "th" + "ht" + "th"
    assert {side: len(seconds) for side, seconds in times.items()} == {"here": 4, "torch": 4}


def test_a_short_call_is_repeated_after_one_that_is_not_timed() -> None:
    calls: list[int] = []
    measure.take_turns({"here": lambda: calls.append(1)}, 1, 10.0, 0.0, most=7)
    assert len(calls) == 2 + 1 + 7


def test_ratios_are_those_of_the_rounds() -> None:
    times = dict(here=[1.0, 2.0, 4.0], torch=[2.0, 6.0, 4.0], numpy=[3.0, 8.0, 40.0])
    figure = measure.from_times("gemm", "x", times, flops=4e9, bytes=8e9, target=2.5)
    assert figure.values == dict(here=2.0, torch=4.0, numpy=8.0)
    assert figure.ratios == dict(torch=2.0, numpy=4.0)
    assert figure.ratio == 2.0
    assert figure.gflops == 2.0
    assert figure.gbytes == 4.0
    assert figure.met is False


def test_what_a_target_means() -> None:
    slow = Figure("steps", "x", {"here": 1.0}, ratios={"torch": 0.9}, target=1.0)
    assert slow.met is False
    assert replace(slow, ratios={"torch": 1.1}).met is True
    assert replace(slow, ratios={}).met is None
    memory = Figure("memory", "x", {"here": 6.0}, "bytes", {"torch": 0.6}, target=0.7)
    assert memory.met is True
    assert replace(memory, ratios={"torch": 0.8}).met is False
    start = Figure("startup", "x", {"here": 0.4}, target=0.5, of_value=True)
    assert start.met is True
    assert replace(start, values={"here": 0.6}).met is False
    longer = Figure("busy", "x", {"here": 1.2}, "times", target=1.3, of_value=True)
    assert longer.met is True
    assert replace(longer, values={"here": 1.4}).met is False
    share = Figure("steps", "x", {"here": 0.8}, "share", target=0.75, of_value=True)
    assert share.met is True
    assert replace(share, values={"here": 0.7}).met is False


def test_geometric_mean() -> None:
    figures = [Figure("steps", "x", ratios={"torch": ratio}) for ratio in (1.0, 4.0)]
    (mean,) = measure.geometric_mean("steps", figures, 1.5)
    assert math.isclose(mean.ratio or 0, 2.0)
    assert mean.met is True
    assert not measure.geometric_mean("steps", [Figure("steps", "x", {"here": 1.0})], 1.5)


@needs_compiled
def test_roofs_are_what_was_done_in_the_time_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels run; as if each took a second, the roofs are their work."""
    calls = 0

    def take_turns(sides: Any, *others: Any, **options: Any) -> Any:
        nonlocal calls
        for call in sides.values():
            call()
            calls += 1
        return {side: [2.0, 1.0, 3.0] for side in sides}

    monkeypatch.setattr(measure, "take_turns", take_turns)
    roofs = measure.measure_roofs(PLAN)
    assert calls == 5
    assert roofs.gflops_one > 0
    assert roofs.gflops == pytest.approx(mt.get_num_threads() * roofs.gflops_one)
    assert roofs.rounded_one == 2 * roofs.gflops_one
    assert roofs.rounded == 2 * roofs.gflops
    assert roofs.gbytes == pytest.approx(3 * (PLAN.roof_megabytes << 20) / 1e9)


@needs_compiled
def test_roofs_are_measured() -> None:
    roofs = measure.measure_roofs(PLAN)
    assert all(np.isfinite(speed) and speed > 0 for speed in vars(roofs).values())


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.456e-6, "s", "3.46 us"),
        (0.0123, "s", "12.3 ms"),
        (2.5, "s", "2.5 s"),
        (3 * 2**20, "bytes", "3.0 MiB"),
        (0.756, "share", "76%"),
        (1.234, "times", "1.23 x"),
        (1234.4, "tokens/s", "1234/s"),
    ],
)
def test_amounts(value: float, unit: str, text: str) -> None:
    assert command.amount(value, unit) == text


# Other work


def test_a_machine_is_as_busy_as_the_time_that_others_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of 200 ticks of two cores, 150 are worked in, 100 of them (one second) by this process."""
    stat = tmp_path / "stat"
    lines = ["cpu 100 0 0 900 0 0 0 0 0 0\ncpu0 1", "cpu 200 10 40 930 20 0 0 0 0 0\ncpu0 1"]
    clock = iter((5.0, 6.0))
    stat.write_text(lines[0])
    monkeypatch.setattr(quiet, "_STAT", stat)
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda seconds: stat.write_text(lines[1]))
    assert quiet.others() == pytest.approx(0.25)


def test_quiet_is_waited_for_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float | None] = [0.9, 0.5, 0.02, 0.7]
    monkeypatch.setattr(quiet, "others", lambda: shares.pop(0))
    assert quiet.wait_for_quiet(60) == 0.02
    assert quiet.wait_for_quiet(0) == 0.7


def test_where_the_load_is_not_known_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quiet, "_STAT", tmp_path / "none")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert quiet.wait_for_quiet(60) is None
    assert quiet.told(None) == "how busy it is with other work is not known"
    assert quiet.told(0.04) == "idle"
    assert quiet.told(0.234) == "23% of the cores busy with other work"


def test_a_summary_has_the_missed_targets_the_worst_first() -> None:
    """Of several runs, the median is judged."""
    ratios = {"a": (0.9, 0.5, 0.8), "b": (0.2, 0.4, 0.3), "c": (1.2, 0.9, 1.1)}
    figures = [
        Figure("ops", name, {"here": 1.0}, ratios={"torch": several[run]}, target=1.0)
        for run in range(3)
        for name, several in ratios.items()
    ]
    figures.append(Figure("startup", "import", {"here": 0.5}, target=0.25, of_value=True))
    count, *missed = command.summary(figures, 3)
    assert count == "\n1 of 4 targets met"
    assert [text.split("%")[0].strip() for text in missed] == ["30", "50", "80"]
    assert missed[0].endswith("0.30 (>= 1), from 20% to 40%")
    assert "500 ms (<= 250 ms)" in missed[1]
    assert list(command.summary([], 1)) == []


# Work is counted right


def test_flops_are_those_of_the_matrices() -> None:
    """Of those in the modules of the model, and of attention; times three for both passes."""
    from minitensor.models.transformer import Transformer

    step = Step("odd", 30, 24, 3, 2, 40, 2, 6)

    model = Transformer(step.config(dropout=0.0))
    counted = 0.0
    for name, module in model.named_modules():
        if isinstance(module, mt.nn.Linear):
            counted += 2 * step.tokens * module.weight.numel()
        if name.endswith("attn"):  # scores, and the weighted values
            counted += 2 * 2 * step.batch * step.length**2 * step.d_model
        if getattr(module, "in_proj_weight", None) is not None:
            counted += 2 * step.tokens * module.in_proj_weight.numel()  # type: ignore[operator]
    assert step.flops == 3 * counted


def test_a_known_count() -> None:
    assert round(Plan().steps[1].flops / 1e9) == 47


@needs_torch
@pytest.mark.parametrize("kind", ["NN", "NT", "TN"])
@pytest.mark.parametrize("batch", [0, 3])
@pytest.mark.parametrize("fresh", [False, True])
def test_all_sides_multiply_the_same(kind: str, batch: int, fresh: bool) -> None:
    sides = gemm_sides(["torch", "numpy"], batch, kind, 4, 5, 6, fresh)
    here, torch, numpy = (np.asarray(call()) for call in sides.values())
    assert here.shape == ((batch, 4, 6) if batch else (4, 6))
    np.testing.assert_allclose(here, numpy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(torch, numpy, rtol=1e-5, atol=1e-5)


def test_data_has_no_padding() -> None:
    for side in TINY.data():
        assert side.shape == (4, 8)
        assert (side > 0).all()


@needs_torch
@needs_compiled
@pytest.mark.parametrize("script", PLAN.scripts, ids=lambda script: script.name)
def test_scripts_train_alike_on_both_sides(script: Script) -> None:
    sides = {
        "here": foreign.Training("here", script).step,
        "here compiled": foreign.Training("here", script, True).step,
        "torch": foreign.Training("torch", script).step,
    }
    foreign.check_losses(script, sides)
    with pytest.raises(InputError, match=f"{script.name}: the losses of [a-z ]* are"):
        foreign.check_losses(script, {**sides, "other": lambda: 7.0})


@needs_compiled
def test_the_figures_of_scripts() -> None:
    figures = list(foreign.measure_scripts(replace(PLAN, scripts=PLAN.scripts[:1]), [], ROOFS))
    assert [figure.name for figure in figures] == ["gpt, uncompiled", "gpt"]
    assert figures[1].target == foreign.TARGET
    assert not figures[1].ratios
    tokens, width, vocabulary = 2 * 8, 16, 20
    attention = 2 * 2 * tokens * 8 * width  # scores and their product with the values
    linear = 2 * tokens * (12 * width**2 + width * vocabulary)
    # Backward needs two products for one, and of attention the scores again.
    assert figures[1].flops == 3 * linear + attention * 7 / 2


def test_the_most_that_the_peak_allows() -> None:
    one = Figure("steps", "one", {"here": 2.0}, ratios={"torch": 1.5}, flops=200e9)
    other = Figure("steps", "other", {"here": 1.0}, ratios={"torch": 3.0}, flops=150e9)
    (most,) = measure.at_peak("steps", [one, other], ROOFS)  # 200 GFLOP/s
    assert most.ratio == pytest.approx(math.sqrt(1.5 * 2 * 3 * 200 / 150))
    assert not measure.at_peak("steps", [one], None)
    assert not measure.at_peak("steps", [replace(one, ratios={})], ROOFS)


@needs_torch
@pytest.mark.filterwarnings("ignore")  # PyTorch's
def test_every_op_has_a_small_call() -> None:
    """Of those that PyTorch has too."""
    missing = {
        name
        for name, op in OPS.items()
        if op.torch_name is not None and small_call(op, ["torch"]) is None
    }
    assert not missing


# Topics


@needs_compiled
@needs_torch
@pytest.mark.usefixtures("_known_roofs")
def test_topics_run_and_their_figures_are_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, picture = tmp_path / "figures.json", tmp_path / "roofs.svg"
    topics = ["ops", "gemm", "attention", "recurrent", "conv", "bert", "steps", "medium", "decode"]
    code, out, err = run(capsys, *topics, "--json", str(file), "--svg", str(picture))
    assert (code, err) == (0, "")
    assert f"{mt.get_num_threads()} threads" in out
    found = json.loads(file.read_text())
    assert found["machine"]["versions"]["torch"]
    assert found["roofs"] == vars(ROOFS)
    figures = found["figures"]
    assert {figure["topic"] for figure in figures} == set(topics)
    names = [(figure["topic"], figure["name"]) for figure in figures]
    assert len(set(names)) == len(names)
    for figure in figures:
        assert all(0 < value < 1e6 for value in figure["values"].values())
        assert all(0 < ratio < 1e4 for ratio in figure["ratios"].values())
        assert figure["name"] in out
        if figure["flops"]:
            assert 0 < figure["gflops"] < 1e5
    by_name = {figure["name"]: figure for figure in figures}
    assert {"Add", "Softmax", "Isin", "add of 8 numbers", "module Linear"} <= set(by_name)
    assert by_name["add of 8 numbers"]["target"] == 1.0
    assert by_name["S=32 K=64 N=1"]["target"] == 3.0
    assert by_name["S=32 K=64 N=1"]["flops"] == 12 * 8 * 32 * 32 * 64
    assert by_name["S=32 K=64 N=1 causal"]["flops"] == 6 * 8 * 32 * 32 * 64
    assert by_name["LSTM H=8 S=3 N=2 both ways"]["flops"] == 6 * 3 * 2 * (8 * 32 + 8 * 32)
    assert by_name["tiny, forward"]["flops"] == 2 * (2 * 4 * 3) * (2 * 3)
    assert by_name["tiny, all gradients"]["target"] == 0.5
    assert by_name["tiny NT 32,32,64"]["flops"] == 2 * 32 * 32 * 64
    assert set(by_name["tiny NT 32,32,64"]["ratios"]) == {"torch", "numpy"}
    assert by_name["NN 64 x 8,8,8"]["flops"] == 64 * 2 * 8**3
    assert by_name["NN 8,8,8"]["target"] == 1.0
    assert by_name["tiny: share of the FMA peak"]["unit"] == "share"
    targets = {figure["target"] for figure in figures if figure["name"] == "geometric mean"}
    assert targets == {1.0, 2.0}  # of products and of steps
    assert found["busy"]["steps 1"] == 0.01
    assert "the machine: idle" in out
    assert set(by_name["tiny at medium"]["values"]) == {"here", "torch"}
    assert by_name["medium beside PyTorch's best, towards 1.7"]["target"] == 1.7
    assert mt.get_float32_matmul_precision() == "highest"
    assert by_name["tiny N=3 L=8"]["unit"] == "tokens/s"
    assert by_name["tiny N=3 L=8"]["target"] == 1.5
    assert by_name["tiny N=3 L=8 beam 4, PyTorch greedy"]["target"] is None
    small = [figure["ratio"] for figure in figures[:3]]
    assert small == sorted(small)
    ElementTree.parse(picture)


@needs_compiled
def test_without_anything_to_compare_with(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "decode", "--against")
    assert (code, err) == (0, "")
    assert "FMA peak" not in out
    assert "targets" not in out
    assert "/s" in out


@needs_compiled
@pytest.mark.parametrize("optimizer", [True, False])
def test_memory_grows(optimizer: bool) -> None:
    step = TINY.resized(feedforward=4096)
    grown = worker.memory("here", asdict(step), optimizer)
    weights = 4 * 4 * 32 * 4096  # bytes of the feed-forward networks' matrices
    assert weights <= grown < 200 * weights


def test_memory_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {("here", True): 60, ("torch", True): 100, ("here", False): 30, ("torch", False): 40}
    monkeypatch.setattr(
        training, "run_worker", lambda task, side, step, optimizer: found[side, optimizer]
    )
    step, passes = training.measure_memory(PLAN, ["torch", "numpy"])
    assert (step.ratio, step.met) == (0.6, True)
    assert (passes.ratio, passes.met) == (0.75, None)


def test_a_loss_in_chunks_is_the_loss_of_the_step() -> None:
    from minitensor.models.transformer import Transformer

    mt.manual_seed(0)
    model = Transformer(TINY.config(dropout=0.0))
    losses = [kind(model, 0.1, 0.0).loss(TINY.data()) for kind in (Ours, growth.InChunks)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    gradients = []
    for loss in losses:
        model.zero_grad()
        loss.backward()
        gradients.append([p.grad.numpy() for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


@needs_compiled
@needs_torch
def test_curves_of_growth_are_measured_and_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "growth.svg"
    code, out, err = run(capsys, "growth", "--curves", str(picture))
    assert (code, err) == (0, "")
    for name in (
        "batch 3",
        "length 4, N=8, 1+1 layers",
        "depth 2+2 layers",
        "vocabulary 60",
        "vocabulary 60, whole scores",
    ):
        assert re.search(f"^{re.escape(name)}  ", out, re.MULTILINE)
    ElementTree.parse(picture)
    for label in ("here, whole scores", "PyTorch", *growth.CURVES.values()):
        assert f"<!-- {label} -->" in picture.read_text()


def test_the_memory_of_growth_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {("here", True): 20, ("here", False): 60, ("torch", False): 100}
    asked = []

    def fake(task: str, side: str, chunks: bool, **settings: Any) -> int:
        asked.append(settings["step"]["vocabulary"])
        return found[side, chunks]

    monkeypatch.setattr(growth, "run_worker", fake)
    monkeypatch.setattr(growth, "take_turns", lambda sides, *rest: {side: [1.0] for side in sides})
    monkeypatch.setattr(growth, "training_step", lambda *args, **settings: None)
    plan = replace(PLAN, growth_memory=60)
    figures = [f for f in growth.measure_growth(plan, ["torch"]) if f.unit == "bytes"]
    assert [(f.name, f.ratio, f.met) for f in figures] == [
        ("vocabulary 60, memory", 0.2, True),
        ("vocabulary 60, whole scores, memory", 0.6, None),
    ]
    assert asked == [60, 60, 60]


def test_a_worker_answers() -> None:
    loss = training.run_worker("first_step", step=asdict(TINY))
    assert 2 < loss < 8


def test_a_worker_that_fails_says_why() -> None:
    with pytest.raises(InputError, match=r"failed: ZeroDivisionError"):
        training.run_python(["-c", "1 / 0"])


@needs_compiled
@needs_torch
def test_a_step_is_measured_beside_others() -> None:
    figures = {figure.name: figure for figure in busy.measure_busy(PLAN, ["torch", "numpy"])}
    assert len(figures) == 1 + 4 + 4
    for figure in figures.values():
        assert set(figure.values) == {"here", "torch"}
        assert all(0 < value < 1e6 for value in figure.values.values())
    alone, beside = figures[training.title(TINY)], figures["tiny beside 3"]
    longer = figures["tiny beside 3: times alone"]
    assert longer.values["torch"] == beside.values["torch"] / alone.values["torch"]
    share = busy.share_by_thread(mt.get_num_threads(), 3, measure.cores())
    fair = figures[f"tiny beside 3: times fair by thread ({share:.0%})"]
    assert fair.values["here"] == longer.values["here"] * share
    assert fair.met is (fair.values["here"] <= 1.3)


def test_the_others_compute_and_end() -> None:
    """At the end of the block, and when the process that started them has died."""
    with busy._process("-c", busy.OTHER) as other:
        assert busy._answer(other) == 0
        assert other.poll() is None
    assert other.returncode
    orphaned = busy.OTHER.replace("os.getppid() == parent", "os.getppid() == parent + 1")
    with busy._process("-c", orphaned) as other:
        assert busy._answer(other) == 0
        assert other.wait(60) == 0


def test_fair_shares() -> None:
    """Of the speed alone: threads, other processes, cores."""
    by_thread = {n: busy.share_by_thread(2, n, 2) for n in (0, 1, 2, 4)}
    assert by_thread == {0: 1, 1: 2 / 3, 2: 1 / 2, 4: 1 / 3}
    by_process = {n: busy.share_by_process(2, n, 2) for n in (0, 1, 2, 4)}
    assert by_process == {0: 1, 1: 1 / 2, 2: 1 / 3, 4: 1 / 5}
    assert busy.share_by_thread(2, 2, 8) == busy.share_by_process(2, 2, 8) == 1
    assert busy.share_by_process(8, 2, 8) == 6 / 8


def test_a_process_that_fails_to_answer_says_why() -> None:
    with busy._process("-c", "1 / 0") as process, pytest.raises(InputError, match=r"ZeroDivision"):
        busy._answer(process)


def test_starts_are_those_of_new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], dict[str, str]]] = []

    def fake(arguments: list[str], **environment: str) -> tuple[str, float]:
        asked.append((arguments, environment))
        return "", float(len(asked))

    monkeypatch.setattr(training, "run_python", fake)
    figures = list(training.measure_startup(PLAN))
    assert [figure.values["here"] for figure in figures] == [2.0, 4.0, 5.0]
    assert [figure.target for figure in figures] == [0.25, 0.7, 8.0]
    for _, environment in asked:  # bytecode is kept, so that the sources are compiled once
        assert environment["PYTHONPYCACHEPREFIX"] == asked[0][1]["PYTHONPYCACHEPREFIX"]
        assert environment["PYTHONDONTWRITEBYTECODE"] == ""
    assert not any("MINITENSOR_CACHE" in environment for _, environment in asked[:-1])
    cache = Path(asked[-1][1]["MINITENSOR_CACHE"])
    assert not cache.exists()  # gone again


# The picture


def test_labels_of_the_picture_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from minitensor.tools.bench import roofline

    noise = np.random.RandomState(0)
    figures = []
    for number in range(35):
        work = float(np.exp(noise.uniform(-1, 4)))
        seconds = float(np.exp(noise.uniform(0, 2))) * max(work / 200e9, 1 / 50e9)
        figures.append(
            Figure(
                ("ops", "gemm", "attention")[number % 3], str(number), {"here": seconds},
                flops=work, bytes=1.0, label=f"kernel {number}",
            )
        )  # fmt: skip
    seen: list[Any] = []
    place = roofline.place_labels

    def spy(axes: Any, *rest: Any) -> None:
        place(axes, *rest)
        seen.extend(t.get_window_extent() for t in axes.texts if t.get_text())

    monkeypatch.setattr(roofline, "place_labels", spy)
    svg = draw_roofline(figures, ROOFS)
    assert svg.startswith(b"<?xml")
    assert len(seen) == 35
    for number, box in enumerate(seen):
        assert not any(box.overlaps(other) for other in seen[:number])


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gem"], "there is no topic 'gem': choose from ops, gemm"),
        (["startup", "--svg", "x.svg"], "--svg draws what"),
        (["decode", "--curves", "x.svg"], "--curves draws what growth measures"),
        (["decode", "--json", "missing/x.json"], "cannot write missing/x.json"),
        (["decode", "--json", "."], "cannot write .: it is a folder"),
    ],
)
@needs_compiled
def test_bad_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@needs_compiled
@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("torch", ["decode"], "PyTorch is not installed"),
        ("jax", ["gemm", "--against", "jax"], "JAX is not installed"),
        ("matplotlib.figure", ["gemm", "--svg", "x.svg"], "matplotlib is not installed"),
    ],
)
def test_what_is_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    module: str, arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {message}")


def test_an_unknown_side_is_a_wrong_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["gemm", "--against", "tensorflow"])
    assert stop.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


@needs_compiled
@pytest.mark.usefixtures("_known_roofs")
def test_an_interruption_keeps_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*rest: Any) -> Any:
        yield Figure("gemm", "first", {"here": 1.0})
        raise KeyboardInterrupt

    monkeypatch.setitem(command.TOPICS, "gemm", interrupted)
    file = tmp_path / "figures.json"
    code, _, err = run(capsys, "gemm", "--against", "--json", str(file))
    assert (code, err) == (130, "interrupted\n")
    assert [figure["name"] for figure in json.loads(file.read_text())["figures"]] == ["first"]
