"""Functions of networks, without state of their own.

Each op that belongs here registers its name itself (`minitensor.core.attach`); type checkers
and editors find them in functional.pyi.
"""

from .. import ops  # noqa: F401  # registers them
from ..core import NAMESPACES, publish
from ..names import show
from .multi_head import multi_head_attention_forward  # noqa: F401

publish("functional", globals())
show(__name__, ["multi_head_attention_forward"], NAMESPACES["functional"])
