"""Ops: dropout."""
