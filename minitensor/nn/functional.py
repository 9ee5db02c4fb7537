"""The functions of networks that have no state of their own.

Each op that belongs here puts its name here itself (`minitensor.core.NAMESPACES`).
"""

from .. import ops  # noqa: F401  # registers them
from ..core import NAMESPACES
from ..names import show

show(__name__, (), NAMESPACES["functional"])
