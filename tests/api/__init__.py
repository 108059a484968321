"""The API as a client sees it: a real server in its thread over a service that tells stories."""
