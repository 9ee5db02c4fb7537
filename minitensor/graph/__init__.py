"""The computation graph: recorded as ops run, folded, and drawn with the shape of every tensor.

From a program to a picture, in the order of the steps:

    trace.py   runs the program: record.py sees every op, dims.py names the axes   -> Graph
    fold.py    a tree of boxes, equal neighbours as one, and links between leaves  -> Tree
    view.py    which boxes are open at a level, and the edges one then sees        -> Scene
    look.py    the texts of boxes and edges, colours of an overlay                 -> Page
    dot.py     the picture by Graphviz, or by plain.py and layout.py without it    -> svg, png, pdf

`html.py` puts Graph and Tree into a page that does the last three steps itself, in `explorer/`.
`text.py` makes a summary of them; `diff.py` and `find.py` ask the Graph alone. The data classes are
in `model.py` (Graph) and `scene.py` (Tree, Scene); `write.py` leads to every form.
"""

from ..names import show
from .model import Graph, Group, Node, Value
from .trace import of, trace

__all__ = ["Graph", "Group", "Node", "Value", "of", "trace"]

show(__name__)
