"""Reverse-mode differentiation, all of it: to be read in one evening, in this order.

- `tensor`: an array that remembers the op that made it.
- `op`: an operation as a rule, `forward` and `backward`; running it leaves a node of the graph.
- `node`: what the backward pass knows of such a run: edges to earlier nodes, saved tensors.
- `saved`: what a node keeps, and the check that nobody changed it in place.
- `backward`: the backward pass: nodes in the order of their numbers, highest first.
- `observe`: the state of each thread, and those who watch ops run.

Nothing here knows an op or PyTorch's surface. Ops attach themselves (`minitensor.registry`), and
so does `minitensor.autograd`, at these places: `Tensor._view` and `Op.link_views` (views),
`Op.in_place_method` (changes in place), `Tensor._hooks`, `Node.hooks` and `backward.uses_of_leaves`
(hooks).
"""

from ..array import Size
from ..errors import OutOfMemoryError, module_path
from ..registry import NAMESPACES, OPS, attach, publish
from .node import Node
from .observe import Observer, state
from .op import Alias, Op
from .tensor import Tensor, wrap

__all__ = [
    "NAMESPACES",
    "OPS",
    "Alias",
    "Node",
    "Observer",
    "Op",
    "OutOfMemoryError",
    "Size",
    "Tensor",
    "attach",
    "module_path",
    "publish",
    "state",
    "wrap",
]
