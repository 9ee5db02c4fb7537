"""`mt.compile`: what is compiled does as it would uncompiled, and the cases in which it is not."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
import threading
import types
import warnings
import weakref
from pathlib import Path
from typing import Any

import both
import compile_cases
import compile_changes
import numpy as np
import program_compiled
import pytest
from compile_cases import Net, grads

import minitensor as mt
from minitensor import nn
from minitensor.kernels.jit import COMPILED
from minitensor.nn import functional as F
from minitensor.recording import Names, Recording
from minitensor.replay import calls_of
from minitensor.replay.compiled import PLANS

pytestmark = pytest.mark.usefixtures("one_thread")


assert compile_cases.__name__ < compile_changes.__name__  # whose cases are in both.CASES


@pytest.mark.parametrize("name", sorted(both.CASES))
def test_equals_the_uncompiled_program(name: str) -> None:
    both.check(*both.CASES[name])


# Errors


def test_a_wrong_shape_is_refused_and_nothing_is_broken() -> None:
    layer = nn.Linear(3, 4)
    compiled = mt.compile(layer)
    for _ in range(4):
        x = mt.randn(2, 3)
        assert both.frozen(compiled(x)) == both.frozen(layer(x))
        with pytest.raises(RuntimeError) as ours:
            compiled(mt.randn(2, 5))
        with pytest.raises(RuntimeError) as theirs:
            layer(mt.randn(2, 5))
        assert str(ours.value) == str(theirs.value)


def test_errors_name_the_module_as_without_compile() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 4)))
    texts = []
    for inner in (model[1], mt.compile(model[1])):
        model[1] = inner
        for each in (model, mt.compile(model), inner):
            with pytest.raises(RuntimeError) as error:
                each(mt.randn(2, 3) if each is not inner else mt.randn(2, 4))
            texts.append(str(error.value))
    assert texts[:3] == texts[3:]
    assert " in 1.1" in texts[1]


@pytest.mark.parametrize("at", range(5))
def test_an_index_out_of_range_is_refused_in_any_call(at: int) -> None:
    embedding = nn.Embedding(5, 4)

    def f(places: Any, targets: Any) -> Any:
        return F.cross_entropy(embedding(places) * 2, targets)

    compiled = mt.compile(f)
    for n in range(7):
        places, targets = mt.randint(0, 5, (6,)), mt.randint(0, 4, (6,))
        if n == at:
            for wrong in ((places + 5, targets), (places, targets + 4), (places - 9, targets)):
                with pytest.raises(IndexError) as expected:
                    f(*wrong)
                with pytest.raises(IndexError) as found:
                    compiled(*wrong)
                assert str(found.value) == str(expected.value)
        embedding.zero_grad()
        f(places, targets).backward()
        expected = both.frozen([f(places, targets), embedding.weight.grad])
        embedding.zero_grad()
        out = compiled(places, targets)
        out.backward()
        assert both.frozen([out, embedding.weight.grad]) == expected


def test_a_refused_call_takes_no_random_numbers_from_the_next() -> None:
    embedding = nn.Embedding(5, 4)
    f = lambda i: F.dropout(embedding(i), 0.5)  # noqa: E731
    compiled = mt.compile(f)
    for _ in range(4):
        compiled(mt.tensor([1, 2]))
    seen = []
    for each in (f, compiled):
        mt.manual_seed(0)
        with pytest.raises(IndexError):
            each(mt.tensor([1, 7]))
        seen.append(both.frozen(each(mt.tensor([1, 2]))))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_result_that_backward_needs_may_not_change(compiled: bool) -> None:
    f = mt.compile(lambda x: x.exp()) if compiled else mt.exp
    for _ in range(4):
        y = f(mt.zeros(2, requires_grad=True))
        with mt.no_grad():
            y.mul_(3)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


@pytest.mark.parametrize("calls", ["sssp", "ppr", "ppc", "pppp"])
def test_gradients_are_not_computed_again_from_other_numbers(calls: str) -> None:
    """Calls without a backward pass, with it (plain), with it again, with one of the gradients."""

    def gradient(y: mt.Tensor, x: mt.Tensor, call: str) -> mt.Tensor:
        if call == "r":
            mt.autograd.grad(y, [x], retain_graph=True)
        return mt.autograd.grad(y, [x], create_graph=call == "c")[0]

    f = mt.compile(lambda x, b: (x + b).exp())
    for number, call in enumerate(calls):
        x = mt.tensor([0.5, 1.0], requires_grad=True)
        y = f(x, mt.ones(2)).sum()
        if call == "s":
            continue
        with mt.no_grad():
            x.add_(1)  # which the op does not need: it keeps its result
        if (
            number == len(calls) - 1 and calls != "pppp"
        ):  # the ops would run again, on other numbers
            with pytest.raises(
                RuntimeError, match=r"of shape \(2,\) that a compiled call has read"
            ):
                gradient(y, x, call)
        else:
            np.testing.assert_allclose(gradient(y, x, call).tolist(), np.exp([1.5, 2.0]), rtol=1e-6)


def test_memory_that_is_lent_again_is_not_that_of_the_first() -> None:
    recording = Recording(Names({}, {}), lambda op: False)
    x = mt.randn(512, 512)
    recording.add_input(x, "x")
    with recording:
        h = (x * 2).sum(0)  # what it is the sum of dies here
        h + mt.zeros(512, 512)
    assert [call.op for call in recording.calls] == ["Mul", "Sum", "Add"]


def test_errors_of_the_function_are_its_own() -> None:
    @mt.compile
    def f(x: Any, fail: bool) -> Any:
        if fail:
            raise KeyError("mine")
        return x * 2

    for n in range(9):
        if n % 3 == 1:
            with pytest.raises(KeyError, match="mine"):
                f(mt.ones(2), True)
        else:
            assert f(mt.ones(2), False).tolist() == [2, 2]


def test_an_error_while_it_is_recorded_leaves_nothing_behind() -> None:
    fail = [True]

    @mt.compile
    def f(x: Any) -> Any:
        if fail[0]:
            raise ValueError("not now")
        return x * 2

    for _ in range(2):
        with pytest.raises(ValueError, match="not now"):
            f(mt.ones(2))
    fail[0] = False
    for _ in range(4):
        assert f(mt.ones(2)).tolist() == [2, 2]
    import sys

    assert sys.getprofile() is None


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a function or a module, got int"):
        mt.compile(3)


# What is told


def test_a_reason_is_told_once_with_the_line() -> None:
    @mt.compile
    def f(x: Any) -> Any:
        return x * x.max().item()

    with pytest.warns(  # noqa: PT031
        UserWarning, match=r"runs as it is: .*test_compile\.py:\d+: item\(\)"
    ) as told:
        for n in range(3):
            f(mt.ones(2 + n))
            f(mt.ones(2 + n))
    texts = [str(w.message) for w in told]
    assert len(texts) == 1
    assert told[0].filename == __file__


def test_nothing_is_told_of_what_is_replayed() -> None:
    compiled = mt.compile(Net())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            compiled(mt.randn(2, 8)).sum().backward()


# Modules


def test_the_module_is_the_same_but_for_its_calls() -> None:
    model = Net()
    compiled = mt.compile(model)
    assert isinstance(compiled, nn.Module)
    ours, theirs = list(compiled.parameters()), list(model.parameters())
    assert [id(p) for p in ours] == [id(p) for p in theirs]
    assert compiled.first is model.first
    compiled.eval()
    assert not any((model.training, model.drop.training, compiled.training))
    compiled.train()
    assert all((model.training, model.drop.training, compiled.training))
    assert compiled.state_dict().keys() == {f"_orig_mod.{k}" for k in model.state_dict()}


def test_a_module_compiles_in_a_process_that_has_compiled_nothing() -> None:
    code = "import minitensor as mt; m = mt.nn.ReLU(); m.compile(); print(m(mt.ones(4, 2)).shape)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "[4, 2]" in run.stdout


def test_module_compile_is_in_place() -> None:
    model, other = Net(0.0), Net(0.0)
    other.load_state_dict(model.state_dict())
    model.compile()
    for _ in range(4):
        x = mt.randn(3, 8)
        assert both.frozen(model(x)) == both.frozen(other(x))
    assert model.state_dict().keys() == other.state_dict().keys()


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_of_a_compiled_module(way: str) -> None:
    compiled = mt.compile(Net(0.0))
    x = mt.randn(3, 8)
    for _ in range(4):
        compiled(x).sum().backward()
    other = copy.deepcopy(compiled) if way == "deepcopy" else pickle.loads(pickle.dumps(compiled))
    for _ in range(4):
        assert both.frozen(other(x)) == both.frozen(compiled(x))
    with mt.no_grad():
        for p in other.parameters():
            p.add_(1)
    for n in range(4):
        model = other._orig_mod
        assert both.frozen(other(x)) == both.frozen(model(x)), n
        assert both.frozen(compiled(x)) == both.frozen(compiled._orig_mod(x)), n
    model.zero_grad()
    before = both.frozen(grads(compiled))
    other(x).sum().backward()
    assert both.frozen(grads(compiled)) == before


class _Job:
    def __init__(self, texts: int) -> None:
        self.texts = [[f"text {n}"] for n in range(texts)]
        self.model, self.scale = nn.Linear(4, 4), 2.0

    def text(self, number: int) -> str:
        return self.texts[number][0]

    def loss(self, x: Any) -> Any:
        return self.model(x).sum() * self.scale


def test_what_no_code_of_a_call_names_is_not_looked_at() -> None:
    counts = []
    for texts in (0, 1000):
        job = _Job(texts)
        job.loss(mt.randn(2, 4))  # kernels are compiled before
        compiled = mt.compile(job.loss)
        for n in range(4):
            x = mt.randn(2, 4)
            job.scale = 2.0 + n // 3
            assert compiled(x).item() == job.loss(x).item()
        guards = next(iter(calls_of(compiled).entries)).guards
        counts.append(len(guards._sizes.values))
    assert counts[0] == counts[1]


def test_a_long_list_is_as_long_as_it_was() -> None:
    factors = [2.0] * 300
    compiled = mt.compile(lambda x: x * factors[0] if len(factors) else x)
    for _ in range(4):
        compiled(mt.ones(2))
    assert next(iter(calls_of(compiled).entries)).guards._sizes.hold()
    factors.clear()
    assert compiled(mt.ones(2)).tolist() == [1, 1]


def test_keys_of_dictionaries_may_be_any_texts() -> None:
    table: dict[str, Any] = {"{a}": {"{": 2.0, "%s": [3.0]}}
    compiled = mt.compile(lambda x: x * table["{a}"]["{"] + table["{a}"]["%s"][0])
    for n in range(6):
        table["{a}"]["%s"][0] = n // 3
        assert compiled(mt.ones(2)).tolist() == [2 + n // 3] * 2


@pytest.mark.parametrize("counts", [False, True])
def test_code_that_a_call_alone_shows_is_watched(counts: bool) -> None:
    holder = types.SimpleNamespace(rate=1.0, calls=0)

    def hidden(x: Any) -> Any:
        if counts:
            holder.calls += 1
        return x * holder.rate

    reference: Any = weakref.ref(hidden)
    compiled = mt.compile(lambda x: reference()(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in range(9):
            holder.rate = 1.0 + n // 3
            assert compiled(mt.ones(2)).tolist() == [1 + n // 3] * 2
    assert holder.calls == 9 * counts
    assert both.replayed(compiled) != counts or not COMPILED


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_functions_that_a_call_makes_are_part_of_it() -> None:
    compiled = mt.compile(lambda x: (lambda y: (lambda: x * y)())(x + 1))
    for n in range(4):
        assert compiled(mt.full((2,), n)).tolist() == [n * (n + 1)] * 2
    assert both.replayed(compiled)


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_shapes_that_vary_have_a_bounded_number_of_plans() -> None:
    compiled = mt.compile(lambda x: x * 2 + 1)
    for n in range(1, 100):
        for _ in range(3):
            assert compiled(mt.ones(n)).tolist() == [3] * n
    assert len(calls_of(compiled).entries) <= PLANS


# Threads and processes


def test_several_threads_call_one_function() -> None:
    w = mt.randn(16, 16)
    f = lambda x: (F.relu(x @ w) + x).square()  # noqa: E731
    compiled = mt.compile(f)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        try:
            for n in range(20):
                x = mt.full((8, 16), (seed * 20 + n) / 50).requires_grad_()
                y = x.detach().clone().requires_grad_()
                found, expected = compiled(x), f(y)
                found.sum().backward()
                expected.sum().backward()
                if both.frozen([found, x.grad]) != both.frozen([expected, y.grad]):
                    wrong.append((seed, n))
        except BaseException as error:
            wrong.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong, wrong[:3]


def _in_child(compiled: Any, queue: Any) -> None:
    mt.set_num_threads(1)
    seen = []
    for n in range(4):
        x = mt.full((4, 8), n / 3).requires_grad_()
        y = compiled(x)
        y.sum().backward()
        seen.append(both.frozen([y, x.grad]))
    queue.put(seen)


def test_a_forked_process_goes_on() -> None:
    compiled = mt.compile(Net(0.0))
    for _ in range(4):
        compiled(mt.randn(4, 8, requires_grad=True)).sum().backward()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks of processes with threads
        child = context.Process(target=_in_child, args=(compiled, queue))
        child.start()
    found = queue.get(timeout=60)
    child.join()
    expected = []
    for n in range(4):
        x = mt.full((4, 8), n / 3).requires_grad_()
        y = compiled._orig_mod(x)
        y.sum().backward()
        expected.append(both.frozen([y, x.grad]))
    assert found == expected


# Random functions

PROGRAMS = Path(__file__).parent / "data" / "compiled_programs.txt"


def test_random_functions() -> None:
    """Programs drawn by tests/programs.py, of which plans can be made; `make long` draws more."""
    replayed = 0
    programs = PROGRAMS.read_text("utf-8").split("\n\n")
    for text in programs:
        difference, done = program_compiled.difference(text.strip().split("\n"), True)
        assert not difference, f"{difference}\n{text}"
        replayed += done
    assert replayed == len(programs) or not COMPILED
