"""The load of the machine by other work, and waiting for its end."""

from __future__ import annotations

import os
import time
from pathlib import Path

QUIET = 0.05  # of the cores' time, up to which a machine counts as idle
_STAT = Path("/proc/stat")  # Linux


def others(seconds: float = 0.5) -> float | None:
    """Return the share of all cores' time that other processes take; None where it is not known."""
    before = _times()
    time.sleep(seconds)
    after = _times()
    if before is None or after is None:
        return None
    worked, every, ours = (b - a for a, b in zip(before, after, strict=True))
    return min(1.0, max(0.0, worked - ours) / every) if every > 0 else None


def _times() -> tuple[float, float, float] | None:
    """Return seconds since the start: all processes', all cores', and this process's."""
    try:
        fields = [int(field) for field in _STAT.read_text("utf-8").split("\n")[0].split()[1:9]]
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    idle = fields[3] + fields[4]  # idle, and waiting for a disk
    return (sum(fields) - idle) / tick, sum(fields) / tick, time.process_time()


def wait_for_quiet(most: float) -> float | None:
    """Wait until other processes hardly compute, for at most so many seconds; return their share.

    Where that is not known, do not wait, and return None.
    """
    end = time.monotonic() + most
    while True:
        share = others()
        if share is None or share <= QUIET or time.monotonic() >= end:
            return share


def told(share: float | None) -> str:
    """Tell a share in words."""
    if share is None:
        return "how busy it is with other work is not known"
    return "idle" if share <= QUIET else f"{share:.0%} of the cores busy with other work"
