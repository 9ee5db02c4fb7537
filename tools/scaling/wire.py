"""The network between imitated hosts: a program that holds every packet for a while.

Run by `tools.scaling.hosts` as a file, with the delay in seconds and the descriptor of each host's
tun device, in the order of their addresses. It ends when its standard input does.
"""

import os
import select
import sys
import time
from collections import deque

BURST = 64  # packets taken from one device before the next has its turn
LARGEST = 65536  # bytes of an IP packet
DESTINATION = 19  # the byte of an IPv4 header with the last number of the address


def forward(delay: float, devices: list[int], closing: int) -> None:
    """Pass on packets by their address, `delay` seconds after they came, until `closing` does.

    - devices: of the hosts x.x.x.1, x.x.x.2, ..., without blocking.
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


if __name__ == "__main__":
    forward(float(sys.argv[1]), [int(device) for device in sys.argv[2:]], sys.stdin.fileno())
