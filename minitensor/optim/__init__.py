"""Optimizers, and schedules of their learning rates, with PyTorch's names."""

from ..names import show
from . import lr_scheduler
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]

show(__name__)
show(lr_scheduler.__name__)
