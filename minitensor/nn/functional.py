"""Functions of networks, without state of their own.

Each op that belongs here registers its name itself (`minitensor.core.attach`); type checkers
and editors find them in functional.pyi.
"""

from .. import ops  # noqa: F401  # registers them
from ..core import NAMESPACES, publish
from ..names import show
from .gumbel import gumbel_softmax  # noqa: F401
from .multi_head import multi_head_attention_forward  # noqa: F401

publish("functional", globals())
show(__name__, ["gumbel_softmax", "multi_head_attention_forward"], NAMESPACES["functional"])
