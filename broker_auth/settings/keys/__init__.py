"""The table of configuration keys, each with its name, type, default and meaning.

Read :mod:`.table` first. :mod:`.choria`, :mod:`.own`, :mod:`.broker` and :mod:`.zone` hold the keys; :mod:`.values`
parses their values.
"""
