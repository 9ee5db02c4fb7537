"""Hosts imitated by network namespaces, and the wire between them.

    python wire.py NAME COUNT DELAY RATE

sets up the hosts NAME-1, NAME-2, ..., prints "ready", passes on their packets, each DELAY seconds
after it came, and removes them with all that runs in them when its standard input ends. So nothing
is left even if the program that started this one is killed. The exit code is 1, after a sentence,
where hosts cannot be set up.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque

SUBNET = "10.77.0"  # the last number of an address is that of the host
DEVICE = "wire"
MTU = 9000  # jumbo frames
BUCKET, QUEUE = "10kb", "64mb"  # what the token bucket lets pass at once, and what may wait for it
TUN, TUNSETIFF, IFF_TUN, IFF_NO_PI = "/dev/net/tun", 0x400454CA, 0x0001, 0x1000
BURST = 64  # packets taken from one device before the next has its turn
LARGEST = 65536  # bytes of an IP packet
DESTINATION = 19  # the byte of an IPv4 header with the last number of the address


def run(*command: str) -> str:
    """Return the output of a command; OSError with what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def plug(name: str, number: int, rate: str) -> int:
    """Make a host's namespace, with its end of the wire; return the device's descriptor."""
    import fcntl  # not on Windows, where `hosts` needs the names of this file too

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


def forward(delay: float, devices: list[int], closing: int) -> None:
    """Pass on packets by their address, `delay` seconds after they came, until `closing` is read.

    - devices: of the hosts 1, 2, ..., without blocking.
    """
    held: deque[tuple[float, bytes]] = deque()  # in the order in which they are due
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) if held else None
        ready = select.select([closing, *devices], [], [], wait)[0]
        if closing in ready:
            return
        due = time.monotonic() + delay
        for device in ready:
            for _ in range(BURST):
                try:
                    held.append((due, os.read(device, LARGEST)))
                except BlockingIOError:
                    break
        now = time.monotonic()
        while held and held[0][0] <= now:
            packet = held.popleft()[1]
            host = packet[DESTINATION]
            if packet[0] >> 4 == 4 and 1 <= host <= len(devices):
                os.write(devices[host - 1], packet)


def remove(name: str) -> None:
    """Remove a namespace and what runs in it, if it is there."""
    with contextlib.suppress(OSError):
        for process in run("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        run("ip", "netns", "delete", name)


def main(name: str, count: str, delay: str, rate: str) -> int:
    """Imitate hosts until the standard input ends; returns the exit code."""
    names = [f"{name}-{number}" for number in range(1, int(count) + 1)]
    try:
        devices = [plug(name, number, rate) for number, name in enumerate(names, 1)]
        # A packet that is due does not wait for a rank that computes.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        print("ready", flush=True)
        forward(float(delay), devices, sys.stdin.fileno())
    except OSError as error:
        print(error, flush=True)
        return 1
    finally:
        for name in names:
            remove(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
