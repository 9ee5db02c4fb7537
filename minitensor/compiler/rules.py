"""Rules."""

from typing import Any


def rewrite(graph: Any) -> Any:
    return graph, []
