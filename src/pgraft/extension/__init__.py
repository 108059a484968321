"""The extension inside PostgreSQL: its sources, and how they are built and installed."""
