"""The table of translations, by the names of the ops' classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])

TRANSLATIONS: dict[str, Callable[..., Any]] = {}
REFUSED: dict[str, str] = {}  # reasons


def translates(*ops: str) -> Callable[[_F], _F]:
    """Register a function as the translation of ops, by the names of their classes."""

    def register(function: _F) -> _F:
        TRANSLATIONS.update(dict.fromkeys(ops, function))
        return function

    return register


def refuse(reason: str, *ops: str) -> None:
    """Note why ops have no translation."""
    REFUSED.update(dict.fromkeys(ops, reason))
