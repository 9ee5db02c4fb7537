"""Optimisers against PyTorch: the same parameters after many steps, states, and errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor
from minitensor import optim
from minitensor.core import Tensor, wrap
from minitensor.kernels.multi_tensor import CHUNK, SERIAL

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.05)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, maximize=True)),
    ("Adam", dict()),
    ("Adam", dict(lr=0.01, betas=(0.8, 0.98), eps=1e-9, weight_decay=0.1)),
    ("Adam", dict(lr=0.01, amsgrad=True, maximize=True)),
    ("AdamW", dict(lr=0.01)),
    ("AdamW", dict(lr=0.01, weight_decay=0.3, amsgrad=True)),
    ("RMSprop", dict()),
    ("RMSprop", dict(centered=True, momentum=0.9, weight_decay=0.1)),
    ("RMSprop", dict(lr=0.003, alpha=0.9, maximize=True)),
    ("Adagrad", dict()),
    ("Adagrad", dict(lr_decay=0.1, initial_accumulator_value=0.2, weight_decay=0.1)),
    ("Adagrad", dict(maximize=True)),
]
SHAPES = ((3, 4), (7,), (), (2, 0))
KINDS = {"float32": 2e-5, "float64": 1e-10}


class Pair:
    """The same parameters in both libraries, fed with the same gradients."""

    def __init__(self, dtype: str, shapes: Any = SHAPES) -> None:
        import torch

        self.noise = np.random.RandomState(0)
        start = [np.asarray(self.noise.randn(*s), dtype) for s in shapes]
        self.mine = [wrap(a.copy()).requires_grad_() for a in start]
        self.theirs = [torch.tensor(a, requires_grad=True) for a in start]

    def gradients(self) -> None:
        import torch

        for p, q in zip(self.mine, self.theirs, strict=True):
            g = np.asarray(self.noise.randn(*p.shape), p.dtype)
            p.grad, q.grad = wrap(g.copy()), torch.tensor(g)

    def check(self, tolerance: float) -> None:
        for p, q in zip(self.mine, self.theirs, strict=True):
            np.testing.assert_allclose(
                p.detach().numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance
            )


@needs_torch
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_hundred_steps(name: str, settings: dict[str, Any], dtype: str) -> None:
    import torch

    pair = Pair(dtype)
    mine = getattr(optim, name)(pair.mine, **settings)
    theirs = getattr(torch.optim, name)(pair.theirs, **settings)
    for _ in range(100):
        pair.gradients()
        mine.step()
        theirs.step()
    pair.check(KINDS[dtype])
    ours, other = mine.state_dict(), theirs.state_dict()
    assert ours["state"].keys() == other["state"].keys()
    for number, state in other["state"].items():
        for key, value in state.items():
            found = ours["state"][number][key]
            assert (found is None) == (value is None)
            if value is not None:
                np.testing.assert_allclose(found.numpy(), value.numpy(), rtol=1e-3, atol=1e-4)
                assert found.dtype.name == str(value.dtype).removeprefix("torch.")
    for group, expected in zip(ours["param_groups"], other["param_groups"], strict=True):
        assert list(group.items()) == list(expected.items())
    assert repr(mine) == repr(theirs)


@needs_torch
@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_a_parameter_of_several_chunks(name: str) -> None:
    import torch

    pair = Pair("float32", ((5, SERIAL // 4),))
    mine, theirs = getattr(optim, name)(pair.mine), getattr(torch.optim, name)(pair.theirs)
    for _ in range(3):
        pair.gradients()
        mine.step()
        theirs.step()
    pair.check(1e-6)


def updated(name: str, threads: int, **settings: Any) -> list[np.ndarray]:
    """Parameters of many sizes and two types after three steps on so many threads."""
    noise = np.random.RandomState(0)
    sizes = (3, 2 * CHUNK, 0, CHUNK + 1, 1, SERIAL, CHUNK - 1)
    params = []
    for number, size in enumerate(sizes):
        dtype = np.float64 if number % 3 == 1 else np.float32
        params.append(wrap(noise.randn(size).astype(dtype)).requires_grad_())
    optimizer = getattr(optim, name)(params, **settings)
    before = minitensor.get_num_threads()
    minitensor.set_num_threads(threads)
    try:
        for _ in range(3):
            for p in params:
                p.grad = wrap(noise.randn(*p.shape).astype(p.dtype))
            optimizer.step()
    finally:
        minitensor.set_num_threads(before)
    return [p.detach().numpy() for p in params]


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_the_number_of_threads_changes_nothing(name: str) -> None:
    settings: dict[str, Any] = dict(momentum=0.9) if name == "SGD" else dict(amsgrad=True)
    for a, b in zip(updated(name, 1, **settings), updated(name, 2, **settings), strict=True):
        np.testing.assert_array_equal(a, b)


@needs_torch
@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_arrays_may_be_replaced_between_steps(name: str) -> None:
    import torch

    settings = dict(momentum=0.9) if name == "SGD" else {}
    pair = Pair("float64", ((3, 4), (5,), (2, 2)))
    mine = getattr(optim, name)(pair.mine, lr=0.1, **settings)
    theirs = getattr(torch.optim, name)(pair.theirs, lr=0.1, **settings)
    for step in range(8):
        pair.gradients()
        p, q = pair.mine[0], pair.theirs[0]
        if step == 1:  # another array, in another order in memory, and back again
            p.data = wrap(np.asfortranarray(p.detach().numpy()))
        if step == 2:
            p.grad = wrap(np.asfortranarray(p.grad.numpy()))
        if step == 3:
            p.data, q.data = wrap(np.ones((3, 4))), torch.ones(3, 4, dtype=torch.float64)
        if step == 4:
            key = "momentum_buffer" if name == "SGD" else "exp_avg"
            mine.state[p][key] = wrap(np.ones((3, 4)))
            theirs.state[q][key] = torch.ones(3, 4, dtype=torch.float64)
        if step == 5:
            mine.load_state_dict(mine.state_dict())
        if step == 6:
            mine.add_param_group(dict(params=wrap(np.ones(2)).requires_grad_()))
            pair.mine[1].grad = pair.theirs[1].grad = None
        mine.step()
        theirs.step()
    pair.check(1e-12)


def test_a_copy_of_an_optimiser_updates_the_copies() -> None:
    p, optimizer = quadratic(optim.Adam)
    p.grad = minitensor.ones(2)
    optimizer.step()
    q, other = copy.deepcopy((p, optimizer))
    r, third = pickle.loads(pickle.dumps((p, optimizer)))
    before = p.tolist()
    for x, o in ((q, other), (r, third)):
        assert o.param_groups[0]["params"][0] is x
        x.grad = minitensor.ones(2)
        o.step()
        assert p.tolist() == before
    optimizer.step()
    assert p.tolist() == q.tolist() != before


def test_float16_is_updated_in_float32() -> None:
    p = minitensor.ones(5, dtype=minitensor.float16, requires_grad=True)
    optimizer = optim.Adam([p], lr=0.125)
    for _ in range(2):
        p.grad = minitensor.ones(5, dtype=minitensor.float16)
        optimizer.step()
    assert p.dtype == minitensor.float16
    np.testing.assert_allclose(p.detach().numpy(), 0.75, rtol=1e-3)


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_a_gradient_of_another_size_is_an_error(name: str) -> None:
    p, optimizer = quadratic(getattr(optim, name))
    p.grad = minitensor.ones(2)
    optimizer.step()
    p.data = minitensor.ones(3)
    with pytest.raises(RuntimeError, match=r"array 0 has 2 elements, .* has 3"):
        optimizer.step()
    p.grad = minitensor.ones(3)
    if name == "Adam":
        with pytest.raises(RuntimeError, match=r"array 0 has 2 elements, .* has 3"):
            optimizer.step()


@needs_torch
def test_groups_and_missing_gradients() -> None:
    import torch

    pair = Pair("float64", ((3,), (4,), (2,)))
    a, b, c = pair.mine
    d, e, f = pair.theirs
    mine = optim.AdamW([dict(params=[a], lr=0.1), dict(params=b, weight_decay=0.5)], lr=0.01)
    theirs = torch.optim.AdamW(
        [dict(params=[d], lr=0.1), dict(params=e, weight_decay=0.5)], lr=0.01
    )
    mine.add_param_group(dict(params=[c], betas=(0.5, 0.6)))
    theirs.add_param_group(dict(params=[f], betas=(0.5, 0.6)))
    for step in range(20):
        pair.gradients()
        if step % 3 == 0:
            b.grad = e.grad = None
        mine.param_groups[1]["lr"] = theirs.param_groups[1]["lr"] = 0.01 * step
        mine.step()
        theirs.step()
    pair.check(1e-12)


@needs_torch
@pytest.mark.parametrize(("name", "settings"), CASES[:8])
def test_strided_parameters_and_gradients(name: str, settings: dict[str, Any]) -> None:
    import torch

    x, g = np.random.RandomState(0).randn(2, 6, 4)
    p = wrap(x.copy().T).requires_grad_()
    q = torch.tensor(x.T.copy(), requires_grad=True)
    mine = getattr(optim, name)([p], **settings)
    theirs = getattr(torch.optim, name)([q], **settings)
    for _ in range(3):
        p.grad, q.grad = wrap(g.T), torch.tensor(g.T.copy())
        mine.step()
        theirs.step()
    np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-12)
    np.testing.assert_array_equal(p.grad.numpy(), g.T)


@needs_torch
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_states_can_be_exchanged(name: str, settings: dict[str, Any]) -> None:
    """PyTorch continues from our state, and we from PyTorch's."""
    import torch

    pair = Pair("float64", ((3, 2), (4,)))
    mine = getattr(optim, name)(pair.mine, **settings)
    theirs = getattr(torch.optim, name)(pair.theirs, **settings)
    for _ in range(5):
        pair.gradients()
        mine.step()
        theirs.step()
    ours, other = mine.state_dict(), theirs.state_dict()

    def convert(x: Any) -> Any:
        if isinstance(x, Tensor):
            return torch.tensor(x.numpy())
        if isinstance(x, dict):
            return {key: convert(value) for key, value in x.items()}
        return [convert(y) for y in x] if isinstance(x, list) else x

    mine = getattr(optim, name)(pair.mine, lr=7.0)
    theirs = getattr(torch.optim, name)(pair.theirs, lr=7.0)
    mine.load_state_dict(other)
    theirs.load_state_dict(convert(ours))
    for _ in range(5):
        pair.gradients()
        mine.step()
        theirs.step()
    pair.check(1e-12)


def quadratic(optimizer: Any, **settings: Any) -> tuple[Tensor, Any]:
    p = minitensor.tensor([3.0, -2.0], requires_grad=True)
    return p, optimizer([p], **settings)


def test_the_closure_gets_gradients_and_its_loss_comes_back() -> None:
    p, optimizer = quadratic(optim.SGD, lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with minitensor.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 13
    np.testing.assert_allclose(p.detach().numpy(), [2.4, -1.6], rtol=1e-6)


def test_zero_grad() -> None:
    p, optimizer = quadratic(optim.SGD)
    p.grad = minitensor.ones(2)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is not None
    np.testing.assert_array_equal(p.grad.numpy(), 0)
    optimizer.zero_grad()
    assert p.grad is None


def test_zero_grad_clears_the_arrays_in_place_whatever_their_type_and_layout() -> None:
    params = [
        minitensor.ones(shape, dtype=dtype, requires_grad=True)
        for shape, dtype in (
            ((300, 70), minitensor.float32),
            ((40000,), minitensor.float32),
            ((3, 2), minitensor.float64),
            ((5,), minitensor.float16),
            ((0, 2), minitensor.float32),
        )
    ]
    for p in params:
        p.grad = minitensor.ones_like(p)
    across = minitensor.ones(6, 4, requires_grad=True)
    across.grad = minitensor.ones(4, 6).t()
    grads = [p.grad for p in (*params, across)]
    versions = [g._version for g in grads if g is not None]
    optim.SGD([*params, across], lr=0.1).zero_grad(set_to_none=False)
    for g, version in zip(grads, versions, strict=True):
        assert g is not None
        assert not g.numpy().any()
        assert g._version == version + 1


def test_a_step_invalidates_what_was_saved() -> None:
    p, optimizer = quadratic(optim.SGD)
    loss = (p * p).sum()
    p.grad = minitensor.ones(2)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_loaded_state_is_a_copy() -> None:
    p, optimizer = quadratic(optim.Adam)
    p.grad = minitensor.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    other = optim.Adam([minitensor.zeros(2, requires_grad=True)])
    other.load_state_dict(state)
    before = other.state_dict()["state"][0]["exp_avg"].tolist()
    optimizer.step()
    assert other.state_dict()["state"][0]["exp_avg"].tolist() == before
    assert other.state_dict()["state"][0]["step"].item() == 1


def test_a_loaded_state_takes_the_type_of_the_parameter() -> None:
    p, optimizer = quadratic(optim.Adam)
    p.grad = minitensor.ones(2)
    optimizer.step()
    wide = optim.Adam([minitensor.zeros(2, dtype=minitensor.float64, requires_grad=True)])
    wide.load_state_dict(optimizer.state_dict())
    state = wide.state_dict()["state"][0]
    assert state["exp_avg"].dtype == minitensor.float64
    assert state["step"].dtype == minitensor.float32


def test_an_optimiser_of_ones_own() -> None:
    class Halve(optim.Optimizer):
        def __init__(self, params: Any, part: float = 0.5) -> None:
            super().__init__(params, dict(part=part))

        @minitensor.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p].setdefault("count", 0)
                    self.state[p]["count"] += 1
                    p.mul_(group["part"])

    p, optimizer = quadratic(Halve)
    optimizer.step()
    assert p.tolist() == [1.5, -1.0]
    assert optimizer.state_dict()["state"] == {0: {"count": 1}}


def test_an_optimiser_in_the_old_style() -> None:
    """It completes groups in __setstate__, which runs after loading and copying too."""

    class Old(optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super(Old, self).__init__(params, dict(lr=lr))  # noqa: UP008

        def __setstate__(self, state: Any) -> None:
            super(Old, self).__setstate__(state)  # noqa: UP008
            for group in self.param_groups:
                group.setdefault("nesterov", False)

        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.add_(-group["lr"], p.grad.data)

    p, optimizer = quadratic(Old, lr=0.5)
    assert "nesterov" not in optimizer.param_groups[0]
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["nesterov"] is False
    assert optimizer.param_groups[0]["params"][0] is p
    p.grad = minitensor.ones(2)
    optimizer.step()
    assert p.tolist() == [2.5, -2.5]
    for other in (copy.deepcopy(optimizer), copy.copy(optimizer)):
        assert other.param_groups[0]["nesterov"] is False


def test_hooks_before_and_after_steps_and_states() -> None:
    p, optimizer = quadratic(optim.AdamW)
    p.grad = minitensor.ones(2)
    calls: list[Any] = []

    def closure() -> float:
        calls.append("closure")
        return 3.0

    def before(o: Any, args: Any, kwargs: Any) -> Any:
        calls.append(("before", o is optimizer, args[0] is optimizer, args[1:], kwargs))
        return (args[0], closure), {}

    handles = [
        optimizer.register_step_pre_hook(before),
        optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append(args[1:])),
        optimizer.register_state_dict_pre_hook(lambda o: calls.append("pack")),
        optimizer.register_state_dict_post_hook(lambda o, state: {**state, "extra": 1}),
        optimizer.register_load_state_dict_pre_hook(
            lambda o, state: calls.append(state.pop("extra"))
        ),
        optimizer.register_load_state_dict_post_hook(lambda o: calls.append("second")),
        optimizer.register_load_state_dict_post_hook(lambda o: calls.append("first"), prepend=True),
    ]
    assert optimizer.step(None) == 3.0
    assert calls == [("before", True, True, (None,), {}), "closure", (closure,)]
    calls.clear()
    state = optimizer.state_dict()
    assert state["extra"] == 1
    optimizer.load_state_dict(state)
    assert state["extra"] == 1
    assert calls == ["pack", 1, "first", "second"]
    for handle in handles:
        handle.remove()
    calls.clear()
    optimizer.step()
    assert not calls
    optimizer.register_step_pre_hook(lambda *_: 3)
    with pytest.raises(RuntimeError, match="hook"):
        optimizer.step()


def test_hooks_run_once_where_a_step_calls_the_one_above() -> None:
    class Twice(optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            return super().step(closure)

    p, optimizer = quadratic(Twice, lr=0.25)
    p.grad = minitensor.ones(2)
    calls: list[int] = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    optimizer.step()
    assert p.tolist() == [2.5, -2.5]
    assert calls == [1]


def test_settings_without_effect_are_kept_and_others_refused() -> None:
    p, optimizer = quadratic(optim.AdamW, fused=True, capturable=False)
    assert optimizer.param_groups[0]["fused"] is True
    with pytest.raises(RuntimeError, match="differentiated"):
        optim.AdamW([p], differentiable=True)
    with pytest.raises(RuntimeError, match="exclude"):
        optim.AdamW([p], foreach=True, fused=True)


def test_adamw_stays_decoupled_with_the_state_of_adam() -> None:
    p, adam = quadratic(optim.Adam)
    optimizer = optim.AdamW([p])
    optimizer.load_state_dict(adam.state_dict())
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True


ERRORS = """
t.optim.SGD([])
t.optim.SGD(t.zeros(2, requires_grad=True))
t.optim.SGD([1.0])
t.optim.SGD([t.zeros(2, requires_grad=True) * 2])
t.optim.SGD([p], lr=-1)
t.optim.SGD([p], momentum=-1)
t.optim.SGD([p], nesterov=True)
t.optim.SGD([dict(params=[p]), dict(params=[p])])
t.optim.SGD([dict(params={p})])
t.optim.SGD([dict(params=[p])]).add_param_group([p])
t.optim.Adam([p], betas=(1.0, 0.9))
t.optim.Adam([p], eps=-1)
t.optim.Adam([p], weight_decay=-1)
t.optim.RMSprop([p], alpha=-1)
t.optim.Adagrad([p], lr_decay=-1)
t.optim.Adagrad([p], initial_accumulator_value=-1)
t.optim.SGD([p]).load_state_dict(t.optim.SGD([p, q]).state_dict())
t.optim.SGD([p]).load_state_dict(t.optim.SGD([dict(params=[p]), dict(params=[q])]).state_dict())
t.optim.Optimizer([p], {}).step()
t.optim.Adam([p], foreach=True, fused=True)
t.optim.Adam([p], betas=(1, 0.9))
t.optim.Adam([p], lr=t.tensor([0.1, 0.2]))
t.optim.SGD([p], lr=t.tensor([0.1, 0.2]))
t.optim.SGD([p], lr="a")
t.optim.SGD([p]).add_param_group(dict(params=[p]))
t.optim.SGD([p]).add_param_group(dict(params=[3]))
t.optim.SGD([p]).add_param_group(dict(lr=3))
t.optim.SGD([p]).load_state_dict({})
t.optim.SGD([p]).zero_grad(1, 2)
t.optim.SGD(p for p in ())
t.optim.SGD([{"params": [p], "lr": 1}, [q]])
t.optim.SGD(None)
t.optim.SGD(3)
t.optim.SGD([None])
t.optim.SGD([("a", p), q])
""".strip().splitlines()


@needs_torch
@pytest.mark.parametrize("line", ERRORS)
def test_errors(line: str) -> None:
    import torch

    def run(library: Any) -> None:
        names = {"t": library}
        names |= {name: library.zeros(2, requires_grad=True) for name in "pq"}
        eval(line, names)

    with pytest.raises(Exception) as expected:
        run(torch)
    with pytest.raises(expected.type):
        run(minitensor)


def test_a_parameter_twice_in_a_group_is_a_warning() -> None:
    p = minitensor.zeros(2, requires_grad=True)
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = optim.SGD([p, p], lr=0.25)
    p.grad = minitensor.ones(2)
    optimizer.step()
    assert p.tolist() == [-0.5, -0.5]


def test_named_parameters() -> None:
    optimizer = optim.SGD([("weight", minitensor.zeros(2, requires_grad=True))])
    assert optimizer.param_groups[0]["param_names"] == ["weight"]
    assert "lr: 0.001" in repr(optimizer)
