"""Consensus as a library; start reading at pgraft.core."""
