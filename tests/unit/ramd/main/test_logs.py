"""Where records go and what they look like."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramd import logs
from ramd.config.load import load_text
from ramd.config.model import Config
from ramd.domain.errors import ConfigError

LOGGER = logging.getLogger("ramd.test")


def config(tmp_path: Path, text: str = "") -> Config:
    base = f"postgresql_data_dir = /srv/pg/data\nlog_file = {tmp_path}/ramd.log\n"
    return load_text(base + "log_to_console = false\n" + text, {})


@pytest.fixture(autouse=True)
def untouched_root() -> Iterator[None]:
    """Give back the root logger as it was: pytest listens there too."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def written(tmp_path: Path) -> list[str]:
    return (tmp_path / "ramd.log").read_text().splitlines()


def test_text(tmp_path: Path) -> None:
    running = logs.set_up(config(tmp_path))
    LOGGER.info("epoch %d granted", 3, extra={"node": 2, "why": "the old one is gone"})
    LOGGER.debug("not shown")
    LOGGER.warning("two\nlines")
    running.close()
    first, second = written(tmp_path)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO ramd\.test: "
        r"epoch 3 granted node=2 why='the old one is gone'",
        first,
    )
    assert second.endswith("WARNING ramd.test: two\\nlines")
    assert (tmp_path / "ramd.log").stat().st_mode & 0o007 == 0


def test_json(tmp_path: Path) -> None:
    running = logs.set_up(config(tmp_path, "log_format = json\n"))
    LOGGER.error("bad", extra={"node": 2})
    try:
        raise ValueError("boom")
    except ValueError:
        LOGGER.exception("caught")
    running.close()
    first, second = (json.loads(line) for line in written(tmp_path))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("timestamp"))
    assert first == {"level": "ERROR", "logger": "ramd.test", "message": "bad", "node": 2}
    assert "ValueError: boom" in json.dumps(second)


def test_a_traceback_follows_its_line(tmp_path: Path) -> None:
    running = logs.set_up(config(tmp_path))
    try:
        raise ValueError("boom")
    except ValueError:
        LOGGER.exception("caught")
    running.close()
    lines = written(tmp_path)
    assert lines[0].endswith("ERROR ramd.test: caught")
    assert lines[-1] == "ValueError: boom"


def test_the_level_follows_the_configuration_and_can_change(tmp_path: Path) -> None:
    running = logs.set_up(config(tmp_path, "log_level = error\n"))
    LOGGER.warning("one")
    logs.set_level("debug")
    LOGGER.debug("two")
    logging.getLogger("asyncio").info("libraries keep quiet")
    running.close()
    assert [line.rpartition(" ")[2] for line in written(tmp_path)] == ["two"]


def test_console_unless_in_the_background(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = load_text("postgresql_data_dir = /srv/pg/data\n", {})
    for background, expected in ((False, True), (True, False)):
        running = logs.set_up(shown, background=background)
        LOGGER.info("hello")
        running.close()
        assert ("hello" in capsys.readouterr().err) is expected


def test_files_are_rotated_and_counted(tmp_path: Path) -> None:
    text = "log_rotation_size_mb = 1\nlog_rotation_count = 2\n"
    running = logs.set_up(config(tmp_path, text))
    for _ in range(45):
        LOGGER.info("x" * 100_000)
    running.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["ramd.log", "ramd.log.1", "ramd.log.2"]
    assert all(path.stat().st_size <= 1 << 20 for path in tmp_path.iterdir())


def test_without_rotation_a_moved_file_is_begun_anew(tmp_path: Path) -> None:
    running = logs.set_up(config(tmp_path, "log_rotation_size_mb = 0\n"))
    LOGGER.info("one")
    running.listener.stop()
    (tmp_path / "ramd.log").rename(tmp_path / "old.log")
    running.listener.start()
    LOGGER.info("two")
    running.close()
    assert [line.rpartition(" ")[2] for line in written(tmp_path)] == ["two"]


def test_a_full_queue_drops_and_says_so(tmp_path: Path) -> None:
    running = logs.set_up(config(tmp_path))
    running.listener.stop()  # a disk that hangs
    for number in range(logs.QUEUE_RECORDS_MAX + 5):
        LOGGER.info("record %d", number)
    assert running.handler.dropped == 5
    running.listener.start()
    running.listener.stop()
    running.listener.start()
    LOGGER.info("after")
    running.close()
    lines = written(tmp_path)
    assert len(lines) == logs.QUEUE_RECORDS_MAX + 1
    assert lines[-1].endswith("after dropped_records=5")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    broken = config(tmp_path).model_copy(update={"log_file": tmp_path / "absent" / "x.log"})
    with pytest.raises(ConfigError, match=r"log_file: .* cannot be written"):
        logs.set_up(broken)


def test_syslog_needs_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SYSLOG_SOCKET", tmp_path / "log")
    with pytest.raises(ConfigError, match="no syslog socket"):
        logs.set_up(config(tmp_path, "log_to_syslog = true\n"))
