"""A group of pgraft members against a group of etcd members, in one run, by turns.

Lives here: both groups as processes, one client for both, the measuring. Must not live here: any of
pgraft's rules. Start reading at `__main__`, then `measure`.
"""
