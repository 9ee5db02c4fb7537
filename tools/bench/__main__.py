"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import minitensor as mt
from minitensor.kernels.jit import COMPILED
from minitensor.kernels.simd import BFLOAT16
from minitensor.models.command import InputError, exit_code, program
from minitensor.models.text import write_file

from . import __doc__ as description
from .bert import measure_bert
from .busy import measure_busy
from .conv import measure_conv
from .decoding import measure_decode
from .foreign import measure_scripts
from .growth import draw_growth, measure_growth
from .measure import HERE, Figure, Roofs, load, machine, measure_roofs
from .ops import measure_ops
from .plan import Plan
from .products import measure_attention, measure_gemm
from .quiet import QUIET, told, wait_for_quiet
from .recurrent import measure_recurrent
from .roofline import draw_roofline, import_svg
from .training import measure_medium, measure_memory, measure_startup, measure_steps

Topic = Callable[[Plan, Sequence[str], Roofs | None], Iterator[Figure]]
TOPICS: dict[str, Topic] = {
    "ops": lambda plan, against, roofs: measure_ops(plan, against),
    "gemm": lambda plan, against, roofs: measure_gemm(plan, against),
    "attention": lambda plan, against, roofs: measure_attention(plan, against),
    "recurrent": lambda plan, against, roofs: measure_recurrent(plan, against),
    "conv": lambda plan, against, roofs: measure_conv(plan, against),
    "bert": lambda plan, against, roofs: measure_bert(plan, against),
    "steps": measure_steps,
    "medium": lambda plan, against, roofs: measure_medium(plan, against),
    "scripts": measure_scripts,
    "decode": lambda plan, against, roofs: measure_decode(plan, against),
    "memory": lambda plan, against, roofs: measure_memory(plan, against),
    "growth": lambda plan, against, roofs: measure_growth(plan, against),
    "busy": lambda plan, against, roofs: measure_busy(plan, against),
    "startup": lambda plan, against, roofs: measure_startup(plan),
}
UNDER_ROOFS = {
    "ops",
    "gemm",
    "attention",
    "recurrent",
    "conv",
    "bert",
    "steps",
    "scripts",
    "medium",
}
DRAWN = {"ops", "gemm", "attention"}


def run(options: argparse.Namespace, plan: Plan) -> int:
    """Measure, print, and write the files."""
    topics = list(dict.fromkeys(options.topics)) or list(TOPICS)
    for topic in topics:
        if topic not in TOPICS:
            raise InputError(f"there is no topic {topic!r}: choose from {', '.join(TOPICS)}")
    if not COMPILED:
        raise InputError("there is nothing to measure uncompiled: unset NUMBA_DISABLE_JIT")
    if options.svg and not DRAWN & set(topics):
        raise InputError(f"--svg draws what {', '.join(sorted(DRAWN))} measure: name one of them")
    if options.curves and "growth" not in topics:
        raise InputError("--curves draws what growth measures: name it")
    if options.svg or options.curves:
        import_svg()  # fail now if it is missing, not after all measurements
    for path in filter(None, (options.json, options.svg, options.curves)):
        check_writable(Path(path))
    about = machine(options.against)
    if "torch" in options.against:
        load("torch").set_num_threads(mt.get_num_threads())
    print(about["description"])
    print(
        f"{about['cores']} cores, {about['threads']} threads, {about['vectors']} vectors; "
        + ", ".join(f"{side} {about['versions'][side]}" for side in options.against),
        flush=True,
    )
    busy = {"at first": wait_for_quiet(options.wait)}
    print(f"the machine: {told(busy['at first'])}", flush=True)
    roofs: Roofs | None = None
    figures: list[Figure] = []
    try:
        for number in range(options.runs):
            if options.runs > 1:
                print(f"\nrun {number + 1} of {options.runs}")
            for topic in topics:
                share = busy[f"{topic} {number + 1}"] = wait_for_quiet(options.wait)
                if topic in UNDER_ROOFS:
                    # A core that is shared for a while has lower ones: the best so far count.
                    now = measure_roofs(plan)
                    roofs = now if roofs is None else roofs.or_higher(now)
                    print(f"\n{described(roofs)}")
                print(f"\n{header(topic, options.against)}")
                for figure in TOPICS[topic](plan, options.against, roofs):
                    figures.append(figure)
                    print(line(figure, options.against, roofs), flush=True)
                if share is not None and share > QUIET:
                    print(f"measured with {told(share)}", flush=True)
        busy["at last"] = wait_for_quiet(0.0)
    finally:  # keep what was measured before an interruption
        if options.json:
            found = dict(
                machine=about,
                roofs=vars(roofs) if roofs else None,
                busy=busy,
                figures=[figure.to_json() for figure in figures],
            )
            write_file(options.json, (json.dumps(found, indent=1) + "\n").encode())
        if options.svg and roofs and any(figure.label for figure in figures):
            write_file(options.svg, draw_roofline(figures, roofs))
        if options.curves and any(figure.curve for figure in figures):
            write_file(options.curves, draw_growth(figures))
    for text in summary(figures, options.runs):
        print(text)
    known = [share for share in busy.values() if share is not None]
    print(f"the machine: {told(max(known, default=None))}{', at worst' if known else ''}")
    return 0


def described(roofs: Roofs) -> str:
    """Return a line on the limits of the machine."""
    return (
        f"FMA peak {roofs.gflops_one:.0f} GFLOP/s on one thread, {roofs.gflops:.0f} on all; "
        f"of bfloat16 {roofs.rounded_one:.0f} and {roofs.rounded:.0f}, "
        f"{'used' if BFLOAT16 else 'not used'} at precision medium; "
        f"memory {roofs.gbytes:.1f} GB/s"
    )


def summary(figures: Sequence[Figure], runs: int) -> Iterator[str]:
    """Yield lines: the missed targets, the worst first; of several runs by the median."""
    measured: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        if figure.reached is not None:
            measured.setdefault((figure.topic, figure.name), []).append(figure)
    missed = []
    for several in measured.values():
        several.sort(key=lambda figure: figure.reached or 0.0)
        middle = several[(len(several) - 1) // 2]
        if middle.met is False:
            missed.append((middle.reached or 0.0, middle, several))
    if measured:
        yield f"\n{len(measured) - len(missed)} of {len(measured)} targets met"
    for reached, figure, several in sorted(missed, key=lambda one: one[0]):
        text = f"{reached:7.0%} of the target  {figure.topic:10} {figure.name:52} {judged(figure)}"
        if runs > 1:
            text += f", from {several[0].reached or 0:.0%} to {several[-1].reached or 0:.0%}"
        yield text


def judged(figure: Figure) -> str:
    """Return the number that is judged, and the target."""
    value = figure.values[HERE] if figure.of_value else figure.ratio or 0.0
    shown = amount(value, figure.unit) if figure.of_value else f"{value:.2f}"
    return f"{shown} ({bound(figure)})"


def bound(figure: Figure) -> str:
    """Return a figure's target with its direction."""
    target = figure.target or 0.0
    shown = amount(target, figure.unit) if figure.of_value else f"{target:g}"
    return f"{'<=' if figure.at_most else '>='} {shown}"


def check_writable(path: Path) -> None:
    """Raise InputError unless a file can be written at `path`."""
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: no file can be made in {path.parent.absolute()}")


def header(topic: str, against: Sequence[str]) -> str:
    """Return the table's header."""
    sides = "".join(f"{side:>11}" for side in (HERE, *against))
    return f"{topic:52}{sides}{'ratio':>8}{'GFLOP/s':>9}{'peak':>6}{'GB/s':>7}{'memory':>7}  target"


def line(figure: Figure, against: Sequence[str], roofs: Roofs | None) -> str:
    """Return a figure as a row of the table."""
    text = f"{figure.name:52}"
    for side in (HERE, *against):
        value = figure.values.get(side)
        text += f"{'' if value is None else amount(value, figure.unit):>11}"
    text += f"{'' if figure.ratio is None else f'{figure.ratio:.2f}':>8}"
    gflops, gbytes = figure.gflops, figure.gbytes
    text += f"{'' if gflops is None else f'{gflops:.1f}':>9}"
    text += f"{'' if gflops is None or not roofs else f'{gflops / roofs.gflops:.0%}':>6}"
    text += f"{'' if gbytes is None else f'{gbytes:.1f}':>7}"
    text += f"{'' if gbytes is None or not roofs else f'{gbytes / roofs.gbytes:.0%}':>7}"
    if figure.target is not None:
        text += f"  {bound(figure)}"
        text += {None: "", True: "", False: "  missed"}[figure.met]
    return text.rstrip()


def amount(value: float, unit: str) -> str:
    """Format a value with its unit."""
    if unit == "share":
        return f"{value:.0%}"
    if unit == "times":
        return f"{value:.2f} x"
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    if unit == "s":
        for size, name in ((1.0, "s"), (1e-3, "ms")):
            if value >= size:
                return f"{value / size:.3g} {name}" if value < 1000 * size else f"{value:.0f} s"
        return f"{value * 1e6:.3g} us"
    return f"{value:.0f}/s"


def main(arguments: Sequence[str] | None = None, plan: Plan | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog=program(__package__), description=(description or "").split("\n")[0]
    )
    parser.add_argument(
        "topics", nargs="*", metavar="TOPIC", help=f"{', '.join(TOPICS)} (default: all)"
    )
    parser.add_argument(
        "--against",
        nargs="*",
        choices=("torch", "numpy", "jax", "onnxruntime"),
        default=["torch", "numpy"],
        help="compare with these (default: torch numpy); numpy and jax in gemm, onnxruntime in "
        "bert",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--svg", metavar="FILE", help="draw the kernels under the machine's roofs")
    parser.add_argument("--curves", metavar="FILE", help="draw how a step grows")
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS",
        help="wait at most so long before each topic for other processes to rest (default: 60)",
    )  # fmt: skip
    parser.add_argument(
        "--runs", type=int, choices=range(1, 10), default=1, metavar="N",
        help="measure all N times, and judge the medians (default: 1)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options, plan or Plan()))


if __name__ == "__main__":
    sys.exit(main())
