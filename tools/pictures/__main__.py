"""Draw the README's pictures again: python -m tools.pictures."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import tempfile
from pathlib import Path

import minitensor as mt
from minitensor.graph import Graph
from minitensor.models.transformer import EncoderLayer, TransformerConfig
from minitensor.models.walkthrough import gpt, page, transformer

from ..graph import main

HERE = Path(__file__).resolve().parent
HEAD = "import minitensor as mt\nfrom minitensor import nn\n\n"


def draw_attention(path: Path) -> None:
    """Run the README's lines on graphs, which draw an opened attention."""
    readme = (HERE.parents[1] / "README.md").read_text(encoding="utf-8")
    lines = next(b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "mt.graph" in b)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "attention.py"
        text = HEAD + lines.replace("attention.html", f"{folder}/attention.html")
        script.write_text(text.replace('"attention.svg"', repr(str(path))), "utf-8")
        runpy.run_path(str(script))


def draw_layer(path: Path) -> None:
    """Draw a layer of an encoder both ways, with the tensors that it saves."""
    dims = {"N": 3, "L": 7, "E": 16, "H": 2, "F": 64}
    config = TransformerConfig(  # no setting has the size of another
        11, 13, dims["E"], dims["H"], dim_feedforward=dims["F"], eos_id=5
    )
    src = mt.rand(dims["N"], dims["L"], dims["E"])
    mt.graph.trace(EncoderLayer(config), src, None, dims=dims, backward=True).save(path, "full")


def shoot_chapter(graph: Graph, title: str, path: Path, theme: str) -> None:
    """Take a screenshot of the first chapter with that in its title, if there is a Chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print(f"{path.name} stays as it is: there is no Chromium")
        return
    number = next(n for n, c in enumerate(graph.chapters, 1) if title in c.title)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "walkthrough.html"
        file.write_bytes(page(graph))
        command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
        command += ["--window-size=1280,800", "--virtual-time-budget=3000"]
        command += [f"--screenshot={path}", f"{file.as_uri()}#chapter={number}&theme={theme}"]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    mt.manual_seed(0)
    main(["transformer", "--level", "arch", "-o", str(HERE / "transformer.svg")])
    draw_attention(HERE / "attention.svg")
    draw_layer(HERE / "layer.svg")
    shoot_chapter(gpt.walkthrough(), "Softmax", HERE / "walkthrough.png", "light")
    dark = HERE / "walkthrough-dark.png"
    shoot_chapter(transformer.walkthrough(), "From the last layer", dark, "dark")
