"""Functions of networks, without state of their own.

Each op that belongs here registers its name itself (`minitensor.core.attach`); type checkers
and editors find them in functional.pyi.
"""

from __future__ import annotations

from .. import ops  # noqa: F401  # registers them
from ..core import publish as _publish
from .multi_head import multi_head_attention_forward  # noqa: F401

_publish("functional", globals())
