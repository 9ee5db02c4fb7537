"""Ops that PyTorch has but no transformer here needs. Importing a file registers its ops."""

from . import arithmetic, compare, pointwise, select  # noqa: F401
