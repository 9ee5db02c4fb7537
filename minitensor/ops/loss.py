"""Ops: loss."""
