"""The face of the daemon: HTTP in its own thread, over one `ramd.domain.service.Service`.

Lives here: routes, health checks, authentication, limits, error envelopes, and the hand-over of
commands to the control loop. Must not live here: decisions, SQL, consensus.
Start reading at `serve` (thread), then `app` (what is put together) and `routes`.
"""
