"""Functions of networks, without state of their own.

Each op that belongs here registers its name itself (`minitensor.core.NAMESPACES`); type checkers
and editors find them in functional.pyi.
"""

from .. import ops  # noqa: F401  # registers them
from ..core import NAMESPACES
from ..names import show

show(__name__, ["multi_head_attention_forward"], NAMESPACES["functional"])

from .attention import multi_head_attention_forward  # noqa: E402, F401  # itself made of these
