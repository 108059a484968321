"""The daemon that keeps one PostgreSQL server in its place in the cluster."""
