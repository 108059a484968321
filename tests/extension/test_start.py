"""What a server does when something is wrong with its page or its library: it refuses to start and
says what to do, or it runs fenced. Never a crash loop, never an open server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgraft.page.layout import PAGE_BYTES, PLACES
from tests.support.extension_lab import (
    FLAVOURS,
    Flavour,
    Lab,
    LabServer,
    compiled,
)
from tests.support.sanitizers import sanitizer_environment, sanitizers
from tests.support.wait import wait_for

READ_ONLY = "25006"
SOON_S = 30.0


def refuses_writes(server: LabServer) -> bool:
    with server.connect() as session:
        try:
            session.execute("CREATE TABLE never (n int)")
        except psycopg.Error as error:
            return error.sqlstate == READ_ONLY
    return False


def made(server: LabServer, content: bytes = b"\0" * PAGE_BYTES, mode: int = 0o600) -> Path:
    """A file in the page's place, the server's own."""
    path = server.page_path
    path.write_bytes(content)
    path.chmod(mode)
    server.site.account.give(path)
    return path


def readable(server: LabServer) -> None:
    made(server, mode=0o644)


def foreign(server: LabServer) -> None:
    path = made(server)
    if not server.site.account.drops:
        pytest.skip("only root can make another user's file")
    os.chown(path, 0, 0)


def small(server: LabServer) -> None:
    made(server, b"\0" * 4096)


def linked(server: LabServer) -> None:
    path = made(server)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def directory(server: LabServer) -> None:
    server.page_path.mkdir(mode=0o700)
    server.site.account.give(server.page_path)


def other_layout(server: LabServer) -> None:
    server.start()
    server.page.words[PLACES["LAYOUT"]] = 99
    server.stop()


def on_disk(server: LabServer) -> None:
    path = server.site.options.state_dir / "run" / "page"
    path.write_bytes(b"\0" * PAGE_BYTES)
    path.chmod(0o600)
    server.site.account.give(path)
    server.settings["pgraft.shm_path"] = str(path)


def not_told(server: LabServer) -> None:
    server.settings["pgraft.shm_path"] = ""


def nowhere(server: LabServer) -> None:
    server.settings["pgraft.shm_path"] = "/dev/shm/no/such/directory/page"


FAULTS: list[tuple[Callable[[LabServer], None], str]] = [
    (readable, "others can reach it"),
    (foreign, "cannot open the page|belongs to another user"),
    (small, "wrong size"),
    (linked, "symbolic link"),
    (directory, "it is a directory"),
    (other_layout, "different versions"),
    (on_disk, "on a disk"),
    (not_told, "absolute path of the page"),
    (nowhere, "No such file"),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_refuses_to_start_and_says_what_to_do(
    fresh: LabServer, fault: Callable[[LabServer], None], said: str
) -> None:
    fault(fresh)
    fresh.launch()
    assert fresh.exit_code() != 0
    log = fresh.log()
    fatal = log[log.index("FATAL") :]
    assert any(words in fatal for words in said.split("|")), fatal
    assert "HINT" in fatal


def test_full_memory_is_no_hole_in_the_page(fresh: LabServer, tmp_path: Path) -> None:
    """A page that cannot be allocated is refused; touching a hole would kill every process."""
    place = tmp_path.parent / f"full-{tmp_path.name}"
    place.mkdir(mode=0o755)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k,mode=1777", "tmpfs", str(fresh.page_path.parent)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system in memory cannot be mounted here")
    try:
        (fresh.page_path.parent / "filler").write_bytes(b"x" * 12 * 1024)
        fresh.launch()
        assert fresh.exit_code() != 0
        assert "no room for the page" in fresh.log()
        assert not fresh.page_path.exists()
    finally:
        subprocess.run(["umount", str(fresh.page_path.parent)], check=True)


def test_missing_page_is_made_and_nothing_is_open(fresh: LabServer) -> None:
    fresh.start()
    assert "was missing and has been made" in fresh.log()
    assert fresh.ask("SELECT 1") == 1
    assert refuses_writes(fresh)
    fresh.lease()
    fresh.ask("CREATE TABLE open (n int)")


def test_lease_of_before_the_start_is_void(fresh: LabServer) -> None:
    fresh.start(leased=True)
    word = fresh.word("LEASE")
    fresh.stop()
    fresh.start()
    assert fresh.word("LEASE") == 0
    assert refuses_writes(fresh)
    fresh.page.words[PLACES["LEASE"]] = word
    assert refuses_writes(fresh), "the word names another start"


def test_page_of_another_boot_begins_anew(fresh: LabServer) -> None:
    fresh.start(leased=True)
    fresh.stop()
    fresh.page.words[PLACES["BOOT"]] ^= 1
    fresh.page.words[PLACES["RELEASED_EPOCH"]] = 7
    fresh.start()
    assert "of another boot" in fresh.log()
    assert fresh.word("RELEASED_EPOCH") == 0
    assert refuses_writes(fresh)


def test_a_copy_of_the_data_directory_cannot_have_the_page(lab: Lab, flavour: Flavour) -> None:
    """Two servers on one page: the second is turned away, and the first goes on."""
    first = lab.server(flavour).start(leased=True)
    second = lab.server(flavour)
    second.settings["pgraft.shm_path"] = str(first.page_path)
    second.launch()
    try:
        assert second.exit_code() != 0
        assert "processes of another server have it" in second.log()
        first.ask("CREATE TABLE alive (n int)")
    finally:
        first.stop()


def test_crash_of_a_backend_needs_a_new_lease(fresh: LabServer) -> None:
    """The server begins anew by itself; what it was given before counts no more."""
    fresh.settings["restart_after_crash"] = "on"
    fresh.start(leased=True)
    start, word = fresh.word("SERVER_START"), fresh.word("LEASE")
    victim = fresh.connect()
    os.kill(victim.info.backend_pid, signal.SIGKILL)
    victim.close()
    wait_for(lambda: fresh.word("SERVER_START") != start, SOON_S, "another start")
    wait_for(fresh._answers, SOON_S, "it answers again")
    fresh.page.words[PLACES["LEASE"]] = word
    assert refuses_writes(fresh)
    fresh.lease()
    fresh.ask("CREATE TABLE again (n int)")


def test_create_extension_without_preload_says_so(fresh: LabServer) -> None:
    fresh.settings["shared_preload_libraries"] = ""
    for name in ("pgraft.shm_path", "pgraft.enforce"):
        fresh.settings.pop(name, None)
    fresh.start()
    if fresh.flavour.major < 18:
        pytest.skip("before 18 the files of the extension lie in the server's own directories")
    with fresh.connect() as session, pytest.raises(psycopg.Error) as caught:
        session.execute("CREATE EXTENSION pgraft")
    assert "shared_preload_libraries" in str(caught.value)
    assert caught.value.diag.message_hint


def test_library_of_another_major_is_refused(fresh: LabServer) -> None:
    others = [f for f in FLAVOURS if f.major != fresh.flavour.major and not f.missing]
    if not others:
        pytest.skip("only one major version is here")
    library = compiled(others[0]).library.parent
    fresh.settings["dynamic_library_path"] = f"{library}:$libdir"
    fresh.launch()
    assert fresh.exit_code() != 0
    # Which of the two depends on whether the loader finds every symbol that it names.
    said = ("incompatible library", "could not load library")
    assert any(words in fresh.log() for words in said), fresh.log()


def test_single_user_mode_leaves_the_page_alone(fresh: LabServer) -> None:
    """pg_rewind runs it, beside a daemon that has the page."""
    fresh.start(leased=True)
    fresh.stop()
    start = fresh.word("SERVER_START")
    postgres = fresh.site.binaries.tool("postgres")
    argv = [postgres, "--single", "-D", str(fresh.site.data_dir)]
    environment = {**os.environ, **sanitizer_environment(sanitizers(Path(postgres)))}
    fresh.run([*argv, "postgres"], input="CREATE TABLE single (n int)\n", env=environment)
    assert fresh.word("SERVER_START") == start
