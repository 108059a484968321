"""Settings that make a server load the extension, added to the operator's own lists.

Whoever loads other libraries goes on loading them: pgraft is one more member of each list, in
RAMD's file and, since that is read last, in postgresql.auto.conf where it sets the same list.
Start reading at `preload_settings`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from ramd.domain.fence import Preload
from ramd.postgres.quote import conf_value
from ramd.postgres.settings import SETTING, parse_settings

LIBRARY = "pgraft"
SHARE_MAJOR = 18
"""From here on what CREATE EXTENSION needs may lie outside the server's tree."""
OUR_DIR = re.compile(r"/pgraft-[0-9a-f]{12}-pg[^/]*/(lib|share)$")
"""Directories of ours, also of another version: only the present one stays."""

Merge: TypeAlias = Callable[[str, Preload | None], str]


def preload_settings(
    preload: Preload | None, operators: Mapping[str, str], *, major: int
) -> dict[str, str]:
    """What a server of `major` needs to load the extension; `operators` are the operator's own
    settings. Nothing without `preload`."""
    if preload is None:
        return {}
    lists = {
        key: merge(operators.get(key, ""), preload)
        for key, merge in LISTS.items()
        if key != "extension_control_path" or major >= SHARE_MAJOR
    }
    return lists | {
        "pgraft.shm_path": str(preload.page),
        "pgraft.fence_grace_ms": str(preload.grace_ms),
    }


def with_lists(text: str, preload: Preload | None) -> str:
    """postgresql.auto.conf with ours added to lists that it sets; without `preload`, removed."""
    lines = []
    for line in text.splitlines():
        match = SETTING.match(line)
        key = match[1].lower() if match else ""
        if key in LISTS:
            value = LISTS[key](parse_settings(line)[key], preload)
            line = f"{key} = {conf_value(value)}"
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def with_library(value: str, preload: Preload | None) -> str:
    """shared_preload_libraries: pgraft once, last."""
    others = [name.strip() for name in value.split(",")]
    kept = [name for name in others if name.strip('"') not in ("", LIBRARY)]
    return ",".join([*kept, LIBRARY] if preload is not None else kept)


def with_library_dir(value: str, preload: Preload | None) -> str:
    """dynamic_library_path: our directory first."""
    return first_of_path(preload.library_dir if preload else None, value or "$libdir")


def with_share_dir(value: str, preload: Preload | None) -> str:
    """extension_control_path: our directory first."""
    return first_of_path(preload.share_dir if preload else None, value or "$system")


def first_of_path(ours: Path | None, value: str) -> str:
    """`ours` before the directories of `value`, without an older one of ours."""
    kept = [part for part in value.split(":") if part and not OUR_DIR.search(part)]
    return ":".join(kept if ours is None else [str(ours), *kept])


LISTS: Mapping[str, Merge] = {
    "shared_preload_libraries": with_library,
    "dynamic_library_path": with_library_dir,
    "extension_control_path": with_share_dir,
}
