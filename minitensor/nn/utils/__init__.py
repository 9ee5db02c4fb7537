"""Helpers for training: clip gradients, turn parameters into one vector, pad sequences."""

from ...names import show
from . import rnn
from .clip import clip_grad_norm_, clip_grad_value_
from .init import skip_init
from .vector import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "parameters_to_vector",
    "rnn",
    "skip_init",
    "vector_to_parameters",
]

show(__name__)
