"""The page: 8 KiB of shared memory between a daemon and the PostgreSQL server beside it.

Lives here: its layout (`layout`, which also writes the C header), the file it lies in (`file`), the
daemon's half as its writer sees it (`writer`), the server's half as its reader sees it (`reader`).
Must not live here: Raft, the meaning of a lease. Start reading at `layout`.
"""
