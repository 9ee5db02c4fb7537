"""Ops: attention."""
