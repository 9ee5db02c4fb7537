"""Names that `dir` and <tab> show of the public modules, and the errors for misspelt ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_torch
from ours import OURS

import minitensor as mt
from minitensor import compat
from minitensor.core import NAMESPACES, OPS, Op

# Modules of another name, or none, in PyTorch.
TORCH = {"minitensor.data": "torch.utils.data"}


@needs_torch
@pytest.mark.parametrize("module", OURS)
def test_dir_shows_the_names_of_pytorch_and_a_few_of_ours(module: str) -> None:
    theirs = import_module(TORCH.get(module, module.replace("minitensor", "torch")))
    shown = dir(import_module(module))
    alone = set(shown) - set(dir(theirs))
    listed = set(OURS[module])
    assert alone <= listed, f"PyTorch has no {alone - listed}: list it in tests/ours.py"
    assert listed <= alone, f"tests/ours.py lists {listed - alone}, which is not ours alone"


def test_dir_of_modules_that_pytorch_does_not_have() -> None:
    assert dir(mt.graph) == ["Chapter", "Graph", "Group", "Node", "Value", "of", "trace"]
    assert dir(mt.memory) == ["Stats", "release", "set_limit", "stats"]
    assert "Op" in dir(mt.core)


@pytest.mark.parametrize("module", [*OURS, "minitensor.core", "minitensor.graph"])
def test_all_that_dir_shows_is_there_and_public(module: str) -> None:
    found = import_module(module)
    for name in dir(found):
        assert not name.startswith("_")
        assert getattr(found, name) is not None or name == "newaxis"


@pytest.mark.parametrize("module", OURS)
def test_all_is_what_dir_shows(module: str) -> None:
    found = import_module(module)
    if hasattr(found, "__all__"):
        assert sorted({*found.__all__, *compat.listed(module)}) == dir(found)


def test_modules_within_are_not_among_the_names_of_the_package() -> None:
    hidden = {"creation", "devices", "files", "formatting", "kernels", "names", "notebook", "ops"}
    assert not hidden & set(dir(mt))
    assert isinstance(mt.ones(2).dtype, mt.dtype)


@pytest.mark.parametrize(
    ("module", "wrong", "right"),
    [
        (mt, "sofmax", "softmax"),
        (mt, "zeroes", "zeros"),
        (mt, "testin", "testing"),
        (mt.nn, "LayerNorn", "LayerNorm"),
        (mt.nn.functional, "sofmax", "softmax"),
        (mt.optim, "AdanW", "AdamW"),
        (mt.optim.lr_scheduler, "StepLr", "StepLR"),
    ],
)
def test_a_misspelt_name_is_told_with_the_nearest(module: Any, wrong: str, right: str) -> None:
    with pytest.raises(AttributeError) as raised:
        getattr(module, wrong)
    name = module.__name__
    assert str(raised.value) == (
        f"module {name!r} has no attribute {wrong!r}: did you mean {right!r}?"
    )
    assert raised.value.name == wrong


def test_a_name_like_no_other_is_told_alone() -> None:
    with pytest.raises(AttributeError, match=r"^module 'minitensor' has no attribute 'xyzzy'$"):
        mt.xyzzy  # type: ignore[attr-defined]  # noqa: B018


def test_the_nearest_name_is_told_once_in_a_traceback() -> None:
    code = "import minitensor as mt; mt.sofmax"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stderr.count("softmax'") == 1


@pytest.fixture
def _registered() -> Iterator[None]:
    yield
    OPS.pop("Twofold", None)
    for names in NAMESPACES.values():
        names.pop("twofold", None)
    for holder in (mt, mt.nn.functional, mt.Tensor):
        if "twofold" in vars(holder):
            delattr(holder, "twofold")


@pytest.mark.usefixtures("_registered")
def test_an_op_registered_outside_the_package_has_its_functions() -> None:
    class Twofold(Op):
        """y = 2 * x: (*) -> (*).  dx = 2 * dy."""

        namespaces = "torch tensor functional"

        def forward(ctx, x: Any) -> Any:
            return 2 * x

        def backward(ctx, dy: Any) -> Any:
            return 2 * dy

    x = mt.ones(2, requires_grad=True)
    for function in (mt.twofold, mt.nn.functional.twofold, mt.Tensor.twofold):  # type: ignore[attr-defined]
        assert function(x).tolist() == [2, 2]
    assert "twofold" in dir(mt)
    assert "twofold" in dir(mt.nn.functional)
