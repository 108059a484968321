"""The fence inside the server, as the daemon handles it: the page, and the extension's library.

Lives here: everything of ramd that sees `pgraft.page` and `pgraft.extension`. Must not live here:
when a lease is published (`ramd.execute.guard`). Start reading at `page_fence`.
"""
