"""The command line of ramd: what may be said, as a frozen value. Imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DESCRIPTION = "Keeps one PostgreSQL server in its place in a cluster that survives losing hosts."
EPILOGUE = "Every key of the configuration file: docs/configuration.md"
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said. None: not said."""

    config: Path
    log_level: str | None = None
    pid_file: Path | None = None
    daemonize: bool = False
    validate: bool = False

    def as_keys(self) -> dict[str, str]:
        """The keys of the configuration that these options override."""
        keys: dict[str, str] = {}
        if self.log_level is not None:
            keys |= {"log_level": self.log_level, "debug_mode": "false"}
        if self.pid_file is not None:
            keys["pid_file"] = str(self.pid_file.absolute())
        if self.daemonize:
            keys["daemonize"] = "true"
        return keys


def parse_options(arguments: Sequence[str]) -> Options:
    """The options; prints help, version or a complaint and raises SystemExit (0 or 2)."""
    parsed = _parser().parse_args(arguments)
    return Options(
        config=parsed.config,
        log_level=parsed.log_level,
        pid_file=parsed.pid_file,
        daemonize=parsed.daemonize,
        validate=parsed.validate,
    )


class _Version(argparse.Action):
    """Prints the version that is installed; looked up only here, since that takes a while."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"ramd {version('ramd')}\n")
        parser.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ramd", description=DESCRIPTION, epilog=EPILOGUE, add_help=False, allow_abbrev=False
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=Path("ramd.conf"),
        help="configuration file (default: ramd.conf)",
    )
    parser.add_argument(
        "-l",
        "--log-level",
        choices=LEVELS,
        type=str.lower,
        metavar="LEVEL",
        help=f"least severity that is logged: {', '.join(LEVELS)} (default: the file's, else info)",
    )
    parser.add_argument(
        "-d", "--daemonize", action="store_true", help="go to the background once ready"
    )
    parser.add_argument(
        "-p",
        "--pid-file",
        metavar="FILE",
        type=Path,
        help="file for the process id (default: the file's; /tmp/ramd.pid in the background)",
    )
    parser.add_argument(
        "--validate",
        action="store_true",
        help="check the configuration, print every fault, and exit (0 valid, 2 not)",
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="show the version")
    parser.add_argument("-h", "--help", action="help", help="show this help")
    return parser
