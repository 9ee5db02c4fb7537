"""Gradient checks of whole models, in tests and from the command line: a wrong one is found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

import minitensor as mt
from minitensor import nn
from minitensor.core import OPS, Op, Tensor
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.testing import check_gradients, check_op, gradcheck_module
from minitensor.tools import gradcheck

INPUT = ["--input", "input:3,4"]


def run(capsys: Any, *arguments: str) -> tuple[int, str]:
    """The exit code of the command line, and what it printed."""
    code = gradcheck.main(arguments)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_a_right_model_passes(capsys: Any) -> None:
    code, output = run(capsys, "planted:right", *INPUT, "--second")
    assert code == 0, output
    assert "float64, evaluation mode, seed 0" in output
    assert re.search(r"^0\.weight +\(5, 4\) +2 projections +\S+ +ok$", output, re.M)
    assert re.search(r"^0\.bias \(second\) +\(5,\) +5 elements +\S+ +ok$", output, re.M)
    assert re.search(r"^input +\(3, 4\) +12 elements", output, re.M)
    assert re.search(
        r"^Right: x +\(3, 5\) +15 elements +\S+ +1 +ok +1\.1 .*planted\.py", output, re.M
    )
    assert "all right" in output
    assert "FAIL" not in output


def test_a_wrong_function_is_named_with_its_line_and_element(capsys: Any) -> None:
    code, output = run(capsys, "planted:everywhere", *INPUT)
    assert code == 1
    assert re.search(
        r"WrongEverywhere: x \(3, 5\) in 1\.1 at .*planted\.py:\d+ "
        r"`return self\.kind\.apply\(x\)  # the planted line`.*: element \(\d, \d\): expected ",
        output,
    )
    assert re.search(r"^0\.weight .*FAIL$", output, re.M)  # what lies before it
    assert re.search(r"^3\.weight .*ok$", output, re.M)  # what lies behind it
    assert re.search(r"^linear: .* ok ", output, re.M)


def test_one_wrong_element_of_many_is_found() -> None:
    with pytest.raises(
        AssertionError, match=r"WrongOnce: x \(3, 5\) in 1\.1 .*element \(1, 3\): "
    ) as e:
        gradcheck_module(planted.once(), mt.randn(3, 4), elements=1)
    expected, found = map(float, re.search(r"expected (\S+), found (\S+)", str(e.value)).groups())  # type: ignore[union-attr]
    assert found == pytest.approx(1.01 * expected, rel=1e-6)


def test_a_wrong_second_derivative_is_found_when_it_is_asked_for() -> None:
    x = mt.randn(3, 4)
    gradcheck_module(planted.twice(), x)
    with pytest.raises(AssertionError, match=r"second derivative of WrongTwice: x .* in 1\.1"):
        gradcheck_module(planted.twice(), x, second=True)


def test_a_module_that_detaches_is_told_from_wrong_ops() -> None:
    report = check_gradients(planted.forgetful(), [mt.randn(3, 4)])
    assert all(row.ok for row in report.ops)
    assert {row.name for row in report.failures()} == {"0.weight", "0.bias", "input"}
    assert "look for detach" in report.message()


def test_a_backward_hook_that_changes_a_gradient_is_found() -> None:
    with pytest.raises(AssertionError, match=r"in 1\.1"):
        gradcheck_module(planted.hooked(), mt.randn(3, 4))


def test_a_wrong_op_of_the_users_own_is_named() -> None:
    class PlantedOp(Op):
        """3 x with the derivative 4."""

        namespaces = ""

        def forward(ctx, x: np.ndarray) -> np.ndarray:
            return 3 * x

        def backward(ctx, dy: Tensor) -> Tensor:
            return 4 * dy

    class Triple(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return PlantedOp.apply(x)

    try:
        with pytest.raises(AssertionError, match=r"planted_op: x .* in 1\.1 at .*test_gradcheck"):
            gradcheck_module(planted.model(Triple()), mt.randn(3, 4))
        with pytest.raises(AssertionError, match=r"planted_op: backward: Jacobian mismatch"):
            check_op(PlantedOp, mt.ones(2, dtype=mt.float64, requires_grad=True))
    finally:
        del OPS["PlantedOp"]


def test_a_wrong_backward_of_a_fused_op_is_named(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    right = OPS["LayerNorm"].backward

    def wrong(ctx: Any, dy: np.ndarray) -> Any:
        dx, *others = right(ctx, dy)
        return (dx * 1.001, *others)

    monkeypatch.setattr(OPS["LayerNorm"], "backward", wrong)
    path = str(tmp_path / "model.safetensors")
    Transformer(TransformerConfig(7, 7, 8, 2, 1, 1, 8)).save(path)
    code, output = run(capsys, path, "--dims", "N=2,M=5,M_target=4")
    assert code == 1
    failing = [line.split()[:2] for line in output.splitlines() if re.search(r" FAIL +\S", line)]
    assert failing == [["layer_norm:", "x"]] * len(failing)
    assert failing
    assert re.search(
        r"layer_norm: x \(2, \d, 8\) in encoder\.[\w.]+ at minitensor/models/transformer\.py",
        output,
    )
    with pytest.raises(AssertionError, match=r"layer_norm: (backward|reference)"):
        check_op(OPS["LayerNorm"])


def test_check_op_finds_a_kernel_that_differs_from_its_reference(monkeypatch: Any) -> None:
    assert check_op(OPS["Softmax"])["references"]
    monkeypatch.setattr(OPS["Softmax"], "decomposition", staticmethod(lambda x, dim, *a: x.exp()))
    with pytest.raises(AssertionError, match=r"softmax: (reference: output 0 in float64|second)"):
        check_op(OPS["Softmax"])


def test_check_op_of_a_function_and_a_reference_in_numpy() -> None:
    x = mt.tensor([0.5, 1.5], dtype=mt.float64, requires_grad=True)
    done = check_op(
        lambda x: x.exp() * x,
        x,
        reference=lambda x: np.exp(x.numpy(force=True)) * x.numpy(force=True),
    )
    assert done == dict(forwards=1, gradchecks=1, references=2) | {"second-order checks": 1}
    with pytest.raises(AssertionError, match="reference: output 0 in float64: Tensor-like"):
        check_op(lambda x: x.exp(), x, reference=lambda x: x.numpy(force=True))
    assert check_op(planted.Right, x)["second-order checks"] == 1
    with pytest.raises(AssertionError, match="WrongEverywhere: backward"):
        check_op(planted.WrongEverywhere, x)
    with pytest.raises(AssertionError, match="WrongTwice: second derivative"):
        check_op(planted.WrongTwice, x)
    with pytest.raises(AssertionError, match="forward: tensor 0 of the arguments was changed"):
        check_op(lambda x: x.add_(1), mt.ones(2, dtype=mt.float64))
    drawn = iter(range(9))
    with pytest.raises(AssertionError, match="forward: output 0 differs in a second run"):
        check_op(lambda x: x * next(drawn), mt.ones(2, dtype=mt.float64))

    class Unsampled(Op):
        namespaces = ""

    with pytest.raises(ValueError, match="has no samples"):
        check_op(Unsampled)


def test_everything_is_as_it_was_afterwards() -> None:
    model = planted.everywhere().train()
    model[1].eval()
    x = mt.randn(3, 4, requires_grad=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    arrays = [id(p._array) for p in model.parameters()]
    state = mt.get_rng_state()
    report = check_gradients(model, [x], training=True, second=True)
    assert not report.ok
    assert report.mode == "training mode, the same random numbers in each run"
    assert arrays == [id(p._array) for p in model.parameters()]
    for key, value in model.state_dict().items():
        assert value.dtype == mt.float32
        assert np.array_equal(value.numpy(), before[key].numpy())
    assert [m.training for m in model] == [True, False, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert x.grad is None
    assert x.dtype == mt.get_default_dtype() == mt.float32
    assert np.array_equal(mt.get_rng_state(), state)


def test_dropout_is_fixed_in_training_mode(capsys: Any) -> None:
    code, output = run(capsys, "planted:right", *INPUT, "--train", "--second", "--seed", "3")
    assert code == 0, output
    assert "training mode, the same random numbers in each run, seed 3" in output
    assert re.search(r"^dropout: x ", output, re.M)


def test_a_transformer_of_every_kind() -> None:
    for options in (
        dict(),
        dict(norm="batch", norm_first=True, activation="gelu", positions="learned"),
        dict(norm="rms", positions="rotary", tied_output=True),
    ):
        mt.manual_seed(1)
        model = Transformer(TransformerConfig(7, 7, 8, 2, 1, 1, 8, **options))  # type: ignore[arg-type]
        src, tgt = mt.tensor([[3, 4, 5], [4, 6, 0]]), mt.tensor([[1, 3], [1, 5]])
        report = gradcheck_module(model, src, tgt, second=True, elements=1)
        count = len([*model.parameters()])
        assert [row.order for row in report.parameters] == [1] * count + [2] * count
        assert report.runs > 10


def test_kinks_are_no_faults() -> None:
    """relu at exactly 0, |x| at 0 and a maximum that is reached twice have no derivative."""
    zeros = mt.zeros(40)
    report = gradcheck_module(lambda x: nn.functional.relu(x) + x.abs() + x.exp(), zeros)
    assert report.parameters[0].checked.kinks == 40
    gradcheck_module(lambda x: x.max(), mt.ones(3))
    gradcheck_module(
        lambda x: x.masked_fill(mt.tensor([True, False]), float("-inf")).softmax(-1), mt.randn(2)
    )


def test_a_saved_model_and_a_function(tmp_path: Path, capsys: Any) -> None:
    path = str(tmp_path / "model.safetensors")
    Transformer(TransformerConfig(7, 7, 8, 2, 1, 1, 8)).save(path)
    code, output = run(capsys, path)
    assert code == 0, output
    assert "encoder.layers.0.self_attn.in_proj_weight" in output
    code, output = run(capsys, "planted:loss")
    assert code == 0, output
    assert "net.0.weight" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense is not a target: expected transformer, "),
        (["planted:nothing"], "planted has no nothing"),
        (["planted:drawing", "--input", "x:2"], "two runs on the same inputs differ"),
        (["planted:right", "--input", "input:3,3"], "the input has 3 features"),
        (["planted:right", *INPUT, "--elements", "0"], "expected a number above 0"),
        (["graph.json"], "is a graph, which cannot be run"),
    ],
)
def test_what_cannot_be_run_is_exit_code_2(arguments: list[str], message: str, capsys: Any) -> None:
    code, output = run(capsys, *arguments)
    assert code == 2
    assert re.search(message, output)
    assert output.startswith("error: ")
    assert len(output.splitlines()) == 1


def test_nothing_to_check_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to check"):
        gradcheck_module(lambda x: x * 2.0, mt.ones(2, dtype=mt.int64))
    with pytest.raises(ValueError, match="no output requires grad"):
        gradcheck_module(lambda x: x.detach(), mt.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        gradcheck_module(lambda x: x.log(), -mt.ones(2))


def test_an_op_in_float32_is_no_silent_pass() -> None:
    with pytest.raises(AssertionError, match="another type than float64"):
        gradcheck_module(lambda x: x.float().exp(), mt.ones(2))


def test_the_command_line_runs_in_a_process_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.gradcheck", "planted:everywhere", *INPUT],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 1
    assert "in 1.1 at tests/planted.py" in done.stdout


def small_transformer() -> tuple[Transformer, Tensor, Tensor]:
    mt.manual_seed(1)
    model = Transformer(TransformerConfig(7, 7, 8, 2, 1, 1, 8))
    return model, mt.tensor([[3, 4, 5], [4, 6, 0]]), mt.tensor([[1, 3], [1, 5]])


OPS_OF_A_TRANSFORMER = [
    "add",
    "div",
    "embedding",
    "getitem",
    "layer_norm",
    "linear",
    "matmul",
    "mul",
    "relu",
    "reshape",
    "softmax",
    "split_with_sizes",
    "transpose",
    "view",
]


def test_these_are_the_ops_of_a_transformer() -> None:
    model, *inputs = small_transformer()
    rows = check_gradients(model, inputs).ops
    assert sorted({row.name.split(":")[0] for row in rows}) == OPS_OF_A_TRANSFORMER


@pytest.mark.parametrize("op_name", OPS_OF_A_TRANSFORMER)
def test_a_thousandth_too_much_in_any_gradient_of_any_op_is_named(
    op_name: str, monkeypatch: Any
) -> None:
    """One gradient of one op of a Transformer at a time, times 1.001."""
    (op,) = (op for op in OPS.values() if op.op_name == op_name)
    right, found, count = op.backward, 0, 1
    model, *inputs = small_transformer()
    for number in range(4):
        if number == count:  # of its gradients
            break
        changed = 0

        def wrong(ctx: Any, *dys: Any, number: int = number) -> Any:
            nonlocal changed, count
            grads = right(ctx, *dys)
            grads = list(grads) if isinstance(grads, tuple) else [grads]
            count = max(count, len(grads))
            if number < len(grads) and grads[number] is not None:
                grads[number] = grads[number] * 1.001
                changed += 1
            return tuple(grads)

        monkeypatch.setattr(op, "backward", wrong)
        report = check_gradients(model, inputs, elements=1, projections=1)
        if changed:
            assert {row.name.split(":")[0] for row in report.ops if not row.ok} == {op_name}
            assert any(not row.ok for row in report.parameters)
            found += 1
    assert found
