"""Measurements on real clusters: failover, idle cost, soak. Never part of the tests."""
