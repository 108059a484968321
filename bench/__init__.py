"""Measurements on real clusters: failover, idle cost, chaos."""
