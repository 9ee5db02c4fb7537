"""Several processes: programs that `mpiexec` starts. tests/ranks.py has what runs in them."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.data import DistributedSampler
from minitensor.distributed import watch
from minitensor.distributed.launch import find_mpiexec

HERE = Path(__file__).parent
MPIEXEC = find_mpiexec()
SCRIPT = HERE / "scripts" / "distributed_training.py"
RECORDED = HERE / "data" / "distributed_training.txt"
pytestmark = [
    pytest.mark.ranks,
    pytest.mark.skipif(
        importlib.util.find_spec("mpi4py") is None or MPIEXEC is None,
        reason="mpi4py or mpiexec is not installed (extra: mpi)",
    ),
]


def run(count: int, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in `count` processes; in one without mpiexec if that is 0.

    They print by whole lines: unbuffered, `print` writes the end of a line apart, and the lines of
    two ranks mix.
    """
    left = {"NUMBA_NUM_THREADS", "PYTHONUNBUFFERED"}
    environment = {k: v for k, v in os.environ.items() if k not in left} | variables
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *sys.path])
    start = [str(MPIEXEC), "-n", str(count)] if count else []
    return subprocess.run(
        [*start, sys.executable, *args],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


@pytest.fixture(scope="module")
def checked() -> dict[str, list[str]]:
    """The problems that each check of tests/ranks.py found."""
    done = run(3, str(HERE / "ranks.py"))
    found = dict(map(json.loads, done.stdout.splitlines()))
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize(
    "name",
    [
        line[4 : line.index("(")]
        for line in (HERE / "ranks.py").read_text().splitlines()
        if line.startswith("def check_")
    ],
)
def test_three_ranks(name: str, checked: dict[str, list[str]]) -> None:
    assert not checked[name], checked[name][0]


FAILING = """
import os, sys, time
import minitensor as mt
import minitensor.distributed as dist
dist.init_process_group()
if dist.get_rank() == 1:
    time.sleep(0.2)
    print(f"at {time.time()}", flush=True)
    %s
for _ in range(3):
    dist.all_reduce(mt.ones(3))
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("fails", "sentence"),
    [
        ("raise ValueError('no data')", "rank 1 of 2 failed: ValueError: no data\n"),
        ("os.kill(os.getpid(), 9)", "rank 1 of 2 failed: process "),
        ("sys.exit(3)", "rank 1 nothing more, as its program ended"),
        ("print('error: no data', file=sys.stderr); dist.abort(5)", "error: no data\n"),
    ],
)
def test_a_rank_that_fails_ends_the_job(fails: str, sentence: str) -> None:
    done = run(2, "-c", FAILING % fails)
    ended = time.time()
    assert done.returncode != 0
    assert sentence in done.stderr
    assert done.stderr.count("rank 1 of 2 failed") == sentence.count("rank 1 of 2 failed")
    assert ended - float(done.stdout.split("at ")[1].split()[0]) < 10


BEGINNING = """
import os, tempfile
import minitensor as mt
import minitensor.distributed as dist
from minitensor.distributed import processes
from models import ranks
rank = ranks.started().rank
%s
dist.init_process_group()
x = mt.ones(3)
dist.all_reduce(x)
print(x.sum().item())
"""
OTHER_MACHINE = """
class Watched(processes.Watched):
    def __init__(self, local, rank, size): super().__init__(local, rank, size + 1)
processes.Watched = Watched
dist.init_process_group()
dist.barrier()
if rank == 1: os.kill(os.getpid(), 9)
dist.barrier()
"""
UNWATCHED = """
def fail(*_): raise OSError("no socket")
if rank == 1: processes.Watched = fail
"""


@pytest.mark.parametrize(
    ("begin", "sentence"),
    [
        ("if rank == 1: dist.init_process_group(rank=5)", "rank 1 of 2 failed: ValueError"),
        (UNWATCHED, "rank 1 of 2 failed: OSError: no socket"),
        (UNWATCHED + "ranks.together(lambda _: 0)", "error: rank 1 of 2: no socket"),
        (OTHER_MACHINE, "was killed or crashed, or was ended by MPI"),
    ],
)
def test_a_rank_that_fails_at_the_beginning_ends_the_job(begin: str, sentence: str) -> None:
    done = run(2, "-c", BEGINNING % begin)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "6.0" not in done.stdout


def test_without_a_temporary_folder_ranks_are_not_watched(tmp_path: Path) -> None:
    done = run(2, "-c", BEGINNING % f"tempfile.tempdir = {str(tmp_path / 'none')!r}")
    assert (done.returncode, done.stdout) == (0, "6.0\n6.0\n"), done.stderr


def test_the_process_that_watches_removes_its_folder() -> None:
    address = watch._start(1, 1)
    with socket.socket(socket.AF_UNIX) as rank:
        rank.settimeout(30)
        rank.connect(address)
        rank.sendall(b"0 1\n")
        assert rank.recv(1) == watch.READY
        assert not Path(address).parent.exists()
        rank.sendall(watch.FAREWELL)


def test_the_end_of_a_rank_is_noticed_in_any_group() -> None:
    done = run(
        2,
        "-c",
        "import sys\nimport minitensor as mt\nimport minitensor.distributed as dist\n"
        "dist.init_process_group()\n"
        "group = dist.new_group()\n"
        "if dist.get_rank() == 1: sys.exit()\n"
        "for _ in range(2):\n"
        "    try: dist.all_reduce(mt.ones(3), group=group)\n"
        "    except RuntimeError as error: print(error)\n",
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "rank 1 nothing more, as its program ended" in first
    assert second.endswith("the program of another rank of the group has ended")


def test_without_mpiexec_there_is_one_rank() -> None:
    done = run(
        0,
        "-W",
        "error",
        "-c",
        "import sys\nimport minitensor as mt\n"
        "assert not {'mpi4py', 'minitensor.distributed'} & set(sys.modules)\n"
        "dist = mt.distributed\n"
        "assert dist.is_available() and not dist.is_initialized()\n"
        "assert 'mpi4py' not in sys.modules\n"
        "dist.init_process_group()\n"
        "x = mt.ones(3); dist.all_reduce(x)\n"
        "model = mt.nn.parallel.DistributedDataParallel(mt.nn.Linear(3, 1))\n"
        "model(x).sum().backward()\n"
        "print(dist.get_rank(), dist.get_world_size(), dist.get_backend(), x.sum().item(),\n"
        "      model.module.weight.grad.tolist())\n"
        "dist.destroy_process_group(); print(dist.is_initialized())\n",
    )
    assert done.stdout == "0 1 mpi 3.0 [[1.0, 1.0, 1.0]]\nFalse\n", done.stderr


def test_what_torchrun_would_have_started_is_refused() -> None:
    done = run(
        0, "-c", "import minitensor.distributed as d; d.init_process_group()", WORLD_SIZE="4"
    )
    assert "world_size is 1, not 4: start the program as mpiexec -n K python" in done.stderr


def lines(script: Path) -> list[str]:
    """Return what two ranks of a script for PyTorch print."""
    done = run(2, "-W", "ignore", "-m", "minitensor.compat", str(script))
    assert done.returncode == 0, done.stderr
    assert "MPI serves as backend 'gloo'" in done.stderr
    return done.stdout.splitlines()


def test_a_script_prints_the_recorded_lines_of_pytorch() -> None:
    assert lines(SCRIPT) == RECORDED.read_text().splitlines()


@needs_torch
def test_the_recorded_lines_are_pytorchs() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = dict(MASTER_ADDR="localhost", MASTER_PORT=port, WORLD_SIZE="2", OMP_NUM_THREADS="1")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT)],
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=400)[0] for process in ranks]
    assert printed == [RECORDED.read_text(), ""], "record it again"


def test_spawn_calls_the_function_in_the_processes_of_mpiexec(tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(
        "import torch.distributed as dist\nimport torch.multiprocessing as mp\n\n"
        "def work(rank, world_size, word):\n"
        "    dist.init_process_group('gloo', rank=rank, world_size=world_size)\n"
        "    found = [None] * world_size\n"
        "    dist.all_gather_object(found, word * (rank + 1))\n"
        "    if rank == 0:\n        print(found)\n"
        "    dist.destroy_process_group()\n\n"
        "if __name__ == '__main__':\n    mp.spawn(work, args=(2, 'a'), nprocs=2, join=True)\n"
    )
    assert lines(script) == ["['a', 'aa']"]
    alone = run(0, "-m", "minitensor.compat", str(script))
    assert "Start the program as mpiexec -n 2" in alone.stderr


CASES: list[dict[str, Any]] = [
    {},
    {"shuffle": False},
    {"seed": 5, "drop_last": True},
    {"shuffle": False, "drop_last": True},
]


@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize(("count", "ranks"), [(20, 4), (21, 4), (2, 5), (7, 1)])
def test_a_sampler_gives_each_rank_its_part(
    count: int, ranks: int, settings: dict[str, Any]
) -> None:
    samplers = [DistributedSampler(range(count), ranks, rank, **settings) for rank in range(ranks)]
    orders = []
    for epoch in range(2):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        parts = [list(sampler) for sampler in samplers]
        assert {len(part) for part in parts} == {len(samplers[0])}
        seen = {number for part in parts for number in part}
        if settings.get("drop_last"):
            assert len(seen) == sum(map(len, parts)) == count // ranks * ranks
        else:
            assert seen == set(range(count))
        orders.append(parts)
    if count > 7:
        assert (orders[0] != orders[1]) == settings.get("shuffle", True)


@needs_torch
@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize(("count", "ranks"), [(20, 4), (21, 4), (2, 5), (7, 1)])
def test_the_order_of_a_sampler_is_pytorchs(
    count: int, ranks: int, settings: dict[str, Any]
) -> None:
    from torch.utils.data import DistributedSampler as Theirs

    for rank in range(ranks):
        ours = DistributedSampler(range(count), ranks, rank, **settings)
        theirs: Any = Theirs(range(count), ranks, rank, **settings)  # type: ignore[arg-type]
        for epoch in (0, 3):
            ours.set_epoch(epoch)
            theirs.set_epoch(epoch)
            assert list(ours) == list(theirs)
            assert len(ours) == len(theirs)


def test_outside_of_a_group() -> None:
    dist: Any = mt.distributed
    for ask in (dist.get_rank, dist.get_world_size, dist.get_backend, dist.barrier):
        with pytest.raises(ValueError, match="Default process group has not been initialized"):
            ask()
    with pytest.raises(ValueError, match="Default process group"):
        DistributedSampler(range(3))
    with pytest.raises(
        ValueError, match=r"Invalid rank 2, rank should be in the interval \[0, 1\]"
    ):
        DistributedSampler(range(3), 2, 2)
    with pytest.raises(ValueError, match="unknown backend 'carrier pigeon'"):
        dist.init_process_group("carrier pigeon")
