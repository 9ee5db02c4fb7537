"""Run a script that was written for PyTorch: `python -m minitensor.compat script.py args...`."""

from __future__ import annotations

import os
import runpy
import sys

from ..distributed.launch import launched
from . import install

USAGE = """usage: python -m minitensor.compat script.py args...
       python -m minitensor.compat -m module args...

Runs a program in which `import torch` finds minitensor; after `mpiexec -n K`, in K processes."""


def main() -> None:
    """Run the script or module of the command line, as Python itself would."""
    args = sys.argv[1:]
    module = args[:1] == ["-m"]
    args = args[module:]
    if not args or args[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if args else sys.stderr)
        sys.exit(0 if args else 2)
    install()
    os.environ.update(launched())
    sys.argv = args
    if module:
        sys.path[0] = os.getcwd()
        runpy.run_module(args[0], run_name="__main__", alter_sys=True)
        return
    if not os.path.exists(args[0]):
        sys.exit(f"minitensor.compat: there is no file {args[0]}")
    sys.path[0] = os.path.dirname(os.path.abspath(args[0]))
    runpy.run_path(args[0], run_name="__main__")


if __name__ == "__main__":
    main()
