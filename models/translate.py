"""Train a Transformer on pairs of sentences, translate with it, and evaluate it.

    python -m models.translate train                            the embedded data: numbers in words
    python -m models.translate train --source a.en --target a.fr --vocabulary bpe --out runs/mine
    python -m models.translate train --out runs/mine --resume
    python -m models.translate translate "three hundred and forty-two"
    python -m models.translate translate --input a.en --output a.fr --run runs/mine --beam 4
    python -m models.translate evaluate

Once installed, `minitensor-translate` is the same. Exit codes: 0 success; 1 an input that cannot be
used, explained in a sentence on standard error; 2 a wrong command line; 130 after Ctrl-C and 143
after `kill` (128 + the signal), with a checkpoint that --resume continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minitensor as mt
from minitensor import Tensor
from minitensor.serialize import CheckpointError

from .command import InputError, exit_code, program, require
from .decoding import Output, Sampling, beam_search, generate, greedy, stop_at
from .decoding_options import add_sampling, sampling_of
from .number_words import number_pairs, split_numbers
from .pairs import check_data, collate, read_pairs
from .pictures import draw_attention
from .settings import count
from .task import Checkpoint
from .text import EOS, Pair, normalize, read_lines, split_lines, write_file
from .training import add_train, load_trained
from .translation import Translation, held_out_pairs, vocabularies

DEFAULT_RUN = "runs/numbers"
BATCH = 64  # sentences translated at a time


@dataclass(frozen=True)
class Decoding:
    """The way translations are found: the most probable token each time, beam search, or sampling.

    `max_length` is the most tokens of a translation; by default 2 S + 20 for a source of S tokens,
    or the length of the longest training target, whichever is more.
    """

    beam: int = 1
    length_penalty: float = 1.0
    n_best: int = 1
    sampling: Sampling | None = None
    max_length: int | None = None


class Translator:
    """A trained model and its vocabularies."""

    def __init__(self, checkpoint: Checkpoint, task: type[Translation] = Translation) -> None:
        self.task = task
        self.model = task.load_model(checkpoint)
        self.source_vocabulary, self.target_vocabulary = vocabularies(checkpoint)
        longest, most = checkpoint.progress.get("longest_target", 0), checkpoint.settings.max_length
        if type(longest) is not int or not 0 <= longest <= most:
            raise CheckpointError(
                f"{checkpoint.path}: longest_target is {longest!r:.20}, expected an integer from 0 "
                f"to {most}"
            )
        self.longest_target: int = longest

    def encode(self, lines: Sequence[str], replace_unknown: bool) -> list[list[int]]:
        """Encode each line; InputError, with its number, for a bad one."""
        config = self.model.config
        encoded = []
        for number, line in enumerate(lines, 1):
            try:
                tokens = [*self.source_vocabulary.encode(line, replace_unknown), EOS]
            except InputError as error:
                raise InputError(f"line {number}: {error}") from error
            most = config.position_limit
            if most is not None and len(tokens) > most:
                raise InputError(f"line {number} has {len(tokens)} tokens, the model allows {most}")
            encoded.append(tokens)
        return encoded

    def translate(
        self,
        lines: Sequence[str],
        replace_unknown: bool = False,
        decoding: Decoding = Decoding(),
    ) -> list[str]:
        """Translate each line by `translations`; an empty line stays empty."""
        found = self.translations(lines, replace_unknown, decoding)
        return [best[0][1] if best else "" for best in found]

    def translations(
        self,
        lines: Sequence[str],
        replace_unknown: bool = False,
        decoding: Decoding = Decoding(),
    ) -> list[list[tuple[float, str]]]:
        """Return the n best translations of each line with their scores; none of an empty line.

        InputError for a token outside the vocabulary, unless `replace_unknown`, and for a line
        longer than the model allows. A warning on standard error counts the lines whose best
        translation was cut because it had not ended at the greatest length.
        """
        encoded = self.encode(lines, replace_unknown)
        found: list[list[tuple[float, str]]] = [[] for _ in lines]
        cut = []
        # Sentences of similar length go together: little padding, and few wait for others to end.
        order = sorted(
            (n for n, tokens in enumerate(encoded) if len(tokens) > 1),
            key=lambda n: len(encoded[n]),
        )
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            (src_NS,) = collate([(encoded[n],) for n in chosen])
            for n, outputs in zip(chosen, self.generate(src_NS, decoding), strict=True):
                found[n] = [(o.score, self.target_vocabulary.decode(o.tokens)) for o in outputs]
                if not outputs[0].ended:
                    cut.append(n + 1)
        if cut:
            print(
                f"warning: {len(cut)} of {len(lines)} translations had not ended and were cut, "
                f"the first in line {min(cut)}",
                file=sys.stderr,
            )
        return found

    def generate(self, src: Tensor, decoding: Decoding = Decoding()) -> list[list[Output]]:
        """Return the n best outputs for each row of padded source tokens (N, S)."""
        src_NS = src
        config = self.model.config
        longest = decoding.max_length or max(2 * src_NS.shape[1] + 20, self.longest_target)
        most = config.position_limit
        if most is not None:
            longest = min(longest, most)
        prompts = [[config.bos_id]] * src_NS.shape[0]
        state, stop = self.model.start(src_NS), stop_at(config.eos_id)
        if decoding.beam > 1:
            return beam_search(
                self.model, prompts, state, longest, decoding.beam, decoding.length_penalty,
                decoding.n_best, stop,
            )  # fmt: skip
        choose = decoding.sampling or greedy
        return [[o] for o in generate(self.model, prompts, state, longest, choose, stop)]

    def picture(self, line: str, path: str | Path) -> None:
        """Draw the cross attention of a line's translation to the line."""
        tokens = self.encode([line], True)[0]
        src_NS = mt.tensor([tokens])
        with mt.no_grad():
            out_NL = mt.tensor([self.generate(src_NS)[0][0].tokens])
            maps = self.task.attention_maps(self.model, src_NS, out_NL)
        draw_attention(
            maps,
            self.source_vocabulary.pieces(tokens),
            self.target_vocabulary.pieces(out_NL[0].tolist()),
            path,
        )


# Commands


def translate(options: argparse.Namespace) -> int:
    """Translate sentences from the command line, a file, or standard input."""
    if options.text and options.input:
        raise InputError("give either sentences or --input, not both")
    decoding = decoding_of(options)
    translator = Translator(load_trained(options.run, options.task), options.task)
    if options.text:
        lines = [normalize(text) for text in options.text]
    elif options.input:
        lines = read_lines(options.input)
    else:
        lines = split_lines(sys.stdin.buffer.read(), "standard input")
    found = translator.translations(lines, options.replace_unknown, decoding)
    if options.attention:
        translator.picture(lines[0], options.attention)
    if decoding.n_best > 1:
        text = "".join(f"{score:.4f}\t{line}\n" for best in found for score, line in best)
    else:
        text = "".join(f"{best[0][1] if best else ''}\n" for best in found)
    if options.output:
        write_file(options.output, text.encode())
    else:
        sys.stdout.write(text)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Translate pairs and compare: exact matches, BLEU, and a table of the worst translations."""
    sacrebleu = require("sacrebleu")
    decoding = decoding_of(options)
    checkpoint = load_trained(options.run, options.task)
    translator = Translator(checkpoint, options.task)
    pairs = evaluation_pairs(options, checkpoint)
    sources = [source for source, _ in pairs]
    found = translator.translate(sources, replace_unknown=True, decoding=decoding)
    references = [normalize(target) for _, target in pairs]
    exact = sum(f == r for f, r in zip(found, references, strict=True))
    bleu = sacrebleu.corpus_bleu(found, [references])
    print(f"exact match {exact}/{len(pairs)} = {100 * exact / len(pairs):.2f} %")
    print(f"BLEU {bleu.score:.2f}")
    worst = options.worst or Path(options.run if Path(options.run).is_dir() else ".") / "worst.tsv"
    scored = sorted(
        (sacrebleu.sentence_chrf(f, [r]).score, source, r, f)
        for f, r, (source, _) in zip(found, references, pairs, strict=True)
        if f != r
    )
    rows = ["chrF\tsource\treference\ttranslation\n"]
    rows += [f"{score:.1f}\t{s}\t{r}\t{f}\n" for score, s, r, f in scored[: options.count]]
    write_file(worst, "".join(rows).encode())
    print(f"the {len(rows) - 1} worst translations are in {worst}")
    return 0


def evaluation_pairs(options: argparse.Namespace, checkpoint: Checkpoint) -> list[Pair]:
    """Return the pairs the user names, or those the run has held out."""
    check_data(options.source, options.target, options.tsv)
    pairs = read_pairs(options.source, options.target, options.tsv)
    if pairs is None:
        if checkpoint.settings.embedded:
            pairs = number_pairs(split_numbers().test)
        else:
            pairs = held_out_pairs(checkpoint)
        print(f"{len(pairs):,} pairs that {options.run} did not learn from")
    return pairs


# The command line


def build_parser(
    task: type[Translation],
    module: str,
    run: str,
    model: str,
    add_more: Callable[[Any], object] | None = None,
) -> argparse.ArgumentParser:
    """Build the parser of the three commands, for a task and the folder of its runs.

    `add_more` adds further commands.
    """
    parser = argparse.ArgumentParser(
        prog=program(f"{__package__}.{module}"),
        description=f"Train {model} on pairs of sentences; translate.",
    )
    parser.set_defaults(task=task)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_train(commands, task, run, "learn from pairs of sentences")

    command = commands.add_parser("translate", help="translate sentences")
    command.add_argument(
        "text", nargs="*", help="sentences; without them and --input, standard input"
    )
    command.add_argument("--input", help="file to translate, one sentence per line (plain or .gz)")
    command.add_argument("--output", help="file for the translations instead of standard output")
    command.add_argument("--attention", help="picture (PNG) of the first sentence's attention")
    command.add_argument(
        "--replace-unknown",
        action="store_true",
        help="translate words outside the vocabulary as <unk>",
    )
    command.add_argument(
        "--n-best", type=count, default=1, metavar="N",
        help="with --beam: the N best of each, a line each, with the score and a tab before",
    )  # fmt: skip
    add_decoding(command)
    add_run(command, run)
    command.set_defaults(command=translate)

    command = commands.add_parser("evaluate", help="compare translations with references")
    command.add_argument("--source", help="text to translate; by default what the run held out")
    command.add_argument("--target", help="its translation")
    command.add_argument("--tsv", help="instead of both: a table of source and target")
    command.add_argument(
        "--worst", help="table for the worst translations (default: in the run's folder)"
    )
    command.add_argument("--count", type=count, default=20, help="how many (default: %(default)s)")
    add_decoding(command)
    add_run(command, run)
    command.set_defaults(command=evaluate)
    if add_more is not None:
        add_more(commands)
    return parser


def add_run(command: argparse.ArgumentParser, run: str) -> None:
    """Add the option that names a trained model."""
    command.add_argument(
        "--run", default=run, help="folder of a run, or a checkpoint (default: %(default)s)"
    )


def add_decoding(command: argparse.ArgumentParser) -> None:
    """Add the options that say how translations are found."""
    group = command.add_argument_group("decoding", "greedy, unless one of these is given")
    group.add_argument("--beam", type=count, default=1, help="beginnings to follow in beam search")
    group.add_argument(
        "--length-penalty", type=float, default=1.0,
        help="scores of beam search are divided by length to this power (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--max-length", type=count, help="most tokens of a translation (default: by the source)"
    )
    add_sampling(group)


def decoding_of(options: argparse.Namespace) -> Decoding:
    """Return what the options say; InputError if they contradict each other."""
    sampling = sampling_of(options)
    n_best = getattr(options, "n_best", 1)
    if sampling and options.beam > 1:
        raise InputError("give either --beam, or the options of sampling")
    if n_best > options.beam:
        raise InputError(f"--n-best is {n_best}, but --beam follows {options.beam} only")
    return Decoding(options.beam, options.length_penalty, n_best, sampling, options.max_length)


def main(
    arguments: Sequence[str] | None = None,
    task: type[Translation] = Translation,
    module: str = "translate",
    run: str = DEFAULT_RUN,
    model: str = "the encoder-decoder Transformer",
    add_more: Callable[[Any], object] | None = None,
) -> int:
    """Run a command line; returns the exit code. The other arguments are those of the parser."""
    options = build_parser(task, module, run, model, add_more).parse_args(arguments)
    return exit_code(lambda: options.command(options))


if __name__ == "__main__":
    sys.exit(main())
