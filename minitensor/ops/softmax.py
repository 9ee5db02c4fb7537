"""Ops: softmax."""
