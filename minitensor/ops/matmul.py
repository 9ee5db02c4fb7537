"""Ops: matmul."""
