"""The computation graph: recorded as ops run, folded, and drawn with the shape of every tensor.

From a program to a picture, in the order of the steps:

    trace.py     runs the program: record.py sees every op, dims.py names the axes   -> Graph
    fold.py      a tree of boxes, equal neighbours as one, and links between leaves  -> Tree
    page.py      every word and number of every box, tensor and edge, made once      -> Page
    view.py      which boxes are open at a level, and the edges one then sees        -> Scene
    picture.py   what of the page one view shows                                     -> Picture
    cards.py     the texts of its boxes and edges as tables                           -> Table
    layout.py    a place for each of them, with layers.py inside each open box        -> Plan
    svg.py       paints it; printing.py makes Graphviz print that    -> svg, png, pdf
    dot.py       writes the picture for Graphviz to lay out                           -> dot
    html.py      writes the whole page as JSON for the script in explorer/            -> html

`text.py` makes a summary; `diff.py` and `find.py` ask the Graph alone. An overlay is a class in
`overlays.py`, a format an entry in `write.py`. The data classes are in `model.py` (Graph) and
`scene.py` (Tree, Scene); `api.py` attaches the methods of a Graph.
"""

from ..names import show
from . import api as api  # attaches the methods of Graph
from .model import Chapter, Graph, Group, Node, Value
from .trace import of, trace

__all__ = ["Chapter", "Graph", "Group", "Node", "Value", "of", "trace"]

show(__name__)
