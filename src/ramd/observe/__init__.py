"""Facts about this node's server, each with a time, never opinions. Start at `observer`."""
