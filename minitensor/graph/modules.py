"""The modules that run: their paths, their groups in the graph, and what they are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from ..core import Tensor
from ..errors import running
from ..nn import Module
from .describe import argument_names, part_of_path, readable, tensors_in
from .frames import CALL, Functions, forward_of, name_of_module
from .model import Group
from .values import Values


@dataclass
class _Call:
    """A module's call that is running."""

    module: Module
    group: str
    frame: FrameType | None = None  # of `forward`, if that was called and not the module
    given: list[Tensor] = field(default_factory=list)
    before: int = 0  # the nodes that there were when it began


class Modules:
    """The modules that run, each with a group of the graph, innermost last."""

    def __init__(self, values: Values, root: Module | None, method: str = "") -> None:
        self.graph = values.graph
        self.root = root
        self.functions = Functions(values)
        kind = type(root).__name__ if root and not method else "function"
        self.graph.groups[""] = Group("", "", readable(kind), None)
        self._values = values
        self._depth = len(running.modules)
        self._calls: list[_Call] = []
        self._unchanged: list[str] = []  # groups that returned what they were given
        self._counts: Counter[str] = Counter()  # calls, by path
        self._names: Counter[str] = Counter()  # of modules that are in no other
        self._paths: dict[int, dict[int, str]] = {}
        if root is not None:
            self._register(root, "")
            inside = self._paths[id(root)] = {id(m): p for p, m in reversed(list(_walk(root)))}
            if method:  # the module that it belongs to is not the whole: it may call it often
                name = part_of_path(type(root).__name__)
                while name in inside.values():
                    name += "_"
                inside[id(root)] = name

    def group(self, frame: FrameType | None = None) -> str:
        """Return the group of the module that is running in `frame`."""
        inside = running.modules[self._depth :]
        calls = self._calls
        while calls and not self._is_running(calls, inside, frame):
            calls.pop()
        for module in inside[sum(call.frame is None for call in calls) :]:
            self._push(module, frame)
        return calls[-1].group if calls else ""

    def _is_running(
        self, calls: list[_Call], inside: tuple[Module, ...], frame: FrameType | None
    ) -> bool:
        """Return False if the last call has ended: an error may have gone through it unseen."""
        if calls[-1].frame is None:
            called = [call.module for call in calls if call.frame is None]
            return len(called) <= len(inside) and called[-1] is inside[len(called) - 1]
        while frame is not None and frame is not calls[-1].frame:
            frame = frame.f_back
        return frame is not None

    def begin(self, frame: FrameType) -> None:
        """Note that `Module.__call__` begins."""
        self._begin(frame.f_locals["self"], frame.f_back)
        names = argument_names(type(frame.f_locals["self"]).forward)
        args, kwargs = frame.f_locals["args"], frame.f_locals["kwargs"]
        self._take([*zip(names, args, strict=False), *kwargs.items()])

    def begin_forward(self, frame: FrameType) -> None:
        """Note that a function called "forward" begins: of a module that was not called itself?"""
        module = forward_of(frame)
        if module is None or (self._calls and self._calls[-1].module is module):
            return
        self._begin(module, frame.f_back)
        self._calls[-1].frame = frame
        code = frame.f_code
        names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        self._take((name, frame.f_locals.get(name)) for name in names)

    def end(self, frame: FrameType, result: Any) -> None:
        """Note that the function that `begin` or `begin_forward` was told of returns."""
        if not self._calls:
            return
        last = self._calls[-1]
        called = frame.f_locals["self"] if frame.f_code is CALL else None
        if last.frame is frame or (last.frame is None and last.module is called):
            self._calls.pop()
            if any(result is t for t in last.given):
                self._unchanged.append(last.group)

    def passes_on(self, module: Module, result: Any) -> bool:
        """Return True if the module that ends returns what it was given, and ran no op."""
        last = self._calls[-1] if self._calls else None
        if last is None or last.module is not module or last.before < len(self.graph.nodes):
            return False
        return any(result is t for t in last.given)

    def finish(self) -> list[str]:
        """Keep only the groups in which an op ran.

        Return the paths of the others that returned what they were given, if no call had an op.
        """
        used = set()
        for node in self.graph.nodes.values():
            key: str | None = node.group
            while key is not None and key not in used:
                used.add(key)
                key = self.graph.groups[key].parent
        groups = self.graph.groups
        self.graph.groups = {k: g for k, g in groups.items() if k in used or not k}
        ran = {group.path for group in self.graph.groups.values()}
        passing = dict.fromkeys(groups[key].path for key in self._unchanged if key not in used)
        return [path for path in passing if path not in ran]

    def _begin(self, module: Module, caller: FrameType | None) -> None:
        """Give a module that `caller` calls a group."""
        outer = self.group(caller)
        self._push(module, caller)
        group = self.graph.groups[self._calls[-1].group]
        group.function = self.functions.name(caller, outer)

    def _push(self, module: Module, frame: FrameType | None) -> None:
        """Give a module that begins to run a group."""
        groups = self.graph.groups
        last = self._calls[-1] if self._calls else None
        parent, outer = (last.module, last.group) if last else (self.root, "")
        path, known = self._path(module, parent, groups[outer].path, frame)
        if not known:
            self._register(module, path)
        self._counts[path] += 1
        count = self._counts[path]
        key = path if count == 1 else f"{path}#{count}"
        self._calls.append(_Call(module, key, before=len(self.graph.nodes)))
        kind = readable(type(module).__name__)
        settings = readable(" ".join(module.extra_repr().split()))
        group = Group(key, path, kind, outer if key else None, settings=settings)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                group.parameters.append(self._known(parameter, "parameter", path, name))
        groups[key] = group

    def _take(self, arguments: Iterable[tuple[str, Any]]) -> None:
        """Note the tensors that a call is given, by the names of its parameters."""
        last = self._calls[-1]
        given = [(name, t) for name, argument in arguments for t in tensors_in(argument)]
        last.given += [t for _, t in given]
        self._values.given(self.graph.groups[last.group], given)

    def _path(
        self, module: Module, parent: Module | None, outer: str, frame: FrameType | None
    ) -> tuple[str, bool]:
        """Return the path of a module that runs inside `parent`; True if its weights have names."""
        for whole, prefix in ((self.root, ""), (parent, outer)):
            if whole is None:
                continue
            if id(whole) not in self._paths:
                self._values.kept.append(whole)
                self._paths[id(whole)] = {id(m): p for p, m in reversed(list(_walk(whole)))}
            path = self._paths[id(whole)].get(id(module))
            if path is not None:
                return f"{prefix}.{path}" if prefix and path else prefix or path, True
        taken = self._paths.setdefault(0, {})  # modules that are in no other
        if id(module) not in taken:
            self._values.kept.append(module)
            name = name_of_module(module, frame) or part_of_path(type(module).__name__)
            self._names[name] += 1
            count = self._names[name]
            taken[id(module)] = name if count == 1 else f"{name}_{count}"
        name = taken[id(module)]
        return f"{outer}.{name}" if outer else name, False

    def _register(self, module: Module, path: str) -> None:
        """Give the parameters and buffers of a module, and of those in it, their names."""
        for kind in ("parameter", "buffer"):
            for inner, inside in _walk(module):
                at = ".".join(filter(None, (path, inner)))
                for name, t in vars(inside)[f"_{kind}s"].items():
                    if t is not None:
                        self._known(t, kind, at, name)

    def _known(self, t: Tensor, kind: str, path: str, name: str) -> str:
        """Return the value of a parameter or buffer, which has its path as its name."""
        known = self._values.tensors.get(id(t))
        if known is not None:
            return known
        full = ".".join(filter(None, (path, part_of_path(name))))
        return self._values.add(t, f"{kind}:{full}", kind, [full])


def _walk(module: Module, path: str = "") -> Iterator[tuple[str, Module]]:
    """Yield a module and all inside it with their paths, also those that are there twice."""
    yield path, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, ".".join(filter(None, (path, part_of_path(name)))))
