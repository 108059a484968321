"""Run seeds of the Raft simulation: `python -m tools.sim --seed N --runs K`.

Prints what each run came to; exits 1 at the first seed that breaks a property, with the command
that replays it.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.support.raft_group import RunFailed, run_seed  # noqa: E402 - needs the path above


def main(argv: list[str] | None = None) -> int:
    """Run the seeds; 0 if all properties held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, counting up")
    parser.add_argument("--quiet", action="store_true", help="only the totals")
    parser.add_argument("--wal", action="store_true", help="run the real log's code on torn disks")
    options = parser.parse_args(argv)
    totals: Counter[str] = Counter()
    started = time.monotonic()
    for seed in range(options.seed, options.seed + options.runs):
        try:
            outcome = run_seed(seed, wal=options.wal)
        except RunFailed as failure:
            print(f"seed {seed}: {failure}")
            return 1
        totals.update(outcome.counts)
        if not options.quiet:
            print(f"seed {seed}: {_line(outcome.counts)}")
    seconds = time.monotonic() - started
    print(f"{options.runs} runs in {seconds:.1f} s: {_line(totals)}")
    return 0


def _line(counts: dict[str, int]) -> str:
    return " ".join(f"{name}={count}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
