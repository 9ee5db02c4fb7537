"""Objects as JSON and named tensors: what a checkpoint says about the things in it.

Numbers, texts, None and lists stand for themselves, all else is a dict of a tag: {"tuple": [...]}.
The tensors are collected under their path in the object, such as "model.encoder.weight".
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from .core import Tensor, wrap
from .devices import device
from .dtype import TYPES, dtype, is_dtype
from .files import DEPTH, Keys, shown

_BITS_MOST = 14_000  # of an integer in JSON: some 4,200 digits, which Python reads


def encode(x: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """Return JSON for `x`, and put the tensors in it into `tensors`.

    What has a `state_dict()`, such as a module, is stored as that. Raises TypeError for what is no
    data, saying where it is, ValueError for what nests too deep.
    """
    if len(path) > DEPTH:
        raise ValueError(f"save: nested deeper than {DEPTH} levels{_at(path)}")
    if isinstance(x, Tensor):
        stored = {"tensor": _store(x, path, tensors)}
        return {**stored, "requires_grad": True} if x.requires_grad else stored
    if isinstance(x, np.ndarray):
        return {"array": _store(wrap(x), path, tensors)}
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, int) and x.bit_length() > _BITS_MOST:
        raise ValueError(
            f"save: an integer of {x.bit_length()} bits{_at(path)}, at most {_BITS_MOST}"
        )
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, Counter):
        return {"counter": encode(dict(x), path, tensors)}
    if isinstance(x, dict):
        values = [encode(y, (*path, str(key)), tensors) for key, y in x.items()]
        if all(type(key) is str for key in x):
            return {"dict": dict(zip(x, values, strict=True))}
        keys = [encode(key, (*path, "key"), tensors) for key in x]
        return {"pairs": list(zip(keys, values, strict=True))}
    if isinstance(x, list | tuple | set):
        items = [encode(y, (*path, str(number)), tensors) for number, y in enumerate(x)]
        return items if isinstance(x, list) else {"set" if isinstance(x, set) else "tuple": items}
    if isinstance(x, np.dtype | dtype):
        return {"dtype": x.name}
    if isinstance(x, device):
        return {"device": str(x)}
    if isinstance(x, bytes):
        return {"bytes": x.decode("latin1")}
    if (type(x).__module__, type(x).__name__) == ("argparse", "Namespace"):
        return {"namespace": encode(vars(x), path, tensors)["dict"]}
    if not isinstance(x, type) and callable(getattr(x, "state_dict", None)):
        return encode(x.state_dict(), path, tensors)
    if dataclasses.is_dataclass(x):
        advice = "save dataclasses.asdict() of it"
    else:
        advice = "only dicts, lists, tuples, sets, tensors, arrays, numbers, strings and None"
    raise TypeError(f"save: cannot save a {type(x).__name__}{_at(path)}: {advice}")


def _at(path: tuple[str, ...]) -> str:
    """Return a place in an object, in words."""
    return f" at {shown('.'.join(path))[1:-1]}" if path else ""


def _store(t: Tensor, path: tuple[str, ...], tensors: dict[str, Tensor]) -> str:
    """Return the name that `t` is stored under."""
    name = wanted = ".".join(path).encode("utf-8", "backslashreplace").decode() or "tensor"
    if not is_dtype(t._array.dtype):
        raise TypeError(f"save: cannot save an array of {t.dtype} at {shown(name)}")
    number = 2
    while name in tensors or name == "__metadata__":
        name = f"{wanted}.{number}"
        number += 1
    tensors[name] = t
    return name


def decode(x: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the object that JSON stands for; ValueError if it stands for none."""
    if isinstance(x, list):
        return [decode(y, tensors) for y in x]
    if not isinstance(x, dict):
        return x
    tag: Any = next(iter(x), None)
    value = x.get(tag)
    more = {"requires_grad": True} if tag == "tensor" and len(x) > 1 else {}
    if tag not in _TAGS or x != {tag: value, **more}:
        raise ValueError(f"unknown tag {shown(x)}")
    wanted, make = _TAGS[tag]
    if not isinstance(value, wanted):
        raise ValueError(f"{tag} is {shown(value)}, expected a {wanted.__name__}")
    found = make(value, tensors)
    if more and not found.is_floating_point():
        raise ValueError(f"the tensor {shown(value)} of {found.dtype} requires no gradient")
    return found.requires_grad_() if more else found


def _tensor(name: str, tensors: dict[str, Tensor]) -> Tensor:
    if name not in tensors:
        raise ValueError(f"there is no tensor {shown(name)}")
    return tensors[name]


def _dict(x: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {key: decode(y, tensors) for key, y in x.items()}


def _pairs(x: list[Any], tensors: dict[str, Tensor]) -> dict[Any, Any]:
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in x):
        raise ValueError("pairs are not all of two")
    pairs = [(decode(key, tensors), decode(y, tensors)) for key, y in x]
    check = Keys().check
    return {check(key): y for key, y in pairs}


def _counter(x: dict[str, Any], tensors: dict[str, Tensor]) -> Counter[Any]:
    counts = decode(x, tensors)
    if not isinstance(counts, dict):
        raise ValueError(f"a counter is {shown(counts)}")
    return Counter(counts)


def _set(x: list[Any], tensors: dict[str, Tensor]) -> set[Any]:
    return set(map(Keys().check, [decode(y, tensors) for y in x]))


def _device(name: str, tensors: dict[str, Tensor]) -> device:
    try:
        return device(name)
    except RuntimeError:
        raise ValueError(f"there is no device {shown(name)}") from None


def _dtype(name: str, tensors: dict[str, Tensor]) -> dtype:
    if name not in TYPES:
        raise ValueError(f"there is no type {shown(name)}")
    return TYPES[name]


def _namespace(x: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    import argparse  # here, as few need it

    return argparse.Namespace(**_dict(x, tensors))


# The tags, the type of what they stand on, and what they make of it.
_TAGS: dict[Any, tuple[type, Callable[[Any, dict[str, Tensor]], Any]]] = {
    "tensor": (str, _tensor),
    "array": (str, lambda x, tensors: _tensor(x, tensors)._array),
    "dict": (dict, _dict),
    "pairs": (list, _pairs),
    "counter": (dict, _counter),
    "tuple": (list, lambda x, tensors: tuple(decode(y, tensors) for y in x)),
    "set": (list, _set),
    "dtype": (str, _dtype),
    "device": (str, _device),
    "bytes": (str, lambda x, tensors: x.encode("latin1")),
    "namespace": (dict, _namespace),
}
