"""The configuration: Choria's file format and the environment in, frozen settings out.

Read :mod:`.load` first (``check`` and ``load``), then :mod:`.keys.table` (every key), :mod:`.checks` (what no single
value can show) and :mod:`.model` (what comes out).
"""
