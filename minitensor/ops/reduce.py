"""Ops: reduce."""
