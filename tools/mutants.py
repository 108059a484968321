"""Put known bugs into pgraft, one at a time, and see that the simulation notices (`make mutants`).

Prints which checker noticed each, and after how many seeds. Exits 1 if one survives its budget.
"""

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.simulation.gate import GATE, STAGED, hunt  # noqa: E402 - needs the path above


def main(argv: list[str] | None = None) -> int:
    """Hunt all of them, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="MUTANT", help="only these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    chosen = parser.parse_args(argv)
    looks = GATE | STAGED
    names = chosen.names or sorted(looks, key=lambda name: (looks[name].number or 99, name))
    survived = 0
    context = multiprocessing.get_context("spawn")
    # One bug per process: what one patched must not be found by the next.
    with ProcessPoolExecutor(chosen.jobs, mp_context=context, max_tasks_per_child=1) as pool:
        for verdict in pool.map(hunt, names):
            number = f"#{verdict.number}" if verdict.number else ""
            found = f"{verdict.found_by}, seed {verdict.seeds}"
            if not verdict.found_by:
                survived += 1
                found = f"SURVIVED {verdict.seeds} seeds"
            print(f"{number:>4} {verdict.name:43} {found}", flush=True)
            if len(names) == 1:
                print(verdict.text)
    print(f"{len(names) - survived} of {len(names)} noticed")
    return int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
