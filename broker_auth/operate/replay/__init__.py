"""Decide stored requests again and show the effect of a change: who would be denied, admitted, placed elsewhere.

Read :mod:`.judge` first (what a configuration makes of a stored request), then :mod:`.effect` (how that differs from
before), :mod:`.summary` (groups of them, in bounded memory) and :mod:`.run` (a whole replay). Requests come from audit
records (:mod:`.records`) or from tokens and certificates in files (:mod:`.credentials`).
"""
