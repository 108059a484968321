"""Metrics for Prometheus: each declared once, filled from a snapshot when somebody asks.

Lives here: the declarations (`declared`), their text (`exposition`), the counting of requests
(`requests`), and the page docs/metrics.md made of the declarations (`reference`). Must not live
here: where the values come from (`ramd.api.metrics`). Start reading at `declared.METRICS`.
"""
