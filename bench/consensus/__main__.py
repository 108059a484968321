"""Runs the comparison. `python -m bench.consensus --quick` is a smoke run.

Two groups of three at the default timings live side by side and are measured by turns; then two at
the fast timings lose their leaders. See bench/README.md for what is fair about it and what is not.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.consensus.clients import ClientError
from bench.consensus.groups import (
    EtcdGroup,
    Group,
    GroupError,
    GroupOptions,
    PgraftGroup,
)
from bench.consensus.measure import FROZEN, KILLED, VALUE_BYTES, commits, faults
from bench.consensus.member import has_own_tls
from bench.consensus.report import DEFAULTS, Report, Silence
from bench.consensus.setup import Files, SetupError, make_certificates, prepare, versions
from bench.figures import load_average, save

FAST: Final = "fast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Heartbeat and election of both, ms, and how often a client tries when the leader is lost."""

    name: str
    ours: tuple[int, int]
    theirs: tuple[int, int]
    every_s: float

    def text(self) -> str:
        """For people."""
        return "pgraft {}/{}, etcd {}/{}".format(*self.ours, *self.theirs)


TIMINGS: Final = (
    Timings(name=DEFAULTS, ours=(100, 600), theirs=(100, 1000), every_s=0.010),
    Timings(name=FAST, ours=(30, 150), theirs=(10, 50), every_s=0.005),
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="rounds of commits")
    parser.add_argument("--count", type=int, default=1000, help="commits of a kind in a round")
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs of each group and timing")
    parser.add_argument("--freezes", type=int, default=10, help="SIGSTOPs of each group and timing")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--profile", action="store_true", help="profile every pgraft member")
    parser.add_argument("--quick", action="store_true", help="a smoke run: the figures say nothing")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.count = 1, 100
        arguments.kills, arguments.freezes = 3, 1
    return arguments


def groups(
    where: Path, files: Files, etcd: str, timings: Timings, arguments: argparse.Namespace
) -> list[Group]:
    """Both, not started."""

    def options(name: str, times: tuple[int, int]) -> GroupOptions:
        return GroupOptions(
            directory=where / f"{name}-{timings.name}",
            files=files,
            heartbeat_ms=times[0],
            election_ms=times[1],
            loop=arguments.loop,
            profile=arguments.profile,
        )

    return [
        PgraftGroup(options(PgraftGroup.name, timings.ours)),
        EtcdGroup(options(EtcdGroup.name, timings.theirs), etcd),
    ]


def measure(arguments: argparse.Namespace, etcd: str, where: Path, report: Report) -> None:
    """The whole run. Raises GroupError, ClientError."""
    files = make_certificates(where)
    for timings in TIMINGS:
        with ExitStack() as stack:
            both = [
                stack.enter_context(group)
                for group in groups(where, files, etcd, timings, arguments)
            ]
            if timings.name == DEFAULTS and arguments.rounds:
                report.rounds = commits(both, arguments.rounds, arguments.count)
            for kind, count in ((KILLED, arguments.kills), (FROZEN, arguments.freezes)):
                if count:
                    report.silences.append(
                        Silence(
                            kind=kind,
                            timing=timings.name,
                            setting=timings.text(),
                            took_ms=faults(both, kind, count, timings.every_s),
                        )
                    )


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("FAILED: ended by SIGTERM"))
    before = load_average()
    try:
        etcd = prepare()
        setting: dict[str, Any] = {
            "value": f"{VALUE_BYTES} bytes",
            "TLS": "clients and peers, both groups",
            "TLS between pgraft's members by": "pgraft" if has_own_tls() else "the event loop",
            "loop": arguments.loop,
        }
        report = Report(versions=versions(etcd), setting=setting, load_before=before)
        with tempfile.TemporaryDirectory(prefix="ramd-bench-") as where:
            measure(arguments, etcd, Path(where), report)
    except (SetupError, GroupError, ClientError) as error:
        print(f"FAILED: {error}")
        return 1
    report.ended()
    text = report.text()
    print(text)
    path = save("consensus", text)
    path.with_suffix(".json").write_text(report.json())
    print(f"kept in {path} and {path.with_suffix('.json').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
