"""Finding ops and tensors by what is known of them."""

from __future__ import annotations

from .model import Graph, Node, Value


def find_in(graph: Graph, query: str) -> list[Node | Value]:
    """The ops and tensors that fit all words of `query`, in the order they ran.

    A word fits an op by its name, the module it ran in or the class of that, and a tensor by one of
    its names. `op:matmul` fits ops alone, `path:decoder` what belongs to a module, `shape:nhead`
    tensors with that in their shape. Capital letters make no difference. What is named just so
    comes before what only contains the word. ValueError for an empty query or another prefix.
    """
    words = query.lower().split()
    if not words:
        raise ValueError('find: say what to look for, such as "softmax", "path:decoder", "shape:N"')
    for word in words:
        prefix, colon, rest = word.partition(":")
        if colon and (prefix not in ("op", "path", "shape") or not rest):
            raise ValueError(f"find: {word!r}: the prefixes are op:, path: and shape:")
    found: list[tuple[bool, Node | Value]] = []
    things: list[Node | Value] = [*graph.nodes.values(), *graph.values.values()]
    for thing in things:
        fits = [_fits(graph, thing, word) for word in words]
        if all(fits):
            found.append((min(fits) < 2, thing))
    return [thing for _, thing in sorted(found, key=lambda pair: pair[0])]


def _fits(graph: Graph, thing: Node | Value, word: str) -> int:
    """0 if a word does not fit, 1 if it is part of a name, 2 if it is one."""
    prefix, colon, rest = word.partition(":")
    node = thing if isinstance(thing, Node) else graph.nodes.get(thing.producer or "")
    group = graph.groups[node.group] if node else None
    names: list[str] = []
    if not colon:
        rest = word
        if isinstance(thing, Value):
            names = thing.names
        elif group:
            names = [thing.op, group.kind, group.path]
    elif prefix == "op" and isinstance(thing, Node):
        names = [thing.op]
    elif prefix == "path" and group:
        names = [group.path]
    elif prefix == "shape" and isinstance(thing, Value):
        names = [*thing.dims, thing.label]
    return max((2 if rest == n else 1 for n in map(str.lower, names) if rest in n), default=0)
