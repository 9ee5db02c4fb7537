"""The embedded text: the prose of Python's own language reference, which every Python carries.

It is what `help("with")` prints, in the module `pydoc_data.topics` of the standard library, under
Python's licence. Some 190,000 characters of it are sentences; grammar, code and tables are left
out. Versions of Python differ in it a little.
"""

from __future__ import annotations

import re

from .command import InputError

# Marks of what is not prose: grammar, code, headings, tables, notes on versions.
ODD = re.compile(r"::=|>>>|\*\*\*|===|---|\+\+\+|\w in version|Deprecated since")
LEAST = 60  # characters of a paragraph


def python_text() -> str:
    """Return the paragraphs, each once and on a line of its own; InputError if there are none."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise InputError(
            "this Python lacks its help texts (the module pydoc_data): name a text to learn from"
        ) from error
    paragraphs = (
        " ".join(paragraph.split())
        for topic in topics.values()
        for paragraph in re.split(r"\n\s*\n", topic)
        if not ODD.search(paragraph)
    )
    prose = (p for p in paragraphs if len(p) >= LEAST and p[0].isupper() and p.endswith("."))
    return "".join(f"{paragraph}\n" for paragraph in dict.fromkeys(prose))
