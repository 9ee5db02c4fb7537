"""minitensor: a transformer you can read, see and really train."""

from __future__ import annotations

from .ops import elementwise as _elementwise  # noqa: F401
