"""Helpers for training: clip gradients, parameters as one vector, sequences, weight norm."""

from ...names import show
from . import parametrizations, parametrize, rnn
from .clip import clip_grad_norm_, clip_grad_value_
from .init import skip_init
from .vector import parameters_to_vector, vector_to_parameters
from .weight_norm import remove_weight_norm, weight_norm

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "remove_weight_norm",
    "rnn",
    "skip_init",
    "vector_to_parameters",
    "weight_norm",
]

show(__name__)
