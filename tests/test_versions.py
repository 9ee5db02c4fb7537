"""All that is supported is what tox's table in pyproject.toml tests."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FILE = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, TOOL = FILE["project"], FILE["tool"]
TABLE = TOOL["tox"]
PYTHONS = [name for name in TABLE["env_list"] if re.fullmatch(r"3\.\d+", name)]


def test_all_that_names_a_python_agrees_with_the_table() -> None:
    oldest = PYTHONS[0]
    assert ["oldest", *PYTHONS] == TABLE["env_list"]
    assert [f"3.{11 + n}" for n in range(len(PYTHONS))] == PYTHONS
    assert TABLE["env"]["oldest"]["base_python"] == [oldest]
    assert PROJECT["requires-python"] == f">={oldest}"
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if ":: Python ::" in c]
    assert named == PYTHONS
    assert TOOL["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert TOOL["mypy"]["python_version"] == oldest
    for file in ("README.md", "Makefile"):
        assert f"Python {oldest}+" in (ROOT / file).read_text("utf-8"), file


def requirements() -> list[Requirement]:
    """Return the library's requirements, and those of the tests besides."""
    found = list(map(Requirement, PROJECT["dependencies"]))
    extras = ["test"]
    for extra in extras:
        for text in PROJECT["optional-dependencies"][extra]:
            wanted = Requirement(text)
            if wanted.name == PROJECT["name"]:
                extras += sorted(wanted.extras)
            else:
                found.append(wanted)
    return found


@pytest.mark.parametrize("wanted", requirements(), ids=lambda wanted: wanted.name)
def test_every_package_has_a_lower_bound_which_the_oldest_environment_has(
    wanted: Requirement,
) -> None:
    (bound,) = wanted.specifier
    assert bound.operator == ">="
    if os.environ.get("TOX_ENV_NAME") == "oldest":
        assert Version(version(wanted.name)) == Version(bound.version)
