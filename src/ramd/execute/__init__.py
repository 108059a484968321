"""Idempotent, deadline-bounded steps that drive this node to its goal."""
