"""The keys, one module per topic; every field of a topic is one key of the file.

Lives here: name, type, bounds, default and description of keys, nothing else: each module is read
as a table. Rules that look at two keys are in `ramd.config.checks`.
"""
