"""PyTorch's files, `.pt` and `.pth`: read without running anything in them, and written.

`machine` executes the few instructions of a pickle that make data, `values` says which names a
pickle may use and what they make here, `read` and `write` know how the parts lie in a file.
What cannot be is a ValueError, of which `serialize` makes a CheckpointError with the file's name.

Source: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py.
"""

from .read import read_pytorch
from .write import write_pytorch

__all__ = ["read_pytorch", "write_pytorch"]
