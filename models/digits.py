"""The digits of scikit-learn: 1,797 handwritten ones of 8 x 8 pixels, and images of one's own.

Images are (N, 1, 8, 8), from 0 (paper) to 1 (ink).

Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", 1998, UCI Machine Learning
Repository. The package carries them: nothing is downloaded.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import minitensor as mt
from minitensor import Tensor

from .command import InputError, require

TURN, SHIFT = 0.12, 0.4  # of distorted images: standard deviations, of the matrix and in pixels


@dataclass(frozen=True)
class Digits:
    """All digits, and the numbers of those to learn from, to validate and to test with.

    A quarter of each class is held out to test with, a tenth of the rest to validate with.
    """

    images: np.ndarray  # (1797, 1, 8, 8), float32
    labels: np.ndarray  # (1797,), int64
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @property
    def digest(self) -> str:
        """A hash of images, labels and split."""
        parts = self.images, self.labels, self.train, self.valid, self.test
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    def batch(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the images (N, 1, 8, 8) and the labels (N) of these digits."""
        return mt.tensor(self.images[numbers]), mt.tensor(self.labels[numbers])


@functools.cache
def load_digits() -> Digits:
    """Read the digits; InputError if scikit-learn is not installed."""
    found = require("sklearn.datasets").load_digits()
    split = require("sklearn.model_selection").train_test_split
    images = (found.images[:, None] / 16).astype(np.float32)
    labels = found.target.astype(np.int64)
    rest, test = split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    train, valid = split(rest, test_size=0.1, stratify=labels[rest], random_state=0)
    return Digits(images, labels, train, valid, test)


def distort(images: Tensor) -> Tensor:
    """Turn, stretch and shift each image (N, C, I, I) a little, at random."""
    count = len(images)
    matrices = mt.eye(2) + TURN * mt.randn(count, 2, 2)
    shifts = SHIFT * mt.randn(count, 2)
    return mt.tensor(warp(images.numpy(), matrices.numpy(), shifts.numpy()))


def warp(images: np.ndarray, matrices: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return images (N, C, I, I) that show, at the place p, what was at A p + t.

    `matrices` A (N, 2, 2) and `shifts` t (N, 2) are of row and column, in pixels from the centre.
    Between pixels the value is interpolated (bilinear), outside of the image it is 0.
    """
    count, _, size, _ = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    place = np.indices((size, size)) - (size - 1) / 2  # (2, I, I)
    source = np.einsum("nij,jyx->inyx", matrices, place) + shifts.T[:, :, None, None]
    source = np.clip(source + (size + 1) / 2, 0, size + 1 - 1e-4)  # in the padded image
    low = source.astype(np.int64)
    (row, column), share = low, source - low
    number = np.arange(count)[:, None, None]
    found = np.zeros(1)
    for down, right in (0, 0), (0, 1), (1, 0), (1, 1):  # the four pixels around
        weight = np.abs(1 - down - share[0]) * np.abs(1 - right - share[1])
        pixel = padded[number, :, row + down, column + right]  # (N, I, I, C)
        found = found + weight[..., None] * pixel
    return np.moveaxis(found, -1, 1).astype(images.dtype)


def read_image(path: str | Path, size: int, channels: int) -> Tensor:
    """Read an image of size x size pixels from a .npy file or a picture (PNG, PGM): (C, I, I).

    Bytes are taken as from 0 to 255, other numbers as from 0 to 1, to 16 or to 255, by the highest.
    Colours become grey for a model of one channel. InputError, naming the file, for one of another
    size or content.
    """
    values = read_array(Path(path))
    low, highest = float(values.min()), float(values.max())
    if not 0 <= low <= highest <= 255:  # NaN too
        raise InputError(
            f"{path} has values from {low:g} to {highest:g}, expected 0 to 1, 0 to 16 or 0 to 255"
        )
    scale = 255 if values.dtype == np.uint8 else next(s for s in (1, 16, 255) if highest <= s)
    pixels = values.astype(np.float32) / scale
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape[2] in (3, 4):  # a picture's colours, and transparency
        pixels = np.moveaxis(pixels[..., :3], 2, 0)
    if channels == 1 and pixels.shape[:1] == (3,):
        pixels = pixels.mean(0, keepdims=True)
    if pixels.shape != (channels, size, size):
        found = pixels.shape[1:] if pixels.ndim == 3 else values.shape
        raise InputError(
            f"{path} is an image of {' x '.join(map(str, found))}, this model reads "
            f"{size} x {size} pixels"
            + (f" of {channels} channels" if channels > 1 else "")
            + ": resize it first"
        )
    return mt.tensor(pixels)


def read_array(path: Path) -> np.ndarray:
    """Read numbers from a .npy file or a picture; InputError, naming the file, if it has none."""
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            values = np.asarray(require("matplotlib.image").imread(path))
    except OSError as error:
        if error.filename or error.strerror:
            raise
        raise InputError(f"{path} is not a picture that can be read") from error
    except (ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{path} is not a picture that can be read") from error
    if values.dtype.kind not in "uif" or not values.size or not values.ndim:
        raise InputError(f"{path} has no pixels, but {values.dtype} of shape {values.shape}")
    return values
