"""docs/metrics.md, made of the declarations.

`python -m ramd.metrics.reference --write` makes it anew, `--check` fails if it is out of date; run
in the project's directory. A test does the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ramd.metrics.declared import TOPICS, Metric

PAGE = Path("docs/metrics.md")
INTRODUCTION = """\
# Metrics

<!-- Made by `python -m ramd.metrics.reference --write` from src/ramd/metrics/declared.py. -->

Every daemon serves its metrics in Prometheus' format, without a token and like the health checks
from memory: a scrape waits for nothing and takes no lock of the control loop.

| where | keys |
| --- | --- |
| `http_port` (8008), `/metrics` | always, with the REST interface |
| `http_port`, `/api/v1/metrics`, `/api/v1/prometheus`, `/api/v1/cluster/metrics`, `/prometheus` | \
the same, under other names |
| `prometheus_port` (9090), `prometheus_path` | `prometheus_enabled`, `prometheus_bind_address` |

With `ssl_enabled` all of them speak TLS. A local `cluster create` gives node *i* the port
`prometheus_port` + *i* − 1. Whoever can reach the port can read names, addresses and positions of
the nodes: bind it to where your Prometheus asks.

```yaml
scrape_configs:
  - job_name: ramd
    static_configs:
      - targets: ["db1:9090", "db2:9090", "db3:9090"]
```

What is not known has no sample: nothing is shown as 0 that is not 0. Ages and positions of other
nodes are those that the daemon asked has heard. Worth an alert:

- `max(ramd_primary) == 0` for longer than a failover may take: nobody accepts writes;
- `sum(ramd_primary) > 1`: two nodes hold a lease, which must never be;
- `ramd_cluster_has_quorum == 0`, `ramd_node_healthy == 0`, `ramd_node_fenced{} == 1` on a primary;
- `ramd_raft_disk_sync_seconds{quantile="0.99"}` above the heartbeat;
- `increase(ramd_raft_connections_refused_total[5m]) > 0`: a stranger, or a daemon set up wrongly;
- `ramd_tls_certificate_expiry_timestamp_seconds - time() < 14 * 86400`.

The daemon's process has the usual `process_…` families as well.
"""


def page() -> str:
    """The whole document."""
    parts = [INTRODUCTION]
    for topic in TOPICS:
        parts.append(f"## {topic.title}\n\n{topic.about}\n")
        rows = ["| name | kind | labels | meaning |", "| --- | --- | --- | --- |"]
        rows += [_row(metric) for metric in topic.metrics]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.help} |"


def main(arguments: list[str]) -> int:
    """Write or check the page. Returns the exit status."""
    if arguments == ["--write"]:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        sys.stderr.write(f"{PAGE}: out of date\n")
        return 1
    sys.stderr.write("usage: python -m ramd.metrics.reference --write | --check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
