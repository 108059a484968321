"""The library with sanitizers in it: what the compiler and the server need for that.

RAMD_TEST_SANITIZE=1 asks for it: undefined behaviour everywhere, addresses where the server's
program runs with that sanitizer loaded first. Start reading at `sanitizing_compiler`.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SANITIZE = os.environ.get("RAMD_TEST_SANITIZE", "") not in ("", "0")
ADDRESS = "address,undefined"
UNDEFINED = "undefined"
FATAL = ("-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")
REPORT = re.compile(r"runtime error:|ERROR: AddressSanitizer")
ADDRESS_OPTIONS = "detect_leaks=0:detect_odr_violation=0:handle_segv=0:handle_sigbus=0"
PROBE_S = 10.0


@cache
def sanitizers(postgres: Path) -> str:
    """Those that this server can run with; '' if none were asked for. Debian's 15 hangs in its
    first library call with the one for addresses, with or without our library."""
    if not SANITIZE:
        return ""
    try:
        subprocess.run(
            [postgres, "--version"],
            env={**os.environ, **address_environment()},
            capture_output=True,
            check=True,
            timeout=PROBE_S,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return UNDEFINED
    return ADDRESS


@contextmanager
def sanitizing_compiler(which: str) -> Iterator[None]:
    """$CC is inside a compiler that adds them and ends the process at what they find."""
    if not which:
        yield
        return
    before = os.environ.get("CC")
    with tempfile.TemporaryDirectory() as folder:
        wrapper = Path(folder, "cc")
        runtime = "-static-libubsan" if which == UNDEFINED else ""
        options = " ".join((*FATAL, f"-fsanitize={which}", runtime))
        wrapper.write_text(f'#!/bin/sh\nexec gcc "$@" {options}\n', encoding="ascii")
        wrapper.chmod(0o755)
        os.environ["CC"] = str(wrapper)
        try:
            yield
        finally:
            os.environ.pop("CC")
            if before is not None:
                os.environ["CC"] = before


def sanitizer_environment(which: str) -> Mapping[str, str]:
    """What a server needs beside its own environment."""
    if not which:
        return {}
    return {
        "UBSAN_OPTIONS": "print_stacktrace=1",
        **(address_environment() if which == ADDRESS else {}),
    }


@cache
def address_environment() -> Mapping[str, str]:
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {"LD_PRELOAD": str(Path(library).resolve()), "ASAN_OPTIONS": ADDRESS_OPTIONS}
