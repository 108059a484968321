"""Try to break the consensus: seeds of the simulation on all cores (docs/simulation.md).

`make sim SEED=7` runs one seed, `make sim MINUTES=30` as many as fit, from a first seed that the
clock chooses. Exits 1 when a property broke, with the command that does the same once more.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.support.raft_runner import Task, Totals, run_many, run_task  # noqa: E402 - needs the path
from tools.seeds import Seeds, parser_of_seeds  # noqa: E402 - needs the path

HEADLINES = (
    ("elections", "elections"),
    ("configurations", "configuration changes"),
    ("crashes", "crashes"),
    ("commits", "commits"),
    ("snapshots installed", "snapshots installed"),
    ("disks lost", "disks lost"),
    ("grants", "grants"),
    ("reads", "linearizable reads"),
    ("operations", "operations searched for an order"),
)


def options(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of_seeds(__doc__)
    parser.add_argument(
        "--wal", type=int, choices=(0, 1), help="1: the log's real code; else drawn"
    )
    parser.add_argument("--chaos", type=int, help="length of the storm in election timeouts")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the seeds; 0 if all properties held."""
    chosen = options(argv)
    seeds = Seeds(chosen)
    wal = None if chosen.wal is None else bool(chosen.wal)
    tasks = (Task(seed=seed, wal=wal, chaos=chosen.chaos) for seed in seeds)
    totals, failures = Totals(), 0

    def more() -> bool:
        return not failures and seeds.time_left

    results = map(run_task, tasks) if seeds.single else run_many(tasks, chosen.jobs, more)
    for result in results:
        if result.failure:
            failures += 1
            print(f"seed {result.seed}: {result.failure}", flush=True)
        else:
            totals.add(result)
            if sys.stdout.isatty() and totals.runs % 10 == 0:
                print(f"{totals.runs} seeds", end="\r", flush=True)
    _report(totals, seeds.first, seeds.took_s, everything=seeds.single)
    return int(bool(failures))


def _report(totals: Totals, first: int, seconds: float, *, everything: bool) -> None:
    print(
        f"{totals.runs} seeds from {first} on in {seconds:.0f} s, "
        f"{totals.counts['simulated ms'] / 3_600_000:.2f} simulated hours, nothing broken in them"
    )
    per_minute = 60 / totals.cpu_s if totals.cpu_s else 0.0
    for name, title in HEADLINES:
        count = totals.counts[name]
        print(f"{count:>12,} {title} ({count * per_minute:,.0f} per core and minute)")
    shown = {name for name, _ in HEADLINES}
    rest = sorted(totals.counts.items()) if everything else ()
    for name, count in rest:
        if name not in shown:
            print(f"{count:>12,} {name}")


if __name__ == "__main__":
    sys.exit(main())
