"""The finish of every SVG: light and dark in one file, tooltips, stable bytes."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from .palette import DARK

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def style() -> str:
    """Return the stylesheet, which exchanges every colour for its partner in dark mode."""
    dark = "".join(
        f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}'
        for light, dark in DARK.items()
    )
    return (
        "svg{color-scheme:light dark}.edge:hover path{stroke-width:4}"
        f"@media (prefers-color-scheme:dark){{{dark}}}"
    )


def finish(svg: bytes) -> bytes:
    """Return Graphviz's SVG with the stylesheet, plain tooltips, and no version of a program."""
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    root = ET.fromstring(svg)  # comments are dropped
    for group in root.iter(f"{{{SVG}}}g"):
        _flatten_links(group)
    sheet = ET.Element(f"{{{SVG}}}style")
    sheet.text = style()
    root.insert(0, sheet)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _flatten_links(group: ET.Element) -> None:
    """Make the title of `group` its tooltip, which Graphviz writes as a link around its shapes."""
    title = group.find(f"{{{SVG}}}title")
    for anchor in list(group):
        link = anchor.find(f"{{{SVG}}}a")
        if link is None or not anchor.get("id", "").startswith("a_"):
            continue
        tooltip = link.get(f"{{{XLINK}}}title")
        if title is not None and tooltip:
            title.text = tooltip
        at = list(group).index(anchor)
        group.remove(anchor)
        for offset, shape in enumerate(list(link)):
            group.insert(at + offset, shape)
