"""Ops: activation."""
