"""`ramd`: command line → configuration → one locked process → `ramd.daemon.run`.

Lives here: the order of the steps and the exit status. Expected errors end as one message on
standard error and the exit code of `ramd.domain.errors.CODES`; anything else is a bug and shows its
traceback.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ramd.domain.errors import CODES, RamdError
from ramd.options import Options, parse_options

if TYPE_CHECKING:
    from ramd.config.model import Config
    from ramd.process import Readiness

DEFAULT_PID_FILE = Path("/tmp/ramd.pid")  # the name users know; locked and never followed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon, or validate. Returns the exit status."""
    if not __debug__:
        print("ramd: refuses to run with -O: assertions guard the data", file=sys.stderr)
        return CODES["config"].exit_code
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    try:
        return _validate(options) if options.validate else _run(options)
    except RamdError as error:
        return _complain(error)


def _load(options: Options) -> Config:
    from ramd.config.load import load
    from ramd.postgres.binaries import find_postgres

    config = load(options.config, os.environ, options.as_keys())
    if config.postgresql_bin_dir is not None:  # named by a person, so judged before anything else
        find_postgres(config.postgresql_bin_dir)
    return config


def _validate(options: Options) -> int:
    config = _load(options)
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("configuration is valid")
    return 0


def _run(options: Options) -> int:
    config = _load(options)
    path = options.config.absolute()
    if not config.daemonize:
        if config.working_directory is not None:
            os.chdir(config.working_directory)
        return _serve(config, path, None)
    from ramd.process import into_background

    readiness = into_background(config.working_directory)
    try:
        status = _serve(config, path, readiness)
    except RamdError as error:
        status = _complain(error)
    except BaseException:
        readiness.fail(1)
        raise
    readiness.fail(status or 1)  # without effect once it was ready
    return status


def _serve(config: Config, path: Path, readiness: Readiness | None) -> int:
    """Take the locks, set up logging, and run until the daemon ends."""
    from logging import getLogger

    # What is imported stays: to look for garbage in it costs a tenth of the start. The daemon
    # switches the collector on again once it serves.
    gc.disable()
    from ramd import daemon, logs
    from ramd.process import PidFile, StateDirectory

    with ExitStack() as stack:
        stack.callback(gc.enable)
        stack.enter_context(StateDirectory(path=config.state_dir))
        for pid_file in pid_files(config):
            stack.enter_context(PidFile(path=pid_file))
        stack.callback(logs.set_up(config, background=config.daemonize).close)
        try:
            return daemon.run(config, path, readiness.announce if readiness else _nothing)
        except Exception:
            if config.daemonize:  # nobody reads standard error any more
                getLogger(__name__).exception("the daemon ends")
            raise


def pid_files(config: Config) -> list[Path]:
    """The one beside the state, always; the one asked for, or the usual one in the background."""
    files = [config.state_pid_file]
    wanted = config.pid_file or (DEFAULT_PID_FILE if config.daemonize else None)
    if wanted is not None and wanted != config.state_pid_file:
        files.append(wanted)
    return files


def _nothing() -> None:
    """Nobody waits for a daemon in the foreground."""


def _complain(error: RamdError) -> int:
    """Say what is wrong, and give the exit status for it."""
    from ramd.config.faults import InvalidConfigError

    prefix = "" if isinstance(error, InvalidConfigError) else "ramd: "  # those begin with a file
    print(f"{prefix}{error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return CODES[error.code].exit_code


if __name__ == "__main__":
    sys.exit(main())
