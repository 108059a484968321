"""`python -m bench.chaos`: random faults on a real cluster under load, and a verdict.

Kills, freezes, switchovers, drawn from a seed, while clients record every acknowledgement. Nothing
acknowledged may be lost or acknowledged twice, and everything must heal by itself. Exit status 1
if that was not so; the logs are kept then. Ctrl-C ends the faults and judges what there is.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import psycopg

from bench.chaos.plan import Kind, Terms
from bench.chaos.report import figures, text
from bench.chaos.run import Options, Run
from bench.failover import same_code_everywhere, undisturbed
from bench.figures import RESULTS
from tools.local_cluster import ClusterError

SOAK_KINDS = frozenset({Kind.SERVER_KILLED, Kind.NODE_KILLED})


def parse(argv: list[str] | None = None) -> tuple[Options, bool]:
    """Options, and whether the cluster is left running if something failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="of the plan; else a random one")
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--faults", type=int, default=0, help="at most so many")
    parser.add_argument("--asynchronous", action="store_true", help="losses are only reported")
    parser.add_argument(
        "--calm", action="store_true", help="each fault heals before the next one comes"
    )
    parser.add_argument(
        "--soak", action="store_true", help="--calm, and only kills of servers and whole nodes"
    )
    parser.add_argument("--hold-s", type=float, default=15.0, help="at most, until it is undone")
    parser.add_argument("--pause-s", type=float, default=3.0, help="mean, between faults")
    parser.add_argument("--heal-s", type=float, default=180.0, help="at most, until all is well")
    parser.add_argument("--rate", type=int, default=50, help="of pgbench, per second; 0: none")
    parser.add_argument("--keep", action="store_true", help="leave a failed cluster running")
    chosen = parser.parse_args(argv)
    if min(chosen.minutes, chosen.hold_s, chosen.pause_s, chosen.heal_s) <= 0:
        parser.error("minutes and seconds are above zero")
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    given = list(sys.argv[1:] if argv is None else argv)
    options = Options(
        seed=seed,
        minutes=chosen.minutes,
        terms=Terms(
            hold_s_max=chosen.hold_s,
            pause_s_mean=chosen.pause_s,
            calm=chosen.calm or chosen.soak,
            kinds=SOAK_KINDS if chosen.soak else frozenset(Kind),
        ),
        nodes=chosen.nodes,
        asynchronous=chosen.asynchronous,
        faults_max=chosen.faults,
        heal_s=chosen.heal_s,
        rate=chosen.rate,
        command=" ".join(
            ["python -m bench.chaos", *given, *([f"--seed {seed}"] if chosen.seed is None else [])]
        ),
    )
    return options, chosen.keep


def keep_logs(run: Run) -> Path:
    """Copy what nodes, clients and the run itself wrote, and what the nodes remember."""
    into = RESULTS / f"chaos-{run.options.seed}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    into.mkdir(parents=True)
    root = run.cluster.root
    copied = [root / "logs", *root.glob("*.out"), *root.glob("*.log"), *root.glob("node*.ramd")]
    for path in copied:
        target = into / path.name
        try:
            if path.is_dir():
                ignore = shutil.ignore_patterns("divergent", "run")
                shutil.copytree(path, target, ignore=ignore, dirs_exist_ok=True)
            else:
                shutil.copy(path, target)
        except (OSError, shutil.Error) as error:
            print(f"not copied: {error}")
    offset_s = time.time() - time.monotonic()
    with gzip.open(into / "acknowledged.tsv.gz", "wt") as sink:
        for ack in run.history.acks:
            times = f"{ack.sent_s + offset_s:.6f}\t{ack.received_s + offset_s:.6f}"
            whose = f"{ack.node}\t{ack.timeline}\t{ack.client}\t{ack.number}"
            sink.write(f"{times}\t{whose}\t{ack.work}\t{ack.counter}\t{ack.value}\n")
    return into


def chaos(options: Options, *, keep: bool) -> int:
    """Exit status of the whole."""
    run = Run(options)
    # Also in the background of a shell, which has them ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: run.watch.interrupt())
    failed = True
    try:
        run.whole()
        failed = run.findings.failed
    except (ClusterError, psycopg.Error) as error:
        run.findings.failures.append(f"it did not come to faults: {error}")
    except KeyboardInterrupt:
        run.findings.failures.append("ended before it could be judged")
    finally:
        page = text(run.findings, run.history)
        print(page, flush=True)
        if failed:
            into = keep_logs(run)
            (into / "report.txt").write_text(page + "\n")
            print(f"logs are kept in {into}")
            if keep:
                print(f"the cluster is left running in {run.cluster.root}")
        undisturbed(lambda: run.close(keep=failed and keep))
    print(json.dumps(figures(run.findings, run.history)))
    return 1 if failed else 0


def main(argv: list[str] | None = None) -> int:
    options, keep = parse(argv)
    same_code_everywhere()
    print(f"seed {options.seed}, {options.minutes:g} minutes: {options.command}", flush=True)
    return chaos(options, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
