"""Other cluster managers as processes on this host, only to be measured beside RAMD.

Lives here: installing them below `.cache`, their configuration, processes and requests. Must not
live here: faults and figures (`bench.failover_rounds`). Start reading at `patroni`.
"""
