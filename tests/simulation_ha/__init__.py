"""The HA logic under fire: seeds, directed interleavings, and what must never happen."""
