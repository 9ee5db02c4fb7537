"""Functions and namespaces made from a table: what answers, what accepts, what refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..names import show


def answer(value: Any = None) -> Callable[..., Any]:
    """Return a function that takes any arguments and returns `value`."""

    def answers(*args: Any, **kwargs: Any) -> Any:
        return value

    return answers


def refuse(error: type[Exception], sentence: str) -> Callable[..., Any]:
    """Return a function that takes any arguments and raises `error` with a sentence."""

    def refuses(*args: Any, **kwargs: Any) -> Any:
        raise error(sentence)

    return refuses


def as_given(function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Return the function or module given; as a decorator, with settings or without."""
    if callable(function):
        return function
    return lambda function: function


def namespace(name: str, doc: str, **members: Any) -> ModuleType:
    """Return a module of that name with these members, which can be imported and set."""
    made = ModuleType(name, doc)
    vars(made).update(members)
    sys.modules[name] = made
    show(name, [n for n in members if not n.startswith("_")])
    return made


class Settings(ModuleType):
    """A module whose settings are taken and given back; one that was never set is None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def settings(name: str, doc: str) -> Settings:
    """Return a module of that name which takes any setting."""
    made = Settings(name, doc)
    sys.modules[name] = made
    return made
