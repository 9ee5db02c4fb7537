"""Modules, losses and functions to build networks of, with PyTorch's names."""
