"""Complete models, one runnable file each, and the jobs they do."""

import importlib.util
import sys

# Python is looking for the module to run, in a checkout and perhaps not in its environment.
if sys.argv[0] == "-m":
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
