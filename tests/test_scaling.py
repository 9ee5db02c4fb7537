"""The model of data-parallel training: its formulas by hand, its fit, its chart, imitated hosts."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitensor import nn
from minitensor.models.command import InputError
from minitensor.tools.scaling import __main__ as command
from minitensor.tools.scaling import hosts, wire
from minitensor.tools.scaling.chart import Point, draw
from minitensor.tools.scaling.model import (
    ALGORITHMS,
    OURS,
    Network,
    Scaling,
    Work,
    all_reduce,
    dominated_from,
    exposed,
    fit,
    into_buckets,
    overlap,
    told,
    waiting,
)

# A network whose alpha, beta and gamma can be read off a sum.
DIGITS = Network(alpha=1.0, beta=1e-3, gamma=1e-6)
RABENSEIFNER = "reduce_scatter_allgather"


@pytest.mark.parametrize(
    ("algorithm", "ranks", "messages", "sent", "added"),
    [
        ("recursive_doubling", 2, 1, 1.0, 1.0),
        ("recursive_doubling", 8, 3, 3.0, 3.0),
        ("recursive_doubling", 6, 4, 4.0, 3.0),  # 4 of them in 2 rounds, 2 fold in and out
        (RABENSEIFNER, 2, 2, 1.0, 0.5),
        (RABENSEIFNER, 8, 6, 1.75, 0.875),
        (RABENSEIFNER, 5, 6, 3.5, 1.75),
        ("ring", 2, 2, 1.0, 0.5),
        ("ring", 5, 8, 1.6, 0.8),
        (OURS, 2, 3, 1.0, 0.5),  # a digest, a piece, a piece
        (OURS, 4, 6, 1.5, 0.75),
        (OURS, 40, 6 + 2 + 39, 1.95, 0.975),  # the pieces to 39 others in two lots
    ],
)
def test_all_reduce_by_hand(
    algorithm: str, ranks: int, messages: float, sent: float, added: float
) -> None:
    seconds = all_reduce(100.0, ranks, DIGITS, algorithm)
    assert seconds == pytest.approx(messages + 0.1 * sent + 1e-4 * added, rel=1e-12)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_reduce_of_one_rank_costs_nothing(algorithm: str) -> None:
    assert all_reduce(1e6, 1, DIGITS, algorithm) == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("planted", [(1e-3, 8e-8), (2e-6, 3e-10), (0.0, 1e-9), (5e-5, 0.0)])
def test_fit_finds_planted_constants(algorithm: str, planted: tuple[float, float]) -> None:
    network = Network(*planted, gamma=1e-10)
    sizes = [2.0**power for power in range(8, 25, 2)]
    seconds = [all_reduce(size, 4, network, algorithm) for size in sizes]
    found = fit(sizes, seconds, 4, network.gamma, algorithm)
    np.testing.assert_allclose([found.alpha, found.beta], planted, rtol=1e-6, atol=1e-15)


def test_fit_of_noisy_times_has_no_negative_constant() -> None:
    found = fit([1e3, 1e6], [1e-9, 1e-3], 2, 0.0, "ring")  # a line through them is below 0 at 0
    assert found.alpha == 0
    assert found.beta > 0
    noise = np.random.RandomState(0)
    sizes = [2.0**power for power in range(10, 24)]
    seconds = [
        all_reduce(size, 2, Network(1e-3, 8e-8, 0.0), "ring") * noise.uniform(0.9, 1.1)
        for size in sizes
    ]
    found = fit(sizes, seconds, 2, 0.0, "ring")
    np.testing.assert_allclose([found.alpha, found.beta], [1e-3, 8e-8], rtol=0.1)


def test_buckets_are_those_of_distributed_data_parallel() -> None:
    pytest.importorskip("mpi4py")
    from minitensor.distributed.parallel import _divided

    model = nn.Sequential(*(nn.Linear(width, 700) for width in (3000, 700, 9500, 90, 700, 8000, 5)))
    parameters = list(model.parameters())
    theirs = [
        sum(p.nbytes for p in bucket.parameters()) for bucket in _divided(parameters[::-1], 25.0)
    ]
    gradients = [(p.nbytes, number / 10) for number, p in enumerate(parameters)]
    assert [size for size, _ in into_buckets(gradients)] == theirs
    assert len(theirs) == 3


def test_bucket_is_ready_with_its_last_gradient() -> None:
    gradients = [(10.0, 1.0), (20.0, 0.2), (5.0, 0.7), (5.0, 0.4)]
    assert into_buckets(gradients, first=10, cap=25) == ((10.0, 0.7), (30.0, 1.0))


def test_step_waits_for_what_the_backward_pass_does_not_hide() -> None:
    network = Network(alpha=0.0, beta=1.0, gamma=0.0)  # on 2 ranks a byte takes a second
    work = Work(fixed=2.0, each=4.0, backward=0.5, buckets=((1.0, 0.2), (3.0, 0.6), (2.0, 1.0)))
    compute = work.compute(2)
    assert compute == 10.0
    assert work.bytes == 6.0
    # The backward pass takes 5: the buckets go from 1 to 2, from 3 to 6, and from 6 to 8.
    best, total = exposed(work, compute, 2, network, "ring")
    assert (best, total) == (3.0, 6.0)
    assert waiting(work, compute, 2, network, "ring") == 3.0
    assert exposed(work, compute, 1, network, "ring") == (0.0, 0.0)
    half = Work(2.0, 4.0, 0.5, work.buckets, overlap=0.5)
    assert waiting(half, compute, 2, network, "ring") == 4.5
    assert overlap(best, total, 4.5) == 0.5
    assert overlap(best, total, 9.0) == 0
    assert overlap(best, total, 1.0) == 1


def test_point_where_communication_dominates() -> None:
    # A ring of p ranks waits for 2 * (p - 1) * alpha; a step computes for 1 s on each rank.
    network = Network(alpha=0.01, beta=0.0, gamma=0.0)
    work = Work(fixed=0.0, each=0.1, backward=0.0, buckets=((4.0, 1.0),))
    weak = Scaling(10, strong=False)
    assert dominated_from(work, network, "ring", weak) == 52  # 2 * 51 * 0.01 > 1
    assert told(weak, 52) == "communication dominates from 52 ranks on"
    # Of 100 sentences 10 s are shared: 2 * (p - 1) * 0.01 > 10 / p from p * (p - 1) > 500 on.
    assert dominated_from(work, network, "ring", Scaling(100, strong=True)) == 23
    never = Network(0.0, 0.0, 0.0)
    assert dominated_from(work, never, "ring", weak) is None
    assert told(weak, None) == "computation dominates up to 1,024 ranks"
    assert told(Scaling(16, strong=True), None) == "computation dominates up to 16 ranks"
    assert dominated_from(work, Network(9.0, 0.0, 0.0), "ring", weak) == 2


def test_chart_names_the_point() -> None:
    pytest.importorskip("matplotlib")
    work = Work(0.01, 0.003, 0.6, ((1e6, 0.3), (3e6, 1.0)), 0.5)
    network = Network(1e-3, 8e-8, 1e-10)
    ways = [Scaling(64, strong=False), Scaling(2048, strong=True)]
    crossings = {way: dominated_from(work, network, OURS, way) for way in ways}
    picture = draw("a title", work, network, crossings, [Point(2, ways[0], 0.2, 0.5, 0.6)])
    text = picture.decode()
    assert text.startswith("<?xml")
    for way, crossing in crossings.items():
        assert crossing is not None
        assert f"<!-- {way} -->" in text
        assert f"<!-- {told(way, crossing)} -->" in text


def test_delay_is_a_time() -> None:
    assert hosts.seconds("100us") == pytest.approx(1e-4)
    assert hosts.seconds("1.5ms") == pytest.approx(1.5e-3)
    assert hosts.seconds("2s") == 2
    for text in ("1", "ms", "1 ms", "1min", "-1ms"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a time"):
            hosts.seconds(text)


def test_sentences_for_what_cannot_be_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--ranks", "1"]) == 1
    assert "ask for 2 or more" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/bin/{name}")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(InputError, match="needs root: run it with sudo"):
        hosts.check_allowed()
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="needs /dev/net/tun"):
        hosts.check_allowed()
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(InputError, match="needs the program ip"):
        hosts.check_allowed()
    with pytest.raises(InputError, match="mpiexec is not installed"):
        hosts.mpiexec_path()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match="of Linux"):
        hosts.check_allowed()


def test_failed_measurement_says_why(tmp_path: Path) -> None:
    script = tmp_path / "mpiexec"
    script.write_text("#!/bin/sh\necho no host >&2\nexit 3\n")
    script.chmod(0o700)
    with pytest.raises(InputError, match="measuring steps on 2 ranks failed:\nno host"):
        command.Job([str(script)]).run(2, "steps")


# Imitated hosts


def spaces() -> list[str]:
    """Return the names of the network namespaces of this process and of those it started."""
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True)
    return [line.split()[0] for line in done.stdout.splitlines() if line]


@pytest.fixture
def permitted() -> None:
    """Skip where this user may not make namespaces, or MPI is missing."""
    try:
        hosts.mpiexec_path()
        hosts.check_allowed()
        wire.run("ip", "netns", "add", f"try-{os.getpid()}")
    except (InputError, OSError) as error:
        pytest.skip(str(error))
    wire.remove(f"try-{os.getpid()}")
    pytest.importorskip("mpi4py")


@pytest.mark.ranks
@pytest.mark.usefixtures("permitted")
def test_hosts_are_as_far_apart_as_asked() -> None:
    with hosts.imitated(2, 0.02, "1gbit") as mpiexec:
        name = f"minitensor-{os.getpid()}"
        assert {f"{name}-1", f"{name}-2"} <= set(spaces())
        seconds = command.Job(mpiexec).run(2, "reductions", sizes=[4096])["mpi"][0]
    assert 0.04 <= seconds < 0.5  # two messages, one after the other
    assert not [space for space in spaces() if space.startswith(f"{name}-")]


@pytest.mark.ranks
@pytest.mark.usefixtures("permitted")
def test_nothing_is_left_of_hosts_whose_program_was_killed() -> None:
    lines = (
        "import time",
        "from minitensor.tools.scaling import hosts",
        "with hosts.imitated(2, 0.0, '1gbit'):",
        "    print('ready', flush=True)",
        "    time.sleep(60)",
    )
    program: Any = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True
    )
    with program:
        assert program.stdout.readline() == "ready\n"
        mine = [space for space in spaces() if f"-{program.pid}-" in space]
        program.send_signal(signal.SIGKILL)
    assert len(mine) == 2
    end = time.monotonic() + 10
    while set(mine) & set(spaces()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not set(mine) & set(spaces())
