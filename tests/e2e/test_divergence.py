"""A former primary that holds commits nobody else has: rewound, and nothing of it thrown away."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.cluster_stories import (
    NODES,
    ask,
    commits_wait_for_nobody,
    epoch_of,
    event,
    event_lines,
    nothing_leaves,
    one_lineage,
    primary_of,
    same_everywhere,
    wait_new_epoch,
    wait_server_back,
    write,
)
from tools.local_cluster import LocalCluster


def test_a_diverged_primary_is_rewound_and_its_wal_kept(cluster: LocalCluster) -> None:
    commits_wait_for_nobody(cluster)
    old, epoch = primary_of(cluster), epoch_of(cluster)
    shared = write(cluster, range(1, 11))
    same_everywhere(cluster, shared)
    system_id = ask(cluster, old, "SELECT system_identifier FROM pg_control_system()")
    with nothing_leaves(cluster, old):
        ask(cluster, old, "INSERT INTO story SELECT generate_series(1001, 1100)")
        cluster.kill_node(old)  # a living daemon would give its WAL to the next primary
        after = write(cluster, range(11, 21))
    cluster.spawn(old)
    assert wait_new_epoch(cluster, epoch) != old
    shown = same_everywhere(cluster, shared | after)
    assert not shown & set(range(1001, 1101)), "asynchronous: nobody else had them"
    one_lineage(cluster)
    assert "rewind: " in event_lines(cluster, old, "rejoin_judged")[-2]
    assert event(cluster, old, "rewind_finished")
    assert ask(cluster, old, "SELECT system_identifier FROM pg_control_system()") == system_id
    kept = divergent(cluster.places.state_dir(old))
    assert kept, "the WAL with the lost rows"
    assert all(path.stat().st_size for path in kept)


def test_a_half_rewound_directory_is_kept_aside_and_cloned_again(cluster: LocalCluster) -> None:
    """A host dies in the middle of a rewind: what is left is never started."""
    primary = primary_of(cluster)
    victim = next(node for node in NODES if node != primary)
    data_dir, note = (
        cluster.places.data_dir(victim),
        cluster.places.state_dir(victim) / "local.json",
    )
    cluster.kill_node(victim)
    local = json.loads(note.read_text())
    note.write_text(json.dumps(local | {"unproven": "rewinding"}))
    rows = write(cluster, range(2001, 2011))
    cluster.spawn(victim)
    wait_server_back(cluster, victim, None)
    same_everywhere(cluster, rows)
    aside = list(data_dir.parent.glob(f"{data_dir.name}.aside-*"))
    assert len(aside) == 1
    assert (aside[0] / "PG_VERSION").exists()
    assert not (aside[0] / "postmaster.pid").exists()
    listed = json.loads((note.parent / "aside.json").read_text())
    assert [entry["path"] for entry in listed] == [str(aside[0])]


def divergent(state_dir: Path) -> list[Path]:
    """WAL segments that were kept of former primaries' own histories."""
    return [path for path in state_dir.glob("divergent/*/*") if not path.name.endswith("history")]
