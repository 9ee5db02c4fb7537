"""All of reverse-mode differentiation, to be read in this order.

- `tensor`: an array that remembers the op that made it.
- `op`: an operation as a rule, `forward` and `backward`; running it leaves a node of the graph.
- `node`: such a run as the backward pass sees it: edges to earlier nodes, saved tensors.
- `saved`: the saved tensors of a node, and the check that none was changed in place.
- `backward`: the backward pass: nodes by their sequence numbers, highest first.
- `observe`: the state of each thread, and the observers that see ops run.

No file here knows an op or PyTorch's surface. Ops attach themselves (`minitensor.registry`), and
so does `minitensor.autograd`: to `Tensor._view` and `Op.link_views` (views), `Op.in_place_method`
(changes in place), `Tensor._hooks`, `Node.hooks` and `backward.uses_of_leaves` (hooks).
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
