"""The text that `explain=True` prints: what was recorded, rewritten, left and planned."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import minitensor as mt
from minitensor import nn
from minitensor.nn import functional as F
from minitensor.replay import calls_of
from minitensor.replay.explain import explanation, plan_explanation


def told(function: Callable[..., Any], *inputs: Any) -> str:
    function(*inputs)  # kernels are compiled before
    compiled = mt.compile(function)
    compiled(*inputs)
    (entry,) = calls_of(compiled).entries
    return explanation(entry)


def line_of(function: Callable[..., Any], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if text in line)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        hidden = self.up(x).relu()
        return x + self.down(hidden)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block(), Block())

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return self.blocks(x).sum()


def test_ops_are_counted_by_block_and_rules_by_line() -> None:
    lines = told(Net(), mt.randn(4, 8)).splitlines()
    assert lines[0] == "compile: recorded 13 ops"  # 4 in each of 3 blocks, and the sum
    (blocks,) = [line for line in lines if line.startswith("  blocks.*")]
    assert "linear x6" in blocks
    assert "relu x3" in blocks
    assert "add x3" in blocks
    (whole,) = [line for line in lines if line.startswith("  Net ")]
    assert whole.split()[1] == "sum"
    relu = line_of(Block.forward, "relu")
    (rule,) = [line for line in lines if "3x linear + relu" in line]
    assert rule.endswith(f"test_explain.py:{relu}")
    (count,) = [line for line in lines if line.startswith("rules: ")]
    before, after = map(int, re.findall(r"(\d+) ops became (\d+)", count)[0])
    assert before == 13
    assert after < 13


def test_a_call_that_no_rule_fits_says_so() -> None:
    lines = told(lambda x: x.cumsum(0), mt.randn(4)).splitlines()
    assert lines == [lines[0], lines[1], "rules: none applied"]
    assert lines[1].startswith("  in no module  cumsum  test_explain.py:")


def twice(x: mt.Tensor) -> mt.Tensor:
    scaled = x.cos()
    return scaled.sin() @ scaled


def wider(x: mt.Tensor) -> mt.Tensor:
    row = x.sum(0, keepdim=True).cos()
    return (row * x).cumsum(0)


def both(x: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
    a = x.cos()
    return a, a.sin()


@pytest.mark.parametrize(
    ("function", "ops", "why"),
    [
        (twice, "cos, sin", "what lies between is used 2 times"),
        (wider, "cos, mul", "shape (1, 6) is broadcast to (6, 6)"),
        (both, "cos, sin", "what lies between is returned"),
    ],
)
def test_neighbours_that_stay_apart_have_a_reason(
    function: Callable[..., Any], ops: str, why: str
) -> None:
    shown = told(function, mt.randn(6, 6))
    (line,) = [line for line in shown.splitlines() if why in line]
    assert f"1x {ops} " in line


def attention(q: mt.Tensor, k: mt.Tensor, v: mt.Tensor) -> tuple[mt.Tensor, mt.Tensor]:
    weights = F.softmax(q @ k.mT * 0.3, -1)
    return weights @ v, weights


def test_attention_that_stays_apart_has_a_reason() -> None:
    shown = told(attention, *(mt.randn(2, 5, 8) for _ in range(3)))
    (line,) = [line for line in shown.splitlines() if "matmul, softmax, matmul" in line]
    assert "what lies between is returned" in line
    assert line.endswith(f"test_explain.py:{line_of(attention, 'softmax')}")


def test_what_is_not_replayed_gives_the_reason_alone() -> None:
    def reads(x: mt.Tensor) -> mt.Tensor:
        return x * x.sum().item()

    with pytest.warns(UserWarning, match="runs as it is"):
        shown = told(reads, mt.randn(3))
    assert shown.startswith("compile: runs as it is: test_explain.py:")
    assert "item()" in shown
    assert len(shown.splitlines()) == 1


def test_the_plan_tells_its_kernels_and_its_memory() -> None:
    net = Net()
    compiled = mt.compile(net)
    for _ in range(3):
        compiled(mt.randn(64, 8)).backward()
    (entry,) = calls_of(compiled).entries
    (plan,) = entry.plans
    shown = plan_explanation(plan)
    assert plan.forward is not None
    assert plan.backward is not None
    for name, program in (("forward", plan.forward), ("backward", plan.backward)):
        (line,) = [line for line in shown.splitlines() if f"{name}: " in line]
        counts = [int(n) for n in re.findall(r"(\d+) (?:kernel|op)", line)]
        assert counts == [program.native, program.steps][: 1 + bool(program.steps)]
    weights = sum(p.numel() * 4 for p in net.parameters())
    assert "inputs 2.05 kB" in shown  # 64 * 8 * 4 bytes
    assert f"gradients {weights / 1000:.3g} kB" in shown
    assert f"parameters and constants {weights / 1000:.3g} kB" in shown


def test_explain_prints_once(capsys: pytest.CaptureFixture[str]) -> None:
    compiled = mt.compile(Net(), explain=True)
    x = mt.randn(4, 8)
    compiled(x)
    assert capsys.readouterr().out.startswith("compile: recorded 13 ops\n")
    loss = compiled(x)
    assert capsys.readouterr().out == ""  # the plan is whole after its backward pass
    loss.backward()
    assert capsys.readouterr().out.startswith("compile: replayed, forward: ")
    compiled(x).backward()
    assert capsys.readouterr().out == ""
