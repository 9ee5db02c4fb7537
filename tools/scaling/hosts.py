"""Several hosts imitated on one: network namespaces, joined by a wire with a delay and a rate.

Each host is a namespace (`ip netns`) with a tun device of its own. `tc` limits the rate at which a
device sends (a token bucket filter), and `wire.py` passes the packets on after the delay, which
needs no kernel with `netem`. All hosts share the cores and the memory of this machine. Needs Linux
and root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from minitensor.distributed.launch import find_mpiexec
from minitensor.models.command import InputError

from .wire import DEVICE, SUBNET, TUN

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
# MPI must not find the memory that the hosts share. And a message that asks whether a large one may
# come waits behind those under way: two ranks that send to each other would do so one by one.
MPI = {"UCX_TLS": "tcp,self", "UCX_RNDV_THRESH": "inf", "FI_PROVIDER": "tcp"}
LAUNCHER = """#!/bin/sh
host=${1##*.}
shift
exec ip netns exec NAME-$host sh -c "$*"
"""


def seconds(text: str) -> float:
    """Return the seconds of a time such as 100us, 1ms or 0.5s, which is an option's."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"not a time such as 100us or 1ms: {text}")
    return float(match[1]) * UNITS[match[2]]


@contextlib.contextmanager
def imitated(count: int, delay: float, rate: str) -> Iterator[list[str]]:
    """Set up `count` hosts, and yield the start of an mpiexec command with a rank on each.

    They are removed at the end, however the program ends. InputError where this cannot be done.

    - delay: in seconds, of each packet from one host to another.
    - rate: of what each host sends, as `tc` writes it: 1gbit, 100mbit.
    """
    mpiexec = mpiexec_path()
    check_allowed()
    name = f"minitensor-{os.getpid()}"
    script = str(Path(__file__).with_name("wire.py"))
    wire = subprocess.Popen(
        [sys.executable, script, name, str(count), str(delay), rate],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # it ends with its input, and not with a Ctrl-C
    )
    assert wire.stdin is not None
    assert wire.stdout is not None
    try:
        said = wire.stdout.readline().strip()
        if said != "ready":
            raise InputError(f"hosts cannot be imitated here: {said}")
        with tempfile.TemporaryDirectory() as folder:
            launcher = Path(folder) / "launcher"
            launcher.write_text(LAUNCHER.replace("NAME", name), "utf-8")
            launcher.chmod(0o700)
            addresses = ",".join(f"{SUBNET}.{number}" for number in range(1, count + 1))
            settings = [f"{setting}={value}" for setting, value in MPI.items()]
            yield [
                *("ip", "netns", "exec", f"{name}-1", "env", *settings, mpiexec),
                *("-launcher", "rsh", "-launcher-exec", str(launcher)),
                *("-iface", DEVICE, "-hosts", addresses, "-ppn", "1"),
            ]
    finally:
        wire.stdin.close()
        wire.wait()
        wire.stdout.close()


def mpiexec_path() -> str:
    """Return the path of mpiexec; InputError if there is none."""
    found = find_mpiexec()
    if found is None:
        raise InputError("mpiexec is not installed: pip install mpich mpi4py (the extra mpi)")
    return found


def check_allowed() -> None:
    """Raise InputError where hosts cannot be imitated, saying what is missing."""
    if not sys.platform.startswith("linux"):
        raise InputError("--hosts needs the network namespaces of Linux: leave it out here")
    if os.geteuid() != 0:
        raise InputError(
            "--hosts sets up network namespaces, which needs root: run it with sudo, or leave out "
            "--hosts to measure the ranks of this machine"
        )
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise InputError(f"--hosts needs the program {tool}: install the package iproute2")
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise InputError(f"--hosts needs {TUN}, which this machine or container does not have")
