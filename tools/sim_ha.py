"""Try to break failover: seeds of the simulated cluster on all cores (docs/simulation-ha.md).

`make sim-ha SEED=7` runs one seed, `make sim-ha MINUTES=30` as many as fit, from a first seed that
the clock chooses. Exits 1 when a rule broke, with the command that does the same once more.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.simulation_ha.reached import UNIT_ONLY  # noqa: E402 - needs the path
from tests.support.ha_runner import (  # noqa: E402 - needs the path
    Totals,
    rules_reached,
    run_many,
    timed,
    transitions_reached,
)
from tools.seeds import Seeds, parser_of_seeds  # noqa: E402 - needs the path

HEADLINES = (
    ("acknowledged", "writes acknowledged"),
    ("grants", "epochs granted"),
    ("promotions", "promotions"),
    ("raft leader", "elections of a coordinator"),
    ("sync changes", "changes of a synchronous set"),
    ("commits that waited", "commits that waited for replicas"),
    ("writes lost as said", "writes of asynchronous clusters lost, as their decisions said"),
    ("a person accepts a loss", "times that a person had to accept a loss of copies"),
)


def options(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of_seeds(__doc__)
    parser.add_argument("--storm", type=float, help="length of the storm in simulated seconds")
    parser.add_argument("--on", action="store_true", help="go on after a failure")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the seeds; 0 if all rules held."""
    chosen = options(argv)
    seeds = Seeds(chosen)
    totals, failures = Totals(), 0

    def more() -> bool:
        return (chosen.on or not failures) and seeds.time_left

    if seeds.single:
        outcomes = iter([timed(seeds.first, chosen.storm)])
    else:
        outcomes = run_many(iter(seeds), chosen.jobs, storm_s=chosen.storm, more=more)
    for outcome, cpu_s in outcomes:
        totals.add(outcome, cpu_s)
        if outcome.failure:
            failures += 1
            storm = f" --storm {chosen.storm}" if chosen.storm is not None else ""
            print(f"seed {outcome.seed}: {outcome.failure}")
            print(
                f"again: .venv/bin/python -m tools.sim_ha --seed {outcome.seed}{storm}", flush=True
            )
    _report(totals, seeds.first, failures, seeds.took_s)
    return int(bool(failures))


def _report(totals: Totals, first: int, failures: int, seconds: float) -> None:
    hours = totals.tally["simulated ms"] / 3_600_000
    per_seed = totals.cpu_s / max(1, totals.runs)
    print(
        f"{totals.runs} seeds from {first} on in {seconds:.0f} s ({per_seed:.2f} s of a processor"
        f" each), {hours:.2f} simulated hours, {failures} failed"
    )
    for name, title in HEADLINES:
        print(f"{totals.tally[name]:>12,} {title}")
    calm_s = totals.tally["calm ms"] / 1_000 / max(1, totals.tally["runs"])
    print(
        f"       {calm_s:5.1f} s until all was well again, on average;"
        f" {totals.tally['calm over 40 s']} times more than 40 s"
    )
    for name, count in sorted(totals.tally.items()):
        if name.startswith("fault "):
            print(f"{count:>12,} {name}")
    _reached("rules", rules_reached(totals.tally))
    _reached("transitions", transitions_reached(totals.tally))


def _reached(what: str, counts: dict[str, int]) -> None:
    never = [name for name, count in counts.items() if not count]
    print(f"{len(counts) - len(never)} of {len(counts)} {what} reached")
    for name, count in counts.items():
        by = "unit tests" if f"{what[:-1]} {name}" in UNIT_ONLY else "stories"
        print(f"{count:>12,} {name}" if count else f"       never {name} (by {by} only)")


if __name__ == "__main__":
    sys.exit(main())
