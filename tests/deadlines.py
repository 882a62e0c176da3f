"""How long tests wait for what has to come.

A deadline bounds a hang. It measures nothing: other programs use the machine while tests run.
"""

from __future__ import annotations

from typing import Final

HANG_SECONDS: Final = 60
LONG_SECONDS: Final = 200  # for programs that do much; less than the limit of each test in pyproject.toml
