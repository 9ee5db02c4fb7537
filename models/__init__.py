"""Complete models, one runnable file each, and the jobs they do."""

import importlib.util
import sys

# `python -m models.translate` comes here first, perhaps with a Python that has no packages.
if sys.argv[:1] == ["-m"]:
    missing = [
        name
        for name in ("numpy", "numba", "graphviz", "safetensors")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        sys.exit(
            f"error: this Python has no {', '.join(missing)}: use .venv/bin/python, which "
            "`make demo` sets up, or install them with "
            f"{sys.executable} -m pip install {' '.join(missing)}"
        )
