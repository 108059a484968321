"""Files that hold a secret: read only if nobody but their owner can."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ramd.domain.errors import ConfigError

SECRET_BYTES_MAX = 4096
PRINTABLE = re.compile(r"[!-~]+\Z")


class SecretFileError(Exception):
    """The file cannot be used: what is wrong, what would be right."""

    def __init__(self, wrong: str, right: str) -> None:
        super().__init__(f"{wrong}; {right}")
        self.wrong = wrong
        self.right = right


def read_secret(path: Path, *, what: str, least: int, most: int = SECRET_BYTES_MAX) -> str:
    """The first line of a file that only its owner (this user or root) can read.

    `least` and `most` bound its length in characters. Raises SecretFileError; the content is never
    part of a message.
    """
    try:
        # Not blocking: a FIFO in this place must be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretFileError(
            f"'{path}' cannot be read ({error.strerror})", f"make the file with the {what}"
        ) from error
    try:
        _check_owner(path, os.fstat(descriptor))
        data = os.read(descriptor, SECRET_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    text = data.decode("ascii", errors="replace")
    first, _, rest = text.partition("\n")
    secret = first.strip()
    if len(data) > SECRET_BYTES_MAX or rest.strip():
        raise SecretFileError(f"'{path}' holds more than one line", f"the {what} alone")
    if not PRINTABLE.match(secret) or not least <= len(secret) <= most:
        raise SecretFileError(
            f"'{path}' holds no usable {what}",
            f"{least} to {most} printable ASCII characters without spaces, on one line",
        )
    return secret


def cluster_secret(path: Path) -> bytes:
    """The secret that the daemons prove to each other. Raises ConfigError."""
    try:
        return read_secret(path, what="cluster secret", least=16).encode()
    except SecretFileError as error:
        raise ConfigError(error.wrong, field="cluster_secret_file", hint=error.right) from error


def _check_owner(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretFileError(f"'{path}' is not a regular file", "name a file")
    if status.st_uid not in {os.geteuid(), 0}:
        raise SecretFileError(
            f"'{path}' belongs to another user (uid {status.st_uid})", f"chown {os.geteuid()}"
        )
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise SecretFileError(
            f"'{path}' can be read by others (mode {mode:04o})", f"chmod 600 '{path}'"
        )
