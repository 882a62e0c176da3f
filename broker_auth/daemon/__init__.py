"""The processes of the service, and how they report their state.

Read :mod:`.serve` first (``broker-auth serve``), then :mod:`.zones` (a process for each zone), :mod:`.supervisor`
(the workers of a zone, their replacement and reload) and :mod:`.worker` (one worker process). :mod:`.health`,
:mod:`.metrics`, :mod:`.systemd` and :mod:`.pidfile` report to other programs.
"""
