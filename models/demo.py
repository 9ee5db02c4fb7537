"""Learn to translate numbers in words within a few minutes, and try it on unseen ones.

    python -m models.demo 342           (or NUMBER=342 in the environment)

Trains on English numbers and their French, measures exact matches on 1,000 numbers that were never
seen, translates a few and the one you choose, draws where the model looked and the graph of what
it computes, and writes a walkthrough: one training iteration on your number, step by step. Exit
code 1 if fewer than 99 % of the unseen numbers are right.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from .command import InputError, exit_code, program
from .number_words import in_words, number_pairs, split_numbers
from .pairs import TranslationSettings
from .pictures import draw_graph
from .text import write_file
from .training import CURVES, load_trained, start_run
from .translate import Translator
from .translation import Translation
from .walkthrough import page
from .walkthrough.transformer import walkthrough

ATTENTION = "attention.png"
GRAPH = ("graph.svg", "graph.html")
WALKTHROUGH = "walkthrough.html"
TRANSLATE = f"{__package__}.translate"
WANTED = 0.99  # share of exact matches
OTHERS = {
    "attention": "attention from nothing up, each step printed",
    "gpt": "a GPT learns to write, in a minute",
    "bert": "masked words; sentence vectors from real weights after `make pretrained`",
    "recurrent": "the same translation without attention's parallel steps, and what that costs",
    "vit": "images as patches: handwritten digits",
}


def demo(number: int, out: Path) -> int:
    """Train, measure, and show; `number` is translated and drawn at the end."""
    chosen = in_words(number)
    split = split_numbers()
    print(
        f"Learning English number words to French from {len(split.train):,} examples ...",
        flush=True,
    )
    start = time.perf_counter()
    with start_run(Translation, TranslationSettings(), out, overwrite=True) as trainer:
        interrupted = trainer.run(lambda line: print(line, flush=True))
        if interrupted:
            print(
                f"interrupted at step {trainer.position.step}: train on with "
                f"{program(TRANSLATE)} train --resume --out {out}"
            )
            return 128 + interrupted
    print(f"trained for {time.perf_counter() - start:.0f} s")

    translator = Translator(load_trained(out, Translation))
    pairs = number_pairs(split.test)
    found = translator.translate([source for source, _ in pairs])
    right = sum(f == target for f, (_, target) in zip(found, pairs, strict=True))
    print(
        f"\n{right} of {len(pairs)} numbers it never saw are translated exactly: "
        f"{right / len(pairs):.1%}\n"
    )

    for (source, target), translation in list(zip(pairs, found, strict=True))[:5]:
        show(source, target, translation)
    source, target = chosen
    seen = "it learned from this one" if number in set(split.train) else "it never saw this one"
    print(f"your number, {number} ({seen}):")
    show(source, target, translator.translate([source])[0])
    translator.picture(source, out / ATTENTION)
    draw_graph(translator.model, *(out / name for name in GRAPH))
    write_file(out / WALKTHROUGH, page(walkthrough(source, target, run=out)))
    print(
        f"\npictures: {out / CURVES} (the loss), "
        f"{out / ATTENTION} (where it looked for your number),\n"
        f"  {' and '.join(str(out / name) for name in GRAPH)} (all that it computes),\n"
        f"  {out / WALKTHROUGH} (how it learns from your number, step by step)"
    )
    print(f'more: {program(TRANSLATE)} translate --run {out} "seventy-one thousand and one"')
    print("the other models:")
    commands = {program(f"{__package__}.{name}"): line for name, line in OTHERS.items()}
    for command, line in commands.items():
        print(f"  {command:{max(map(len, commands))}}  {line}")
    return 0 if right >= WANTED * len(pairs) else 1


def show(source: str, target: str, translation: str) -> None:
    """Print a translation and, if it is wrong, the right one."""
    print(
        f"  {source}\n    -> {translation}"
        + ("" if translation == target else f"   (wrong: {target})")
    )


def main() -> int:
    """Read the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=program(f"{__package__}.demo"), description="Learn to translate numbers."
    )
    parser.add_argument("number", nargs="?", default=os.environ.get("NUMBER") or "342")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder (default: %(default)s)"
    )
    options = parser.parse_args()

    def run() -> int:
        try:
            number = int(options.number)
        except ValueError:
            raise InputError(f"{options.number!r} is not a whole number") from None
        return demo(number, options.out)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
