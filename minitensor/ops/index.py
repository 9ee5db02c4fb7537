"""Ops: index."""
