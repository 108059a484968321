"""The library inside real servers, of every major version that is at hand."""
