"""Check the gradients of a model against finite differences, for each parameter and op.

    python -m tools.gradcheck transformer
    python -m tools.gradcheck transformer --dims N=2,M=5,M_target=4,E=16 --second
    python -m tools.gradcheck my.code:Net --dims N=4,D=8 --input x:N,D
    python -m tools.gradcheck run/best.safetensors --seed 1

TARGET is one of
- `transformer` or `transformer-pre-norm`: the model of models/transformer.py, of 6 + 6 layers;
- `attention`, `gpt`, `bert`, `recurrent` or `vit`: the small example of that file in models/;
- `package.module:name`: a module, or a class of one or a function that needs no arguments and
  returns a module, to be called with each `--input`; a function called with each `--input`; or
  a function that needs no arguments and returns a tensor, or `(module or function, *inputs)`;
- a file `.safetensors` that `Transformer.save` wrote.

Everything runs in float64 and evaluation mode, so without dropout; with `--train`, every run draws
the same random numbers. A small tensor is tried element by element, a large one along random
directions. Exit codes: 0 all gradients are right, 1 one is wrong, 2 the target could not be run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import minitensor as mt
from minitensor.models.command import InputError, exit_code, program
from minitensor.models.transformer import Transformer
from minitensor.testing import Report, Row, check_gradients
from minitensor.testing.module import ELEMENTS, PROJECTIONS

from .graph import Parser, Program, add_program, explained, is_own, program_for


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the options."""
    parser = Parser(
        prog=program(f"{__package__}.gradcheck"),
        description=str(__doc__).replace("python -m tools.gradcheck", "%(prog)s"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_program(parser, "what to check: see above")
    add = parser.add_argument
    add("--second", action="store_true", help="check the second derivatives too")
    add("--train", action="store_true", help="in training mode, with the same dropout in each run")
    add("--seed", type=int, default=0, help="of inputs and directions (default: %(default)s)")
    add(
        "--elements",
        type=count,
        default=ELEMENTS,
        metavar="N",
        help="try each element of tensors of up to N (default: %(default)s)",
    )
    add(
        "--projections",
        type=count,
        default=PROJECTIONS,
        metavar="N",
        help="random directions for each larger tensor (default: %(default)s)",
    )
    return parser


def count(text: str) -> int:
    """Parse a number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"expected a number above 0, got {text!r}")
    return int(text)


def with_tokens(program: Program) -> Program:
    """Give a program that is a Transformer random tokens, since zeros would all be padding."""
    model = program.function
    if not isinstance(model, Transformer):
        return program
    c = model.config
    sizes = (c.src_vocab_size, c.tgt_vocab_size)
    given = zip(program.inputs, sizes, strict=True)
    tokens = [mt.randint(0, size, x.shape) for x, size in given]
    for t, size in zip(tokens, sizes, strict=True):
        t[t == c.pad_id] = (c.pad_id + 1) % size
    program.inputs = tuple(tokens)
    return program


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Format a table: columns below their names, all but the last padded to equal width."""
    rows = [head, *lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
    shown = [
        "  ".join([*(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
    return "\n".join(shown)


def cells(row: Row) -> list[str]:
    """Return the cells that both tables have: shape, directions tried, error, verdict."""
    checked = row.checked
    tried = checked.tried + (f", {checked.kinks} kinks left out" if checked.kinks else "")
    return [str(checked.shape), tried, f"{checked.error:.1e}", "ok" if row.ok else "FAIL"]


def name(row: Row) -> str:
    """Return the name of a row, with the order of the derivative if it is not the first."""
    return f"{row.name} (second)" if row.order == 2 else row.name


def shown(report: Report) -> str:
    """Return both tables and the verdict."""
    parameters = [[name(row), *cells(row)] for row in report.parameters]
    ops = [
        [name(row), *cells(row)[:3], str(row.runs), cells(row)[3], f"{row.module} {row.line}"]
        for row in report.ops
    ]
    parts = [
        table(("parameter or input", "shape", "tried", "worst error", "result"), parameters),
        table(("op", "shape", "tried", "worst error", "runs", "result", "place"), ops),
    ]
    every = [*report.parameters, *report.ops]
    worst = max(every, key=lambda row: row.checked.error)
    tally = f"{len(report.parameters)} parameters and inputs, {report.runs} runs of ops"
    if report.ok:
        parts.append(f"{tally}: all right; the worst error is {worst.checked.error:.1e}")
    else:
        parts.append(f"{tally}: {report.message()}")
    return "\n\n".join(parts)


def check(options: argparse.Namespace) -> int:
    """Run the target and print a report; return 1 if a gradient is wrong."""
    target = options.target
    mt.manual_seed(options.seed)
    if target.endswith(".json"):
        raise InputError(f"{target} is a graph, which cannot be run: name the model")
    program = program_for(target, options.input, options.dims)
    if is_own(target):
        program = with_tokens(program)
    try:
        report = check_gradients(
            program.function,
            program.inputs,
            program.options,
            second=options.second,
            training=options.train,
            seed=options.seed,
            elements=options.elements,
            projections=options.projections,
        )
    except Exception as error:
        raise InputError(f"{target}: {explained(error)}") from error
    print(f"{target}: float64, {report.mode}, seed {options.seed}\n\n{shown(report)}")
    return int(not report.ok)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: check(build_parser().parse_args(arguments)), failure=2)


if __name__ == "__main__":
    sys.exit(main())
