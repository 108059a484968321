"""Daemons as processes, with real servers: what a user starts, asks and kills."""
