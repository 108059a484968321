"""Where log records go: standard error, a rotating file, syslog; as text or JSON.

Lives here: the set-up and nothing else; modules log with `logging.getLogger(__name__)` and
`extra={…}`. Records pass through a bounded queue to one thread, so that a slow disk or terminal
never delays the control loop. Start reading at `set_up`.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ramd.config.model import Config
from ramd.domain.errors import ConfigError

QUEUE_RECORDS_MAX = 10_000
SYSLOG_SOCKET = Path("/dev/log")
SYSLOG_IDENT = "ramd: "
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
LIBRARY_LEVELS = {"asyncio": logging.WARNING, "uvicorn": logging.WARNING}
"""Chatty libraries are held at this level unless ours is more severe."""

OWN_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
}


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.250Z INFO ramd.loop: message key=value …`; tracebacks follow."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; what was given as `extra` follows the message."""
        stamp = self.formatTime(record)
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        extra = "".join(
            f" {key}={_shown(value)}"
            for key, value in record.__dict__.items()
            if key not in OWN_ATTRIBUTES and not key.startswith("_")
        )
        line = f"{stamp} {record.levelname} {record.name}: {message}{extra}"
        return f"{line}\n{record.exc_text}" if record.exc_text else line


def _shown(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else ascii(text)


class BoundedQueueHandler(logging.handlers.QueueHandler):
    """Hands records over without ever waiting; what does not fit is dropped and counted."""

    def __init__(self, records: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(records)
        self.records = records
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Fix message and traceback now: their objects may change before they are written."""
        record.message = record.getMessage()
        record.msg, record.args = record.message, None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put, or count as dropped; the next that fits tells how many were."""
        if self.dropped and self.records.qsize() < QUEUE_RECORDS_MAX // 2:
            record.dropped_records = self.dropped
            self.dropped = 0
        try:
            self.records.put_nowait(record)
        except queue.Full:
            self.dropped += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """The running set-up."""

    handler: BoundedQueueHandler
    listener: logging.handlers.QueueListener

    def close(self) -> None:
        """Write what is queued and stop; later records go to standard error only if severe."""
        logging.getLogger().removeHandler(self.handler)
        self.listener.stop()
        for target in self.listener.handlers:
            target.close()


def set_up(config: Config, *, background: bool = False) -> Logs:
    """Send every record where `config` says, from now on. In the background there is no console.

    Starts a thread: call it after the last fork. Raises ConfigError if a target cannot be opened.
    """
    targets = _targets(config, background=background)
    records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_RECORDS_MAX)
    handler = BoundedQueueHandler(records)
    listener = logging.handlers.QueueListener(records, *targets)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(config.effective_log_level)
    logging.captureWarnings(True)
    listener.start()
    return Logs(handler=handler, listener=listener)


def set_level(level: str) -> None:
    """Change the least severity from now on: one of debug, info, warning, error."""
    number = LEVELS[level]
    logging.getLogger().setLevel(number)
    for name, least in LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(max(number, least))


def _targets(config: Config, *, background: bool) -> list[logging.Handler]:
    formatter = _formatter(config.log_format)
    targets: list[logging.Handler] = []
    if config.log_to_syslog:
        targets.append(_syslog())
    if config.log_to_console and not background:
        targets.append(logging.StreamHandler(sys.stderr))
    if config.log_file is not None:
        targets.append(_file(config, config.log_file))
    for target in targets:
        target.setFormatter(formatter)
    return targets


def _formatter(form: str) -> logging.Formatter:
    formatter: logging.Formatter = TextFormatter()
    if form == "json":
        from pythonjsonlogger.json import JsonFormatter

        formatter = JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "timestamp", "levelname": "level", "name": "logger"},
        )
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    return formatter


def _file(config: Config, path: Path) -> logging.Handler:
    size = config.log_rotation_size_mb * 1024 * 1024
    try:
        # Readable by its group, as logs usually are; never by everybody: they name hosts and roles.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640))
        if size == 0:
            return logging.handlers.WatchedFileHandler(path, encoding="utf-8")
        return logging.handlers.RotatingFileHandler(
            path, maxBytes=size, backupCount=config.log_rotation_count, encoding="utf-8"
        )
    except OSError as error:
        raise ConfigError(
            f"log_file: '{path}' cannot be written ({error.strerror})", field="log_file"
        ) from error


def _syslog() -> logging.Handler:
    if not SYSLOG_SOCKET.is_socket():
        raise ConfigError(
            f"log_to_syslog: this host has no syslog socket {SYSLOG_SOCKET}",
            field="log_to_syslog",
            hint="start a syslog daemon, or set log_to_syslog = false",
        )
    target = logging.handlers.SysLogHandler(
        address=str(SYSLOG_SOCKET), facility=logging.handlers.SysLogHandler.LOG_DAEMON
    )
    target.ident = SYSLOG_IDENT
    return target
