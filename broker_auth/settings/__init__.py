"""The configuration: parses Choria's file format and the environment into frozen settings.

Read :mod:`.load` first (``check`` and ``load``), then :mod:`.keys.table` (every key), :mod:`.checks` (checks across
values and files) and :mod:`.model` (the result).
"""
