"""Write a walkthrough: one HTML file that shows a training iteration step by step.

    python -m tools.walkthrough gpt "The early bird eats the worm."
    python -m tools.walkthrough transformer "I like apples" "j'aime les pommes"
    python -m tools.walkthrough transformer --run runs/demo "three hundred and forty-two"
    python -m tools.walkthrough attention
    python -m tools.walkthrough bert "The early bird eats the worm."
    python -m tools.walkthrough recurrent "I like apples" "j'aime les pommes"
    python -m tools.walkthrough my.code:Net --dims N=4,D=8 --input x:N,D

TARGET is one of `gpt`, `transformer`, `attention`, `bert` and `recurrent`, the models of models/,
which are trained on the sentence; or `package.module:name`, as in tools.graph, whose chapters
follow its modules. The page needs no network, and shows the numbers of this very run.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minitensor.graph import Graph, trace, write
from minitensor.models.command import InputError, exit_code, program
from minitensor.models.walkthrough import page

from .graph import Parser, add_program, explained, program_for

TARGETS = ("gpt", "transformer", "attention", "bert", "recurrent")
PAIRS = ("transformer", "recurrent")  # that translate: a sentence and its translation
MOST = 1000  # steps


def graph_of(options: argparse.Namespace) -> Graph:
    """Return the graph of a target with its chapters; InputError for what it cannot do."""
    target, sentences = options.target, [*options.sentences]
    if options.sentence is not None:
        sentences.insert(0, options.sentence)
    if options.run is not None and target != "transformer":
        raise InputError("--run is for the target transformer")
    if not 0 <= options.steps <= MOST:
        raise InputError(f"--steps must be from 0 to {MOST}, not {options.steps}")
    if target not in TARGETS:
        if sentences or options.steps:
            raise InputError(
                f"{target} is given no sentence and no --steps: these are for {', '.join(TARGETS)}"
            )
        return followed(options)
    if options.input or options.dims:
        raise InputError(f"{target} has inputs of its own: --input and --dims are for others")
    most = 2 if target in PAIRS else 1
    if len(sentences) > most:
        raise InputError(f"{target} takes at most {most} sentence{'s' * (most > 1)}")
    module = importlib.import_module(f"minitensor.models.walkthrough.{target}")
    given: dict[str, Any] = {"seed": options.seed, "steps": options.steps}
    if options.run is not None:
        given["run"] = options.run
    graph: Graph = module.walkthrough(*sentences, **given)
    return graph


def followed(options: argparse.Namespace) -> Graph:
    """Return the graph of any program, with a chapter for each of its modules."""
    from minitensor.models.walkthrough.modules import chapters

    found = program_for(options.target, options.input, options.dims)
    recorded = None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dims: ")
        for backward in (True, False):
            try:
                recorded = trace(
                    found.function,
                    *found.inputs,
                    dims=found.dims,
                    backward=backward,
                    decompose=True,
                    values=True,
                    **found.options,
                )
                break
            except Exception as error:
                if backward and "backward=True" in str(error):
                    continue  # it has nothing to differentiate
                raise InputError(f"{options.target} raised {explained(error)}") from error
    assert recorded is not None
    recorded.chapters = chapters(recorded, found.function)
    return recorded


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the options."""
    parser = Parser(
        prog=program(f"{__package__}.walkthrough"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_program(parser, "what to walk through: see above")
    add = parser.add_argument
    add("sentences", nargs="*", metavar="SENTENCE", help="of yours; for two languages, both")
    add("--sentence", help="the same as the first SENTENCE")
    add("--seed", type=int, default=0, help="of the random weights (default: %(default)s)")
    add("--steps", type=int, default=0, help="show how tensors change in so many steps of training")
    add("--run", metavar="FOLDER", help="a trained model, as `make demo` leaves in runs/demo")
    add(
        "-o",
        "--output",
        default="walkthrough.html",
        metavar="FILE",
        help="the page (default: %(default)s)",
    )
    return parser


def walk(options: argparse.Namespace) -> int:
    """Write the page."""
    file = Path(options.output)
    if file.suffix != ".html":
        raise InputError(f"the name of the page must end in .html: {file}")
    if not file.parent.is_dir():
        raise InputError(f"cannot write {file}: {file.parent} is no folder")
    graph = graph_of(options)
    content = page(graph)
    write.store(file, content)
    print(f"wrote {file}, {len(graph.chapters)} chapters, {len(content) / 1e6:.1f} MB")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: walk(build_parser().parse_args(arguments)), failure=2)


if __name__ == "__main__":
    sys.exit(main())
