"""The table of configuration keys: name, kind, default and meaning of each.

Read :mod:`.table` first. :mod:`.choria`, :mod:`.own`, :mod:`.broker` and :mod:`.zone` hold the keys; :mod:`.values`
parses their values.
"""
