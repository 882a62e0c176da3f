"""The processes of the service, and what they tell of themselves.

Read :mod:`.serve` first (``broker-auth serve``), then :mod:`.zones` (a process for each zone), :mod:`.supervisor`
(the workers of a zone, their replacement and reload) and :mod:`.worker` (one worker process). :mod:`.health`,
:mod:`.metrics`, :mod:`.systemd` and :mod:`.pidfile` report to the outside.
"""
