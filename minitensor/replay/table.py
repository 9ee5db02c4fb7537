"""The table of rules, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable

from .rules import Match, Rule


def _one_shape(*names: str) -> Callable[[Match], bool]:
    def check(match: Match) -> bool:
        return len({(match.shape(name), match.dtype(name)) for name in names}) == 1

    return check


RULES = [
    *[
        Rule(
            f"linear + {kind} + dropout",
            f"Dropout({op}(Linear(x, w, b)), p, key)",
            f"LinearActivation(x, w, b, kind='{kind}', p=p, key=key)",
        )
        for op, kind in (("Relu", "relu"), ("Gelu", "gelu"), ("Silu", "silu"))
    ],
    *[
        Rule(
            f"linear + {kind}",
            f"{op}(Linear(x, w, b))",
            f"LinearActivation(x, w, b, kind='{kind}', p=0.0, key=0)",
        )
        for op, kind in (("Relu", "relu"), ("Gelu", "gelu"), ("Silu", "silu"))
    ],
    Rule(
        "dropout + add + layer norm",
        "LayerNorm(Add(r, Dropout(x, p, key)), w, b, dims=dims, eps=eps)",
        "DropoutAddLayerNorm(x, r, w, b, dims=dims, eps=eps, p=p, key=key)",
        _one_shape("x", "r"),
    ),
    Rule(
        "add + layer norm",
        "LayerNorm(Add(r, x), w, b, dims=dims, eps=eps)",
        "DropoutAddLayerNorm(x, r, w, b, dims=dims, eps=eps, p=0.0, key=0)",
        _one_shape("x", "r"),
    ),
    Rule(
        "dropout + add",
        "Add(r, Dropout(x, p, key))",
        "DropoutAdd(x, r, p=p, key=key)",
        _one_shape("x", "r"),
    ),
]
