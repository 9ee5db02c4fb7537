"""Ops attach their names: to Tensor, to the library, and never over a name that is taken."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitensor as mt
from minitensor import registry
from minitensor.core import NAMESPACES, OPS, Op, Tensor, attach, publish
from minitensor.testing import check_op

F = mt.nn.functional


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Take back what a test registers."""
    tables: list[dict[Any, Any]] = [OPS, registry._owners, *NAMESPACES.values()]
    tables += registry._modules.values()
    kept = [dict(table) for table in tables]
    attributes = dict(vars(Tensor))
    yield
    for table, before in zip(tables, kept, strict=True):
        table.clear()
        table.update(before)
    for name in set(vars(Tensor)) - set(attributes):
        delattr(Tensor, name)


def define(source: str, module: str) -> Any:
    """Run `source` as the text of a module of that name; return its globals."""
    found: dict[str, Any] = {"__name__": module, "Op": Op, "np": np}
    exec(textwrap.dedent(source), found)
    return found


SQUARED = """
    class SquaredPlus(Op):
        '''y = x ** 2 + c: (*) -> (*).  dx = 2 * x * dy.'''

        namespaces = "torch tensor functional"
        aliases = ("squared_more",)
        operators = ("__divmod__",)
        inplace = True

        def forward(ctx, x, c=1.0):
            ctx.save(x)
            return x * x + c

        def backward(ctx, dy):
            (x,) = ctx.saved
            return 2 * x * dy
"""


def test_an_op_from_outside_has_its_function_and_its_methods() -> None:
    define(SQUARED, "somewhere")
    x: Any = mt.tensor([1.0, 2.0], requires_grad=True)
    library: Any = mt
    for y in (library.squared_plus(x, 3.0), x.squared_plus(3.0), library.squared_more(x, 3.0)):
        assert y.tolist() == [4, 7]
    assert F.squared_plus(x, 3.0).tolist() == [4, 7]  # type: ignore[attr-defined]
    assert divmod(x, 3.0).tolist() == [4, 7]
    library.squared_plus(x).sum().backward()
    assert x.grad.tolist() == [2, 4]
    z: Any = mt.tensor([2.0])
    assert z.squared_plus_(1.0) is z
    assert z.tolist() == [5]


def test_the_example_of_the_documentation_works() -> None:
    text = inspect.cleandoc(Op.__doc__ or "")
    start = text.index("    class Cube")
    example = text[start : text.index("\n- `forward")]
    define(example, "example")
    library: Any = mt
    assert library.cube(mt.tensor([2.0])).tolist() == [8]
    check_op(OPS["Cube"], mt.tensor([1.0, -2.0], dtype=mt.float64, requires_grad=True))


def test_a_cell_of_a_notebook_may_run_twice() -> None:
    define(SQUARED, "__main__")
    define(SQUARED.replace("x * x + c", "x * x - c"), "__main__")
    library: Any = mt
    assert library.squared_plus(mt.tensor([2.0])).tolist() == [3]
    assert mt.tensor([2.0]).squared_plus().tolist() == [3]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("source", "reported"),
    [
        (
            "class Softmax(Op): namespaces = ''",
            r"here\.Softmax .*minitensor\.ops\.softmax\.Softmax",
        ),
        (
            "class Mine(Op): op_name = 'softmax'",
            r"here\.Mine cannot become minitensor\.softmax: minitensor\.ops\.softmax\.Softmax",
        ),
        (
            "class Mine(Op): aliases = ('multiply',); namespaces = 'tensor'",
            r"here\.Mine cannot become Tensor\.multiply: minitensor\.ops\.arithmetic\.Mul has",
        ),
        (
            "class Mine(Op): operators = ('__add__',)",
            r"here\.Mine cannot become Tensor\.__add__: minitensor\.ops\.arithmetic\.Add has",
        ),
        (
            "class Mine(Op): namespaces = 'functional'; aliases = ('linear',)",
            r"here\.Mine cannot become minitensor\.nn\.functional\.linear: .*Linear has",
        ),
        ("class Backward(Op): pass", r"here\.Backward cannot become Tensor\.backward: .*gradients"),
        ("class Stride(Op): pass", r"Tensor\.stride: the library itself has that name"),
        ("class Load(Op): pass", r"minitensor\.load: the library itself has that name"),
        ("class Zeros(Op): pass", r"minitensor\.zeros: the library itself has that name"),
    ],
)
def test_a_name_that_is_taken_is_an_error_that_names_both(source: str, reported: str) -> None:
    before = {space: dict(names) for space, names in NAMESPACES.items()}
    ops = dict(OPS)
    with pytest.raises(RuntimeError, match=reported):
        define(source, "here")
    assert before == NAMESPACES  # none of its names stays behind
    assert ops == OPS
    assert not hasattr(Tensor, "mine")


def test_a_method_is_attached_once() -> None:
    def twice(self: Tensor) -> Tensor:
        return self * 2

    attach("tensor", "twice", twice)
    attach("tensor", "twice", twice)
    assert mt.tensor([2.0]).twice().tolist() == [4]  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"twice cannot become Tensor\.sum: .*Sum has that name"):
        attach("tensor", "sum", twice)


def test_a_class_without_names_needs_none() -> None:
    define("class Hidden(Op): namespaces = ''", "here")
    assert not hasattr(Tensor, "hidden")
    assert not hasattr(mt, "hidden")


def test_a_module_of_ops_can_be_reloaded(tmp_path: Path) -> None:
    (tmp_path / "my_ops.py").write_text(
        "import numpy as np\nfrom minitensor.core import Op\n" + textwrap.dedent(SQUARED)
    )
    code = (
        "import importlib, minitensor as mt, my_ops\n"
        "importlib.reload(my_ops)\n"
        "assert mt.core.OPS['SquaredPlus'] is my_ops.SquaredPlus\n"
        "assert mt.squared_plus(mt.tensor([2.0])).item() == 5\n"
    )
    root = Path(mt.__file__).parent.parent
    paths = os.pathsep.join([str(root), str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_library_defines_no_op_twice() -> None:
    define(SQUARED, "minitensor.ops.mine")
    with pytest.raises(RuntimeError, match=r"minitensor\.squared_plus: .*mine\.SquaredPlus has"):
        define(SQUARED, "minitensor.ops.mine")


def test_an_op_takes_no_name_of_the_module_that_shows_it() -> None:
    with pytest.raises(RuntimeError, match=r"Exp cannot become minitensor\.exp: the name is taken"):
        publish("torch", {"exp": 0})
