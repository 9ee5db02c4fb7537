"""Graphs of thousands of ops that do not fold, and what a browser needs to show them.

`python -m tests.large [ops]` writes the page of each, opens it in Chromium and prints the times.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from minitensor.graph.fold import fold
from minitensor.graph.html import page
from minitensor.graph.model import Graph, Group, Node, Value

OPS = ("add", "mul", "matmul", "softmax", "exp", "tanh", "where", "cat", "sum", "layer_norm")


def irregular(ops: int, *, nested: bool = True, seed: int = 0) -> Graph:
    """Return a graph of `ops` ops in random wiring, so that no two parts of it are equal.

    Nested: in blocks of about ten ops, in layers of about ten blocks; else all in one function.
    """
    draw = random.Random(seed)
    values = {"input:x": Value("input:x", "input", (2, 3), "float32", 24, ("N", "E"), ["x"])}
    graph = Graph("irregular", {"N": 2, "E": 3}, ["input:x"], values=values)
    graph.groups[""] = Group("", "", "Irregular", None, inputs=["input:x"], input_names=["x"])
    block, layer, left = "", "", 0
    recent = ["input:x"]
    for i in range(ops):
        if nested and not left:
            left = draw.randrange(5, 16)
            if not layer or draw.random() < 0.1:
                layer = f"layers.{i}"
                graph.groups[layer] = Group(layer, layer, "Layer", "")
            block = f"{layer}.{draw.choice(('mixer', 'block', 'gate'))}{i}"
            graph.groups[block] = Group(block, block, block.rpartition(".")[2], layer)
        left -= 1
        op = draw.choice(OPS)
        key = f"{block}/{op}.{i}"
        count = min(len(recent), draw.choice((1, 1, 2, 2, 3)))
        near = [recent[-1 - min(int(draw.expovariate(0.2)), len(recent) - 1)] for _ in range(count)]
        inputs = list(dict.fromkeys([recent[-1], *near][:count]))
        out = Value(
            f"{key}:0", "activation", (2, i + 1), "float32", 8 * i, ("N", str(i + 1)), producer=key
        )
        graph.values[out.id] = out
        graph.nodes[key] = Node(
            key, op, block, inputs, [out.id], ["x", "y", "z"][: len(inputs)], {"dim": i % 3}
        )
        recent.append(out.id)
        if draw.random() < 0.003:  # a tensor that is read again far below
            recent.extend([draw.choice(recent)])
    used = {name for node in graph.nodes.values() for name in node.inputs}
    graph.outputs = [name for name in graph.values if name not in used]
    return graph


FRAMES = """async (act) => {
  const picture = document.getElementById('picture');
  const [times, { width, height }] = [[], picture.getBoundingClientRect()];
  const at = { clientX: width / 2, clientY: height / 2, bubbles: true, cancelable: true };
  const began = performance.now();
  if (act === 'drag')
    picture.dispatchEvent(new PointerEvent('pointerdown', { ...at, button: 0, pointerId: 1 }));
  for (let i = 0; performance.now() - began < 2000; i += 1) {
    const last = performance.now();
    if (act === 'wheel')
      picture.dispatchEvent(new WheelEvent('wheel', { ...at, deltaY: i % 60 < 30 ? 60 : -60 }));
    else {
      const along = 12 * (i % 60 < 30 ? i % 30 : 30 - i % 30);
      const to = { clientX: at.clientX - along, clientY: at.clientY - 2 * along, bubbles: true };
      picture.dispatchEvent(new PointerEvent('pointermove', { ...to, pointerId: 1 }));
    }
    await new Promise(requestAnimationFrame);
    times.push(performance.now() - last);
  }
  if (act === 'drag')
    picture.dispatchEvent(new PointerEvent('pointerup', { ...at, pointerId: 1 }));
  times.sort((a, b) => a - b);
  const seconds = (performance.now() - began) / 1000;
  return { fps: times.length / seconds, worst: times[times.length - 1] };
}"""

# From the start of a change to the frame that shows it.
PAINTED = """async (act) => {
  const began = performance.now();
  const done = new Function(act)();
  await new Promise((r) => requestAnimationFrame(() => setTimeout(r)));
  return performance.now() - began;
}"""

# To a box in the middle of the picture, at its own size.
NEAR = """() => {
  const boxes = explorer.visible().filter((box) => !box.children.length);
  location.hash = `#level=all&box=${encodeURIComponent(boxes[boxes.length >> 1].id)}`;
}"""


def measure(chromium: Any, file: Path) -> dict[str, float]:
    """Return the milliseconds of opening a page and opening all, and frames per second."""
    found: dict[str, float] = {}
    browser = chromium.new_page(viewport={"width": 1280, "height": 800})
    browser.on("pageerror", lambda error: print("error:", error))
    browser.goto(file.as_uri())
    browser.wait_for_timeout(300)
    found["first paint"] = browser.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    found["load"] = browser.evaluate(
        "performance.timing.loadEventEnd - performance.timing.navigationStart"
    )
    found["elements"] = browser.evaluate("document.querySelectorAll('#world *').length")
    for level in ("op", "all"):
        act = f"document.querySelector('[data-base={level}]').click()"
        found[f"open {level}"] = browser.evaluate(PAINTED, act)
        browser.wait_for_timeout(500)
        found[f"elements {level}"] = browser.evaluate(
            "document.querySelectorAll('#world *').length"
        )
    for where in ("far", "near"):
        if where == "far":
            browser.keyboard.press("f")
        else:
            browser.evaluate(NEAR)
        browser.wait_for_timeout(600)
        found[f"elements {where}"] = browser.evaluate(
            "document.querySelectorAll('#world *').length"
        )
        for act in ("wheel", "drag"):
            frames = browser.evaluate(FRAMES, act)
            found[f"{act} {where}: fps"] = frames["fps"]
            found[f"{act} {where}: worst"] = frames["worst"]
    browser.close()
    return found


def main(ops: int) -> None:
    """Print the times of both graphs."""
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for nested in (True, False):
            graph = irregular(ops, nested=nested)
            began = time.perf_counter()
            tree = fold(graph)
            folded = time.perf_counter()
            text = page(graph, tree)
            written = time.perf_counter()
            file = Path(folder) / f"{nested}.html"
            file.write_text(text, encoding="utf-8")
            print(f"nested {nested}: {len(tree.boxes)} boxes, {len(text) / 1e6:.1f} MB")
            print(f"  fold {folded - began:.2f} s, page {written - folded:.2f} s")
            for name, amount in measure(chromium, file).items():
                print(f"  {name} {amount:.0f}", flush=True)
        chromium.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
