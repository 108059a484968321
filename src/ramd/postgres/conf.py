"""The server's configuration: one file of RAMD's outside the data directory, and one line in it.

PGDATA/postgresql.conf keeps everything the operator wrote and ends with an `include` of
`<state_dir>/postgresql.ramd.conf`. ALTER SYSTEM is never used; what it left behind of settings that
RAMD owns is removed, because postgresql.auto.conf is read last. Start reading at `write_all`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from ramd.domain.errors import ConfigError, PostgresError
from ramd.domain.server import Upstream
from ramd.postgres.account import owner_account
from ramd.postgres.files import make_dirs, read_file, remove_file, write_file
from ramd.postgres.hba import render_hba
from ramd.postgres.preload import preload_settings, with_lists
from ramd.postgres.quote import conf_value, conninfo, passfile_field
from ramd.postgres.settings import SETTING, parse_settings
from ramd.postgres.site import Site
from ramd.postgres.standbys import PLAIN, Naming, slot_name, standby_names, stream_name, sync_line

MARK = "# written by ramd: this node's own settings"
UPSTREAM_MARK = "# upstream: "
INCLUDES = re.compile(r"^\s*(include|include_if_exists|include_dir)\s*(?:=\s*|\s)'?([^'#]*)'?")
INCLUDE_DEPTH_MAX = 10

OWNED = frozenset(
    {
        "archive_cleanup_command",
        "data_directory",
        "hba_file",
        "hot_standby",
        "lc_messages",
        "listen_addresses",
        "logging_collector",
        "log_destination",
        "pgraft.fence_grace_ms",
        "pgraft.shm_path",
        "pgraft.sync_generation",
        "port",
        "primary_conninfo",
        "primary_slot_name",
        "promote_trigger_file",
        "recovery_end_command",
        "recovery_min_apply_delay",
        "recovery_target",
        "recovery_target_action",
        "recovery_target_inclusive",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_timeline",
        "recovery_target_xid",
        "restore_command",
        "synchronous_standby_names",
        "unix_socket_directories",
        "update_process_title",
        "wal_log_hints",
    }
)
"""Settings that are RAMD's alone: no `extra`, and no ALTER SYSTEM survives the next start."""

DEFAULTS: Mapping[str, str] = {
    "wal_level": "replica",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "wal_keep_size": "512MB",
    "max_slot_wal_keep_size": "8GB",
    "recovery_init_sync_method": "syncfs",
    "wal_retrieve_retry_interval": "200ms",
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "wal_receiver_status_interval": "1s",
}
"""Written unless the operator set them in PGDATA/postgresql.conf; ALTER SYSTEM and `extra` win."""


def peer_conninfo(
    site: Site, upstream: Upstream, *, database: str = "", application: str = "ramd"
) -> str:
    """How this node logs in at another one, as the replication user.

    `database` is for what runs SQL there. Only a WAL receiver has its node's `application_name`: by
    that the primary knows who streams, and a running clone is no replica.
    """
    options = site.options
    fields = {
        "host": upstream.host,
        "port": str(upstream.port),
        "user": options.replication_user,
        "dbname": database,
        "application_name": application,
        "passfile": str(site.passfile) if options.replication_password is not None else "",
        "connect_timeout": "5",
        "tcp_user_timeout": "5000",
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
    }
    return conninfo(fields)


def render(
    site: Site,
    upstream: Upstream | None,
    operators: Mapping[str, str],
    naming: Naming = PLAIN,
    *,
    given: bool = False,
) -> str:
    """Text of postgresql.ramd.conf. `operators` are settings of PGDATA/postgresql.conf. `given`:
    the replica gets the WAL that was fetched for it."""
    options = site.options
    slot, me = slot_name(options.node_id), stream_name(options.node_id, naming.copy)
    refused = sorted(OWNED & {key.lower() for key in options.extra})
    if refused:
        raise ConfigError(f"{', '.join(refused)} cannot be set: RAMD owns it")
    settings = {key: value for key, value in DEFAULTS.items() if steps_in(key, operators)}
    settings |= {key.lower(): value for key, value in options.extra.items()}
    settings |= {
        "listen_addresses": ",".join(options.listen_addresses),
        "port": str(options.port),
        "unix_socket_directories": list_item(str(site.socket_dir)),
        "hba_file": str(site.hba_file),
        "hot_standby": "on",
        "wal_log_hints": "on",
        "update_process_title": "on",  # how a replica that waits for WAL in vain is told
        "logging_collector": "off",
        "log_destination": "stderr",
        "lc_messages": "C",
        "primary_conninfo": peer_conninfo(site, upstream, application=me) if upstream else "",
        "primary_slot_name": slot if upstream else "",
        "restore_command": restore_command(fetched_dir(site)) if given else "",
        "recovery_target_timeline": "latest",
        "synchronous_standby_names": standby_names(naming.sync),
    }
    settings |= preload_settings(site.preload, {**operators, **settings}, major=site.binaries.major)
    if site.preload is not None:
        # Behind the names: whoever has loaded this has loaded them.
        settings["pgraft.sync_generation"] = str(naming.sync.generation)
    whom = f"{upstream.node_id} {upstream.port} {upstream.host}" if upstream else "none"
    lines = [
        "# Written by ramd at every start and change; edit postgresql.conf instead.",
        f"{UPSTREAM_MARK}{whom}",
        sync_line(naming.sync),
        *(f"{key} = {conf_value(value)}" for key, value in settings.items()),
    ]
    return "\n".join(lines) + "\n"


def fetched_dir(site: Site) -> Path:
    """WAL of another node that the replica is given in a failover; else there is none."""
    return site.options.state_dir / "fetched"


def restore_command(folder: Path) -> str:
    """Hands out what is in `folder` and fails for anything else, always with the exit code that
    means no more than that (xlogarchive.c: from 126 on it would end the server)."""
    source = f"{shlex.quote(str(folder)).replace('%', '%%')}/%f"
    return f'{{ test -f {source} && cp {source} "%p"; }} || exit 1'


def list_item(text: str) -> str:
    """One member of a setting that is a list of names."""
    return '"' + text.replace('"', '""') + '"'


def steps_in(key: str, operators: Mapping[str, str]) -> bool:
    """Whether RAMD's default is needed. A replica needs a wal_level of at least `replica`."""
    if key == "wal_level":
        return operators.get(key, "").lower() != "logical"
    return key not in operators


def read_upstream(site: Site) -> Upstream | None:
    """Whom the configuration file on disk makes this server follow."""
    text = read_file(site.conf_file, site.account) or ""
    line = next((x for x in text.splitlines() if x.startswith(UPSTREAM_MARK)), "")
    words = line.removeprefix(UPSTREAM_MARK).split(" ", 2)
    if len(words) != 3:
        return None
    return Upstream(node_id=int(words[0]), port=int(words[1]), host=words[2])


# --- the operator's files ------------------------------------------------------------------------


def with_include(text: str, conf_file: Path) -> str:
    """postgresql.conf with our line at its end, and without an earlier one, also of another node
    whose files were copied."""
    kept = [line for line in text.splitlines() if MARK not in line]
    return "\n".join([*kept, f"include {conf_value(str(conf_file))}  {MARK}"]) + "\n"


def operators_settings(
    site: Site, text: str, *, folder: Path | None = None, depth: int = 0
) -> dict[str, str]:
    """Settings in `text`, a configuration file of `folder` (by default the data directory), and
    what it includes."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        include = INCLUDES.match(line)
        if include is None:
            found |= parse_settings(line)
        elif depth < INCLUDE_DEPTH_MAX:
            # A relative name is meant from the file that includes it (guc-file.l).
            for path in included((folder or site.data_dir) / include[2].strip(), include[1]):
                inner = read_file(path, site.account) or ""
                found |= operators_settings(site, inner, folder=path.parent, depth=depth + 1)
    return found


def included(path: Path, how: str) -> list[Path]:
    """The files that an include of `path` means, in the order they are read (guc-file.l)."""
    if how != "include_dir":
        return [path]
    names = (p for p in path.glob("*.conf") if not p.name.startswith(".") and not p.is_dir())
    return sorted(names, key=lambda p: p.name)


def without_owned(text: str) -> str:
    """postgresql.auto.conf without the settings that RAMD owns."""
    kept = []
    for line in text.splitlines():
        match = SETTING.match(line)
        if match is None or match[1].lower() not in OWNED:
            kept.append(line)
    return "".join(f"{line}\n" for line in kept)


def write_upstream(
    site: Site, upstream: Upstream | None, naming: Naming = PLAIN, *, given: bool = False
) -> bool:
    """Rewrite RAMD's file for another upstream or set; False if it says that already."""
    operators = operators_settings(site, read_operators(site))
    text = render(site, upstream, operators, naming, given=given)
    return write_file(site.conf_file, text, site.account)


def write_auto(site: Site) -> bool:
    """Take out of postgresql.auto.conf what is RAMD's alone; False if there was nothing."""
    auto_file = site.data_dir / "postgresql.auto.conf"
    auto = with_lists(without_owned(read_file(auto_file, site.account) or ""), site.preload)
    return write_file(auto_file, auto, site.account)


def write_all(site: Site, upstream: Upstream | None, naming: Naming = PLAIN) -> None:
    """Everything a start reads: directories, RAMD's file, hba, password file, and the include line.

    Raises PostgresError when the data directory lacks its own postgresql.conf.
    """
    account = site.account
    site.prepare()
    conf = read_operators(site)
    write_auto(site)
    operators_hba = read_file(site.data_dir / "pg_hba.conf", account) or ""
    write_file(site.hba_file, render_hba(site.options, operators_hba), account)
    write_passfile(site)
    write_upstream(site, upstream, naming)
    write_file(site.data_dir / "postgresql.conf", with_include(conf, site.conf_file), account)


def give_back(data_dir: Path) -> None:
    """Undo what makes a stopped server of `data_dir` RAMD's: it starts by hand as it did before.

    An adopted directory was a primary's. Raises PostgresError.
    """
    account = owner_account(data_dir)
    path = data_dir / "postgresql.conf"
    text = read_file(path, account)
    if text is not None and MARK in text:
        kept = [line for line in text.splitlines() if MARK not in line]
        write_file(path, "".join(f"{line}\n" for line in kept), account)
        auto_file = data_dir / "postgresql.auto.conf"
        write_file(auto_file, with_lists(read_file(auto_file, account) or "", None), account)
        remove_file(data_dir / "standby.signal")


def read_operators(site: Site) -> str:
    """PGDATA/postgresql.conf, without our line."""
    path = site.data_dir / "postgresql.conf"
    text = read_file(path, site.account)
    if text is None:
        raise PostgresError(
            f"{path} is missing",
            hint="a package may keep it elsewhere (Debian: /etc/postgresql): copy it there",
        )
    return "\n".join(line for line in text.splitlines() if MARK not in line)


def write_passfile(site: Site) -> None:
    """The replication password where WAL receiver and tools read it; none, no file."""
    options = site.options
    if options.replication_password is None:
        site.passfile.unlink(missing_ok=True)
        return
    make_dirs(site.passfile.parent, 0o711)
    user, word = map(passfile_field, (options.replication_user, options.replication_password))
    write_file(site.passfile, f"*:*:*:{user}:{word}\n", site.account)
