"""Compiled kernels on plain arrays. They know nothing of Tensor; each file opens with what it computes."""
