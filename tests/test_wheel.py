"""The package as pip installs it: what is in it, and that all of it works in another folder.

The tests marked `wheel` build it and install it into environments that are empty (`make wheel`).
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_readme import blocks, without_pretrained

import minitensor as mt
from minitensor.graph import frames
from minitensor.models import translate
from minitensor.models.checkpoint import read_checkpoint
from minitensor.models.training import BEST, LAST
from minitensor.models.translation import Translation

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SMALL = "--epochs 1 --d-model 16 --nhead 2 --dim-feedforward 16 --encoder-layers 1"

PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")

wheel_step = pytest.mark.wheel


# Without a build


def test_models_and_tools_are_part_of_the_package_as_of_the_checkout() -> None:
    for name in ("models", "tools"):
        assert (ROOT / "minitensor" / name).samefile(ROOT / name)


@pytest.mark.parametrize("command", PROJECT["scripts"])
def test_every_installed_command_shows_its_help(command: str, capsys: Any) -> None:
    module, _, function = PROJECT["scripts"][command].partition(":")
    with pytest.raises(SystemExit) as ended:
        getattr(importlib.import_module(module), function)(["--help"])
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_the_version_is_the_same_everywhere() -> None:
    version = mt.__version__  # which pyproject.toml reads
    assert PROJECT["dynamic"] == ["version"]
    changes = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert version == changes[0]
    cited = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", cited, re.MULTILINE) == [version]


@pytest.mark.parametrize("module", ["models.translate", "models.demo", "tools.graph"])
def test_a_python_without_packages_is_told_so_in_a_sentence(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", module],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this Python has no numpy, numba, graphviz, safetensors: use ")


def test_models_and_what_pip_installs_are_code_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    python = ROOT / "python"  # with site-packages inside, as where there is no virtual environment
    monkeypatch.setattr(frames, "_STDLIB", f"{python}{os.sep}")
    monkeypatch.setattr(frames, "_INSTALLED", (f"{python / 'site-packages'}{os.sep}",))
    users = ("minitensor/models/a.py", "minitensor/tools/a.py", "python/site-packages/a.py", "a.py")
    for file in users:
        assert frames.is_users.__wrapped__(str(ROOT / file)), file
    for file in ("minitensor/nn/a.py", "python/json/a.py"):
        assert not frames.is_users.__wrapped__(str(ROOT / file)), file


def pairs_to_learn(folder: Path) -> list[str]:
    """The options that train a small model on a table, written into `folder`."""
    table = folder / "pairs.tsv"
    words = {"red": "rouge", "blue": "bleu", "big": "grand", "cat": "chat", "dog": "chien"}
    lines = [f"{a} {b}\t{words[a]} {words[b]}\n" for a in words for b in words]
    table.write_text("".join(lines))
    return ["--tsv", str(table), *SMALL.split()]


def test_a_run_continues_under_either_name_of_the_package(tmp_path: Path, capsys: Any) -> None:
    from models import translate as other  # as `python -m models.translate` imports it

    options = pairs_to_learn(tmp_path)
    for name, first, second in (("a", translate, other), ("b", other, translate)):
        out = str(tmp_path / name)
        assert first.main(["train", "--out", out, *options]) == 0
        assert second.main(["train", "--out", out, "--resume", "--epochs", "2"]) == 0
    a, b = (read_checkpoint(tmp_path / name / LAST, Translation).weights for name in "ab")
    assert all((a[name] == b[name]).all() for name in a)


# The wheel


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The output of a command that must succeed, run without this checkout in sight."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=env | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} in {cwd}: {done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution of the checkout."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel and what the library needs, no more."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    run(programs / "python", *PIP, wheel, cwd=folder)
    return programs


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with packages of its own that are called models and tools."""
    for name in ("models", "tools"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the user')\n")
    return tmp_path


@wheel_step
def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        held = {name: file.read(name) for name in file.namelist()}
    assert {name.split("/")[0] for name in held} == {
        "minitensor",
        f"minitensor-{mt.__version__}.dist-info",
    }
    wanted = {}
    for top, inside in (("minitensor", ""), ("models", "minitensor/"), ("tools", "minitensor/")):
        for path in (ROOT / top).rglob("*"):
            code = path.suffix in (".py", ".pyi") or path.name == "py.typed"
            if path.is_file() and (code or path.parent.name == "explorer"):
                wanted[inside + path.relative_to(ROOT).as_posix()] = path.read_bytes()
    assert len(wanted) > 150
    assert {name for name in held if name.startswith("minitensor/")} == wanted.keys()
    assert not [name for name, content in wanted.items() if held[name] != content]


@wheel_step
def test_the_readme_python_runs_from_another_folder(installed: Path, elsewhere: Path) -> None:
    program = elsewhere / "program.py"
    program.write_text("\n".join(without_pretrained(lambda package: None)))
    run(installed / "python", "-W", "error", program, cwd=elsewhere)
    assert (elsewhere / "attention.html").exists()


@wheel_step
def test_the_names_and_lines_of_an_installed_model_are_told(
    installed: Path, elsewhere: Path
) -> None:
    run(
        installed / "minitensor-graph",
        *("transformer", "--dims", "E=8,H=2,F=8", "--level", "op", "-o", "g.json"),
        cwd=elsewhere,
    )
    output = (elsewhere / "g.json").read_text()
    assert "minitensor/models/transformer.py:" in output
    assert "encoder_output" in output


@wheel_step
def test_what_a_command_says_is_missing_is_all_that_it_needs(
    installed: Path, elsewhere: Path
) -> None:
    path = os.pathsep.join([str(installed), os.environ["PATH"]])
    shell = ("bash", "-euc")
    missing = run(*shell, "minitensor-translate train 2>&1 || [ $? = 1 ]", cwd=elsewhere, PATH=path)
    (line,) = missing.splitlines()
    output = re.fullmatch(r"error: num2words is not installed: install it with (.*)", line)
    assert output, missing
    run(*shell, f"{output[1]} --quiet --disable-pip-version-check", cwd=elsewhere, PATH=path)
    (elsewhere / "train.en").write_text("".join(f"the cat {n}\n" for n in range(40)))
    (elsewhere / "train.fr").write_text("".join(f"le chat {n}\n" for n in range(40)))
    (elsewhere / "new.en").write_text("the cat 7\n")
    (elsewhere / "my").mkdir()
    (elsewhere / "my" / "code.py").write_text(
        "from minitensor import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.table = nn.Embedding(9, 4)\n"
        "    def forward(self, x):\n"
        "        return self.table(x)\n"
    )
    for block in blocks("sh"):
        if not block.startswith("minitensor-"):
            continue
        for command in block.replace("\\\n", "").splitlines():
            small = SMALL if " train " in command and "--resume" not in command else ""
            run(*shell, f"{command.partition('#')[0]} {small}", cwd=elsewhere, PATH=path)
        (elsewhere / "runs/demo").mkdir(exist_ok=True)
        shutil.copy(elsewhere / "runs/numbers" / BEST, elsewhere / "runs/demo")
    assert (elsewhere / "new.fr").exists()
    assert "Net" in (elsewhere / "graph.html").read_text()
    help_text = run(installed / "python", "-m", "minitensor.models.translate", "-h", cwd=elsewhere)
    assert "python -m minitensor.models.translate" in help_text


# Type checkers


@pytest.fixture(scope="module")
def editable(installed: Path) -> Path:
    """The programs of that environment, from now on with the checkout, to be edited."""
    run(installed / "python", *PIP, "--no-deps", "--editable", ROOT, cwd=installed)
    return installed


@wheel_step
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("kind", ["installed", "editable"])  # one after the other
def test_type_checkers_find_the_package_from_another_folder(
    kind: str, checker: str, request: pytest.FixtureRequest, elsewhere: Path
) -> None:
    python = request.getfixturevalue(kind) / "python"
    shutil.rmtree(elsewhere / "models")
    shutil.rmtree(elsewhere / "tools")
    script = elsewhere / "script.py"
    script.write_text(
        "import minitensor as mt\n"
        "from minitensor.models.transformer import TransformerConfig\n"
        "x: int = mt.ones(3)\n"
        "y: str = TransformerConfig(9, 9).d_model\n"
        "mt.no_such_name\n"
    )
    option = "--python-executable" if checker == "mypy" else "--pythonpath"
    done = subprocess.run(
        [sys.executable, "-m", checker, option, str(python), str(script)],
        cwd=elsewhere,
        env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")},
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = re.findall(r"script\.py:(\d+).*error", done.stdout)
    assert wrong == ["3", "4", "5"], done.stdout + done.stderr


@wheel_step
def test_an_editable_install_runs_every_command(editable: Path, elsewhere: Path) -> None:
    for command in PROJECT["scripts"]:
        assert f"usage: {command}" in run(editable / command, "--help", cwd=elsewhere)
    run(editable / "python", "-m", "minitensor.tools.bench", "--help", cwd=elsewhere)
