"""HTTP routes, authentication and rendering; no decision, no SQL."""
