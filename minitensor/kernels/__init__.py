"""Compiled kernels on plain arrays, which know nothing of Tensor; each opens with what it does."""
