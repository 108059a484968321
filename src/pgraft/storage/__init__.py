"""What pgraft keeps on disk: the log of a member and its identity.

Lives here: the `Disk` protocol and its real implementation (`disk`), the format of a log segment
(`segment`), the write-ahead log (`wal`), the identity file (`identity_file`). Must not live here:
Raft, networking, decisions about what to write. Start reading at `wal.Wal`.
"""
