"""Module, parameters, containers and hooks, beside PyTorch's."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor
from minitensor import nn
from minitensor.core import Tensor, module_path, wrap
from minitensor.nn import Module, Parameter


def ones(*shape: int) -> Tensor:
    return wrap(np.ones(shape, np.float32))


class Leaf(Module):
    """y = x * weight + shift, with a buffer that is not saved."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.weight = Parameter(ones(size))
        self.register_parameter("nothing", None)
        self.register_buffer("shift", ones(size))
        self.register_buffer("scratch", ones(size), persistent=False)
        self.register_buffer("missing", None)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x * self.weight * scale + self.shift


class Tree(Module):
    """Two leaves, one of them under two names, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Leaf()
        self.second = Leaf()
        self.again = self.first
        self.own = Parameter(ones(2))
        self.nobody = None

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


# Registration


def test_attributes_are_registered_by_kind() -> None:
    tree = Tree()
    assert [name for name, _ in tree.named_children()] == ["first", "second"]
    assert [name for name, _ in tree.named_parameters()] == ["own", "first.weight", "second.weight"]
    assert [name for name, _ in tree.named_parameters(remove_duplicate=False)] == [
        "own",
        "first.weight",
        "second.weight",
        "again.weight",
    ]
    assert [name for name, _ in tree.named_parameters(recurse=False)] == ["own"]
    assert [name for name, _ in tree.named_parameters(prefix="net")] == [
        "net.own",
        "net.first.weight",
        "net.second.weight",
    ]
    assert [name for name, _ in tree.first.named_buffers()] == ["shift", "scratch"]
    assert [name for name, _ in tree.named_modules()] == ["", "first", "second"]
    assert [name for name, _ in tree.named_modules(remove_duplicate=False)] == [
        "",
        "first",
        "second",
        "again",
    ]
    assert len(list(tree.parameters())) == 3
    assert len(list(tree.modules())) == 3


def test_a_parameter_keeps_its_name_for_parameters() -> None:
    leaf = Leaf()
    with pytest.raises(TypeError, match="cannot assign 'Tensor' as parameter 'weight'"):
        leaf.weight = ones(3)  # type: ignore[assignment]
    with pytest.raises(TypeError, match="as child module 'first'"):
        Tree().first = 3  # type: ignore[assignment]
    with pytest.raises(TypeError, match="as buffer 'shift'"):
        leaf.shift = 3
    new = ones(3)
    leaf.shift = new
    assert leaf.shift is new
    assert dict(leaf.named_buffers())["shift"] is new
    leaf.weight = None  # type: ignore[assignment]
    assert leaf.weight is None
    assert list(leaf.parameters()) == []


def test_names_change_their_kind() -> None:
    tree = Tree()
    tree.own = Leaf()  # type: ignore[assignment]
    assert "own" not in dict(tree.named_parameters())
    assert "own.weight" in dict(tree.named_parameters())
    tree.own = Parameter(ones(2))
    assert "own" in dict(tree.named_parameters())
    tree.plain = 3
    tree.plain = Parameter(ones(1))
    assert "plain" not in tree.__dict__
    tree.buffer = nn.Buffer(ones(1), persistent=False)
    assert "buffer" in dict(tree.named_buffers())
    assert "buffer" not in tree.state_dict()


def test_before_init_nothing_can_be_assigned() -> None:
    class Early(Module):
        def __init__(self, value: Any) -> None:
            self.value = value
            super().__init__()

    for value in (Parameter(ones(1)), Leaf(), nn.Buffer(ones(1))):
        with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
            Early(value)
    assert Early(3).value == 3


def test_bad_names_are_refused() -> None:
    module = Leaf()
    forms: list[tuple[Any, Any]] = [
        (module.register_parameter, Parameter(ones(1))),
        (module.register_buffer, ones(1)),
        (module.register_module, Leaf()),
    ]
    for register, value in forms:
        with pytest.raises(KeyError, match="name can"):
            register("a.b", value)
        with pytest.raises(KeyError, match="empty string"):
            register("", value)
        with pytest.raises(KeyError, match="already exists"):
            register("forward", value)
        with pytest.raises(TypeError, match="should be a string"):
            register(3, value)
        with pytest.raises(TypeError):
            register("name", 3)
    made = Parameter(ones(2))
    made._edge = (ones(2).requires_grad_() * 2)._edge
    with pytest.raises(ValueError, match="non-leaf"):
        module.register_parameter("made", made)


def test_missing_and_deleted_attributes() -> None:
    leaf = Leaf()
    with pytest.raises(AttributeError, match="'Leaf' object has no attribute 'bias'"):
        leaf.bias  # noqa: B018
    del leaf.weight
    del leaf.scratch
    assert not hasattr(leaf, "weight")
    leaf.register_buffer("scratch", ones(1))
    assert "scratch" in leaf.state_dict()
    assert {"shift", "forward", "training"} <= set(dir(leaf))


def test_paths() -> None:
    tree = Tree()
    assert tree.get_submodule("") is tree
    assert tree.get_submodule("second") is tree.second
    assert tree.get_parameter("second.weight") is tree.second.weight
    assert tree.get_buffer("first.shift") is tree.first.shift
    for get, path in (
        (tree.get_submodule, "third"),
        (tree.get_submodule, "own"),
        (tree.get_parameter, "first.shift"),
        (tree.get_parameter, "first.bias"),
        (tree.get_buffer, "first.weight"),
    ):
        with pytest.raises(AttributeError):
            get(path)


def test_parameter() -> None:
    data = ones(3)
    parameter = Parameter(data)
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert isinstance(parameter, Tensor)
    assert parameter._array is data._array
    assert type(parameter + 1) is Tensor
    assert not Parameter(data, requires_grad=False).requires_grad
    with minitensor.no_grad():
        assert Parameter(data).requires_grad
    assert Parameter().shape == (0,)
    with pytest.raises(RuntimeError, match="floating point"):
        Parameter(wrap(np.arange(3)))
    with pytest.raises(TypeError, match="expected a Tensor"):
        Parameter([1.0])  # type: ignore[arg-type]
    assert repr(parameter).startswith("Parameter containing:\ntensor([1., 1., 1.]")
    parameter.grad = ones(3)
    for made in (copy.deepcopy(parameter), pickle.loads(pickle.dumps(parameter))):
        assert type(made) is Parameter
        assert made.requires_grad
        assert made.grad is None
        assert made._array is not parameter._array


# Changing all of it


def test_modes_gradients_and_apply() -> None:
    tree = Tree()
    assert tree.training
    assert tree.eval() is tree
    assert not any(module.training for module in tree.modules())
    tree.train()
    assert all(module.training for module in tree.modules())
    with pytest.raises(ValueError, match="boolean"):
        tree.train("yes")  # type: ignore[arg-type]
    seen: list[str] = []
    tree.apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Leaf", "Leaf", "Tree"]
    tree(ones(3)).sum().backward()
    assert tree.first.weight.grad is not None
    tree.zero_grad(set_to_none=False)
    assert tree.first.weight.grad is not None
    assert tree.first.weight.grad.tolist() == [0, 0, 0]
    tree.zero_grad()
    assert tree.first.weight.grad is None
    tree.requires_grad_(False)
    assert not any(p.requires_grad for p in tree.parameters())


def test_conversion_keeps_identity_and_ties() -> None:
    tree = Tree()
    weight = tree.first.weight
    tree(ones(3)).sum().backward()
    tree.register_buffer("count", wrap(np.zeros(1, np.int64)))
    assert tree.double() is tree
    assert tree.first.weight is weight is tree.again.weight
    assert weight.dtype == minitensor.float64
    assert weight.requires_grad
    assert weight.is_leaf
    assert weight.grad is not None
    assert weight.grad.dtype == minitensor.float64
    assert tree.first.shift.dtype == minitensor.float64
    assert tree.count.dtype == minitensor.int64
    assert tree.to(minitensor.float32).own.dtype == minitensor.float32
    assert tree.to("cpu", minitensor.float64).own.dtype == minitensor.float64
    assert tree.to(ones(1)).own.dtype == minitensor.float32
    assert tree.half().own.dtype == minitensor.float16
    assert tree.float().own.dtype == minitensor.float32
    assert tree.type(minitensor.float64).count.dtype == minitensor.float64
    assert tree.cpu() is tree
    with pytest.raises(TypeError, match="floating point"):
        tree.to(minitensor.int64)
    with pytest.raises(RuntimeError, match="CPU"):
        tree.cuda()
    with pytest.raises(RuntimeError, match="CPU"):
        tree.to("cuda")


def test_deepcopy_keeps_ties() -> None:
    tree = Tree()
    other = copy.deepcopy(tree)
    assert other.first is other.again
    assert other.first.weight is not tree.first.weight
    assert other.first.weight._array is not tree.first.weight._array
    assert len(list(other.parameters())) == 3
    again = pickle.loads(pickle.dumps(tree))
    assert again.first is again.again


# State


def test_state_dict_aliases_and_orders() -> None:
    tree = Tree()
    state = tree.state_dict()
    assert isinstance(state, OrderedDict)
    assert list(state) == [
        "own",
        "first.weight",
        "first.shift",
        "second.weight",
        "second.shift",
        "again.weight",
        "again.shift",
    ]
    assert state["own"]._array is tree.own._array
    assert not state["own"].requires_grad
    assert tree.state_dict(keep_vars=True)["own"] is tree.own
    assert next(iter(tree.state_dict(prefix="net."))) == "net.own"
    target: dict[str, Any] = {}
    assert tree.state_dict(destination=target) is target


def test_load_state_dict() -> None:
    tree, other = Tree(), Tree()
    for number, parameter in enumerate(other.parameters()):
        parameter._array += number + 1
    version = tree.own._version
    result = tree.load_state_dict(other.state_dict())
    assert repr(result) == "<All keys matched successfully>"
    assert tree.own.tolist() == other.own.tolist()
    assert tree.own._array is not other.own._array
    assert tree.own._version > version
    assert tree.own.requires_grad
    arrays = {
        key: np.array(value._array, np.float64) * 2 for key, value in other.state_dict().items()
    }
    tree.load_state_dict(arrays)
    assert tree.own.dtype == np.float32
    assert tree.own.tolist() == [4, 4]


def test_load_state_dict_assign() -> None:
    tree = Tree()
    state = {key: wrap(np.full(v.shape, 7.0)) for key, v in tree.state_dict().items()}
    tree.own.requires_grad_(False)
    tree.load_state_dict(state, assign=True)
    assert tree.own._array is state["own"]._array
    assert tree.own.dtype == np.float64
    assert type(tree.own) is Parameter
    assert not tree.own.requires_grad
    assert tree.second.weight.requires_grad
    assert tree.second.shift is state["second.shift"]


def test_load_state_dict_says_all_that_is_wrong() -> None:
    tree = Tree()
    state = tree.state_dict()
    del state["first.shift"]
    state["extra"] = ones(1)
    state["own"] = ones(5)
    state["second.weight"] = "text"
    with pytest.raises(RuntimeError) as error:
        tree.load_state_dict(state)
    text = str(error.value)
    assert text.startswith(
        "Error(s) in loading state_dict for Tree:\n\tMissing key(s) in state_dict: "
    )
    assert '"first.shift"' in text
    assert 'Unexpected key(s) in state_dict: "extra". ' in text
    assert "size mismatch for own" in text
    assert "(5,)" in text
    assert "(2,)" in text
    assert "second.weight" in text
    del state["second.weight"]
    with pytest.raises(RuntimeError, match="size mismatch") as error:
        tree.load_state_dict(state, strict=False)
    assert "Missing" not in str(error.value)
    del state["own"]
    found = tree.load_state_dict(state, strict=False)
    assert found.missing_keys == ["own", "first.shift", "second.weight"]
    assert found.unexpected_keys == ["extra"]
    assert "unexpected_keys=['extra']" in repr(found)
    with pytest.raises(TypeError, match="dict-like"):
        tree.load_state_dict([])  # type: ignore[arg-type]


@needs_torch
def test_load_state_dict_raises_the_same_text() -> None:
    import torch

    texts = []
    for library in (nn, torch.nn):
        module = library.Sequential(library.Linear(2, 3), library.Linear(3, 2))
        state = module.state_dict()
        del state["0.weight"], state["1.bias"]
        state["2.weight"] = state["0.bias"]
        with pytest.raises(RuntimeError) as error:
            module.load_state_dict(state)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


@needs_torch
def test_states_cross_both_ways() -> None:
    import torch

    mine, theirs = nn.Linear(3, 2), torch.nn.Linear(3, 2)
    mine.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(mine.weight.detach().numpy(), theirs.weight.detach().numpy())
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(
        {key: torch.from_numpy(value.numpy()) for key, value in mine.state_dict().items()}
    )
    assert torch.equal(other.weight, theirs.weight)


def test_state_hooks() -> None:
    tree = Tree()
    tree.register_state_dict_post_hook(
        lambda module, state, prefix, _: state.update({f"{prefix}note": ones(1)})
    )
    tree.register_load_state_dict_pre_hook(
        lambda module, state, prefix, *rest: state.pop(f"{prefix}note")
    )
    seen = []
    tree.register_state_dict_pre_hook(lambda module, prefix, keep: seen.append((prefix, keep)))
    tree.register_load_state_dict_post_hook(lambda module, keys: seen.append(keys))
    state = tree.state_dict()
    assert "note" in state
    tree.load_state_dict(state)
    assert "note" in state
    assert seen[0] == ("", False)
    assert len(seen) == 2


# Calls and hooks


def test_a_module_without_forward() -> None:
    with pytest.raises(
        NotImplementedError, match=r'Module \[Module\] is missing the required "forw'
    ):
        Module()(1)


def test_running_modules_are_known_and_forgotten() -> None:
    class Look(Module):
        def forward(self) -> str:
            return module_path()

    class Fail(Module):
        def forward(self) -> None:
            raise ValueError

    outer = nn.Sequential()
    outer.inner = nn.ModuleList([Look()])
    outer.forward = lambda: outer.inner[0]()  # type: ignore[method-assign, misc, assignment]
    assert outer() == "inner.0"
    with pytest.raises(ValueError):
        Fail()()
    assert module_path() == ""


def test_errors_say_which_module() -> None:
    model = nn.Sequential(OrderedDict(first=Leaf(3), second=Leaf(4)))
    with pytest.raises(RuntimeError, match=r"in second"):
        model(ones(3))


def test_forward_hooks() -> None:
    leaf = Leaf()
    calls: list[str] = []

    def before(module: Module, args: Any) -> Any:
        calls.append("before")
        return args[0] + 1

    def after(module: Module, args: Any, output: Tensor) -> Tensor:
        calls.append("after")
        assert args[0].tolist() == [2, 2, 2]
        return output * 10

    leaf.register_forward_pre_hook(lambda module, args: calls.append("second"))
    first = leaf.register_forward_pre_hook(before, prepend=True)
    with leaf.register_forward_hook(after):
        assert leaf(ones(3)).tolist() == [30, 30, 30]
    assert calls == ["before", "second", "after"]
    first.remove()
    first.remove()
    assert leaf(ones(3)).tolist() == [2, 2, 2]


def test_forward_hooks_with_keywords() -> None:
    leaf = Leaf()
    seen = []
    leaf.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "scale": 3.0}), with_kwargs=True
    )
    leaf.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(kwargs), with_kwargs=True
    )
    assert leaf(ones(3), scale=2.0).tolist() == [4, 4, 4]
    assert seen == [{"scale": 3.0}]
    leaf.register_forward_pre_hook(lambda module, args, kwargs: args, with_kwargs=True)
    with pytest.raises(RuntimeError, match="tuple of"):
        leaf(ones(3))


def test_forward_hook_that_is_always_called() -> None:
    leaf = Leaf()
    seen = []
    leaf.register_forward_hook(lambda *args: seen.append("plain"))
    leaf.register_forward_hook(lambda module, args, output: seen.append(output), always_call=True)
    with pytest.raises(RuntimeError):
        leaf(ones(4))
    assert seen == [None]

    def bad(*args: Any) -> None:
        raise KeyError("of its own")

    leaf.register_forward_hook(bad, always_call=True)
    with (
        pytest.warns(UserWarning, match="of its own"),
        pytest.raises(RuntimeError),
    ):
        leaf(ones(4))


class Twin:
    """The same small network in both libraries, with backward hooks that note what they see."""

    def __init__(self, library: Any, tensor: Any) -> None:
        self.model = library.Sequential(library.Linear(2, 3), library.Tanh(), library.Linear(3, 1))
        for number, parameter in enumerate(self.model.parameters()):
            parameter.data = tensor(
                np.cos(np.arange(parameter.numel()) + number).reshape(parameter.shape)
            )
        self.x = tensor(np.arange(4.0).reshape(2, 2))
        self.seen: list[Any] = []

    def note(self, name: str) -> Any:
        def hook(module: Any, *grads: Any) -> None:
            self.seen += [name, *([None if g is None else g.tolist() for g in t] for t in grads)]

        return hook


def both_twins() -> tuple[Twin, Twin]:
    import torch

    return Twin(nn, wrap), Twin(torch.nn, torch.from_numpy)


@needs_torch
@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("with_input", [True, False])
def test_backward_hooks(with_input: bool) -> None:
    found = []
    for twin in both_twins():
        first, middle, last = twin.model
        first.register_full_backward_hook(twin.note("first"))
        middle.register_full_backward_hook(twin.note("middle"))
        last.register_full_backward_pre_hook(twin.note("before last"))
        last.register_full_backward_hook(lambda module, gi, go: (gi[0] * 2,))
        last.register_full_backward_pre_hook(lambda module, go: (go[0] * 3,))
        twin.x.requires_grad_(with_input)
        twin.model(twin.x).sum().backward()
        found.append((twin.seen, [p.grad.tolist() for p in twin.model.parameters()]))
    (mine, own), (theirs, other) = found
    assert len(mine) == len(theirs) > 0
    for a, b in zip([*mine, *own], [*theirs, *other], strict=True):
        if isinstance(a, str) or a == b:
            assert a == b
        else:
            np.testing.assert_allclose(np.array(a, float), np.array(b, float), rtol=1e-6)


def test_backward_hook_errors() -> None:
    leaf = Leaf()
    handle = leaf.register_full_backward_hook(lambda module, gi, go: (ones(3),))
    with pytest.raises(RuntimeError, match="no input requires gradient"):
        leaf(ones(3)).sum().backward()
    handle.remove()
    leaf.register_full_backward_hook(lambda module, gi, go: (ones(3), ones(3)))
    with pytest.raises(RuntimeError, match="got 2 gradients"):
        leaf(ones(3).requires_grad_()).sum().backward()
    with minitensor.no_grad():
        assert leaf(ones(3)).tolist() == [2, 2, 2]


# Containers


def test_sequential() -> None:
    a, b, c = nn.Identity(), nn.Tanh(), nn.Flatten()
    row = nn.Sequential(a, b, c)
    assert len(row) == 3
    assert row[0] is a
    assert row[-1] is c
    assert list(row) == [a, b, c]
    assert list(row[1:]) == [b, c]
    assert [name for name, _ in row[1:].named_children()] == ["1", "2"]
    row[1] = a
    assert row[1] is a
    del row[0]
    assert [name for name, _ in row.named_modules()] == ["", "0", "1"]
    row.insert(0, b).append(c)
    assert list(row) == [b, a, c, c]
    assert row.pop(1) is a
    row.extend([a])
    assert list(row + nn.Sequential(b)) == [b, c, c, a, b]
    row += [b]
    assert len(row) == 5
    assert len(nn.Sequential(a) * 3) == 3
    assert len(2 * nn.Sequential(a)) == 2
    named = nn.Sequential(OrderedDict(x=a, y=b))
    assert named.y is b
    assert isinstance(named[:1], nn.Sequential)
    assert named(ones(2)).tolist() == b(ones(2)).tolist()
    with pytest.raises(IndexError, match="out of range"):
        row[7]
    with pytest.raises(TypeError):
        nn.Sequential(3)  # type: ignore[call-overload]
    with pytest.raises(ValueError):
        nn.Sequential(a).__add__([b])  # type: ignore[operator]


def test_module_list() -> None:
    a, b, c = nn.Identity(), nn.Tanh(), nn.Flatten()
    row = nn.ModuleList([a, b])
    row.append(c).extend([a])
    row.insert(0, c)
    assert list(row) == [c, a, b, c, a]
    assert isinstance(row[1:3], nn.ModuleList)
    assert list(row[1:3]) == [a, b]
    row[0] = a
    assert row.pop(-1) is a
    del row[1:]
    assert list(row) == [a]
    row += [b]
    assert list(row.__add__([c])) == [a, b, c]
    assert "0" not in dir(row)
    with pytest.raises(IndexError):
        row[2]
    with pytest.raises(TypeError, match="iterable"):
        row.extend(a)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        row(1)


def test_module_dict() -> None:
    a, b = nn.Identity(), nn.Tanh()
    named = nn.ModuleDict({"a": a})
    named.update([("b", b)])
    named["c"] = a
    assert list(named) == list(named.keys()) == ["a", "b", "c"]
    assert list(named.values()) == [a, b, a]
    assert dict(named.items())["b"] is b
    assert "a" in named
    assert len(named) == 3
    assert named.pop("a") is a
    del named["b"]
    assert list(nn.ModuleDict(named)) == ["c"]  # type: ignore[arg-type]
    named.clear()
    assert len(named) == 0
    with pytest.raises(KeyError):
        named["a"]
    with pytest.raises(TypeError):
        named.update(3)  # type: ignore[arg-type]


def test_parameter_list() -> None:
    row = nn.ParameterList([ones(2), Parameter(ones(3))])
    assert all(isinstance(p, Parameter) for p in row)
    assert [name for name, _ in row.named_parameters()] == ["0", "1"]
    row.append(ones(1)).extend([ones(4)])
    row += [ones(5)]
    assert [p.numel() for p in row] == [2, 3, 1, 4, 5]
    assert row[-1].numel() == 5
    assert [p.numel() for p in row[1:3]] == [3, 1]
    row[0] = ones(9)
    assert list(row.state_dict()) == ["0", "1", "2", "3", "4"]
    assert row.state_dict()["0"].numel() == 9
    with pytest.raises(IndexError):
        row[5]
    with pytest.raises(TypeError):
        row.extend(ones(2))


def test_parameter_dict() -> None:
    named = nn.ParameterDict({"b": ones(2), "a": ones(3)})
    assert list(named) == ["a", "b"]
    named["c"] = ones(1)
    named.update(OrderedDict(z=ones(1), y=ones(1)))
    assert list(named.keys()) == ["a", "b", "c", "z", "y"]
    assert all(isinstance(p, Parameter) for p in named.values())
    assert [name for name, _ in named.named_parameters()] == list(named)
    assert named.pop("z").numel() == 1
    assert "z" not in named
    assert len(named) == 4
    assert named.get("z") is None
    del named["y"]
    assert dict(named.items())["a"].numel() == 3
    named.clear()
    assert list(named.parameters()) == []
    with pytest.raises(TypeError):
        named[3] = ones(1)  # type: ignore[index]


@needs_torch
def test_repr_of_containers() -> None:
    import torch

    def make(library: Any, tensor: Any) -> list[Any]:
        layer = lambda: library.Sequential(library.Linear(2, 2), library.Tanh())  # noqa: E731
        return [
            library.ModuleList(),
            library.ModuleList([layer(), layer(), library.Tanh(), layer()]),
            library.ModuleDict({"a": layer(), "b": library.ModuleList([library.Tanh()] * 2)}),
            library.ParameterList([tensor(np.ones((2, 3), np.float32))]),
            library.Sequential(),
        ]

    for mine, theirs in zip(make(nn, wrap), make(torch.nn, torch.from_numpy), strict=True):
        assert repr(mine) == repr(theirs).replace("torch.", "")
