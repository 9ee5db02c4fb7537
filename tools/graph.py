"""Draw the graph of a model, with the shape of every tensor, from the command line.

    python -m tools.graph transformer                          # graph.svg, graph.html, a summary
    python -m tools.graph transformer --level full --format pdf
    python -m tools.graph transformer --dims N=2,M=7,M_target=5,E=16,nhead=2,vocab_size=11
    python -m tools.graph my.code:Net --dims N=4,D=8 --input x:N,D --input y:N:int64
    python -m tools.graph run/best.safetensors --overlay flops -o model.svg
    python -m tools.graph transformer --diff transformer-pre-norm
    python -m tools.graph transformer --compiled               # what minitensor.compile makes of it

TARGET is one of
- `transformer` or `transformer-pre-norm`: the model of models/transformer.py, of 6 + 6 layers;
- `attention`, `gpt`, `bert`, `recurrent` or `vit`: the small example of that file in models/;
- `package.module:name`: a module, or a class of one or a function that needs no arguments and
  returns a module, to be called with each `--input`; a function called with each `--input`; or
  a function that needs no arguments and returns a tensor, or `(module or function, *inputs)`, or
  `(module or function, inputs by name, names of sizes)`;
- a file `.safetensors` that `Transformer.save` wrote, or `.json`, a graph written before.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.graph import Graph, trace, write
from minitensor.graph.frames import is_own as is_users_file
from minitensor.graph.overlays import OVERLAYS, overlays_of
from minitensor.graph.view import LEVELS, View
from minitensor.models.command import InputError, exit_code, program
from minitensor.models.transformer import Transformer, TransformerConfig
from minitensor.replay import calls_of
from minitensor.replay.addresses import NotReplayable
from minitensor.replay.explain import explanation, plan_explanation
from minitensor.serialize import CheckpointError

from .usage import chart, usage

MODELS = {"transformer": False, "transformer-pre-norm": True}  # and True for pre-norm

EXAMPLES = ("attention", "gpt", "bert", "recurrent", "vit")  # files in models/ with an `example`

# The sizes of a Transformer: letter, other names that --dims may use, and the default.
SIZES = {
    "N": ((), 3),
    "S": (("M",), 11),
    "L": (("M_target",), 7),
    "E": (("d_model",), 32),
    "H": (("nhead",), 4),
    "F": (("dim_feedforward",), 64),
    "V": (("vocab_size", "tgt_vocab_size"), 23),
    "V_source": (("src_vocab_size",), 19),
}
SETTINGS = (
    "d_model",
    "nhead",
    "dim_feedforward",
    "tgt_vocab_size",
    "src_vocab_size",
)  # E to V_source


@dataclass
class Program:
    """Something to trace."""

    function: Callable[..., Any]
    inputs: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    dims: dict[str, int | str] = field(default_factory=dict)  # as `trace` takes them
    backward: bool = False  # record the backward pass by default


# Targets


def transformer(dims: dict[str, int], norm_first: bool = False, path: str | None = None) -> Program:
    """Return the Transformer of a file, or a new one of the sizes in `dims`, with its inputs."""
    model = None if path is None else Transformer.load(path)
    given = {letter: default for letter, (_, default) in SIZES.items()}
    if model is not None:
        c = model.config
        given |= dict(E=c.d_model, H=c.nhead, F=c.dim_feedforward)
        given |= dict(V=c.tgt_vocab_size, V_source=c.src_vocab_size)
    sizes, names = {}, {}
    for letter, (others, _) in SIZES.items():
        names[letter] = next((n for n in (letter, *others) if n in dims), letter)
        sizes[letter] = dims.get(names[letter], given[letter])
    unknown = [name for name in dims if name not in names.values()]
    if unknown:
        known = ", ".join(" or ".join((letter, *others)) for letter, (others, _) in SIZES.items())
        raise InputError(f"--dims: no size is called {unknown[0]}; there are {known}")
    N, S, L, *settings = names.values()  # declared, since several may be of one size
    named: dict[str, int | str] = {"src": f"{N} {S}", "tgt": f"{N} {L}", "tgt_mask": f"{L} {L}"}
    named |= dict(zip(SETTINGS, settings, strict=True))
    if model is None:
        mt.manual_seed(0)
        vocabularies = sizes["V_source"], sizes["V"]
        model = Transformer(
            TransformerConfig(
                *vocabularies,
                d_model=sizes["E"],
                nhead=sizes["H"],
                dim_feedforward=sizes["F"],
                norm_first=norm_first,
            )
        )
    src = mt.zeros(sizes["N"], sizes["S"], dtype=mt.int64)
    tgt = mt.zeros(sizes["N"], sizes["L"], dtype=mt.int64)
    options = {"tgt_mask": model.generate_square_subsequent_mask(sizes["L"])}
    return Program(model, (src, tgt), options, named, backward=True)


def example(name: str, dims: dict[str, int]) -> Program:
    """Return the example of a file in models/: a small model, with inputs and names of sizes."""
    if dims:
        raise InputError(f"{name} has sizes of its own: --dims is for other targets")
    mt.manual_seed(0)
    model, inputs, sizes = importlib.import_module(f"minitensor.models.{name}").example()
    return Program(model, (), inputs, {**sizes}, backward=True)


def named_object(target: str) -> Any:
    """Import the object that `package.module:name` names."""
    module, _, name = target.partition(":")
    here = os.getcwd()
    if here not in sys.path and not sys.flags.safe_path:  # an installed command has not
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise InputError(f"cannot import {module}: {explained(error)}") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise InputError(f"{module} has no {name}") from None
    return found


def program_of(target: str, inputs: dict[str, Tensor]) -> Program:
    """Return the program that `package.module:name` stands for, with the `--input`s."""
    found = named_object(target)
    if not callable(found):
        raise InputError(
            f"{target} is no module and no function, but of type {type(found).__name__}"
        )
    is_module, is_class = isinstance(found, nn.Module), isinstance(found, type)
    missing = [] if is_module else required(found)
    if missing and inputs and not is_class:
        return Program(found, (), dict(inputs))
    if missing:
        advice = (
            "name a function that makes it"
            if is_class
            else "give it --input, or name a function without arguments that returns "
            "(function, *inputs)"
        )
        raise InputError(f"{target} needs {', '.join(missing)}: {advice}")
    made = found if is_module else run(target, found)
    if isinstance(made, nn.Module):
        absent = [name for name in required(made.forward) if name not in inputs]
        if absent:
            given = " ".join(f"--input {name}:SHAPE:DTYPE" for name in absent)
            raise InputError(f"{target} is called with {', '.join(absent)}: give {given}")
        return Program(made, (), dict(inputs))
    if inputs:
        raise InputError(f"{target} takes no arguments and makes no module: leave out --input")
    if isinstance(made, tuple) and [type(part) for part in made[1:]] == [dict, dict]:
        return Program(made[0], (), made[1], made[2])  # as the examples of models/ return it
    if isinstance(made, tuple) and made and callable(made[0]):
        return Program(made[0], made[1:])
    if not isinstance(made, Tensor):
        raise InputError(
            f"{target} returned {type(made).__name__}: expected a tensor, a module, or "
            "(module or function, *inputs)"
        )
    return Program(found)


def is_own(target: str) -> bool:
    """Return True if a target is a model of this project, which has inputs of its own."""
    return target in (*MODELS, *EXAMPLES) or target.endswith(".safetensors")


def program_for(target: str, given: Sequence[str], dims: dict[str, int]) -> Program:
    """Return the program of a target, unless it is a recorded graph, with its `--input`s."""
    inputs = dict(input_tensor(text, dims) for text in given)
    if is_own(target):
        if inputs:
            raise InputError(f"{target} has inputs of its own: --input is for package.module:name")
        if target in EXAMPLES:
            return example(target, dims)
        path = None if target in MODELS else target
        program: Program = run(target, transformer, dims, MODELS.get(target, False), path)
    elif ":" in target:
        program = program_of(target, inputs)
        program.dims = {**program.dims, **dims}
    else:
        raise InputError(
            f"{target} is not a target: expected {', '.join((*MODELS, *EXAMPLES))}, "
            "package.module:name, or a .safetensors or .json file"
        )
    return program


def required(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's required arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]


def run(target: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function; InputError, naming its error, if it raises one."""
    try:
        return function(*args, **options)
    except (CheckpointError, InputError):  # they say all
        raise
    except Exception as error:
        raise InputError(f"{target} raised {explained(error)}") from error


def explained(error: Exception) -> str:
    """Return an error in one line: its class, its message, and the user's line that raised it."""
    message, kind = " ".join(str(error).split()), type(error).__name__
    lines = [
        f"{Path(frame.f_code.co_filename).name}:{number}"
        for frame, number in traceback.walk_tb(error.__traceback__)
        if is_users_file(frame.f_code.co_filename) and frame.f_globals.get("__name__") != __name__
    ]
    where = f" (in {lines[-1]})" if lines else ""
    return f"{kind}: {message}{where}" if message else f"{kind}{where}"


def graph_of(target: str, options: argparse.Namespace, compiled: bool = False) -> Graph:
    """Record the graph of a target, of the ops that it is compiled to, or read a .json file."""
    if target.endswith(".json"):
        try:
            graph = Graph.from_json(Path(target).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{target}: {error}") from error
        if options.overlay is not None:  # also one that annotations made
            choices("--overlay", options.overlay, tuple(overlays_of(graph)))
        return graph
    own = is_own(target)
    program = program_for(target, options.input, options.dims)
    if options.overlay is not None:  # the target's own module may have registered it
        choices("--overlay", options.overlay, tuple(OVERLAYS))
    needs = OVERLAYS[options.overlay].needs if options.overlay else ()
    wanted = options.backward or options.level == "full" or "backward" in needs
    if options.overlay == "time" and own:
        program.function(*program.inputs, **program.options)  # kernels are compiled before
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "dims: ")  # the summary says it
            return trace(
                mt.compile(program.function) if compiled else program.function,
                *program.inputs,
                dims=program.dims,
                backward=wanted or (program.backward and options.diff is None),
                decompose=own or options.decompose or options.diff is not None or options.compiled,
                stats="stats" in needs,
                values=options.values,
                **program.options,
            )
    except Exception as error:
        message = str(error)
        if isinstance(error, ValueError) and message.startswith(("trace: ", "dims: ")):
            raise InputError(message.partition(": ")[2]) from error
        raise InputError(f"{target} raised {explained(error)}") from error


def memory_of(options: argparse.Namespace) -> tuple[str, bytes]:
    """Return what is to be told of the compiled target, and a chart of the memory in use.

    InputError, with the reason, if it is not replayed.
    """
    program = program_for(options.target, options.input, options.dims)
    compiled = mt.compile(program.function)
    forms = {"as written": program.function, "compiled": compiled}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "compile: ")  # the error says it
            found = {
                name: usage(function, *program.inputs, **program.options)
                for name, function in forms.items()
            }
    except NotReplayable as error:
        raise InputError(f"{options.target} is not replayed: {error}") from error
    except Exception as error:
        raise InputError(f"{options.target} raised {explained(error)}") from error
    (entry,) = calls_of(compiled).entries
    told = f"{explanation(entry)}\n{plan_explanation(entry.plans[0])}"
    return told, chart(f"{options.target}: memory", found)


# Options


def sizes_from(text: str) -> dict[str, int]:
    """Parse sizes such as "N=2,M=7"."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not name.strip().isidentifier() or not size.strip().isdecimal() or int(size) < 1:
            raise InputError(f"--dims: expected NAME=SIZE with a size above 0, got {part!r}")
        if sizes.setdefault(name.strip(), int(size)) != int(size):
            raise InputError(f"--dims: {name.strip()} is both {sizes[name.strip()]} and {size}")
    return sizes


def input_tensor(text: str, dims: dict[str, int]) -> tuple[str, Tensor]:
    """Parse "x:N,7:float32" into a name and a tensor of random floats, or zeros for other types."""
    name, _, rest = text.partition(":")
    shape, _, dtype = rest.partition(":")
    sizes = [part.strip() for part in shape.split(",") if part.strip()]
    wrong = [size for size in sizes if size not in dims and not size.isdecimal()]
    if not name.isidentifier() or wrong:
        about = f"{wrong[0]!r} is neither a number nor in --dims" if wrong else "no name"
        raise InputError(f"--input {text}: {about}; expected NAME:SHAPE:DTYPE, as in x:N,7:int64")
    known = getattr(mt, dtype or "float32", None)
    if known is None or not isinstance(known, mt.dtype):
        raise InputError(f"--input {text}: {dtype} is not a type of tensors")
    made = mt.zeros([dims.get(size) or int(size) for size in sizes], dtype=known)
    return name, mt.randn_like(made) if made.is_floating_point() else made


def choices(option: str, given: str, known: Sequence[str]) -> list[str]:
    """Split a list such as "svg,html"; InputError for a part that is not known."""
    parts = [part.strip() for part in given.split(",")]
    for part in parts:
        if part not in known:
            raise InputError(f"{option} {part!r} is none of {', '.join(known)}")
    return parts


def files_of(options: argparse.Namespace) -> dict[Path, str]:
    """Return the files to write and their formats; InputError if one cannot be written."""
    out = Path(options.output)
    if not out.name:
        raise InputError(f"cannot write {out}: it is a folder")
    suffix = out.suffix.removeprefix(".").lower()
    if options.format is None:
        files = (
            {out: suffix}
            if suffix in write.FORMATS
            else {out.with_name(f"{out.name}.{end}"): end for end in ("svg", "html")}
        )
    else:
        stem = out.with_suffix("") if suffix in write.FORMATS else out
        ends = choices("--format", options.format, write.FORMATS)
        files = {stem.with_name(f"{stem.name}.{end}"): end for end in ends}
    for file in files:
        folder = file.parent
        problem = (
            f"{folder} is no folder"
            if not folder.is_dir()
            else "it is a folder"
            if file.is_dir()
            else f"{folder} may not be written to"
            if not os.access(folder, os.W_OK)
            else ""
        )
        if problem:
            raise InputError(f"cannot write {file}: {problem}")
    return files


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(message)


def add_program(parser: argparse.ArgumentParser, about: str) -> None:
    """Add the arguments that `program_for` reads: the target and its own arguments."""
    parser.add_argument("target", metavar="TARGET", help=about)
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:SHAPE:DTYPE",
        help="an argument of the target: sizes by number or by --dims; floats are random, integers "
        "0; the type is float32 if left out",
    )
    parser.add_argument(
        "--dims", default={}, type=sizes_from, metavar="N=2,M=7", help="names of sizes"
    )


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the options."""
    parser = Parser(
        prog=program(f"{__package__}.graph"),
        description=str(__doc__).replace("python -m tools.graph", "%(prog)s"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_program(parser, "what to draw: see above")
    add = parser.add_argument
    add("--level", default="block", help="arch, block, op or full (default: %(default)s)")
    add(
        "--expand",
        action="append",
        default=[],
        metavar="PATH",
        help="open a box, or all that fit a pattern such as encoder.layers.*",
    )
    add("--collapse", action="append", default=[], metavar="PATH", help="close a box")
    add("--backward", action="store_true", default=None, help="draw the backward pass too")
    add(
        "--fold",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw equal neighbours once, such as EncoderLayer x6 (default)",
    )
    add("--decompose", action="store_true", help="open fused ops into what they do")
    add("--values", action="store_true", help="keep the numbers: .html shows them")
    add("--overlay", help=f"colour by {', '.join(OVERLAYS)}, or annotations of a .json")
    add("--format", help=f"some of {','.join(write.FORMATS)} (default: svg,html)")
    add(
        "--diff",
        metavar="OTHER",
        help="draw OTHER, a second target, too, and what it has otherwise",
    )
    add(
        "--compiled",
        action="store_true",
        help="draw the ops that minitensor.compile makes of the target, and what they replace; "
        "print what it tells; draw the memory in use after each op in OUT-memory.svg",
    )
    add(
        "-o",
        "--output",
        default="graph",
        metavar="OUT",
        help="file, or the files' name without its end (default: %(default)s)",
    )
    return parser


def draw(options: argparse.Namespace) -> int:
    """Record and draw the graph; print its summary, or the difference to another."""
    choices("--level", options.level, LEVELS)
    files = files_of(options)
    if options.compiled and (options.diff is not None or options.target.endswith(".json")):
        raise InputError("--compiled needs a target that runs, and no --diff")
    told, memory = memory_of(options) if options.compiled else ("", b"")
    graph, difference = graph_of(options.target, options), None
    if options.compiled:
        difference = graph.diff(graph_of(options.target, options, compiled=True))
    if options.diff is not None:
        other = graph_of(options.diff, options)
        if other.name == graph.name:  # two of one class
            graph.name, other.name = options.target, options.diff
        difference = graph.diff(other)
    names = (field.name for field in fields(View))
    view = View(**{name: getattr(options, name) for name in names})
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if difference is None:
                made = [write.render(graph, end, view) for end in files.values()]
            else:
                made = [difference.render(end, view) for end in files.values()]
    except (ValueError, RuntimeError) as error:
        raise InputError(str(error)) from error
    contents = dict(zip(files, made, strict=True))
    if options.compiled:
        first = next(iter(files))
        contents[first.with_name(f"{first.stem}-memory.svg")] = memory
    for file, content in contents.items():
        write.store(file, content)
    print(told or (graph.summary() if difference is None else difference))
    for note in dict.fromkeys(str(warning.message) for warning in caught):
        print(note)
    print(f"wrote {', '.join(map(str, contents))}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: draw(build_parser().parse_args(arguments)), failure=2)


if __name__ == "__main__":
    sys.exit(main())
