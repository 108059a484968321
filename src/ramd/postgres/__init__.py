"""The only room that runs PostgreSQL's programs, writes its configuration and speaks SQL.

Start reading at `instance` (the running server), then `data` (the directory while it is stopped);
`site` says who and where, and every other module is one tool those two use. No decision about the
cluster is taken here.
"""
