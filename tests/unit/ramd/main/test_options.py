"""The command line: long and short forms, and what it overrides."""

from pathlib import Path

import pytest

from ramd.options import Options, parse_options


def test_nothing_said() -> None:
    assert parse_options([]) == Options(config=Path("ramd.conf"))
    assert parse_options([]).as_keys() == {}


@pytest.mark.parametrize(
    "arguments",
    [
        "--config=x.conf --log-level=debug --pid-file=/run/x.pid --daemonize",
        "--config x.conf --log-level DEBUG --pid-file /run/x.pid --daemonize",
        "-c x.conf -l debug -p /run/x.pid -d",
    ],
)
def test_long_and_short_forms(arguments: str) -> None:
    options = parse_options(arguments.split())
    assert options == Options(
        config=Path("x.conf"), log_level="debug", pid_file=Path("/run/x.pid"), daemonize=True
    )
    assert options.as_keys() == {
        "log_level": "debug",
        "debug_mode": "false",
        "pid_file": "/run/x.pid",
        "daemonize": "true",
    }


def test_a_relative_pid_file_is_below_the_present_directory() -> None:
    assert parse_options(["-p", "x.pid"]).as_keys() == {"pid_file": str(Path.cwd() / "x.pid")}


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options([flag])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("ramd 0.")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_option(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options([flag])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("config", "log-level", "daemonize", "pid-file", "validate", "version", "help"):
        assert f"--{option}" in text


@pytest.mark.parametrize("arguments", [["--bogus"], ["-l", "loud"], ["extra"], ["--conf", "x"]])
def test_what_is_not_understood_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments)
    assert ended.value.code == 2
