"""Ops: norm."""
