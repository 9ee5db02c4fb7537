"""Functions of networks, without state of their own.

Each op that belongs here registers its name itself (`minitensor.core.NAMESPACES`); type checkers
and editors find them in functional.pyi.
"""

from __future__ import annotations

from .. import ops  # noqa: F401  # registers them
from ..core import NAMESPACES
from .multi_head import multi_head_attention_forward  # noqa: F401

globals().update(NAMESPACES["functional"])
