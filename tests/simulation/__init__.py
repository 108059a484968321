"""Whole groups under random faults, one seed = one run."""
