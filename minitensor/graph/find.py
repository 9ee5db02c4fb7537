"""Finding ops and tensors by what is known of them."""

from __future__ import annotations

from .model import Graph, Node, Value

FIELDS = ("text", "op", "path", "shape")  # where a word is looked for: "text" without a prefix


def keys(graph: Graph, thing: Node | Value) -> list[list[str]]:
    """Return the names of an op or a tensor in each of `FIELDS`, in lower case."""
    node = thing if isinstance(thing, Node) else graph.nodes.get(thing.producer or "")
    group = graph.groups.get(node.group) if node else None
    path = [group.path] if group else []
    if isinstance(thing, Value):
        names = [thing.names, [], path, [*thing.dims, thing.label]]
    else:
        names = [[thing.op, *([group.kind] if group else []), *path], [thing.op], path, []]
    return [[name.lower() for name in known] for known in names]


def find_in(graph: Graph, query: str) -> list[Node | Value]:
    """Return the ops and tensors that match all words of `query`, in the order they ran.

    A word matches an op by its name, the module it ran in or the class of that, and a tensor by one
    of its names. `op:matmul` matches ops alone, `path:decoder` what belongs to a module,
    `shape:nhead` tensors with that in their shape. Case makes no difference. An exact name comes
    before what only contains the word. ValueError for an empty query or another prefix.
    """
    words = query.lower().split()
    if not words:
        raise ValueError('find: say what to look for, such as "softmax", "path:decoder", "shape:N"')
    wanted = []
    for word in words:
        prefix, colon, rest = word.partition(":")
        if colon and (prefix not in FIELDS[1:] or not rest):
            raise ValueError(f"find: {word!r}: the prefixes are op:, path: and shape:")
        wanted.append((FIELDS.index(prefix), rest) if colon else (0, word))
    found: list[tuple[bool, Node | Value]] = []
    things: list[Node | Value] = [*graph.nodes.values(), *graph.values.values()]
    for thing in things:
        known = keys(graph, thing)
        ranks = [_rank(known[field], text) for field, text in wanted]
        if all(ranks):
            found.append((min(ranks) < 2, thing))
    return [thing for _, thing in sorted(found, key=lambda pair: pair[0])]


def _rank(names: list[str], text: str) -> int:
    """0 if a text is in no name, 1 if it is part of one, 2 if it is one."""
    return max((2 if text == name else 1 for name in names if text in name), default=0)
