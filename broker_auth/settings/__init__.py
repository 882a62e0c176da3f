"""The configuration: Choria's file format and the environment in, frozen settings out.

Read first: :mod:`.load` (``check`` and ``load``, the way in), :mod:`.keytable` (every key, by way of
:mod:`.choria_keys`, :mod:`.own_keys` and :mod:`.broker_keys`), :mod:`.model` (what comes out).
"""
