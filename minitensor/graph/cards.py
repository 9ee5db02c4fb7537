"""Cards: the texts of boxes, edges and titles as tables, laid out and styled once for all painters.

Tables are those of Graphviz's HTML-like labels: `dot.py` writes them as such, and `svg.py` paints
them at the places that `placed` gives.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from .page import EdgeLabel, Label, cut
from .palette import BACK, BACK_FILL, INK, LOOKS, QUIET, RAMP, RAMP_INK, SKIP, Look
from .picture import Face, LabelledEdge, Picture

WIDE = 160  # of a title on one line
SHEET = 640  # of what stands above a picture: a sheet of paper

Rect = tuple[float, float, float, float]  # x, y, width, height

HEAD = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"
SPACE = "\N{NO-BREAK SPACE}"


@dataclass
class Text:
    """A line of text in one style."""

    text: str
    size: int = 11
    colour: str = INK
    bold: bool = False
    room: int = 0  # the line is as high as one of this size, at least

    def __post_init__(self) -> None:
        self.text = clean(self.text)


@dataclass
class Wires:
    """Dashed arrows to the right, each under the text of what goes along it."""

    texts: list[str]


@dataclass
class Cell:
    """A cell of a table: lines of text, arrows or another table."""

    content: list[Text] | Wires | Table
    pad: int | None = None  # around the content; None for that of the table
    width: int = 0  # at least
    port: str = ""  # a name by which edges end here
    fill: str = ""
    border: int = 0
    sides: str = ""  # of the border: some of "LRTB"; "" for all
    colour: str = ""  # of the border
    left: bool = False  # the content stands at the left, else in the middle


@dataclass
class Table:
    """Rows of cells."""

    rows: list[list[Cell]] = field(default_factory=list)
    pad: int = 0
    spacing: int = 0
    border: int = 0
    colour: str = ""
    fill: str = ""
    style: str = ""  # of the border: rounded, dashed, dotted


# The cards of a picture


def heading(shown: Picture) -> Table:
    """Return what stands above a picture: title, facts, notes, ramp and legend."""
    lines = [Text(shown.title, 16, bold=True)]
    lines += [Text(line, 11, QUIET) for line in shown.facts]
    lines += [Text(note, 10, QUIET) for note in shown.notes]
    rows: list[list[Cell]] = [[Cell([line], left=True)] for line in lines]
    if shown.scale is not None:
        what, (low, high) = shown.scale.title, shown.scale.ends
        steps = [Cell([Text(SPACE, 14)], width=22, fill=colour) for colour in RAMP]
        ends = [Cell([Text(text, 10)]) for text in (f"{what}:  {low}  ", f"  {high}")]
        rows.append([Cell(Table([[ends[0], *steps, ends[1]]], pad=2), left=True)])
    for row in _legend(shown.legend):
        rows.append([Cell(Table([row], pad=1, spacing=3), left=True)])
    return Table(rows, pad=3)


def _legend(legend: list[tuple[str, str]]) -> list[list[Cell]]:
    """The legend in lines that a sheet of paper has room for."""
    rows: list[list[Cell]] = []
    room = 0.0
    for mark, says in legend:
        cells = [Cell(sample(mark)), Cell([Text(f"{says}    ", 10, QUIET)], left=True)]
        wide = size(Table([cells], pad=1, spacing=3))[0]
        if not rows or wide > room:
            rows.append([])
            room = float(SHEET)
        room -= wide
        rows[-1] += cells
    return rows


def sample(mark: str) -> list[Text] | Table:
    """Return the sample of a mark that the legend shows."""
    if mark in LOOKS:
        return frame(LOOKS[mark], [Text(4 * SPACE, 14)], LOOKS[mark].fill)
    if mark == "fused":
        return frame(LOOKS["other"], [Text(3 * SPACE, 14)], LOOKS["other"].fill, double=True)
    return {
        "folded": [Text("xN", 10, bold=True)],
        "skip": [Text("\N{EM DASH}\N{WHITE RIGHT-POINTING SMALL TRIANGLE}", 12, SKIP, bold=True)],
        "fan": [Text("\N{EM DASH}" + 2 * HEAD, 12)],
        "gradient": [Text("\N{BLACK UP-POINTING TRIANGLE}", 10, BACK)],
        "saved": [Text(f"- - {HEAD}", 10, BACK, bold=True)],
    }[mark]


def header(label: Label) -> Table:
    """Return the title of an open box."""
    title = Cell([Text(cut(label.title), 12, bold=True)], left=True)
    place = [Cell([Text(cut(label.place), 10, QUIET)], left=True)] * bool(label.place)
    beside = Table([[title, *place]], pad=4)
    return Table([[title], place], pad=2) if place and size(beside)[0] > WIDE else beside


def edge(drawn: LabelledEdge) -> Table:
    """Return the text of an edge."""
    label = drawn.label
    lines = [(label.name, INK, True), (label.shape, drawn.colour, False)]
    lines.append((label.remark, QUIET, False))
    return Table([[Cell([Text(text, 10, ink, bold) for text, ink, bold in lines if text])]], pad=2)


def loop(labels: list[EdgeLabel]) -> Table:
    """Return the text of the arrow back of a loop: what goes from turn to turn."""
    lines = [
        Text(text, 10, ink, bold)
        for label in labels
        for text, bold in ((label.name, True), (label.shape, False))
        for ink in [BACK if label.backward else INK]
    ]
    return Table([[Cell(lines)]], pad=2)


def faces(shown: Picture) -> dict[str, Table]:
    """Return the closed boxes; what stands side by side is as wide in all: so edges run straight.

    Edges end in the ports "f" and "b" of the halves, and in "p0", "p1", ... of the inputs.
    """
    tables = {key: _face(face) for key, face in shown.faces.items()}
    pairs = [table.rows[0] for table in tables.values() if len(table.rows[0]) > 1]
    for column in zip(*pairs, strict=True):
        wide = max(round(_cell(cell, Table())[0]) for cell in column)
        for cell in column:
            cell.width = wide
    return tables


def _face(shown: Face) -> Table:
    """Forward at the left, backward at the right, between them what is saved."""
    look, (fill, ink) = LOOKS[shown.kind], shown.colours
    if shown.kind in ("input", "output"):
        look = replace(look, style="rounded")
    forward = half(shown.forward, _ports(shown, ink), _heat(shown, ink), ink)
    cells = [Cell(frame(look, forward, fill, shown.card.fused), port="f")]
    if shown.backward is not None:
        back = frame(Look(BACK, BACK_FILL, style=look.style), half(shown.backward), BACK_FILL)
        cells += [Cell(Wires(shown.saved)), Cell(back, port="b")]
    return Table([cells])


def half(
    label: Label, above: Iterable[list[Cell]] = (), below: Iterable[list[Cell]] = (), ink: str = INK
) -> Table:
    """Return the texts of a label, between rows above and below them."""
    lines = [Text(cut(label.title), 12, ink, bold=True)]
    lines += [Text(cut(line), 10, ink, room=13) for line in label.rows]
    return Table([*above, [Cell(lines, pad=6)], *below], pad=4)


def frame(look: Look, content: list[Text] | Table, fill: str, double: bool = False) -> Table:
    """Return `content` in the border of its kind."""
    style = "" if look.style == "solid" else look.style
    if look.bars:
        content = Table([[Cell(content, border=5, sides="LR", colour=look.line)]])
    if double:
        content = Table([[Cell(content)]], border=1, colour=look.line, style=style)
    inner = [[Cell(content)]]
    return Table(inner, 3 if double else 0, 0, look.border, look.line, fill, style)


def _ports(shown: Face, ink: str) -> list[list[Cell]]:
    """The row on top of a box with a place for each input."""
    line = LOOKS[shown.kind].line
    cells = [
        Cell([Text(text, 9, ink)], None, 0, f"p{at}", "", 1, "BL" if at else "B", line)
        for at, text in enumerate(shown.ports)
    ]
    return [[Cell(Table([cells], pad=2), pad=0)]] if cells else []


def _heat(shown: Face, ink: str) -> list[list[Cell]]:
    """The rows that an overlay adds to a box: its amount, and a cell for each instance."""
    if shown.heat is None:
        return []
    line = LOOKS[shown.kind].line
    strip = [
        Cell([Text(text, 8, RAMP_INK[step])], fill=RAMP[step], border=1, colour=line)
        for text, step in shown.heat.instances
    ]
    rows = [[Cell([Text(shown.heat.text, 11, ink, bold=True)])]]
    return rows + ([[Cell(Table([strip], pad=2))]] if strip else [])


# Sizes and places


def clean(text: str) -> str:
    """Return a text with a visible sign for each character that XML has no place for."""
    return _CONTROLS.sub(lambda found: _sign(ord(found[0])), text)


_CONTROLS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\ufffe\\uffff]")


def _sign(code: int) -> str:
    return chr(0x2400 + code) if code < 32 else "\u2421" if code == 127 else "\ufffd"


@functools.lru_cache(10_000)
def width(text: str, size: float, bold: bool = False) -> float:
    """Return about how wide a text is in Helvetica, in points, rather too much than too little."""
    return size * sum(map(_em, text)) * (1.14 if bold else 1)


# In hundredths of the size, of DejaVu Sans: of the usual substitutes for Helvetica the widest.
_WIDTHS = {
    34: " ',./:;IJ\\ijl|",
    40: "!()-[]ft",
    42: "r",
    53: '"*?_`sz',
    56: "Lc",
    60: "FPkvxy",
    64: "$0123456789ESTYabdeghnopqu{}",
    70: "ABCKRVXZ",
    76: "HNU",
    80: "&DGOQ",
    84: "#+<=>^w~",
    90: "M",
    100: "%@Wm",
}
_EMS = {letter: wide / 100 for wide, letters in _WIDTHS.items() for letter in letters}


def _em(character: str) -> float:
    if character in _EMS:
        return _EMS[character]
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # written on the one before
        return 0.0
    return 1.0 if unicodedata.east_asian_width(character) in "WF" else 0.7


def height(line: Text) -> float:
    """Return the height of a line."""
    return 1.2 * max(line.size, line.room)


def size(table: Table) -> tuple[float, float]:
    """Return the least width and height of a table."""
    wide, high = (sum(parts) + table.spacing * (len(parts) + 1) for parts in _grid(table))
    return wide + 2 * table.border, high + 2 * table.border


def _grid(table: Table) -> tuple[list[float], list[float]]:
    """The least widths of the columns, and heights of the rows."""
    sizes = [[_cell(cell, table) for cell in row] for row in table.rows]
    columns = range(max(map(len, sizes)))
    wide = [max(row[at][0] for row in sizes if at < len(row)) for at in columns]
    return wide, [max(high for _, high in row) for row in sizes]


def _cell(cell: Cell, table: Table) -> tuple[float, float]:
    content = cell.content
    if isinstance(content, Table):
        wide, high = size(content)
    elif isinstance(content, Wires):
        wide = 16 + max((width(text, 9) for text in content.texts), default=0.0)
        high = 16.0 * len(content.texts)
    else:
        wide = 8 + max(width(line.text, line.size, line.bold) for line in content)  # fonts differ
        high = sum(map(height, content))
    around = 2 * _inset(cell, table)
    return max(wide + around, cell.width), high + around


def _inset(cell: Cell, table: Table) -> int:
    return cell.border + (table.pad if cell.pad is None else cell.pad)


def placed(
    table: Table, x: float, y: float, w: float = 0, h: float = 0
) -> Iterator[tuple[Table | Cell, Rect]]:
    """Yield a table and what is in it with their places, in a rectangle of at least its size."""
    columns, rows = _grid(table)
    least = size(table)
    w, h = max(w, least[0]), max(h, least[1])
    columns = [wide + (w - least[0]) / len(columns) for wide in columns]
    rows = [high + (h - least[1]) / len(rows) for high in rows]
    yield table, (x, y, w, h)
    top = y + table.border + table.spacing
    for row, high in zip(table.rows, rows, strict=True):
        left = x + table.border + table.spacing
        for cell, wide in zip(row, columns, strict=False):
            yield cell, (left, top, wide, high)
            if isinstance(cell.content, Table):
                inset = _inset(cell, table)
                room = (0, 0) if cell.left else (wide - 2 * inset, high - 2 * inset)
                yield from placed(cell.content, left + inset, top + inset, *room)
            left += wide + table.spacing
        top += high + table.spacing
