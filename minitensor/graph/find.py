"""Finding ops and tensors by what is known of them."""

from __future__ import annotations

import re
from collections.abc import Callable

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
    `shape:nhead` tensors with that in their shape; `re:soft.*` and `op:re:^l` are regular
    expressions, as is a text in slashes, `/soft.*/`. Case makes no difference. An exact name comes
    before one that begins with the word, and that before one that contains it. ValueError for an
    empty query, another prefix or no regular expression.
    """
    words = query.split()
    if not words:
        raise ValueError('find: say what to look for, such as "softmax", "path:decoder", "shape:N"')
    wanted: list[tuple[int, Callable[[str], int]]] = []
    for word in words:
        prefix, colon, rest = word.partition(":")
        if word.startswith(("/", "re:")) or not colon:
            wanted.append((0, _fits(word)))
            continue
        if prefix.lower() not in FIELDS[1:] or not rest:
            raise ValueError(f"find: {word!r}: the prefixes are op:, path:, shape: and re:")
        wanted.append((FIELDS.index(prefix.lower()), _fits(rest)))
    found: list[tuple[int, Node | Value]] = []
    things: list[Node | Value] = [*graph.nodes.values(), *graph.values.values()]
    for thing in things:
        known = keys(graph, thing)
        ranks = [max(map(fits, known[field]), default=0) for field, fits in wanted]
        if all(ranks):
            found.append((-min(ranks), thing))
    return [thing for _, thing in sorted(found, key=lambda pair: pair[0])]


def _fits(text: str) -> Callable[[str], int]:
    """Return how well a name fits a text: 3 if it is that, 2 begins with it, 1 has it, 0 if not.

    The last part of a path counts as a name of its own: "linear1" of "layers.0.linear1".
    """
    slashes = len(text) > 2 and text.startswith("/") and text.endswith("/")
    if slashes or (text.startswith("re:") and len(text) > 3):
        try:
            pattern = re.compile(text[1:-1] if slashes else text[3:], re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"find: {text!r} is no regular expression: {error}") from error
        return lambda name: int(bool(pattern.search(name)))
    text = text.lower()

    def rank(name: str) -> int:
        last = re.split(r"[./]", name)[-1]
        if text in (name, last):
            return 3
        return 2 if name.startswith(text) or last.startswith(text) else int(text in name)

    return rank
