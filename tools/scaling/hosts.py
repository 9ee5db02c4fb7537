"""Several hosts imitated on one: network namespaces, joined by a wire with a delay and a rate.

Each host is a namespace (`ip netns`) with a tun device of its own. `tc` limits the rate at which a
device sends (a token bucket filter), and `wire.py` passes the packets on after the delay, which
needs no kernel with `netem`. All hosts share the cores and the memory of this machine. Needs Linux
and root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minitensor.models.command import InputError, handling

PREFIX = "minitensor"  # of a namespace's name; the process that made it and its number follow
SUBNET = "10.77.0"
DEVICE = "wire"
MTU = 9000  # jumbo frames
BUCKET, QUEUE = "32kb", "64mb"  # what the token bucket lets pass at once, and what may wait for it
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
TUN, TUNSETIFF, IFF_TUN, IFF_NO_PI = "/dev/net/tun", 0x400454CA, 0x0001, 0x1000
NETMODS = {"UCX_TLS": "tcp,self", "FI_PROVIDER": "tcp"}  # MPI must not find the shared memory
LAUNCHER = """#!/bin/sh
host=${1##*.}
shift
exec ip netns exec PREFIX-$host sh -c "$*"
"""


def seconds(text: str) -> float:
    """Return the seconds of a time such as 100us, 1ms or 0.5s; ValueError for other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s)", text)
    if match is None:
        raise ValueError(f"not a time such as 100us or 1ms: {text}")
    return float(match[1]) * UNITS[match[2]]


@contextlib.contextmanager
def imitated(count: int, delay: float, rate: str) -> Iterator[list[str]]:
    """Set up `count` hosts, and yield the start of an mpiexec command that has a rank on each.

    They are removed at the end, also after a signal. InputError where this cannot be done.

    - delay: in seconds, of each packet from one host to another.
    - rate: of what each host sends, as `tc` writes it: 1gbit, 100mbit.
    """
    mpiexec = find_mpiexec()
    check_allowed()
    remove_left()
    names = [f"{PREFIX}-{os.getpid()}-{number}" for number in range(1, count + 1)]
    with contextlib.ExitStack() as stack:
        stack.callback(remove, names)
        devices = [plug(name, number, rate) for number, name in enumerate(names, 1)]
        command = [sys.executable, str(Path(__file__).with_name("wire.py")), str(delay)]
        wire = subprocess.Popen(
            command + [str(device) for device in devices],
            stdin=subprocess.PIPE,
            pass_fds=devices,
            start_new_session=True,  # a Ctrl-C is for the program that removes the hosts
        )
        stack.callback(end, wire)
        for device in devices:
            os.close(device)  # the wire has them now, and with it they go
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        launcher = Path(folder) / "launcher"
        launcher.write_text(LAUNCHER.replace("PREFIX", f"{PREFIX}-{os.getpid()}"))
        launcher.chmod(0o700)
        addresses = ",".join(f"{SUBNET}.{number}" for number in range(1, count + 1))
        settings = [f"{name}={value}" for name, value in NETMODS.items()]
        yield [
            *("ip", "netns", "exec", names[0], "env", *settings, mpiexec),
            *("-launcher", "rsh", "-launcher-exec", str(launcher)),
            *("-iface", DEVICE, "-hosts", addresses, "-ppn", "1"),
        ]


def find_mpiexec() -> str:
    """Return the path of mpiexec, that of this Python's environment first; InputError if none."""
    found = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which(
        "mpiexec"
    )
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


def plug(name: str, number: int, rate: str) -> int:
    """Make the namespace of a host, with its end of the wire; return the device's descriptor."""
    run("ip", "netns", "add", name)
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    made = f"{DEVICE}{os.getpid()}.{number}"[-15:]  # until it is moved, beside all others
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", made.encode(), IFF_TUN | IFF_NO_PI))
    run("ip", "link", "set", made, "netns", name, "name", DEVICE)
    link = ["ip", "-n", name, "link", "set"]
    run(*link, DEVICE, "mtu", str(MTU), "txqueuelen", "10000")
    run("ip", "-n", name, "address", "add", f"{SUBNET}.{number}/24", "dev", DEVICE)
    limits = ("rate", rate, "burst", BUCKET, "limit", QUEUE)
    run("tc", "-n", name, "qdisc", "add", "dev", DEVICE, "root", "tbf", *limits)
    run(*link, DEVICE, "up")
    run(*link, "lo", "up")
    return device


def run(*command: str) -> None:
    """Run a command of iproute2; InputError with what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{' '.join(command)}: {done.stderr.strip()}")


def end(process: subprocess.Popen[Any], patience: float = 5.0) -> None:
    """End a process that ends with its standard input, or after a signal."""
    if process.stdin is not None:
        process.stdin.close()
    else:
        process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def remove(names: list[str]) -> None:
    """Remove namespaces and what runs in them, if they are there; no signal interrupts this."""
    with handling(lambda number, frame: None):
        for name in names:
            inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
            for process in inside.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def remove_left() -> None:
    """Remove the namespaces of processes that were killed before they could."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    found = re.findall(rf"^({PREFIX}-(\d+)-\d+)\b", listed, re.M)
    remove([name for name, process in found if not Path(f"/proc/{process}").exists()])
