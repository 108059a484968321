"""Request and answer models of the REST interface: field names, types, bounds. No behaviour.

Start reading at `envelope` (what every answer looks like), then `requests` and `answers`. Values of
the domain are turned into answers by `ramd.api`.
"""
