"""Ops: shape."""
