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
            f"error: {', '.join(missing)} not installed for {sys.executable}: in a checkout, "
            "`make demo` installs all that is needed into .venv, and .venv/bin/python runs it; "
            f"or run {sys.executable} -m pip install ."
        )
