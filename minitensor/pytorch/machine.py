"""A machine for the instructions of pickles that make data, and for no others.

A pickle is a program for a stack machine. Its danger lies in two instructions: one names any
function or class of Python, one calls it. Here a name is looked up in the table of `values`, never
imported, and a call is a function of that table; all else is refused by name. So a pickle can make
numbers, texts, containers and tensors, in memory and time that grow with its length alone.

Source: CPython's Lib/pickletools.py, which describes each instruction.
"""

from __future__ import annotations

import argparse
import pickle
import pickletools
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from ..core import Tensor
from ..devices import device
from ..dtype import dtype
from ..files import DEPTH, Keys, shown
from .values import CALLS, Name, Storage, kind, named, set_array_state

_MARKS_MOST = 1000  # open at once; each nests
_TEXT_MOST = 500  # bytes of a name
_KEY_DEPTH = 3  # of tuples in a key
_DICTS = (dict, OrderedDict, Counter)
_CONTAINERS = (list, tuple, dict, set, frozenset, argparse.Namespace)
_KEYS = (type(None), bool, int, float, str, bytes, tuple, np.dtype, dtype, device)
_LEAVES = (
    type(None), bool, int, float, str, bytes, bytearray, Tensor, np.ndarray, np.generic, np.dtype,
    dtype, device,
)  # fmt: skip


_INSTRUCTIONS = {op.code: op.name for op in pickletools.opcodes}


class Machine:
    """Executes the pickle at the position of a file, which has `left` more bytes.

    - `storage`: makes the memory of tensors for what the pickle says of it.
    """

    def __init__(self, file: IO[bytes], left: int, storage: Callable[[Any], Storage]) -> None:
        self.file, self.left, self.start = file, left, left
        self.storage = storage
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.keys = Keys()

    def run(self) -> Any:
        """Return the object that the pickle describes; ValueError if it is not data."""
        try:
            while (code := self.read(1)) != pickle.STOP:
                if code not in _OPS:
                    found = _INSTRUCTIONS.get(code.decode("latin1"))
                    what = f"the instruction {found}" if found else f"the byte {code!r}"
                    raise ValueError(f"its pickle has {what}, which no data needs")
                _OPS[code](self)
            result = self.stack.pop()
        except IndexError:
            raise ValueError("its pickle is damaged: it takes what is not there") from None
        check_data(result, self.start - self.left)
        return result

    # The bytes

    def read(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > self.left:
            raise ValueError(f"its pickle is incomplete: {count} bytes expected, {self.left} left")
        self.left -= count
        return self.file.read(count)

    def number(self, form: str) -> Any:
        """Return the next number, of a form of `struct`."""
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def counted(self, form: str) -> bytes:
        """Return the bytes after the number that counts them."""
        return self.read(self.number(form))

    def line(self) -> str:
        """Return the text up to the end of the line."""
        data = self.file.readline(min(_TEXT_MOST, self.left))
        self.left -= len(data)
        if not data.endswith(b"\n"):
            raise ValueError(f"its pickle is damaged: a name is {shown(data)}")
        return data[:-1].decode()

    # The stack

    def push(self, value: Any) -> None:
        """Push a value."""
        self.stack.append(value)

    def mark(self) -> None:
        """Remember the height of the stack."""
        if len(self.marks) == _MARKS_MOST:
            raise ValueError("its pickle is nested too deep")
        self.marks.append(len(self.stack))

    def since_mark(self) -> list[Any]:
        """Return what was pushed since the last mark, and take it from the stack."""
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def make_tuple(self, count: int | None = None) -> None:
        """Push a tuple of the last `count` values, or of those since the mark."""
        if count is None:
            items = self.since_mark()
        else:
            items = [self.stack.pop() for _ in range(count)][::-1]
        self.push(tuple(items))

    def put(self, number: int) -> None:
        """Remember the value on top by a number."""
        self.memo[number] = self.stack[-1]

    def get(self, number: int) -> None:
        """Push the value that was remembered by a number."""
        if number not in self.memo:
            raise ValueError(f"its pickle is damaged: it takes what is not there, {number}")
        self.push(self.memo[number])

    # Containers

    def append(self, items: list[Any]) -> None:
        """Append values to the list on top."""
        self._target(list).extend(items)

    def add(self, items: list[Any]) -> None:
        """Add values to the set on top."""
        self._target(set).update(map(self.key, items))

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, in turn, into the dict on top."""
        target = self._target(*_DICTS)
        if len(items) % 2:
            raise ValueError("its pickle is damaged: a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def _target(self, *types: type) -> Any:
        target = self.stack[-1]
        if type(target) not in types:
            raise ValueError(f"its pickle is damaged: it puts something into {kind(target)}")
        return target

    def key(self, key: Any) -> Any:
        """Return a key, or an element of a set; ValueError for one that may be slow to find."""
        level, depth = [key], 0
        while level:
            for x in level:
                if not isinstance(x, _KEYS):
                    raise ValueError(f"its pickle has {kind(x)} as a key")
            level = [y for x in level if isinstance(x, tuple) for y in x]
            depth += 1
            if depth > _KEY_DEPTH:
                raise ValueError(f"its pickle has a key nested deeper than {_KEY_DEPTH} levels")
        return self.keys.check(key)

    # Names and calls

    def name(self, module: Any, name: Any) -> None:
        """Push the function, class or constant of a name."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("its pickle is damaged: a name is not text")
        self.push(named(f"{module}.{name}"))

    def call(self) -> None:
        """Push the result of a function for the tuple of arguments on top."""
        arguments = self.stack.pop()
        function = self.stack.pop()
        made = CALLS.get(function.name) if isinstance(function, Name) else None
        if made is None or not isinstance(arguments, tuple):
            raise ValueError(f"its pickle is damaged: it calls {kind(function)}")
        self.push(made(self, arguments))

    def build(self) -> None:
        """Give the object below the top of the stack the attributes on top."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, np.ndarray):
            set_array_state(target, state)
        elif isinstance(target, argparse.Namespace):
            if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
                raise ValueError(f"its argparse.Namespace has {kind(state)} as attributes")
            vars(target).update(state)
        elif isinstance(target, np.dtype):
            if not isinstance(state, tuple) or state[1:2] not in (("<",), ("|",), ("=",)):
                raise ValueError(f"its NumPy type {target} is not of this machine")
        elif type(target) is not OrderedDict:  # PyTorch notes there the versions of its modules
            raise ValueError(f"its pickle is damaged: it gives attributes to {kind(target)}")

    def persistent(self) -> None:
        """Push the storage that the value on top describes."""
        self.push(self.storage(self.stack.pop()))


def check_data(result: Any, length: int) -> None:
    """Raise ValueError unless an object, made by a pickle of `length` bytes, is data, and finite.

    A pickle can put a container into itself, or one into others so often that whoever walks through
    it never ends.
    """
    most = 16 * length + 10_000
    sizes: dict[int, int] = {}  # the values in a container, once all in it are counted
    open_: set[int] = set()
    stack = [(result, False)]
    while stack:
        x, counted = stack.pop()
        if not isinstance(x, _CONTAINERS):
            if not isinstance(x, _LEAVES):
                raise ValueError(f"its pickle has {kind(x)} where a value should be")
            continue
        inner = vars(x) if isinstance(x, argparse.Namespace) else x
        parts = [*inner, *inner.values()] if isinstance(inner, dict) else list(inner)
        if counted:
            open_.discard(id(x))
            sizes[id(x)] = 1 + sum(sizes.get(id(y), 1) for y in parts)
            if sizes[id(x)] > most:
                raise ValueError("its pickle unfolds to far more values than it has bytes")
        elif id(x) in open_:
            raise ValueError("its pickle has a container that contains itself")
        elif id(x) not in sizes:
            open_.add(id(x))
            if len(open_) > DEPTH:
                raise ValueError(f"its pickle is nested deeper than {DEPTH} levels")
            stack.append((x, True))
            stack += [(y, False) for y in parts]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _old_text(data: bytes) -> str | bytes:
    """Return a string of Python 2, which may be text or bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _memoize(m: Machine) -> None:
    m.put(len(m.memo))


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.name(module, name)


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items([key, value])


def _append(m: Machine) -> None:
    item = m.stack.pop()
    m.append([item])


def _frozenset(m: Machine) -> None:
    m.push(frozenset(map(m.key, m.since_mark())))


def _protocol(m: Machine) -> None:
    if (number := m.read(1)[0]) > 5:
        raise ValueError(f"its pickle is of protocol {number}, 5 is the last known")


def _frame(m: Machine) -> None:
    m.read(8)  # its length


def _long(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


_OPS: dict[bytes, Callable[[Machine], None]] = {
    pickle.PROTO: _protocol,
    pickle.FRAME: _frame,
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.number("<i")),
    pickle.BININT1: lambda m: m.push(m.number("<B")),
    pickle.BININT2: lambda m: m.push(m.number("<H")),
    pickle.LONG1: lambda m: m.push(_long(m.counted("<B"))),
    pickle.LONG4: lambda m: m.push(_long(m.counted("<I"))),
    pickle.BINFLOAT: lambda m: m.push(m.number(">d")),
    pickle.BINUNICODE: lambda m: m.push(_text(m.counted("<I"))),
    pickle.SHORT_BINUNICODE: lambda m: m.push(_text(m.counted("<B"))),
    pickle.BINUNICODE8: lambda m: m.push(_text(m.counted("<Q"))),
    pickle.SHORT_BINSTRING: lambda m: m.push(_old_text(m.counted("<B"))),
    pickle.BINSTRING: lambda m: m.push(_old_text(m.counted("<I"))),
    pickle.SHORT_BINBYTES: lambda m: m.push(m.counted("<B")),
    pickle.BINBYTES: lambda m: m.push(m.counted("<I")),
    pickle.BINBYTES8: lambda m: m.push(m.counted("<Q")),
    pickle.BYTEARRAY8: lambda m: m.push(bytearray(m.counted("<Q"))),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.EMPTY_SET: lambda m: m.push(set()),
    pickle.TUPLE1: lambda m: m.make_tuple(1),
    pickle.TUPLE2: lambda m: m.make_tuple(2),
    pickle.TUPLE3: lambda m: m.make_tuple(3),
    pickle.TUPLE: lambda m: m.make_tuple(),
    pickle.MARK: Machine.mark,
    pickle.APPEND: _append,
    pickle.APPENDS: lambda m: m.append(m.since_mark()),
    pickle.ADDITEMS: lambda m: m.add(m.since_mark()),
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: lambda m: m.set_items(m.since_mark()),
    pickle.FROZENSET: _frozenset,
    pickle.BINPUT: lambda m: m.put(m.number("<B")),
    pickle.LONG_BINPUT: lambda m: m.put(m.number("<I")),
    pickle.MEMOIZE: _memoize,
    pickle.BINGET: lambda m: m.get(m.number("<B")),
    pickle.LONG_BINGET: lambda m: m.get(m.number("<I")),
    pickle.GLOBAL: lambda m: m.name(m.line(), m.line()),
    pickle.STACK_GLOBAL: _stack_global,
    pickle.REDUCE: Machine.call,
    pickle.NEWOBJ: Machine.call,
    pickle.BUILD: Machine.build,
    pickle.BINPERSID: Machine.persistent,
}
