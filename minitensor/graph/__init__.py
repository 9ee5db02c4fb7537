"""The computation graph: recorded as ops run, folded, and drawn with the shape of every tensor."""

from .model import Graph, Group, Node, Value
from .trace import of, trace

__all__ = ["Graph", "Group", "Node", "Value", "of", "trace"]
