"""A page before a person's eyes: in a frame of a notebook, or in the browser."""

from __future__ import annotations

import re
import sys
import tempfile
import webbrowser
from html import escape
from pathlib import Path
from typing import Any

HEIGHT = 640  # pixels of a frame


def frame(page: str) -> str:
    """Return an HTML element that shows a whole page inside another, such as a notebook."""
    return (
        f'<iframe srcdoc="{escape(page)}" style="width: 100%; height: {HEIGHT}px; '
        'border: 1px solid #8888; resize: vertical" allowfullscreen></iframe>'
    )


def display(page: str, name: str) -> None:
    """Show a page: in a notebook below the cell, else in the browser.

    The browser gets it as a file in a temporary folder, whose path is printed if there is none.
    """
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:  # the kernel of a notebook, not a terminal
        shell.display_pub.publish(data={"text/plain": name, "text/html": frame(page)})
        return
    folder = Path(tempfile.mkdtemp(prefix="minitensor-"))
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('-.')[:60] or 'graph'}.html"
    path.write_text(page, encoding="utf-8")
    if not webbrowser.open(path.as_uri()):
        print(f"no browser was found: the page is {path}")
