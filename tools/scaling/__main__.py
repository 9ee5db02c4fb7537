"""Scaling of data-parallel training: constants measured here, a step predicted on K ranks.

python -m tools.scaling                                        # the ranks of this machine
python -m tools.scaling --hosts 4 --delay 1ms --rate 1gbit     # imitated hosts; needs root
python -m tools.scaling --svg scaling.svg                      # drawn to 1,000 ranks
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from minitensor.models.command import InputError, exit_code, program, require
from minitensor.models.text import write_file

from ..bench.__main__ import check_writable
from ..bench.plan import Plan, Step
from ..bench.training import PATH
from ..compare import describe
from . import hosts
from .chart import Point, draw
from .model import (
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

STEPS = {step.name: step for step in Plan().steps}
SIZES = (2**12, 2**17, 2**20, 2**22)  # bytes of the all-reduces that are measured
FITTED = "reduce_scatter_allgather"  # the algorithm whose times alpha and beta are fitted to
MANY = 32  # times the batch: of all ranks together, where a batch is large enough for 1,000
ALGORITHM = "MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM"  # MPICH's
ONE_THREAD = dict(NUMBA_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


class Job:
    """Starts measurements over ranks."""

    def __init__(self, mpiexec: Sequence[str]) -> None:
        self.mpiexec = mpiexec

    def run(self, ranks: int, task: str, algorithm: str = FITTED, **settings: Any) -> Any:
        """Return the result of a task of `tools.scaling.worker`; InputError if it fails."""
        module = [sys.executable, "-m", f"{__package__}.worker", task, json.dumps(settings)]
        process = subprocess.Popen(
            [*self.mpiexec, "-n", str(ranks), *module],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": PATH, ALGORITHM: algorithm},
            start_new_session=True,  # a Ctrl-C is for the program that ends this one
        )
        try:
            output, errors = process.communicate()
        except BaseException:
            end(process)
            raise
        if process.returncode:
            said = errors.strip() or output.strip() or f"exit code {process.returncode}"
            raise InputError(f"measuring {task} on {ranks} ranks failed:\n{said}")
        return json.loads(output.splitlines()[-1])


def end(process: subprocess.Popen[Any], patience: float = 5.0) -> None:
    """End a process by a signal, and wait until it has."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: measure(build_parser().parse_args(arguments)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=program(__package__),
        description="Measure the constants of an alpha-beta model of data-parallel training, hold "
        "the training steps that it predicts against measured ones, and extend it to 1,000 ranks. "
        "Each rank has one thread.",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--ranks", type=int, metavar="K", default=2,
        help="measure 1, 2, 4, ... up to K ranks of this machine (default: %(default)s)",
    )  # fmt: skip
    where.add_argument(
        "--hosts", type=int, metavar="K",
        help="measure 1, 2, 4, ... up to K hosts, imitated by network namespaces; needs root",
    )  # fmt: skip
    parser.add_argument(
        "--delay", type=hosts.seconds, default="1ms", metavar="TIME",
        help="of a packet between imitated hosts: 100us, 1ms (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--rate", default="100mbit",
        help="at which an imitated host sends, as tc writes it; the wire between them carries some "
        "2gbit in all (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--step", choices=STEPS, default="small",
        help="the training step of `tools.bench steps` (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the prediction")
    return parser


def measure(options: argparse.Namespace) -> int:
    """Measure, fit, predict, compare, draw."""
    most = options.hosts or options.ranks
    if most < 2:
        raise InputError("the network is measured between ranks: ask for 2 or more")
    if options.svg:
        require("matplotlib.figure")
        check_writable(options.svg)
    require("mpi4py")
    step = STEPS[options.step]
    counts = [2**power for power in range(most.bit_length())]
    print(f"{describe().replace(' threads', ' cores')}, one thread a rank")
    with contextlib.ExitStack() as stack:
        local = Job([hosts.mpiexec_path()])
        if options.hosts:
            place = f"{most} imitated hosts, {options.delay * 1e3:g} ms and {options.rate}"
            started = hosts.imitated(most, options.delay, options.rate)
            job = Job(stack.enter_context(started))
        else:
            place, job = "ranks of one machine", local
        print(f"{place}\n", flush=True)
        network = measure_network(job, counts)
        work, points = measure_steps(job, local, step, counts, network)
    step_scalings = (
        Scaling(step.batch, strong=False),
        Scaling(step.batch, strong=True),
        Scaling(step.batch * MANY, strong=True),
    )
    crossings = {scaling: dominated_from(work, network, OURS, scaling) for scaling in step_scalings}
    print()
    for scaling, crossing in crossings.items():
        print(f"{scaling}: {told(scaling, crossing)}")
    if options.svg:
        title = f"{step.name}, {work.bytes / 1e6:.1f} MB of gradients; {place}"
        write_file(options.svg, draw(title, work, network, crossings, points))
    return 0


def measure_network(job: Job, counts: Sequence[int]) -> Network:
    """Return the constants of the network between 2 ranks; print how well they predict others."""
    found = job.run(2, "reductions", sizes=SIZES)
    network = fit(SIZES, found["mpi"], 2, found["gamma"], FITTED)
    print(
        f"alpha {network.alpha * 1e6:,.1f} us a message, "
        f"beta {network.beta * 1e9:.3f} ns a byte ({1e-6 / max(network.beta, 1e-12):,.0f} MB/s), "
        f"gamma {network.gamma * 1e9:.3f} ns to add one\n"
    )
    print(f"{'all-reduce, predicted and measured, ms':44}{''.join(map(title, SIZES))}")
    print_reductions(network, 2, f"{FITTED}, fitted to", FITTED, found["mpi"])
    print_reductions(network, 2, OURS, OURS, found["minitensor"])
    for ranks in counts[2:]:
        for algorithm in ALGORITHMS:
            if algorithm != OURS:
                found = job.run(ranks, "reductions", algorithm, sizes=SIZES)
                print_reductions(network, ranks, algorithm, algorithm, found["mpi"])
        print_reductions(network, ranks, OURS, OURS, found["minitensor"])
    return network


def print_reductions(
    network: Network, ranks: int, name: str, algorithm: str, measured: Sequence[float]
) -> None:
    """Print a row of all-reduces of all sizes, predicted and measured."""
    pairs = (
        f"{all_reduce(size, ranks, network, algorithm) * 1e3:10.3f}{seconds * 1e3:10.3f}"
        for size, seconds in zip(SIZES, measured, strict=True)
    )
    print(f"{f'{ranks} ranks, {name}':44}{''.join(pairs)}", flush=True)


def title(size: int) -> str:
    """Format a column's header: the bytes of an all-reduce."""
    return f"{f'{size // 2**10} KiB' if size < 2**20 else f'{size // 2**20} MiB':>20}"


def measure_steps(
    job: Job, local: Job, step: Step, counts: Sequence[int], network: Network
) -> tuple[Work, list[Point]]:
    """Measure training steps on one rank and on several, beside what is predicted of them."""
    batches = [step.batch // 4, step.batch // 2, step.batch]
    seconds = local.run(1, "steps", step=asdict(step), batches=batches)["alone"]
    each, fixed = np.polyfit(batches, seconds, 1)
    found = local.run(1, "profile", step=asdict(step))
    work = Work(
        max(0.0, float(fixed)), float(each), found["backward"], into_buckets(found["gradients"])
    )
    print(
        f"\na step computes for {work.fixed * 1e3:.1f} ms and {work.each * 1e3:.2f} ms a sentence "
        f"on one rank, {work.backward:.0%} of it in the backward pass; buckets of "
        f"{', '.join(f'{size / 1e6:.1f}' for size, _ in work.buckets)} MB are ready after "
        f"{', '.join(f'{ready:.0%}' for _, ready in work.buckets)} of that"
    )
    points: list[Point] = []
    for ranks in counts[1:]:
        scalings = [Scaling(step.batch, strong) for strong in (False, True)]
        sizes = [int(scaling.on(ranks)) for scaling in scalings]
        alone, together = job.run(ranks, "steps", step=asdict(step), batches=sizes).values()
        if ranks == 2:
            best, total = exposed(work, alone[0], ranks, network, OURS)
            work = replace(work, overlap=overlap(best, total, together[0] - alone[0]))
            print(
                f"of the communication that could be hidden behind it, {work.overlap:.0%} is\n\n"
                f"{'step, ms':44}{'compute':>10}{'predicted':>11}{'measured':>10}{'off':>7}"
            )
        for scaling, compute, measured in zip(scalings, alone, together, strict=True):
            predicted = compute + waiting(work, compute, ranks, network, OURS)
            points.append(Point(ranks, scaling, compute, predicted, measured))
            print(
                f"{f'{ranks} ranks, {scaling}':44}{compute * 1e3:10.1f}{predicted * 1e3:11.1f}"
                f"{measured * 1e3:10.1f}{predicted / measured - 1:+7.0%}",
                flush=True,
            )
    return work, points


if __name__ == "__main__":
    sys.exit(main())
