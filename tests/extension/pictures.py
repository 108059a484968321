"""A group as a daemon could tell of it."""

from pgraft.page.writer import GroupPicture, PageMember

MEMBERS = tuple(
    PageMember(
        node_id=n,
        name=f"node{n}",
        host=f"db{n}.example",
        raft_port=7400,
        postgresql_port=5432,
        raft_leader=n == 2,
        primary=n == 1,
        heard=n != 3,
    )
    for n in (1, 2, 3)
)
PICTURE = GroupPicture(
    node_id=1,
    raft_role="follower",
    term=7,
    leader_id=2,
    epoch=5,
    primary_id=1,
    timeline=4,
    quorum=True,
    messages_taken=100,
    heartbeats_sent=20,
    elections_begun=3,
    cluster_name="demo",
    members=MEMBERS,
)
