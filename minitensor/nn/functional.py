"""The functions of networks that have no state of their own.

Each op that belongs here puts its name here itself (`minitensor.core.attach`).
"""

from __future__ import annotations

from typing import Any

from .. import ops  # noqa: F401  # registers them
from ..core import publish as _publish

_publish("functional", globals())


def __getattr__(name: str) -> Any:
    if name == "multi_head_attention_forward":  # itself composed of these functions
        from .attention import multi_head_attention_forward

        return multi_head_attention_forward
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
