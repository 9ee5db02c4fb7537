"""The chapters of any program: one for each module it calls, with the docstring of its class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from minitensor import nn
from minitensor.graph import Chapter, Graph, Node

from .finder import Finder
from .training import BACK, UPDATE

MOST = 4  # tensors of a chapter


def chapters(graph: Graph, function: Callable[..., Any]) -> list[Chapter]:
    """Return a chapter for the whole, each module call in order, gradients and updates.

    Neighbours of one class and structure are folded: the first is told, the others are inside the
    chapter "the same 5 times more".
    """
    f = Finder(graph)
    docs = {path: _words(type(module)) for path, module in _modules(function).items()}
    about = inspect.getdoc(function) if not isinstance(function, nn.Module) else docs.get("", "")
    inside: dict[str, list[str]] = {}
    for key, group in graph.groups.items():
        if group.parent is not None:
            inside.setdefault(group.parent, []).append(key)
    whole = _chapter(f, "", graph.name, _first(about or ""), "The program")
    whole.values = dict.fromkeys(graph.inputs[:MOST], "what goes in")
    whole.values |= dict.fromkeys(graph.outputs[:MOST], "what comes out")
    found = [whole, *_inner(f, "", inside, docs, "")]
    return [*found, *_gradients(f), *_updates(f)]


def _modules(function: Callable[..., Any]) -> dict[str, nn.Module]:
    """Return the modules that a program uses, by their paths in its graph."""
    owner = getattr(function, "__self__", function)
    if isinstance(owner, nn.Module):
        return dict(owner.named_modules())
    try:
        known = inspect.getclosurevars(function)
    except TypeError:  # a builtin
        return {}
    roots = {**known.globals, **known.nonlocals}
    return {
        f"{name}.{path}".rstrip("."): module
        for name, root in roots.items()
        if isinstance(root, nn.Module)
        for path, module in root.named_modules()
    }


def _words(kind: type) -> str:
    """Return the docstring that a class itself has."""
    return _first(inspect.cleandoc(kind.__dict__.get("__doc__") or ""))


def _first(text: str) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join(text.split("\n\n")[0].split())


def _inner(
    f: Finder, path: str, inside: dict[str, list[str]], docs: dict[str, str], part: str
) -> list[Chapter]:
    """Return the chapters of the modules inside one, and of those inside them."""
    found: list[Chapter] = []
    keys = [key for key in inside.get(path, []) if any(f.runs(key))]
    for key, times in _alike(f, keys, inside):
        told = _told(f, key, inside, docs, part)
        found += told
        if times:
            others = [each for one in times for each in _told(f, one, inside, docs, part)]
            found.append(
                Chapter(
                    "The same once more"
                    if len(times) == 1
                    else f"The same {len(times)} times more",
                    told[0].part,
                    boxes=list(times),
                    values={f.out(one): one for one in times[:MOST]},
                    source=told[0].source,
                    code=told[0].code,
                    inner=others,
                )
            )
    return found


def _told(
    f: Finder, key: str, inside: dict[str, list[str]], docs: dict[str, str], part: str
) -> list[Chapter]:
    group = f.graph.groups[key]
    name = f"{group.kind} ({group.path})" if group.path else group.kind
    part = part or name
    own = _chapter(f, key, name, docs.get(group.path, ""), part)
    return [own, *_inner(f, key, inside, docs, part)]


def _alike(
    f: Finder, keys: list[str], inside: dict[str, list[str]]
) -> Iterable[tuple[str, list[str]]]:
    """Yield each module with those that follow it and are of the same class and structure."""

    def shape(key: str) -> Any:
        ops = tuple(node.op for node in f.runs(key))
        return f.graph.groups[key].kind, len(inside.get(key, [])), ops

    at = 0
    while at < len(keys):
        end = at + 1
        while end < len(keys) and inside.get(keys[at]) and shape(keys[end]) == shape(keys[at]):
            end += 1
        yield keys[at], keys[at + 1 : end]
        at = end


def _chapter(f: Finder, key: str, title: str, text: str, part: str) -> Chapter:
    """Return the chapter of a module call: what it was given, and what its ops made."""
    group = f.graph.groups[key]
    nodes = list(f.runs(key))
    own = [node for node in nodes if node.group == key] or nodes
    values = {v: "what goes in" for v in group.inputs if v in f.graph.values}
    last = nodes[-1].outputs[0]
    for node in own:
        for value in node.outputs:
            if f.value(value).names and len(values) < MOST - 1 and value != last:
                values.setdefault(value, node.op)
    values.setdefault(last, "what comes out")
    facts = {"settings": group.settings} if group.settings else {}
    lit = [key] if key else [own[0].id]
    return Chapter(title, part, text, "", facts, lit, values, own[0].source, own[0].code)


def _gradients(f: Finder) -> list[Chapter]:
    """Return the chapter of the gradients of weights, the last ones first."""
    found = [
        value
        for value in f.graph.values.values()
        if value.kind == "gradient" and value.of and f.value(value.of).kind == "parameter"
    ]
    if not found:
        return []
    makers = [f.graph.nodes[v.producer] for v in found if v.producer]
    at: Node | None = None
    if makers and makers[0].of in f.graph.nodes:
        at = f.graph.nodes[makers[0].of or ""]
    return [
        Chapter(
            "The gradients of the weights",
            BACK,
            "",
            "",
            {},
            [] if at is None else [at.id],
            {value.id: f"gradient of {f.value(value.of or '').name}" for value in found[:MOST]},
            "" if at is None else at.source,
            "" if at is None else at.code,
        )
    ]


def _updates(f: Finder) -> list[Chapter]:
    """Return the chapter of the first weights that an optimizer changed."""
    if not f.updates:
        return []
    first = f.updates[0]
    weight, new = first.inputs[0], first.outputs[0]
    values = {weight: "before", **dict.fromkeys(first.inputs[1:2], "its gradient"), new: "after"}
    return [Chapter(first.op, UPDATE, "", "", {}, [first.id], values, first.source, first.code)]
