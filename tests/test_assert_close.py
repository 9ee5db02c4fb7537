"""`testing.assert_close` against PyTorch's: accepted values, and every word of its messages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor.testing import assert_close

NAN, INF = float("nan"), float("inf")
TYPES = ["float16", "float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]


def t(values: Any, dtype: str = "float32", transposed: bool = False) -> Any:
    """A tensor, made by either library when the case is run."""

    def make(lib: Any) -> Any:
        made = lib.tensor(values, dtype=getattr(lib, dtype))
        return made.t() if transposed else made

    return make


def made(x: Any, lib: Any) -> Any:
    if callable(x):
        return x(lib)
    if isinstance(x, dict):
        return {key: made(value, lib) for key, value in x.items()}
    return type(x)(made(y, lib) for y in x) if type(x) in (list, tuple) else x


def cases() -> list[tuple[Any, Any, dict[str, Any]]]:
    found: list[tuple[Any, Any, dict[str, Any]]] = []

    def add(a: Any, b: Any, **options: Any) -> None:
        found.append((a, b, options))

    for dtype in TYPES:
        add(t([1, 0, 1], dtype), t([1, 0, 1], dtype))
        add(t([[1, 0], [1, 1]], dtype), t([[1, 1], [1, 0]], dtype))
        add(t(1, dtype), t(0, dtype))
        add(t([1, 0], dtype), t([1, 1], dtype), rtol=0, atol=0)
        add(t([1, 0], dtype), t([1, 1], dtype), rtol=0.1, atol=0.5)
        add(t([1], dtype), t([1], "float32"))
        add(t([1, 0], dtype), t([1, 1], "float64"), check_dtype=False)
    for dtype, step in (("float16", 2e-3), ("float32", 1e-5), ("float64", 1e-6)):
        for factor in (0.1, 0.5, 2.0, 50.0):
            add(t([1.0, 3.0], dtype), t([1.0, 3.0 * (1 + factor * step)], dtype))
            add(t([0.0, 0.0], dtype), t([factor * 1e-5, 0.0], dtype))
            add(t([1.0, 3.0], dtype), t([1.0, 3.0 + factor], dtype), rtol=1e-2, atol=1e-3)
    for value in (NAN, INF, -INF, 0.0, 2.0):
        for other in (NAN, INF, 1.0, 0.0):
            add(t([value, 1.0]), t([other, 1.0]))
            add(t([value, 1.0]), t([other, 1.0]), equal_nan=True)
            add(value, other)
            add(value, other, equal_nan=True)
            add(t(value), t(other))
    add(t([1.0]), t([1.0, 2.0]))
    add(t([[1.0]]), t([1.0]))
    add(t([[1.0, 2.0], [3.0, 4.0]]), t([[1.0, 3.0], [2.0, 4.0]], transposed=True))
    add(
        t([[1.0, 2.0], [3.0, 4.0]]),
        t([[1.0, 3.0], [2.0, 4.0]], transposed=True),
        check_stride=True,
    )
    add(t([]), t([]))
    add(t([2**60]), t([2**60 + 1]))
    add(t([2**60], "int64"), t([2**60 + 1], "int64"))
    add(t([1.0]), t([1.0]), rtol=1e-3)
    add(t([1.0]), t([1.0]), atol=1e-3)
    add([t([1.0]), 1.0], [t([1.0]), 1.0], rtol=1e-3)
    add(1.0, 1)
    add(1.0, 1, check_dtype=False)
    add(1, 2)
    add(1.0, 1.0 + 1e-8)
    add(1.0, 1.0 + 1e-6)
    add(1, 3, rtol=0.5, atol=1)
    add(1, 5, rtol=0.5, atol=1)
    add(1 + 2j, 1 + 3j)
    add(True, False)
    add(True, np.bool_(True))
    add(None, None)
    add(None, 1)
    add(1.0, None)
    add("a", "a")
    add("a", 1)
    add({1}, {1})
    add([1.0, 2.0], (1.0, 2.5))
    add([1.0, [2.0, {"k": 3.0}]], [1.0, [2.0, {"k": 4.0}]])
    add([1.0, 2.0], [1.0])
    add([1.0, [2.0]], [1.0, [2.0, 3.0]])
    add([1.0], 1.0)
    add({"a": t([1.0]), "b": t([2.0])}, {"b": t([2.0]), "a": t([1.0])})
    add({"a": t([1.0]), "b": t([2.0])}, {"b": t([2.5]), "a": t([1.5])})
    add({"a": 1, "c": 2}, {"a": 1, "b": 2})
    add({"x": {"a": 1}}, {"x": {"b": 2}})
    add({1: 1.0, "a": 2.0}, {1: 1.0, "a": 2.0})
    add({"a": [t([1.0]), None]}, {"a": [t([1.0]), 2]})
    add(t([1.0]), [1.0])
    add(t(1.0), 1.0)
    add(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    add(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    add(np.array([1.0]), t([1.0], "float64"))
    add(np.float64(1.0), 1.0)
    add(np.float32(1.0), 1.5)
    add(np.array([1, 2], np.int32), np.array([1, 2], np.int64))
    for msg in ("Argh", lambda text: f"Header\n\n{text}\n\nFooter"):
        add(t([1.0]), t([2.0]), msg=msg)
        add([1, 2], [1, 3], msg=msg)
    return found


CASES = cases()


def outcome(assertion: Any, lib: Any, case: Any) -> Any:
    a, b, options = case
    try:
        assertion(made(a, lib), made(b, lib), **options)
    except Exception as error:
        text = re.sub(r"torch\.(?=Size|float|int|uint|bool)", "", str(error))
        text = text.replace("minitensor.Size", "Size").replace("torch.Tensor", "Tensor")
        return type(error), text.replace("minitensor.core.tensor.Tensor", "Tensor")
    return None


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(CASES)))
def test_says_what_pytorch_says(number: int) -> None:
    import torch

    expected = outcome(torch.testing.assert_close, torch, CASES[number])
    assert outcome(assert_close, mt, CASES[number]) == expected


@needs_torch
def test_hundreds_of_random_pairs() -> None:
    """Values around the tolerance of their type, in shapes of up to three dimensions."""
    import torch

    noise, differ = np.random.RandomState(0), 0
    for _ in range(400):
        dtype = noise.choice(["float16", "float32", "float64", "int32", "int64"])
        shape = tuple(noise.randint(1, 4, noise.randint(0, 4)))
        x = np.asarray(noise.randn(*shape) * 10 ** noise.uniform(-3, 3))
        y = np.asarray(x * (1 + 10 ** noise.uniform(-9, -1) * noise.randn(*shape)))
        x, y = (np.where(noise.rand(*shape) < 0.1, 0, v).astype(dtype) for v in (x, y))
        options: dict[str, Any] = {}
        if noise.rand() < 0.5:
            options = dict(rtol=float(10 ** noise.uniform(-6, -1)), atol=float(noise.rand() * 1e-3))
        mine = outcome(
            assert_close,
            mt,
            (
                lambda lib, x=x: lib.from_numpy(x.copy()),
                lambda lib, y=y: lib.from_numpy(y.copy()),
                options,
            ),
        )
        theirs = outcome(
            torch.testing.assert_close,
            torch,
            (
                lambda lib, x=x: lib.from_numpy(x.copy()),
                lambda lib, y=y: lib.from_numpy(y.copy()),
                options,
            ),
        )
        assert mine == theirs
        differ += theirs is not None
    assert 100 < differ < 390


def test_subclasses_are_told_apart_on_request() -> None:
    p = mt.nn.Parameter(mt.ones(2))
    assert_close(p, mt.ones(2))
    with pytest.raises(TypeError, match="No comparison pair was able to handle inputs of type"):
        assert_close(p, mt.ones(2), allow_subclasses=False)


def test_is_found_as_an_attribute_and_imported_no_earlier() -> None:
    import subprocess
    import sys

    code = (
        "import sys, minitensor\n"
        "assert 'minitensor.testing' not in sys.modules\n"
        "minitensor.testing.assert_close(1.0, 1.0)\n"
        "try: minitensor.nonsense\n"
        "except AttributeError as e: assert 'nonsense' in str(e)\n"
        "else: raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
