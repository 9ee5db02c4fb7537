"""`torch.hub`: nothing is downloaded."""

from __future__ import annotations

import os

from ..names import show
from .answers import refuse

__all__ = [
    "download_url_to_file",
    "get_dir",
    "help",
    "list",
    "load",
    "load_state_dict_from_url",
    "set_dir",
]

download_url_to_file = load_state_dict_from_url = load_url = load = list = help = refuse(
    RuntimeError,
    "minitensor downloads nothing: fetch the file yourself, then minitensor.load reads it",
)

_chosen: str | None = None


def get_dir() -> str:
    """Return the folder where PyTorch keeps what it has downloaded."""
    if _chosen is not None:
        return _chosen
    cache = os.getenv("XDG_CACHE_HOME", "~/.cache")
    home = os.getenv("TORCH_HOME", os.path.join(cache, "torch"))
    return os.path.join(os.path.expanduser(home), "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Name another folder."""
    global _chosen
    _chosen = os.path.expanduser(d)


show(__name__)
