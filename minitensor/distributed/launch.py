"""The start of processes: the variables that mpiexec sets in each, and the path of mpiexec."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

# torchrun's name, then that of mpich, Intel MPI and MS-MPI, and that of Open MPI.
_VARIABLES = (
    ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"),
    ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"),
    ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)


def launched() -> dict[str, str]:
    """Return what torchrun would have set in the environment, if mpiexec started this process."""
    found = {}
    for name, *others in _VARIABLES:
        for other in others:
            if other in os.environ:
                found[name] = os.environ[other]
    return found


def find_mpiexec() -> str | None:
    """Return the path of mpiexec, if there is one: that of this Python's environment first."""
    return shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")
